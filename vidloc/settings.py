"""Settings of a run that belong to no module of their own; their defaults stand here and nowhere else."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Training:
    """How long and with what.

    batch_size: global, for sources that name none. epochs: of the summed sizes of all sources; steps, if not 0, is
    used in its place. accumulate: micro-batches a step. clip_norm: 0 for none. ema: decay of the averaged
    parameters, 0 for none; where there is an average, it is what is evaluated. log_odds_bias: output biases of
    detection heads start at the log-odds of the classes in training. update_idle_heads: see train/optimizer.py.
    """

    batch_size: int = 128
    epochs: float = 0.0
    steps: int = 0
    accumulate: int = 1
    clip_norm: float = 1.0
    ema: float = 0.0
    log_odds_bias: bool = False
    update_idle_heads: bool = False


@dataclasses.dataclass(frozen=True)
class Rates:
    """The schedule of the learning rate; see optimizer.Schedule. warmup_steps, if not 0, is used in place of epochs."""

    rate: float = 0.1
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    kind: str = 'cosine'
    end: float = 0.0
    warmup_from_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """checkpoint: what --mode=eval reads: 'best', 'latest' or a step. head, tail: a class is head with more training
    labels than `head`, tail with fewer than `tail` (paper: 10,000 and 1,000). unions: {name: sources of boxes that are
    scored together, too}, such as the two parts of AVA-Kinetics. seen: {source that is evaluated on training data: the
    source that it is compared with}; by how much the first is better is logged as eval/<second>/gap/<metric>."""

    batch_size: int = 64
    checkpoint: str = 'latest'
    head: int = 10_000
    tail: int = 1_000
    unions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    seen: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Which checkpoints stay: the newest `latest`, every `every` steps (0: none more), the best by metric `best`."""

    latest: int = 2
    every: int = 0
    best: str = ''


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class Precision:
    """How the same function is computed.

    compute: 'float32' or 'bfloat16' for activations; parameters that train are float32. frozen: what matrices that do
    not train are kept in on the device, either of these ('bfloat16' is half the memory; W/frozen.safetensors keeps them
    as they were loaded). remat: 'none', 'full' or 'dots', unroll: see models.layers.Stack. attention: 'auto' takes
    NVIDIA's fused kernel on GPUs where it fits (16-bit floats, see models.attention.fused), else 'xla'; 'xla' and
    'cudnn' insist.
    """

    compute: str = 'float32'
    frozen: str = 'float32'
    remat: str = 'none'
    unroll: int = 1
    attention: str = 'auto'


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is read from the file that init_from names, where there is a choice, and beside it.

    which: the part of the file, such as 'encoder' where 'target_encoder' would be taken. head: the task whose head
    starts from the file's, too, all but an output for other classes; '': heads start new. allow: a pattern
    over names in the file and here; what matches may be unused, missing or
    different. inflate: how an image filter becomes one over frames, 'central' or 'mean'. adapter: what goes on top: a
    file of tools/export_adapter.py, or a folder of PEFT's; '': nothing, LoRA and all else that is not in the file start
    new.
    """

    which: str = ''
    head: str = ''
    allow: str = ''
    inflate: str = 'central'
    adapter: str = ''
