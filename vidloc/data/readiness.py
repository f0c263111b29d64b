"""What training looks at before it starts: a sample of every source, in seconds, whatever their size.

tools/check_data.py looks at everything, and at the files of annotations themselves.
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from vidloc.annotations import clip_names
from vidloc.annotations.records import Problem
from vidloc.data import catalogue, sources

SAMPLE = 20  # videos of each source that are opened,
SAMPLE_BYTES = 1 << 30  # unless they are more than this together: listing the frames of a film reads all of it
LEAST = 2  # videos that are opened however large they are
THREADS = 8
SLACK = 0.5  # seconds by which a moment may lie outside of its video; reading gives the nearest frame
SHOWN = 3
COMPARED = 200  # pairs of files of one name that are looked into
HEAD = 1 << 16  # bytes that two files of one size must share to be called the same


@dataclasses.dataclass(frozen=True)
class Looked:
    """What a look into one video of a sample told. error: why it cannot be read; outside: moments beyond its ends."""

    video: str
    path: str
    error: str = ''
    outside: str = ''
    rate: float = 0.0


def quick(
    training: Mapping[str, sources.Source],
    evaluated: Mapping[str, sources.Source],
    seed: int = 0,
    *,
    seen: Collection[str] = (),
) -> list[Problem]:
    """Problems of opened sources {name: source}; errors are reasons not to train, warnings are worth a line.

    Sources of the same classes are of one task. An error: training and evaluation of one task share a video; all
    sampled videos of a source cannot be read; in most of them the annotated moments lie outside. A warning: some of
    them do; videos of training in an evaluation of all the shots of a draw, which is there to tell how well they were
    learned; videos of one name, or clips of one video, in training and evaluation; classes without a training example;
    clips of more frames a second than their videos have. seed: of the sample of a source's videos.
    seen: names of evaluated sources that are of training data and meant to be.
    """
    listed = {id(source): _Listed.of(source) for source in (*training.values(), *evaluated.values())}
    problems = _shared(training, {name: each for name, each in evaluated.items() if name not in seen}, listed)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for group, opened in (('sources', training), ('eval_sources', evaluated)):
            for name, source in opened.items():
                numbers = _affordable(_sample(listed[id(source)].paths, seed), listed[id(source)].paths)
                looked = list(pool.map(functools.partial(_look, source), numbers))
                problems += _of_sample(f'{group}.{name}', source, looked)
    return problems + _unlearnable(training)


@dataclasses.dataclass(frozen=True)
class _Listed:
    """The examples' videos and paths, [M] each: reading them one by one takes seconds where there are millions.

    folder: of the footage, for keys that do not say it.
    """

    videos: list[str]
    paths: list[str]
    folder: str

    @classmethod
    def of(cls, source: sources.Source) -> '_Listed':
        examples, folder = source.examples, source.footage.folder
        if hasattr(examples, 'paths'):  # a table of columns
            return cls(list(examples.videos), list(examples.paths), folder)
        return cls([example.video for example in examples], [example.path for example in examples], folder)

    def files(self) -> dict[str, str]:
        """{path, with the folder: name of the video}"""
        paths = (path if path.startswith(self.folder) else f'{self.folder}/{path}' for path in self.paths)
        return dict(zip(paths, self.videos, strict=True))


def _sample(paths: Sequence[str], seed: int) -> list[list[int]]:
    """Numbers of the examples of each sampled video; examples of one video follow each other."""
    starts = [i for i in range(len(paths)) if i == 0 or paths[i] != paths[i - 1]]
    ends = [*starts[1:], len(paths)]
    chosen = np.random.default_rng(seed).permutation(len(starts))[:SAMPLE]
    return [list(range(starts[i], ends[i])) for i in sorted(chosen.tolist())]


def _affordable(sampled: list[list[int]], paths: Sequence[str]) -> list[list[int]]:
    """Those of the sampled videos that come to SAMPLE_BYTES together, at least LEAST; only files have a size."""
    kept, left = [], SAMPLE_BYTES
    for numbers in sampled:
        path = paths[numbers[0]]
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        if len(kept) < LEAST or size <= left:
            kept.append(numbers)
            left -= size
    return kept


def _look(source: sources.Source, numbers: Sequence[int]) -> Looked:
    """Opens a video, compares the times of its examples, and reads the middle one as evaluation would."""
    video, path = source.examples[numbers[0]].video, source.examples[numbers[0]].path
    try:
        begin, end, rate = source.extent(numbers[0])
        source.probe(numbers[len(numbers) // 2])
    except ValueError as error:  # VideoError, or a prepared set that does not hold what is asked for
        return Looked(video, path, error=str(error))
    times = source.moments(numbers)
    if times and (min(times) < begin - SLACK or max(times) > end + SLACK):
        outside = (
            f'{video} is annotated at {min(times):g} to {max(times):g} s, its file goes from {begin:g} to {end:g} s'
        )
        return Looked(video, path, outside=outside, rate=rate)
    return Looked(video, path, rate=rate)


def _of_sample(where: str, source: sources.Source, looked: Sequence[Looked]) -> list[Problem]:
    problems = []
    broken = [each for each in looked if each.error]
    if broken:
        reasons = _some([each.error for each in broken])
        message = f'{len(broken)} of {len(looked)} videos looked into cannot be read: {reasons}'
        fix = 'Get them again; tools/check_data.py --decode lists all.'
        severity = 'error' if len(broken) == len(looked) else 'warning'
        problems.append(Problem('videos-unreadable', where, None, message, fix, severity))
    outside = [each for each in looked if each.outside]
    if outside:
        message = f'{len(outside)} of {len(looked)} videos looked into are annotated beyond their ends: '
        message += _some([each.outside for each in outside])
        code, fix = source.beyond
        severity = 'error' if 2 * len(outside) > len(looked) else 'warning'
        problems.append(Problem(code, where, None, message, fix, severity))
    slow = [each for each in looked if each.rate and each.rate < 0.95 * source.view.rate]
    if 2 * len(slow) > len(looked):
        message = (
            f'clips take {source.view.rate:g} frames a second, {slow[0].video} has {slow[0].rate:.4g}: they repeat'
        )
        fix = 'Lower the rate of the view, or get videos of more frames a second.'
        problems.append(Problem('rate-above-video', where, None, message, fix, 'warning'))
    return problems


def _unlearnable(training: Mapping[str, sources.Source]) -> list[Problem]:
    """A warning for each task, told by its classes, with classes that no source has."""
    counts: dict[tuple[str, ...], np.ndarray] = {}
    names: dict[tuple[str, ...], list[str]] = {}
    for name, source in training.items():
        counts[source.classes] = counts.get(source.classes, 0) + np.asarray(source.label_counts())
        names.setdefault(source.classes, []).append(f'sources.{name}')
    problems = []
    for classes, total in counts.items():
        absent = [label for label, count in zip(classes, total.tolist(), strict=True) if not count]
        if absent:
            message = f'{len(absent)} of {len(classes)} classes have no training example ({_some(absent, ", ")})'
            fix = 'They cannot be learned: check the annotations and the list of classes.'
            where = ', '.join(names[classes])
            problems.append(Problem('class-without-example', where, None, message, fix, 'warning'))
    return problems


def _shared(
    training: Mapping[str, sources.Source],
    evaluated: Mapping[str, sources.Source],
    listed: Mapping[int, _Listed],
) -> list[Problem]:
    problems = []
    files = {key: each.files() for key, each in listed.items()}
    for name, source in training.items():
        for other_name, other in evaluated.items():
            if source.classes == other.classes:
                where = f'sources.{name} and eval_sources.{other_name}'
                # All the shots, none held out: whoever evaluates them wants to see what was learned by heart.
                meant = other.shots is not None and not other.view.folds
                problems += _in_both(where, files[id(source)], files[id(other)], meant=meant)
    return problems


def _in_both(where: str, one: Mapping[str, str], other: Mapping[str, str], *, meant: bool) -> list[Problem]:
    """Problems of two sources {path: video} of one task. meant: they may share videos, which is only said.

    Names alone prove nothing (`walk/1.mp4` is in many folders): an error needs the same file or the same content.
    """
    same = sorted(one[path] for path in one.keys() & other.keys())
    by_name = {video: path for path, video in one.items()}
    named = sorted((v, by_name[v], path) for path, v in other.items() if path not in one and v in by_name)
    same += [video for video, first, second in named[:COMPARED] if _equal(first, second)]
    if same:
        message = f'{len(same)} videos are in training and in evaluation ({_some(same, ", ")})'
        if meant:
            fix = 'Figures are of shots that were learned; set folds in both sources to hold some out.'
            return [Problem('video-in-two-sources', where, None, message, fix, 'warning')]
        fix = 'Figures would be of videos that were learned: take them out of one of the two.'
        return [Problem('video-in-two-sources', where, None, message, fix)]
    problems = []
    if named:
        videos = [video for video, _, _ in named]
        message = f'{len(videos)} different files have one name in training and in evaluation ({_some(videos, ", ")})'
        fix = 'If a name is one film, training and evaluation share it: take it out of one of the two.'
        problems.append(Problem('video-name-in-two-sources', where, None, message, fix, 'warning'))
    clips = sorted(_whole(one) & _whole(other))
    if clips:
        message = f'{len(clips)} videos have clips in training and in evaluation ({_some(clips, ", ")})'
        fix = 'Clips of one video show the same people and place: keep them in one of the two.'
        problems.append(Problem('clips-of-one-video-in-two-sources', where, None, message, fix, 'warning'))
    return problems


def _whole(videos: Mapping[str, str]) -> set[str]:
    """The videos, or groups of UCF-101, that clips were cut from, as their names {path: name} say."""
    wholes = (clip_names.whole(catalogue.stem(name[name.rfind('/') + 1 :])) for name in videos.values())
    return {whole for whole in wholes if whole}


def _equal(one: str, other: str) -> bool:
    """Whether two files are one, or of one size and begin alike; keys that are no files are taken as different."""
    if not (os.path.isfile(one) and os.path.isfile(other)):
        return False
    if os.path.samefile(one, other):
        return True
    if os.path.getsize(one) != os.path.getsize(other):
        return False
    with open(one, 'rb') as first, open(other, 'rb') as second:
        return first.read(HEAD) == second.read(HEAD)


def _some(texts: Sequence[str], mark: str = '; ') -> str:
    return mark.join(texts[:SHOWN]) + (f'{mark}...' if len(texts) > SHOWN else '')
