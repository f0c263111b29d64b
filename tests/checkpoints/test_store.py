"""Checkpoints: retention, best, restore, damage, conversion, refusals."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.checkpoints import store as store_lib
from vidloc.checkpoints.store import CheckpointError, Policy, Store


def make_state(step=0, rows=4):
    return {
        'step': jnp.int32(step),
        'params': {'w': jnp.full((rows, 3), float(step)), 'half': jnp.full((2,), step, jnp.bfloat16)},
        'opt': ({'m': jnp.arange(6.0) * step}, None),
    }


def shapes(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def fill(directory, steps=(1, 2, 3), **options):
    with Store(directory, Policy(keep=10), **options) as store:
        for step in steps:
            store.save(step, make_state(step))


def assert_state(found, step):
    jax.tree.map(np.testing.assert_array_equal, found, make_state(step))


def test_round_trip_keeps_structure_types_and_values(tmp_path):
    fill(tmp_path)
    found, step = Store(tmp_path).restore(shapes(make_state()))
    assert step == 3
    assert found['params']['half'].dtype == jnp.bfloat16
    assert_state(found, 3)
    found, step = Store(tmp_path).restore(shapes(make_state()), 2)
    assert_state(found, 2)
    part, _ = Store(tmp_path).restore({'params': shapes(make_state())['params']}, partial=True)
    jax.tree.map(np.testing.assert_array_equal, part, {'params': make_state(3)['params']})


def test_policy_keeps_the_last_the_multiples_and_the_best(tmp_path):
    values = {0: 0.1, 5: 0.2, 10: 0.3, 15: 0.9, 20: float('nan'), 25: 0.5, 30: 0.1, 35: 0.2}
    with Store(tmp_path, Policy(keep=2, every=10, best='map')) as store:
        for step, value in values.items():
            assert store.save(step, make_state(step), {'map': value, 'loss': 1.0})
    # A second process of the run knows the best from the disk and goes on by it.
    with Store(tmp_path, Policy(keep=2, every=10, best='map')) as store:
        store.save(36, make_state(36), {'map': 0.3})
        assert not store.save(36, make_state(36), {'map': 0.3})
        store.wait()
        assert store.steps() == [0, 10, 15, 20, 30, 35, 36]
        assert (store.best(), store.latest(), store.select('best')) == (15, 36, 15)
        assert store.metrics(20) == {'loss': 1.0}
    assert Store(tmp_path, Policy(best='loss', larger_is_better=False)).best() == 0


def test_figures_found_later_are_written_with_the_checkpoint(tmp_path):
    with Store(tmp_path, Policy(keep=2, best='map')) as store:
        store.save(1, make_state(1), {'map': 0.5})
        assert store.save(2, make_state(2), {})
        assert store.metrics(2) == {} and store.best() == 1
        assert store.save(2, make_state(2), {'map': 0.9})
        store.wait()
        assert store.metrics(2) == {'map': 0.9} and store.best() == 2 and store.steps() == [1, 2]
        assert not store.save(2, make_state(3), {'map': 1.0})
        # The best stays when others follow.
        for later in (3, 4, 5):
            store.save(later, make_state(later), {})
        store.wait()
        assert store.steps() == [2, 4, 5] and Store(tmp_path, Policy(best='map')).best() == 2
    found, step = Store(tmp_path).restore(shapes(make_state()), 2)
    assert step == 2
    assert_state(found, 2)


def test_adding_figures_touches_no_other_file(tmp_path):
    """With one checkpoint kept, a kill while figures are added would otherwise lose the run."""
    with Store(tmp_path, Policy(keep=1, best='map')) as store:
        store.save(1, make_state(1), {})
        store.wait()
        files = {path: path.stat().st_ino for path in (tmp_path / '1').rglob('*') if path.is_file()}
        store.save(1, make_state(1), {'map': 0.5})
        after = {path: path.stat().st_ino for path in (tmp_path / '1').rglob('*') if path.is_file()}
    assert files == {path: node for path, node in after.items() if path.name != 'figures.json'}
    assert len(after) == len(files) + 1


def test_save_copies_before_it_returns(tmp_path):
    """The step donates the state's buffers right after a save."""
    change = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 7, state), donate_argnums=0)
    with Store(tmp_path) as store:
        state = {'w': jnp.arange(1 << 20, dtype=jnp.float32)}
        store.save(1, state)
        state = change(state)
        jax.block_until_ready(state)
    found, _ = Store(tmp_path).restore(shapes(state))
    np.testing.assert_array_equal(found['w'], np.arange(1 << 20, dtype=np.float32))


