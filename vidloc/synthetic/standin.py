"""A stand-in for AVA, AVA-Kinetics, Kinetics, Moments in Time and Something-Something v2: their layout, our pictures.

Files, columns, names of classes, clocks, rates and containers are those of the real sets (docs/ava.md has the sources);
what the videos show is MocapStreet's people. So everything between a download and a score can be tried, and nothing
can be learned about how well it works.
"""

import collections
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import shutil
import string
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from vidloc.annotations import class_list, label_map, proposals
from vidloc.annotations.records import PersonBox, VideoRecord
from vidloc.synthetic import detections, standin_card, standin_names, street, upstream

# Raised whenever the same seed would give other data.
VERSION = 1
MANIFEST = 'standin.json'
SPLITS = ('train', 'val')
KINDS = ('ava', 'kinetics', 'moments', 'something')
# Movies are cut to the annotated part, as many copies of AVA are; the first and last second that may be keyframes.
AVA_START, AVA_FIRST, AVA_LAST = 900, 902, 1798
AVA_FPS, KINETICS_FPS, MOMENTS_FPS, SOMETHING_FPS = 24, 25, 30, 12
# Seconds of the scenes of a movie. The seconds at which one ends are excluded: nobody is annotated there.
SCENES = (12, *[10] * 8)
KINETICS_SECONDS, MOMENTS_SECONDS, SOMETHING_SECONDS = 10, 3, 3
# Clips of Something-Something show their object crossing the frame where the class has a side: share of the frame.
CROSSED = 0.5
CRF = 24


class StandinError(ValueError):
    """The directory cannot be made as asked; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Size:
    """(height, width) of movies and of Kinetics, side of the other clips, and how many (train, val) of each kind."""

    frame: tuple[int, int]
    side: int
    counts: dict[str, tuple[int, int]]


SIZES = {
    'tiny': Size((64, 96), 64, {'ava': (2, 1), 'kinetics': (10, 5), 'moments': (12, 6), 'something': (16, 8)}),
    'small': Size((96, 128), 96, {'ava': (12, 4), 'kinetics': (120, 30), 'moments': (160, 40), 'something': (160, 40)}),
}


@dataclasses.dataclass(frozen=True)
class _OneKeyframe(street.Stage):
    """A scene that is annotated at one moment, as the clips of AVA-Kinetics are."""

    moment: float = 0.0

    @property
    def keyframes(self) -> tuple[float, ...]:
        return (self.moment,)


@dataclasses.dataclass(frozen=True)
class _Clip:
    """A clip of Kinetics: its id and first second on YouTube, the truth on its clock, and its class if it has one."""

    name: str
    start: int
    truth: VideoRecord
    label: str | None

    @property
    def file(self) -> str:
        return f'{self.name}_{self.start:06d}_{self.start + KINETICS_SECONDS:06d}.mp4'


def make(out: str | os.PathLike, size: str = 'tiny', seed: int = 0) -> pathlib.Path:
    """Writes the stand-in to `out` and returns its path; one that is there already and complete is left as it is.

    The directory gets its name only when it is complete. size: a key of SIZES. Raises StandinError: unknown size, bad
    seed, or something else at `out`.
    """
    out = pathlib.Path(os.path.abspath(out))
    if size not in SIZES:
        raise StandinError(f'size {size!r} is unknown; choose one of {", ".join(SIZES)}.')
    if seed < 0:
        raise StandinError(f'seed {seed} is negative; seeds count from 0.')
    wanted = {'version': VERSION, 'size': size, 'seed': seed}
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        try:
            there = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            there = None
        if there == wanted:
            return out
        what = 'holds something else' if there is None else f'holds the stand-in {there}'
        raise StandinError(f'{out} {what} and is left alone; name a directory that does not exist yet.')
    with _beside(out) as root:
        _Writer(root, SIZES[size], seed).write()
        (root / MANIFEST).write_text(json.dumps(wanted) + '\n', encoding='utf-8')
        (root / 'README.md').write_text(standin_card.text(size, seed), encoding='utf-8')
    return out


@contextlib.contextmanager
def _beside(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new directory beside `out` that becomes `out` at the end, or vanishes if anything goes wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.partial', dir=out.parent))
    try:
        # Not `scratch` itself: only its owner may enter that.
        (scratch / 'new').mkdir()
        yield scratch / 'new'
        os.replace(scratch / 'new', out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _stream(seed: int, kind: str, split: str, number: int) -> np.random.SeedSequence:
    """The random stream of one video, shared with no other."""
    return np.random.SeedSequence([seed, VERSION, KINDS.index(kind), SPLITS.index(split), number])


def _youtube_id(seed: np.random.SeedSequence, number: int) -> str:
    """Eleven characters as YouTube's, which some programs trip over when the first is a dash or an underscore."""
    rng = np.random.Generator(np.random.Philox(seed))
    letters = string.ascii_letters + string.digits + '-_'
    rest = ''.join(letters[i] for i in rng.integers(len(letters), size=11))
    return ('-_'[number] if number < 2 else 'v') + rest[1:]


