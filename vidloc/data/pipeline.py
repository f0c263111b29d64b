"""From sources to batches: every batch is a pure function of (seed, step, process), so any step can be rebuilt."""

import dataclasses
import math
import os
import signal
import warnings
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from vidloc.data import batching, mixture, mixup, sources, video

# A broken example is replaced by another one; this many in a row means that the data set is broken.
REPLACEMENTS = 8


class BrokenData(RuntimeError):
    """So many examples cannot be read that training on the rest would be training on another data set."""


@dataclasses.dataclass(frozen=True)
class Loading:
    """How batches are read.

    workers: processes that decode; 0 decodes in `threads` threads of this process. prefetch: batches read ahead, by
    each worker or by the threads together.
    """

    workers: int = 0
    threads: int = 2
    prefetch: int = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """Step -> which examples: what grain reads from, random access, no state.

    schedule [steps]: index of the source at each step. batch_sizes: global, per source in the order of `sources`.
    rows: per source the rows [start, stop) of a global batch that this process reads. Raises sources.DataError where
    they divide a pair that mixup needs.
    """

    sources: Sequence
    schedule: np.ndarray
    batch_sizes: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]
    seed: int
    first_step: int = 0

    def __post_init__(self):
        object.__setattr__(self, '_visits', mixture.visits(self.schedule, len(self.sources)))
        for source, (start, stop), size in zip(self.sources, self.rows, self.batch_sizes, strict=True):
            # Rows 2k and 2k + 1 are mixed with each other, so they must lie in one process.
            if _mixup(source) and (start % 2 or stop % 2):
                raise sources.DataError(
                    f'source {source.name}: mixup mixes pairs of clips, and this process would read rows {start} to '
                    f'{stop} of a batch of {size}; make the batch size even, and even for each process too'
                )

    def __len__(self) -> int:
        return len(self.schedule) - self.first_step

    def __getitem__(self, position: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        """(step, source, epochs [b], examples [b]) of this process at step first_step + position."""
        step = self.first_step + int(position)
        number = int(self.schedule[step])
        done = int(self._visits[step]) * self.batch_sizes[number]
        start, stop = self.rows[number]
        epochs, places = np.divmod(np.arange(done + start, done + stop), len(self.sources[number]))
        examples = [self._order(number, int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)]
        return step, number, epochs, np.array(examples)

    def _order(self, number: int, epoch: int) -> np.ndarray:
        source = self.sources[number]
        return mixture.permutation((self.seed, zlib.crc32(source.name.encode())), epoch, len(source))


def example_seed(seed: int, source: str, epoch: int, example: int) -> np.random.SeedSequence:
    """All the randomness of one example in one epoch, whatever batch, host or worker it lands in."""
    return np.random.SeedSequence([seed, zlib.crc32(source.encode()), epoch, example])


@dataclasses.dataclass(frozen=True)
class Load:
    """Reads one planned batch; runs in grain's threads or worker processes."""

    sources: Sequence
    seed: int

    def __call__(self, planned: tuple[int, int, np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch, with `step` and `source` [] beside its arrays. Raises BrokenData."""
        step, number, epochs, examples = planned
        source = self.sources[number]
        samples = [self._sample(source, int(e), int(i)) for e, i in zip(epochs, examples, strict=True)]
        batch = batching.collate(samples, source.view.layout(len(source.classes)), source=source.name)
        if alpha := _mixup(source):
            batch = mixup.mix(batch, alpha)
        return batch | {'step': np.int64(step), 'source': np.int64(number)}

    def _sample(self, source, epoch: int, example: int) -> dict[str, np.ndarray]:
        seeds = example_seed(self.seed, source.name, epoch, example)
        rng = np.random.Generator(np.random.Philox(seeds))
        marks = {'seed': seeds.generate_state(1)[0], 'replaced': False, 'broken_id': -1}
        candidate = example
        for _ in range(REPLACEMENTS + 1):
            try:
                sample = source.load(candidate, rng if source.train else None)
                return sample | marks | {'example_id': candidate, 'example_valid': True}
            except video.VideoError:
                marks |= {'replaced': True, 'broken_id': example}
                candidate = int(rng.integers(len(source)))
        raise BrokenData(
            f'source {source.name}: {REPLACEMENTS + 1} examples in a row cannot be read, the first is '
            f'{source.examples[example].path}; {reason(source, example)}'
        )


def _mixup(source) -> float:
    """The alpha of a source's mixup, 0 if it has none: views of clips may ask for it, and only in training."""
    return getattr(source.view, 'mixup', 0.0) if source.train else 0.0


def reason(source, example: int) -> str:
    """Why an example cannot be read, in words; read once more, for workers have no voice."""
    try:
        source.load(example, None)
    except video.VideoError as error:
        return str(error)
    return 'it could be read this time: the storage may be failing now and then'


def train_batches(plan: Plan, loading: Loading) -> Iterator[dict[str, np.ndarray]]:
    """Batches of this process from plan.first_step on, as Load returns them."""
    import grain

    dataset = grain.MapDataset.source(plan).map(Load(plan.sources, plan.seed))
    return _read(dataset, loading)


@dataclasses.dataclass(frozen=True)
class EvalPlan:
    """Batch -> examples in order; rows: those [start, stop) of a batch that this process reads."""

    source: object
    batch_size: int
    rows: tuple[int, int]

    def __len__(self) -> int:
        return math.ceil(len(self.source) / self.batch_size)

    def __getitem__(self, position: int) -> np.ndarray:
        """[b] example ids of this process; ids past the end stand for filler."""
        start, stop = self.rows
        return int(position) * self.batch_size + np.arange(start, stop)


@dataclasses.dataclass(frozen=True)
class EvalLoad:
    """Reads one batch without augmentation; an example that cannot be read is left invalid, never replaced."""

    source: object

    def __call__(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        samples = []
        for i in ids:
            marks = {'seed': np.uint32(0), 'replaced': False, 'broken_id': -1, 'example_id': int(i)}
            if i >= len(self.source):
                samples.append(marks | {'example_valid': False})
                continue
            try:
                samples.append(self.source.load(int(i), None) | marks | {'example_valid': True})
            except video.VideoError:
                samples.append(marks | {'example_valid': False, 'broken_id': int(i)})
        layout = self.source.view.layout(len(self.source.classes))
        # Examples that could not be read get zeros of the right shape, so that every batch has the same shape.
        filled = [layout.empty() | sample for sample in samples]
        return batching.collate(filled, layout, source=self.source.name)


def eval_batches(plan: EvalPlan, loading: Loading) -> Iterator[dict[str, np.ndarray]]:
    """All examples of a source in order, in batches of one shape."""
    import grain

    return _read(grain.MapDataset.source(plan).map(EvalLoad(plan.source)), loading)


def _read(dataset, loading: Loading) -> Iterator[dict[str, np.ndarray]]:
    import grain

    if loading.workers:
        # Workers must not grab the accelerator when grain imports jax there; this process has its devices already.
        os.environ['JAX_PLATFORMS'] = 'cpu'
        _parse_flags_if_needed()
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            stream = dataset.to_iter_dataset(options).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=loading.workers, per_worker_buffer_size=loading.prefetch),
                worker_init_fn=_leave_interrupts_to_the_parent,
            )
    else:
        stream = dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=loading.threads, prefetch_buffer_size=loading.prefetch)
        )
    batches = iter(stream)
    try:
        yield from batches
    finally:
        batches.close()  # ends the workers now, not when the program ends


def _leave_interrupts_to_the_parent(*_: int) -> None:
    """Ctrl-C reaches workers too; the run saves and ends them itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parse_flags_if_needed() -> None:
    """grain's workers read absl flags, which nobody has parsed in a notebook or a test."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
