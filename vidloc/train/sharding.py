"""Where arrays live: the mesh, the rule for parameters, global batches, and processes.

One mesh ('data', 'fsdp') for every machine. Batches are split over both axes; parameters, optimiser state and
EMA over 'fsdp' only. Axis types are Auto: XLA's partitioner places the collectives (jax.make_mesh alone would
give Explicit axes, under which a plain Linen model does not compile).
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp')
_STACKED = re.compile(r'blocks_\d+_\d+')
# What a launcher sets when it starts more than one process; the value says how many.
_LAUNCHERS = ('SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE', 'JAX_NUM_PROCESSES')


class ShardingError(ValueError):
    """Devices, processes and sizes do not fit together; the text says what to change."""


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of shape (data, fsdp); data=-1 takes all the devices that fsdp leaves.

    Devices are ordered by process, so that the rows of a batch that belong to one process are contiguous and
    the 'fsdp' axis stays inside a process wherever it fits.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if data == -1:
        data = max(len(devices) // max(fsdp, 1), 1)
    if min(data, fsdp) < 1 or data * fsdp != len(devices):
        raise ShardingError(
            f'mesh data={data}, fsdp={fsdp} needs {data * fsdp} devices, there are {len(devices)}: '
            f'choose sizes whose product is {len(devices)}, or data=-1 for the rest'
        )
    return Mesh(np.array(devices).reshape(data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Axis 0 over all the devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def parameter_shardings(mesh: Mesh, tree: Any) -> Any:
    """NamedShardings for parameters, or for any state whose leaves repeat their names (optimiser, EMA).

    A leaf is split over 'fsdp' along its largest dimension that 'fsdp' divides (the first of equals), else
    replicated. The layer axis of a stacked leaf (below a key such as blocks_00_11) is never split: the scan
    over layers takes one layer at a time. tree: arrays or ShapeDtypeStructs.
    """
    parts = mesh.shape['fsdp']

    def rule(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        stacked = any(_STACKED.fullmatch(str(getattr(entry, 'key', ''))) for entry in path)
        free = range(1 if stacked else 0, len(leaf.shape))
        fits = [axis for axis in free if leaf.shape[axis] % parts == 0 and leaf.shape[axis] > 0]
        if parts == 1 or not fits:
            return replicated(mesh)
        spec: list[str | None] = [None] * len(leaf.shape)
        spec[max(fits, key=lambda axis: (leaf.shape[axis], -axis))] = 'fsdp'
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(rule, tree)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """ShapeDtypeStructs with the rule's shardings: what checkpoints.store restores into."""
    return jax.tree.map(
        lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to),
        tree,
        parameter_shardings(mesh, tree),
    )


def initialise(mesh: Mesh, make: Callable[..., Any], *arguments: Any) -> Any:
    """make(*arguments), compiled so that every device only ever makes its own part of the result."""
    shardings = parameter_shardings(mesh, jax.eval_shape(make, *arguments))
    return jax.jit(make, out_shardings=shardings)(*arguments)


def place(mesh: Mesh, tree: Any) -> Any:
    """Puts host arrays (the same on every process) on the mesh by the rule for parameters."""
    return jax.tree.map(
        lambda leaf, to: jax.make_array_from_callback(np.shape(leaf), to, lambda index: np.asarray(leaf)[index]),
        tree,
        parameter_shardings(mesh, tree),
    )


def process_rows(mesh: Mesh, size: int) -> tuple[int, int]:
    """The rows [start, stop) of a global batch of `size` rows that this process reads.

    Rows are dealt out in one global order, whatever the number of processes. Raises ShardingError when the
    devices do not divide `size`, or when a mesh made elsewhere gives this process rows that are not
    contiguous.
    """
    if size % mesh.size:
        raise ShardingError(
            f'a batch of {size} does not divide over {mesh.size} devices: make it a multiple of {mesh.size}'
        )
    slices = over_batch(mesh).addressable_devices_indices_map((size,)).values()
    rows = sorted({row for (part,) in slices for row in range(*part.indices(size))})
    if rows != list(range(rows[0], rows[-1] + 1)):
        raise ShardingError('this process holds rows that are not contiguous: build the mesh with make_mesh')
    return rows[0], rows[-1] + 1


def global_batch(mesh: Mesh, local: Any) -> Any:
    """A batch over the mesh from this process's rows (process_rows); local: NumPy arrays [B_local, ...]."""
    sharding = over_batch(mesh)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), local)


def to_host(tree: Any) -> Any:
    """NumPy copies of whole arrays on every process; a collective: every process must call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def initialise_distributed(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> bool:
    """Joins the other processes of this run; call it before the first use of a device.

    With all three of coordinator ('host:port'), processes and process: those. With none: joins if a launcher
    has announced more than one process (SLURM, Open MPI, a TPU pod, an indexed Kubernetes job), else does
    nothing. Returns whether the run is distributed. Raises ShardingError with the reason.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise ShardingError(
                'coordinator, processes and process belong together: give all three '
                f'(got coordinator={coordinator!r}, processes={processes!r}, process={process!r}) or none'
            )
        if processes < 1 or not 0 <= process < processes:
            raise ShardingError(f'process must be in 0..{processes - 1}, got {process}')
        arguments = {
            'coordinator_address': coordinator,
            'num_processes': processes,
            'process_id': process,
        }
    elif _announced(os.environ if environment is None else environment):
        arguments = {}
    else:
        return False
    try:
        jax.distributed.initialize(**arguments)
    except (ValueError, RuntimeError) as error:
        raise ShardingError(
            f'could not join the other processes: {error}. '
            'Check that the address is reachable and that every process was started, or give '
            'coordinator, processes and process yourself'
        ) from error
    return True


def _announced(environment: Mapping[str, str]) -> bool:
    several = any(environment.get(name, '1').isdecimal() and int(environment.get(name, '1')) > 1 for name in _LAUNCHERS)
    pod = ',' in environment.get('TPU_WORKER_HOSTNAMES', '') or ',' in environment.get('TPU_PROCESS_ADDRESSES', '')
    return several or pod or ('JOB_COMPLETION_INDEX' in environment and 'KUBERNETES_SERVICE_HOST' in environment)
