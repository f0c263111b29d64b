"""A made-up run on disk: every file that the page reads, with small real videos."""

import json
import math

import numpy as np
import pytest

from vidloc.data import encode

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
