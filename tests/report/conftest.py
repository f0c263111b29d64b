"""A made-up run on disk: every file that the page reads, with small real videos."""

import html.parser
import json
import math
import pathlib
import types

import numpy as np
import pytest

from vidloc.annotations.records import Segment, VideoRecord
from vidloc.data import encode, windows
from vidloc.metrics import temporal
from vidloc.report import results

EMPTY = {'meta', 'link', 'img', 'br', 'hr', 'input', 'line', 'circle', 'polyline'}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and texts, and checks that every tag is closed by its own."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('style', 'script'):
            self.words.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


CLASSES = ('walk', 'run', 'wave', 'kick', 'sit', '<script>alert(1)</script>')
AP = (0.78, 0.31, 0.59, 0.09, None, 0.04)
PREVALENCE = (0.40, 0.20, 0.25, 0.08, 0.0, 0.07)
PRIOR = (0.40, 0.21, 0.26, 0.08, None, 0.07)


def write_videos(folder, count, seconds=2, fps=8, size=(64, 96)):
    """`count` videos of two figures that walk over a street; returns {video: {second: [box, box]}}."""
    folder.mkdir(parents=True)
    height, width = size
    ground = np.zeros((height, width, 3), np.uint8)
    ground[:] = np.linspace(150, 205, height, dtype=np.uint8)[:, None, None]
    ground[int(0.6 * height) :] = (92, 96, 99)
    truth = {}
    for number in range(count):
        frames, truth[f'v{number:03d}'] = [], {}
        for i in range(seconds * fps):
            frame, boxes = ground.copy(), []
            for person, colour in enumerate([(168, 60, 44), (44, 84, 150)]):
                x = (0.12 + 0.4 * person + 0.05 * number + (0.2 - 0.3 * person) * i / (seconds * fps)) % 0.8
                y1, y2, x2 = 0.24 + 0.08 * person, 0.84 + 0.08 * person, x + 0.13
                top, left, right = int(y1 * height), int(x * width), int(x2 * width)
                frame[top : int(y2 * height), left:right] = colour
                frame[top : top + 7, left + 3 : right - 3] = (222, 184, 150)
                boxes.append((x, y1, x2, y2))
            frames.append(frame)
            if i % fps == 0 and i:
                truth[f'v{number:03d}'][i // fps] = boxes
        encode.write_video(folder / f'v{number:03d}.mp4', np.stack(frames), fps)
    return truth


def analysis():
    """Where the made-up run loses precision: every eighth person is not found, `run` is taken for `walk`."""
    classes = len(CLASSES)
    confusion = [[9.0 if i == j else 0.0 for j in range(classes)] for i in range(classes)]
    confusion[1] = [6.5, 2.0, 0.5, 0.0, 0.0, 0.0]
    kinds = {'right': 5, 'duplicate': 1, 'wrong class': 3, 'wrong place': 0, 'background': 1}
    return {
        'people': 80,
        'missed': 0.125,
        'missed_per_class': {name: None if value is None else 0.1 for name, value in zip(CLASSES, AP, strict=True)},
        'bound': 0.875,
        'bound_per_class': {name: None if value is None else 0.9 for name, value in zip(CLASSES, AP, strict=True)},
        'confusion': confusion,
        'kinds': dict.fromkeys(CLASSES, kinds),
        'precision': {
            name: [None if value is None else max(0.0, 1 - k / 40 - (1 - value) / 2) for k in range(41)]
            for name, value in zip(CLASSES, AP, strict=True)
        },
    }


def write_run(workdir, *, videos=2, seconds=2, shift=0.0, source_steps=None, environment=True):
    """A workdir with one source of boxes and one of clips; `shift` moves its scores, for a second run."""
    random = np.random.default_rng(0)
    workdir.mkdir(parents=True)
    truth = write_videos(workdir / 'data' / 'videos', videos, seconds)
    rows, detections = [], []
    for name, keyframes in truth.items():
        for second, boxes in keyframes.items():
            for person, box in enumerate(boxes):
                text = ','.join(f'{value:.4f}' for value in box)
                label = (len(rows) * 7) % len(CLASSES) + 1
                rows.append(f'{name},{second},{text},{label},{person}')
                near = ','.join(f'{value + random.normal(0, 0.008):.6f}' for value in box)
                scores = random.dirichlet(np.full(len(CLASSES), 0.4)) * 0.4
                scores[label - 1] += random.choice([0.0, 0.55])
                detections += [f'{name},{second},{near},{i + 1},{s:.6f}' for i, s in enumerate(scores)]
    labels = [f'item {{\n  name: {json.dumps(name)}\n  id: {i + 1}\n}}\n' for i, name in enumerate(CLASSES)]
    (workdir / 'eval').mkdir()
    (workdir / 'data' / 'truth.csv').write_text('\n'.join(rows) + '\n')
    (workdir / 'data' / 'classes.pbtxt').write_text(''.join(labels))
    (workdir / 'eval' / 'street_detections.csv').write_text('\n'.join(detections) + '\n')
    street = {
        'kind': 'detection',
        'source': 'street',
        'step': 1000,
        'metrics': {'frame_map@0.5': 0.362 + shift, 'frame_map_slowfast@0.5': 0.351 + shift},
        'classes': list(CLASSES),
        'per_class': {n: None if v is None else v + shift for n, v in zip(CLASSES, AP, strict=True)},
        'prevalence': dict(zip(CLASSES, PREVALENCE, strict=True)),
        'train_count': {name: 20 * (6 - i) ** 3 for i, name in enumerate(CLASSES)},
        'counted_in': 'training',
        'prior_map': 0.204,
        'prior_per_class': dict(zip(CLASSES, PRIOR, strict=True)),
        'groups': {'head': ['walk', 'run'], 'mid': ['wave'], 'tail': ['kick', 'sit', CLASSES[5]]},
        'group_map': {'head': 0.545, 'mid': 0.59, 'tail': 0.065},
        'task': 'street',
        'parts': {},
        'group_limits': [500, 1500],
        'action_groups': {},
        'analysis': analysis(),
        'ground_truth': ['data/truth.csv'],
        'excluded': '',
        'boxes': 'detections',
        'video_start': 0.0,
        'frame_rate': 30.0,
        'label_map': 'data/classes.pbtxt',
        'videos': 'data/videos',
        'detections': 'eval/street_detections.csv',
        'examples': len(rows),
        'keyframes': len(truth) * (seconds - 1),
        'learned_rule': 'AP at least 1.5 times the baseline',
    }
    yard_classes = ['hop', 'spin', 'crawl', '<script>alert(1)</script>']
    yard = {
        'kind': 'classification',
        'source': 'yard',
        'step': 1000,
        'metrics': {'top1': 0.55 + shift, 'top5': 1.0},
        'classes': yard_classes,
        'per_class': dict(zip(yard_classes, (0.9, 0.6, 0.5, 0.2), strict=True)),
        'chance': 0.25,
        'confusion': [[9, 1, 0, 0], [2, 6, 1, 1], [1, 4, 5, 0], [0, 5, 3, 2]],
    }
    for result in (street, yard):
        (workdir / 'eval' / f'{result["source"]}.json').write_text(json.dumps(result))
    with (workdir / 'metrics.jsonl').open('w') as file:
        for step in range(5, 1001, 5):
            values = {'step': step, 'train/rate': 1.2e-3 * min(step / 50, 0.5 + 0.5 * math.cos(step / 320))}
            values['train/loss'] = 0.2 + 2 * math.exp(-step / 200) + random.normal(0, 0.05) - shift
            values[f'train/{("street", "yard")[step // 5 % 2]}/loss'] = values['train/loss'] * 0.7
            values['train/grad_norm'] = 1 + random.random()
            if step % 200 == 0:
                values['eval/street/frame_map@0.5'] = 0.36 * step / 1000 + shift
                values['eval/yard/top1'] = 0.55 * (step / 1000) ** 0.5 + shift
            file.write(json.dumps(values) + '\n')
    (workdir / 'config.json').write_text(
        json.dumps({'name': 'mocap <b>street</b>', 'rate': 1.2e-3 + shift, 'mixture': {'street': 0.6}})
    )
    if environment:
        facts = {'finished': '2026-03-01 10:20', 'devices': '1 CPU (2 cores)', 'seconds': 178.2}
        facts['versions'] = {'jax': '0.10.2'}
        facts['source_steps'] = source_steps or {'street': 600, 'yard': 400}
        (workdir / 'environment.json').write_text(json.dumps(facts))
        (workdir / 'model.json').write_text(json.dumps({'ava': {'classes': list(CLASSES), 'frames': 8}}))
    return workdir


@pytest.fixture
def run_writer():
    return write_run


@pytest.fixture(scope='session')
def workdir(tmp_path_factory):
    """Shared: tests must not change it."""
    return write_run(tmp_path_factory.mktemp('runs') / 'street_yard', videos=8)


ACTIONS = ('jump', 'wave', 'kick', '<b>spin</b>')


def write_films(folder, truth, seconds, fps=4):
    """A video for each entry of {video: [(start, end, label)]}: a bar that grows with time, over a colour a label."""
    folder.mkdir(parents=True)
    colours = ((168, 60, 44), (44, 84, 150), (52, 120, 70), (150, 110, 40))
    for name, segments in truth.items():
        frames = np.full((int(seconds[name] * fps), 48, 80, 3), 205, np.uint8)
        for i, frame in enumerate(frames):
            for start, end, label in segments:
                if start <= i / fps < end:
                    frame[:32] = colours[label]
            frame[38:44, : round(80 * (i + 1) / len(frames))] = 40
        encode.write_video(folder / f'{name}.mp4', frames, fps)


def untrimmed(count, seed=0):
    """({video: [(start, end, label)]}, {video: seconds}) of videos of 20 s and more, with up to five segments each."""
    random = np.random.default_rng(seed)
    truth, seconds = {}, {}
    for number in range(count):
        name, at = f'long_{number:02d}', 1.0
        seconds[name] = 20.0 + 3 * number
        truth[name] = []
        while at < seconds[name] - 6 and len(truth[name]) < 5:
            length = float(random.choice([1.5, 2.5, 4.0, 5.0]))
            truth[name].append((at, at + length, int(random.integers(len(ACTIONS)))))
            at += length + float(random.uniform(1.0, 4.0))
    return truth, seconds


def guessed(truth, seconds, blur, seed=1):
    """Detections as a task gives them: near the truth by `blur` seconds, some of a wrong class, and noise."""
    random = np.random.default_rng(seed)
    rows = []
    for name, segments in truth.items():
        for start, end, label in segments:
            for _ in range(3):
                shift = random.normal(0, blur, 2)
                said = label if random.random() > 0.2 else int(random.integers(len(ACTIONS)))
                score = float(np.exp(-np.abs(shift).sum())) * (0.9 if said == label else 0.6)
                rows.append((name, max(start + shift[0], 0.0), min(end + shift[1], seconds[name]), said, score))
        for _ in range(6):
            start = float(random.uniform(0, seconds[name] - 5))
            rows.append((name, start, start + float(random.uniform(0.5, 4)), int(random.integers(len(ACTIONS))), 0.05))
    rows = sorted((row for row in rows if row[2] > row[1]), key=lambda row: (row[0], -row[4]))
    kinds = (object, np.float64, np.float64, np.int64, np.float64)
    names = ('video', 'start', 'end', 'label', 'score')
    columns = enumerate(zip(names, kinds, strict=True))
    return {name: np.array([row[i] for row in rows], kind) for i, (name, kind) in columns}


def window_source(folder, truth, seconds, *, train=False):
    records = [
        VideoRecord(name, duration=seconds[name], segments=tuple(Segment(s, e, ACTIONS[c]) for s, e, c in rows))
        for name, rows in truth.items()
    ]
    view = windows.Windows(videos=str(folder), frames=16, rate=4.0, size=(16, 16))
    return windows.WindowSource('films', view, records, ACTIONS, train=train)


def segment_score(detections, truth):
    """As the task of segments does, without its head."""
    result = temporal.segment_ap(truth, detections, dict(enumerate(ACTIONS)), (0.3, 0.5, 0.7))
    each = {f'map@{at:g}': float(value) for at, value in zip((0.3, 0.5, 0.7), result.mean, strict=True)}
    return each | {'average_map': float(result.average)}


def write_segment_run(workdir, *, blur=0.6, count=7, films=None):
    """A workdir whose evaluation of segments was written by report.results; films: a folder that is there already."""
    truth, seconds = untrimmed(count)
    folder = films or workdir / 'films'
    if films is None:
        write_films(folder, truth, seconds)
    source = window_source(folder, truth, seconds)
    found = guessed(truth, seconds, blur)
    files = {'task': 'actions', 'videos': str(folder), 'frame_rate': 30.0}
    metrics = results.measure(segment_score, source, found, files)
    results.write(workdir, results.Scored(source, None, found, metrics, 700, files, head=10, tail=2))
    (workdir / 'config.json').write_text(json.dumps({'name': 'films', 'blur': blur}))
    return workdir


@pytest.fixture
def segment_writer():
    return write_segment_run


@pytest.fixture(scope='session')
def segment_workdir(tmp_path_factory):
    """Shared: tests must not change it."""
    return write_segment_run(tmp_path_factory.mktemp('runs') / 'losa')


@pytest.fixture(scope='session')
def segment_maker():
    """What makes up a run on segments, piece by piece."""
    pieces = (ACTIONS, write_films, untrimmed, guessed, window_source, segment_score)
    names = ('ACTIONS', 'write_films', 'untrimmed', 'guessed', 'window_source', 'segment_score')
    return types.SimpleNamespace(**dict(zip(names, pieces, strict=True)))


@pytest.fixture(scope='session')
def read_page():
    """Reads the page at a path."""
    return lambda path: Reader(pathlib.Path(path).read_text(encoding='utf-8'))