def largest(folder):
    return max((folder / 'state').rglob('*'), key=lambda path: path.stat().st_size if path.is_file() else -1)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:-7])


def empty(folder):
    largest(folder).write_bytes(b'')


def flip(folder):
    path = largest(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def flip_description(folder):
    path = folder / 'about' / 'metadata'
    path.write_bytes(path.read_bytes().replace(b'format', b'farmat'))


def remove(folder):
    largest(folder).unlink()


def remove_state(folder):
    shutil.rmtree(folder / 'state')


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def empty_manifest(folder):
    (folder / 'manifest.json').write_bytes(b'')


def newer(folder):
    path = folder / 'about' / 'metadata'
    about = {**json.loads(path.read_text()), 'format': store_lib.FORMAT + 1}
    path.write_text(json.dumps(about))
    (folder / 'manifest.json').write_text('{}')


DAMAGES = [truncate, empty, flip, flip_description, remove, remove_state, empty_folder, empty_manifest, newer]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog, damage):
    fill(tmp_path)
    damage(tmp_path / '3')
    with caplog.at_level(logging.WARNING):
        found, step = Store(tmp_path, read_only=True).restore(shapes(make_state()))
    assert step == 2
    assert_state(found, 2)
    assert 'checkpoint 3 in' in caplog.text
    assert (tmp_path / '3').exists()
    with pytest.raises(CheckpointError, match='3: '):
        Store(tmp_path, read_only=True).restore(shapes(make_state()), 3)

    with Store(tmp_path, Policy(keep=10)) as store:
        assert store.restore(shapes(make_state()))[1] == 2
        assert (tmp_path / 'damaged_3').exists()
        assert store.save(3, make_state(30))
        store.wait()
        assert store.steps() == [1, 2, 3]
        assert_state(store.restore(shapes(make_state()))[0], 30)


def test_a_save_that_was_killed_is_not_seen_and_swept(tmp_path):
    fill(tmp_path, steps=(1, 2))
    stale = tmp_path / '3.orbax-checkpoint-tmp-17'
    shutil.copytree(tmp_path / '2', stale)
    (stale / 'manifest.json').unlink()
    with Store(tmp_path, Policy(keep=10)) as store:
        assert store.restore(shapes(make_state()))[1] == 2
        store.save(3, make_state(3))
        store.wait()
        assert store.restore(shapes(make_state()))[1] == 3
    assert not stale.exists()


def test_old_damage_does_not_stop_a_writer(tmp_path):
    with Store(tmp_path, Policy(best='map')) as store:
        for step in (1, 2):
            store.save(step, make_state(step), {'map': 0.5})
    (tmp_path / '1' / 'about' / 'metadata').write_bytes(b'')
    with Store(tmp_path, Policy(best='map')) as store:
        store.save(3, make_state(3), {'map': 0.4})
        store.wait()
        assert store.steps() == [2, 3]


def test_all_damaged_lists_every_reason_and_touches_nothing(tmp_path):
    fill(tmp_path, steps=(1, 2))
    flip(tmp_path / '1')
    empty(tmp_path / '2')
    with pytest.raises(CheckpointError) as caught:
        Store(tmp_path).restore(shapes(make_state()))
    assert '1: ' in str(caught.value)
    assert 'has 0 bytes' in str(caught.value)
    assert Store(tmp_path).steps() == [1, 2]