class _Writer:
    """Writes all sets below a folder."""

    def __init__(self, root: pathlib.Path, size: Size, seed: int):
        self.root, self.size, self.seed = root, size, seed

    def write(self) -> None:
        self._ava()
        self._kinetics()
        self._moments()
        self._something()

    def _numbers(self, kind: str, split: str) -> Iterator[tuple[int, np.random.SeedSequence]]:
        for number in range(self.size.counts[kind][SPLITS.index(split)]):
            yield number, _stream(self.seed, kind, split, number)

    def _ava(self) -> None:
        folder = self.root / 'ava'
        (folder / 'videos').mkdir(parents=True)
        evaluated = {number: name for number, name in standin_names.AVA.items() if number in standin_names.EVALUATED}
        label_map.write_label_map(folder / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt', evaluated)
        seconds = ''.join(f'{second:04d}\n' for second in range(AVA_FIRST, AVA_LAST + 1))
        (folder / 'ava_included_timestamps_v2.2.txt').write_text(seconds, encoding='utf-8')
        cuts = [AVA_START + int(end) for end in np.cumsum(SCENES)[:-1]]
        for split in SPLITS:
            truths, found = [], []
            for number, own in self._numbers('ava', split):
                scenes, name, detector = own.spawn(3)
                truth = self._movie(_youtube_id(name, number), scenes)
                truths.append(truth)
                found.append(detections.detect(truth, split == 'train', detector))
            rows = [
                [truth.video, f'{person.time:04.0f}', *_corners(person), str(number), person.track]
                for truth in truths
                for person in truth.boxes
                for number in _ava_ids(person)
            ]
            _write_csv(folder / f'ava_{split}_v2.2.csv', rows)
            excluded = [[truth.video, f'{second:04d}'] for truth in truths for second in cuts]
            _write_csv(folder / f'ava_{split}_excluded_timestamps_v2.2.csv', excluded)
            boxes = folder / 'person_box_67091280_iou90'
            for tail in ('', '_include_negative_v2.2'):
                _write_detections(boxes / f'ava_detection_{split}_boxes_and_labels{tail}.csv', found, '.0f')
            proposals.write_proposals(folder / f'ava_dense_proposals_{split}.FAIR.recall_93.9.pkl', found)

    def _movie(self, name: str, seed: np.random.SeedSequence) -> VideoRecord:
        """Renders one movie; the truth on the movie's own clock."""
        height, width = self.size.frame
        shots, boxes, start = [], [], 0
        last = sum(SCENES) - (AVA_FIRST - AVA_START)
        for number, (own, seconds) in enumerate(zip(seed.spawn(len(SCENES)), SCENES, strict=True)):
            shot = street.draw(name, street.Stage(height, width, AVA_FPS, seconds, 'plain'), own)
            shots.append(shot.frames)
            for person in shot.truth.boxes:
                if AVA_FIRST - AVA_START <= start + person.time <= last:
                    track = str(10 * number + int(person.track))
                    boxes.append(dataclasses.replace(person, time=AVA_START + start + person.time, track=track))
            start += seconds
        frames = (frame for shot in shots for frame in shot)
        _write_mp4(self.root / 'ava/videos' / f'{name}.mp4', frames, AVA_FPS)
        keyframes = tuple(sorted({person.time for person in boxes}))
        return VideoRecord(name, keyframes=keyframes, boxes=tuple(boxes))

    def _kinetics(self) -> None:
        """Kinetics-700 in a folder for each class, with AVA-Kinetics; Kinetics-400 flat: half of the classes."""
        known: collections.Counter[str] = collections.Counter()
        clips: dict[str, list[_Clip]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            found = []
            for number, own in self._numbers('kinetics', split):
                scene, name, detector = own.spawn(3)
                # Nobody is in the last training clip: AVA-Kinetics has keyframes without boxes.
                empty = split == 'train' and number == self.size.counts['kinetics'][0] - 1
                clips[split].append(self._clip(split, _youtube_id(name, number), scene, known, empty=empty))
                found.append(detections.detect(clips[split][-1].truth, False, detector))
            _write_csv(self.root / 'ava' / f'kinetics_{split}_v1.0.csv', _kinetics_rows(clips[split]))
            _write_detections(self.root / 'ava' / f'kinetics_detection_{split}.csv', found, '.6f')
        # Those that validation has come first: neither split of the smaller set is empty.
        tested = collections.Counter(clip.label for clip in clips['val'])
        older = sorted(known, key=lambda label: (-tested[label], label))[: (len(known) + 1) // 2]
        for split in SPLITS:
            labelled = [clip for clip in clips[split] if clip.label]
            self._kinetics_csv('k700', split, labelled)
            self._kinetics_csv('k400', split, [clip for clip in labelled if clip.label in older])

    def _clip(
        self, split: str, name: str, seed: np.random.SeedSequence, known: collections.Counter[str], *, empty: bool
    ) -> _Clip:
        """Renders one clip. known: training clips of each class so far; a validation clip has one of them, or none."""
        rng = np.random.Generator(np.random.Philox(seed.spawn(1)[0]))
        start = int(rng.integers(1, 300))
        moment = int(rng.integers(3 * KINETICS_FPS, 7 * KINETICS_FPS)) / KINETICS_FPS
        height, width = self.size.frame
        stage = _OneKeyframe(height, width, KINETICS_FPS, KINETICS_SECONDS, 'plain', moment)
        video = street.draw(name, stage, seed)
        people = tuple(dataclasses.replace(person, time=start + person.time) for person in video.truth.boxes)
        frames = np.zeros_like(video.frames) + np.uint8(90) if empty else video.frames
        truth = VideoRecord(name, keyframes=(start + moment,), boxes=() if empty else people)
        shown = {segment.label for segment in video.truth.segments}
        labels = sorted({standin_names.KINETICS[name] for name in shown & standin_names.KINETICS.keys()})
        if split == 'val':
            labels = [label for label in labels if label in known]
        # Whatever is rare so far, so that there are many classes.
        label = None if empty else min(labels, key=known.__getitem__, default=None)
        if split == 'train' and label:
            known[label] += 1
        clip = _Clip(name, start, truth, label)
        folder = self.root / 'k700' / split / (label or 'unlabelled')
        folder.mkdir(parents=True, exist_ok=True)
        _write_mp4(folder / clip.file, frames, KINETICS_FPS)
        return clip

    def _kinetics_csv(self, version: str, split: str, clips: Sequence[_Clip]) -> None:
        extra = {'k400': (['is_cc'], ['0']), 'k700': ([], [])}[version]
        head = ['label', 'youtube_id', 'time_start', 'time_end', 'split', *extra[0]]
        rows = [
            [clip.label, clip.name, str(clip.start), str(clip.start + KINETICS_SECONDS), split, *extra[1]]
            for clip in clips
        ]
        _write_csv(self.root / version / 'annotations' / f'{split}.csv', [head, *rows])
        if version == 'k400':
            (self.root / version / split).mkdir()
            for clip in clips:
                shutil.copyfile(
                    self.root / 'k700' / split / clip.label / clip.file, self.root / version / split / clip.file
                )

    def _moments(self) -> None:
        folder = self.root / 'mit'
        names = sorted(set(standin_names.MOMENTS.values()))
        class_list.write_class_list(folder / 'moments_categories.txt', names, 'categories')
        stage = upstream.ClipStage(self.size.side, MOMENTS_SECONDS * MOMENTS_FPS, MOMENTS_FPS)
        for split, long in zip(SPLITS, ('training', 'validation'), strict=True):
            rows = []
            for number, own in self._numbers('moments', split):
                shown, category = list(standin_names.MOMENTS.items())[number % len(standin_names.MOMENTS)]
                clip, name = own.spawn(2)
                file = f'{category}/yt-{_youtube_id(name, 2)}_{number}.mp4'
                (folder / long / category).mkdir(parents=True, exist_ok=True)
                frames = upstream.draw(upstream.CLIP_SETS['studio'], shown, stage, clip)
                _write_mp4(folder / long / file, frames, MOMENTS_FPS)
                rows.append([file, category, '3', '0'])
            _write_csv(folder / f'{long}Set.csv', rows)

    def _something(self) -> None:
        folder = self.root / 'ssv2'
        videos = folder / '20bn-something-something-v2'
        videos.mkdir(parents=True)
        templates = [template for template, _, _ in standin_names.SOMETHING]
        names = sorted(template.replace('[', '').replace(']', '') for template in templates)
        class_list.write_class_list(folder / 'labels/labels.json', names, 'json')
        for split, long in zip(SPLITS, ('train', 'validation'), strict=True):
            entries = []
            for number, own in self._numbers('something', split):
                template, shown, side = standin_names.SOMETHING[number % len(templates)]
                identity = str(1000 * (1 + SPLITS.index(split)) + number)
                _write_webm(videos / f'{identity}.webm', self._crossing(shown, side, own), SOMETHING_FPS)
                label = template.replace('[something]', 'somebody').lower()
                entries.append({'id': identity, 'label': label, 'template': template, 'placeholders': ['somebody']})
            (folder / f'labels/{long}.json').write_text(json.dumps(entries, indent=1) + '\n', encoding='utf-8')

    def _crossing(self, shown: str, side: int, seed: np.random.SeedSequence) -> np.ndarray:
        """Frames [T, S, S, 3] of one person who goes to the right (side 1), to the left (-1), or stays (0)."""
        small, count = self.size.side, SOMETHING_SECONDS * SOMETHING_FPS
        wide = round(small * (1 + CROSSED))
        frames = upstream.draw(upstream.CLIP_SETS['yard'], shown, upstream.ClipStage(wide, count, SOMETHING_FPS), seed)
        # What the window shows goes the other way than the window.
        share = 0.5 - side * (np.arange(count) / (count - 1) - 0.5)
        lefts = np.round(share * (wide - small)).astype(int)
        top = (wide - small) // 2
        cut = [frame[top : top + small, left : left + small] for frame, left in zip(frames, lefts, strict=True)]
        return np.stack(cut)


def _ava_ids(person: PersonBox) -> list[int]:
    return sorted({standin_names.STREET[label] for label in person.labels})


def _corners(person: PersonBox) -> list[str]:
    return [f'{edge:.3f}' for edge in person.box]


def _kinetics_rows(clips: Iterable[_Clip]) -> Iterator[list[str]]:
    """Seven columns for each label of each person; two for a keyframe on which nobody is."""
    for clip in clips:
        if not clip.truth.boxes:
            yield [clip.name, f'{clip.truth.keyframes[0]:.6f}']
        for person in clip.truth.boxes:
            for number in _ava_ids(person):
                yield [clip.name, f'{person.time:.6f}', *_corners(person), str(number)]


def _write_detections(path: pathlib.Path, found: Iterable[VideoRecord], clock: str) -> None:
    """The layout of LFB and SlowFast: the label may be empty, the score is last."""
    rows = [
        [record.video, f'{person.time:{clock}}', *_corners(person), number, f'{person.score:.6f}']
        for record in found
        for person in record.boxes
        for number in map(str, _ava_ids(person) or [''])
    ]
    _write_csv(path, rows)


def _write_csv(path: pathlib.Path, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', encoding='utf-8', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows(rows)


def _write_mp4(path: pathlib.Path, frames: Iterable[np.ndarray], fps: int) -> None:
    from vidloc.data import encode

    encode.write_video(path, frames, fps, crf=CRF, gop=fps)


def _write_webm(path: pathlib.Path, frames: np.ndarray, fps: int) -> None:
    """VP9 in WebM, as Something-Something v2 comes; frames uint8 [T, H, W, 3] of even sides."""
    import av

    # Without this the container gets a random number.
    with av.open(str(path), 'w', format='webm', options={'fflags': '+bitexact'}) as container:
        options = {'crf': '34', 'b': '0', 'deadline': 'realtime', 'cpu-used': '8'}
        stream = container.add_stream('libvpx-vp9', rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')))
        container.mux(stream.encode(None))
