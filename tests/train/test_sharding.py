"""Meshes, the parameter rule, batches over devices and processes; training is the same on all of them."""

import functools
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vidloc.checkpoints.store import Store
from vidloc.tasks import base
from vidloc.train import optimizer as optimizer_lib
from vidloc.train import sharding, trainable
from vidloc.train import state as state_lib
from vidloc.train import step as step_lib

ROWS = 16
COLLECTIVES = re.compile(r'\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(')


class Regression:
    scale = 1.0

    def init_state(self):
        return ()

    def weight(self, batch, state):
        return jnp.maximum(jnp.sum(batch['valid']), 1.0), state

    def loss(self, outputs, batch, *, train):
        each = jnp.sum(jnp.square(outputs - batch['y']), axis=-1)
        return base.LossOutput(sum=jnp.sum(each * batch['valid']), logs={})

    def decode(self, outputs, batch):
        return {'y': outputs}


def apply(params, batches, *, train, rngs):
    def layer(x, w):
        return x + jnp.tanh(x @ w), None

    x = batches['a']['x'] @ params['backbone']['embedding']
    x, _ = jax.lax.scan(layer, x, params['backbone']['blocks_00_02']['w'])
    return {'a': x @ params['heads_a']['w']}


def make_params(key):
    shapes = {'embedding': (6, 16), 'blocks': (3, 16, 16), 'head': (16, 2)}
    drawn = {
        name: 0.3 * jax.random.normal(jax.random.fold_in(key, i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {
        'backbone': {'embedding': drawn['embedding'], 'blocks_00_02': {'w': drawn['blocks']}},
        'heads_a': {'w': drawn['head']},
    }


def global_rows(step):
    rng = np.random.default_rng(step)
    return {
        'x': rng.normal(size=(ROWS, 6)).astype(np.float32),
        'y': rng.normal(size=(ROWS, 2)).astype(np.float32),
        'valid': (np.arange(ROWS) % 5 != 0).astype(np.float32),
    }


def train(mesh, directory=None):
    """Five steps on a mesh; with a directory, the last two of them after a restart from its checkpoint."""
    tasks = {'a': Regression()}
    partition = trainable.resolve([('.*', 1.0, True)], jax.eval_shape(make_params, jax.random.key(0)))
    optimizer = optimizer_lib.Optimizer(
        optimizer_lib.AdamW(weight_decay=0.1),
        optimizer_lib.Schedule(rate=0.01, total=20, warmup=2),
        partition.rates(),
        partition.decay(),
        clip=1.0,
        ema=0.9,
    )
    create = functools.partial(state_lib.create, optimizer=optimizer, tasks=tasks, seed=0)
    state = sharding.initialise(mesh, lambda key: create(make_params(key)), jax.random.key(0))
    shardings = sharding.parameter_shardings(mesh, state)
    out = (shardings, sharding.replicated(mesh))
    train_step = step_lib.make_train_step(apply, tasks, optimizer, accumulate=2, shardings=out)
    first, last = sharding.process_rows(mesh, ROWS)
    losses = []
    for step in range(5):
        batch = {name: rows[first:last] for name, rows in global_rows(step).items()}
        state, metrics = train_step(state, {}, {'a': sharding.global_batch(mesh, batch)})
        losses.append(float(metrics['loss']))
        if directory and step == 2:
            with Store(directory) as store:
                store.save(3, state)
                store.wait()
                target = sharding.abstract(mesh, jax.eval_shape(lambda state: state, state))
                state, _ = store.restore(target)
    predict_step = step_lib.make_predict_step(apply, tasks)
    batch = {name: rows[first:last] for name, rows in global_rows(9).items()}
    placed = {'a': sharding.global_batch(mesh, batch)}
    predicted = sharding.to_host(predict_step(state_lib.weights(state), {}, placed))['a']['y']
    collectives = []
    if mesh.shape['data'] == 8:
        program = train_step.lower(state, {}, placed).compile()
        collectives = sorted(set(COLLECTIVES.findall(program.as_text())))
    moments = flax.traverse_util.flatten_dict(state.opt['body'][0].mu, sep='/')
    return {
        'losses': losses,
        'predicted': predicted.tolist(),
        'rows': [first, last],
        'specs': {name: str(leaf.sharding.spec) for name, leaf in moments.items()},
        'programs': train_step._cache_size(),
        'collectives': collectives,
    }


def child(arguments, devices):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'PYTHONPATH': str(pathlib.Path(__file__).parents[2]),
    }
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.strip().splitlines()[-1])


@pytest.fixture(scope='module')
def alone():
    return result(child(['meshes'], 8))


@pytest.mark.parametrize('mesh', ['8x1', '2x4'])
def test_losses_are_the_same_on_every_mesh(alone, mesh):
    np.testing.assert_allclose(alone[mesh]['losses'], alone['1x1']['losses'], rtol=1e-5)
    np.testing.assert_allclose(alone[mesh]['predicted'], alone['1x1']['predicted'], rtol=1e-3, atol=1e-5)
    assert alone[mesh]['programs'] == 1


def test_micro_batches_stay_on_their_device(alone):
    """With replicated parameters only sums cross devices, although every step has two micro-batches."""
    assert alone['8x1']['collectives'] == ['all-reduce']


def test_optimiser_state_is_split_and_layers_are_not(alone):
    specs = alone['2x4']['specs']
    assert specs['backbone/embedding'] == str(PartitionSpec(None, 'fsdp'))
    assert specs['backbone/blocks_00_02/w'] == str(PartitionSpec(None, 'fsdp', None))
    assert set(alone['8x1']['specs'].values()) == {str(PartitionSpec())}


def test_two_processes_read_halves_and_train_alike(alone, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    running = [child(['process', port, i, tmp_path / 'checkpoints'], 4) for i in range(2)]
    found = [result(process) for process in running]
    assert [one['rows'] for one in found] == [[0, 8], [8, 16]]
    for one in found:
        np.testing.assert_allclose(one['losses'], alone['1x1']['losses'], rtol=1e-5)
        np.testing.assert_allclose(one['predicted'], alone['1x1']['predicted'], rtol=1e-3, atol=1e-5)


def test_largest_dimension_that_divides_is_split():
    mesh = jax.sharding.AbstractMesh((1, 4), sharding.AXES)

    def spec(*shape, name='w'):
        tree = {name: {'w': jax.ShapeDtypeStruct(shape, np.float32)}}
        return sharding.parameter_shardings(mesh, tree)[name]['w'].spec

    assert spec(8, 16) == PartitionSpec(None, 'fsdp')
    assert spec(8, 8) == PartitionSpec('fsdp', None)
    assert spec(8, 18) == PartitionSpec('fsdp', None)
    assert spec(7, 9) == PartitionSpec()
    assert spec() == PartitionSpec()
    assert spec(12, 8, name='blocks_00_11') == PartitionSpec(None, 'fsdp')
    assert spec(12, 7, name='blocks_00_11') == PartitionSpec()


def test_sizes_that_do_not_fit_are_named():
    count = jax.device_count()
    with pytest.raises(sharding.ShardingError, match=f'needs {3 * count} devices'):
        sharding.make_mesh(data=count, fsdp=3)
    with pytest.raises(sharding.ShardingError, match='sizes whose product'):
        sharding.make_mesh(fsdp=count + 1)
    mesh = sharding.make_mesh()
    assert sharding.process_rows(mesh, 4 * count) == (0, 4 * count)


def test_place_keeps_values():
    tree = {'a': np.arange(6.0, dtype=np.float32), 'b': {'c': np.int32(4)}}
    placed = sharding.place(sharding.make_mesh(), tree)
    jax.tree.map(np.testing.assert_array_equal, sharding.to_host(placed), tree)


def test_processes_join_only_when_told_or_launched():
    assert sharding.initialise_distributed(environment={}) is False
    assert sharding.initialise_distributed(environment={'SLURM_NTASKS': '1', 'TPU_WORKER_HOSTNAMES': 'one'}) is False
    with pytest.raises(sharding.ShardingError, match='give all three'):
        sharding.initialise_distributed(coordinator='127.0.0.1:1')
    with pytest.raises(sharding.ShardingError, match=r'must be in 0\.\.1'):
        sharding.initialise_distributed(coordinator='127.0.0.1:1', processes=2, process=2)


def main(kind, *arguments):
    if kind == 'meshes':
        batch_error = ''
        try:
            sharding.process_rows(sharding.make_mesh(), 12)
        except sharding.ShardingError as error:
            batch_error = str(error)
        assert 'a batch of 12 does not divide over 8 devices' in batch_error
        meshes = {
            '1x1': sharding.make_mesh(devices=jax.devices()[:1]),
            '8x1': sharding.make_mesh(),
            '2x4': sharding.make_mesh(fsdp=4),
        }
        print(json.dumps({name: train(mesh) for name, mesh in meshes.items()}))
    else:
        port, process, directory = arguments
        sharding.initialise_distributed(coordinator=f'127.0.0.1:{port}', processes=2, process=int(process))
        print(json.dumps(train(sharding.make_mesh(fsdp=2), directory)))


if __name__ == '__main__':
    main(*sys.argv[1:])