def test_names_and_shapes_that_differ_are_listed(tmp_path):
    fill(tmp_path, steps=(1,))
    target = shapes(make_state(rows=5))
    target['params']['extra'] = target['step']
    del target['params']['half']
    with pytest.raises(CheckpointError) as caught:
        Store(tmp_path).restore(target)
    text = str(caught.value)
    assert 'params/extra is not in the checkpoint' in text
    assert 'params/half is only in the checkpoint' in text
    assert 'params/w is float32[4, 3] there and float32[5, 3] in this run' in text


def test_another_form_is_converted_on_the_host(tmp_path):
    fill(tmp_path, steps=(2,))

    def convert(stored, wanted):
        rows = stored['params/w']
        assert isinstance(rows, np.ndarray)
        return {'top': rows[:1], 'rest': rows[1:]}

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {
        'top': jax.ShapeDtypeStruct((1, 3), np.float32, sharding=device),
        'rest': jax.ShapeDtypeStruct((3, 3), np.float32),
    }
    found, _ = Store(tmp_path).restore(target, convert=convert)
    assert isinstance(found['top'], jax.Array)
    np.testing.assert_array_equal(np.concatenate([found['top'], found['rest']]), np.full((4, 3), 2.0))


def test_another_frozen_part_is_refused(tmp_path):
    fill(tmp_path, steps=(1,), fingerprint='aa')
    assert Store(tmp_path, fingerprint='aa').restore(shapes(make_state()))[1] == 1
    with pytest.raises(CheckpointError, match='another frozen part'):
        Store(tmp_path, fingerprint='bb').restore(shapes(make_state()))
    assert Store(tmp_path).steps() == [1]


def test_selection_says_what_there_is(tmp_path):
    with pytest.raises(CheckpointError, match='no checkpoint in'):
        Store(tmp_path / 'none').select('latest')
    fill(tmp_path)
    store = Store(tmp_path, Policy(best='map'))
    assert [store.select(which) for which in ('latest', 2, '1')] == [3, 2, 1]
    with pytest.raises(CheckpointError, match='one of 1, 2, 3'):
        store.select(7)
    with pytest.raises(CheckpointError, match='ask for latest'):
        store.select('best')
    with pytest.raises(CheckpointError, match='ask for latest, best'):
        store.select('newest')


def test_a_write_that_fails_is_said_and_harms_nothing(tmp_path):
    fill(tmp_path, steps=(1,))
    store = Store(tmp_path, Policy(keep=5))
    store.save(2, make_state(2))
    store.wait()
    # A file where the next checkpoint's folder has to be: what the rename meets cannot be replaced.
    (tmp_path / '3').write_text('in the way')
    with pytest.raises(CheckpointError, match='3'):
        store.save(3, make_state(3))
        store.wait()
        store.restore(shapes(make_state()), 3)
    (tmp_path / '3').unlink()
    assert Store(tmp_path, read_only=True).restore(shapes(make_state()))[1] == 2


def test_read_only_and_remote_paths(tmp_path):
    with pytest.raises(CheckpointError, match='reading'):
        Store(tmp_path, read_only=True).save(1, make_state())
    with pytest.raises(CheckpointError, match='mount'):
        Store('gs://bucket/run')


def test_json_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / 'new' / 'config.json'
    store_lib.write_json(path, {'b': 1, 'a': [2]})
    with pytest.raises(TypeError):
        store_lib.write_json(path, {'b': object()})
    with pytest.raises(ValueError, match='broken half way'):
        store_lib.write_atomically(path, half_way())
    assert json.loads(path.read_text()) == {'a': [2], 'b': 1}
    assert [entry.name for entry in path.parent.iterdir()] == ['config.json']


def half_way():
    yield b'{'
    raise ValueError('broken half way')
