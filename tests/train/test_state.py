"""The state's leaves move from one run form to another."""

import jax.numpy as jnp
import numpy as np

from vidloc.checkpoints import store
from vidloc.models import layers
from vidloc.train import optimizer as optimizer_lib
from vidloc.train import state as state_lib
from vidloc.train import trainable


def state(segments, rule):
    rng = np.random.default_rng(0)
    canonical = {
        'backbone': {f'block_{i:02d}': {'w': rng.normal(size=(2, 3)).astype(np.float32)} for i in range(4)},
        'heads_a': {'w': rng.normal(size=3).astype(np.float32)},
    }
    params = layers.to_run(canonical, {'backbone': segments})
    partition = trainable.resolve([('.*', 1.0, True)], params)
    optimizer = optimizer_lib.Optimizer(
        rule, optimizer_lib.Schedule(rate=0.1, total=5), partition.rates(), partition.decay(), ema=0.9
    )
    created = state_lib.create(params, optimizer, {}, seed=4)
    params, opt, ema = optimizer.update(params, created.opt, created.params, created.ema, jnp.int32(0), jnp.float32(1))
    return created.replace(params=params, opt=opt, ema=ema, step=jnp.int32(1))


def test_segments_convert_parameters_optimiser_state_and_average():
    for rule in (optimizer_lib.SGD(0.9), optimizer_lib.AdamW()):
        one, two = state(((0, 3),), rule), state(((0, 0), (1, 3)), rule)
        stored = {name: np.asarray(leaf) for name, leaf in store.flatten(one).items()}
        wanted = store.flatten(two)
        found = state_lib.to_form(stored, wanted)
        assert found.keys() == wanted.keys()
        for name, leaf in wanted.items():
            np.testing.assert_allclose(found[name], leaf, rtol=1e-6, err_msg=name)


def test_what_cannot_be_filled_is_left_out():
    stored = {'params/blocks_00_01/w': np.zeros((2, 3))}
    wanted = dict.fromkeys(('params/blocks_00_00/w', 'params/blocks_01_02/w', 'params/b'), np.zeros(1))
    assert set(state_lib.to_form(stored, wanted)) == {'params/blocks_00_00/w'}
