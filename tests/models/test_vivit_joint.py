"""Joint ViViT against the outputs of transformers, against a float64 forward, and its own promises."""

import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import classification_head, layers, localizer, preprocess, vivit_joint

_SPEC = importlib.util.spec_from_file_location(
    'vivit_reference', pathlib.Path(__file__).with_name('vivit_reference.py')
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

CASE = pathlib.Path(__file__).parent.parent / 'reference/backbones/vivit_b'
# Of the case, which transformers made.
PUBLIC = vivit_joint.JointViViT(width=24, mlp=96, heads=3, layers=2, grid=(2, 4, 4), patch=(4, 4), taps=(0, 1))
# Heads of 5 channels, patches that are not square.
ODD = vivit_joint.JointViViT(width=15, mlp=22, heads=3, layers=3, grid=(2, 2, 3), patch=(4, 2), taps=(2, 0, 2))


def _read_safetensors(path):
    """Eight bytes with the length of the header, the header in JSON, the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], 'little')
    header = json.loads(data[8:start])
    header.pop('__metadata__', None)
    return {
        name: np.frombuffer(data, np.float32, np.prod(entry['shape'], dtype=int), start + entry['data_offsets'][0])
        .reshape(entry['shape'])
        .copy()
        for name, entry in header.items()
    }


def _canonical(weights, heads):
    """The names of the hub's files -> our parameters (backbone, head), one entry a layer."""

    def linear(name, inputs, outputs):
        found = {'kernel': weights[f'{name}.weight'].T.reshape(*inputs, *outputs)}
        return found | {'bias': weights[f'{name}.bias'].reshape(outputs)}

    def norm(name):
        return {'scale': weights[f'{name}.weight'], 'bias': weights[f'{name}.bias']}

    embeddings = 'vivit.embeddings'
    width = weights[f'{embeddings}.cls_token'].shape[-1]
    projection = weights[f'{embeddings}.patch_embeddings.projection.weight']  # [D, 3, t, h, w]
    split = (heads, width // heads)
    encoder = {
        'cls': weights[f'{embeddings}.cls_token'],
        'position': weights[f'{embeddings}.position_embeddings'],
        'norm': norm('vivit.layernorm'),
    }
    for i in range(2):
        source = f'vivit.encoder.layer.{i}'
        attention = {
            part: linear(f'{source}.attention.attention.{part}', (width,), split) for part in ('query', 'key', 'value')
        }
        encoder[f'block_{i:02d}'] = {
            'ln1': norm(f'{source}.layernorm_before'),
            'attn': attention | {'out': linear(f'{source}.attention.output.dense', split, (width,))},
            'ln2': norm(f'{source}.layernorm_after'),
            'mlp': {
                'fc1': linear(f'{source}.intermediate.dense', (width,), (4 * width,)),
                'fc2': linear(f'{source}.output.dense', (4 * width,), (width,)),
            },
        }
    embedding = {
        'kernel': projection.transpose(2, 3, 4, 1, 0),
        'bias': weights[f'{embeddings}.patch_embeddings.projection.bias'],
    }
    return {'embedding': embedding, 'encoder': encoder}, {'output': linear('classifier', (width,), (3,))}


@functools.cache
def _case():
    """(backbone parameters, head parameters, video [1, T, H, W, 3], outputs of transformers)."""
    backbone, head = _canonical(_read_safetensors(CASE / 'model.safetensors'), heads=3)
    video = jnp.asarray(np.load(CASE / 'input.npy').transpose(0, 1, 3, 4, 2))  # [B, T, C, H, W] -> [B, T, H, W, C]
    with np.load(CASE / 'outputs.npz') as outputs:
        return layers.to_run(backbone, {}), head, video, dict(outputs)


def _logits(backbone, head, video):
    encoded = PUBLIC.apply({'params': backbone}, video, jnp.ones(video.shape[:2], bool), train=False)
    model = classification_head.ClassificationHead(3)
    return model.apply({'params': head}, encoded, {}, train=False), encoded


def _video(batch=2, frames=4, height=8, width=6):
    video = jax.random.normal(jax.random.key(5), (batch, frames, height, width, 3))
    return video, jnp.ones((batch, frames), bool)


@functools.cache
def _random():
    """Parameters of ODD with random biases, norms, positions and CLS."""
    params = jax.eval_shape(lambda: ODD.init(jax.random.key(0), *_video(1), train=False)['params'])
    rng = np.random.default_rng(0)
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    leaves = [(path[-1].key == 'scale') + rng.normal(0, 0.4, leaf.shape).astype(np.float32) for path, leaf in paths]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


_run = jax.jit(lambda params, video, valid: ODD.apply({'params': params}, video, valid, train=False))


def test_every_stage_and_the_gradient_of_the_video_are_those_of_transformers():
    backbone, head, video, want = _case()

    def run(video):
        logits, encoded = _logits(backbone, head, video)
        return jnp.sum(logits * jnp.linspace(-1, 1, 3)), (logits, encoded)

    gradient, (logits, encoded) = jax.jit(jax.grad(run, has_aux=True))(video)
    for i, tap in enumerate(encoded.taps):
        np.testing.assert_allclose(tap.reshape(1, 32, 24), want[f'layer_{i}'][:, 1:], rtol=0, atol=2e-5)
    np.testing.assert_allclose(encoded.grid.reshape(1, 32, 24), want['final_norm'][:, 1:], rtol=0, atol=2e-5)
    np.testing.assert_allclose(encoded.pooled, want['final_norm'][:, 0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits, want['logits'], rtol=0, atol=2e-5)
    expected = want['grad_input'].transpose(0, 1, 3, 4, 2)
    assert np.abs(gradient - expected).max() / np.abs(expected).max() < 1e-3


def test_the_embedding_is_that_of_transformers():
    backbone, _, video, want = _case()
    tokens = PUBLIC.apply({'params': backbone}, video, method=lambda model, video: model.embedding(video))
    tokens = jnp.concatenate([backbone['encoder']['cls'], tokens.reshape(1, 32, 24)], axis=1)
    got = tokens + backbone['encoder']['position']
    np.testing.assert_allclose(got, want['embeddings'], rtol=0, atol=2e-5)


def _scaled(params, factor):
    """Tokens that small at the start, which tell one eps of the first norm from another."""
    encoder = params['encoder']
    small = {name: factor * encoder[name] for name in ('cls', 'position')}
    return {'embedding': jax.tree.map(lambda x: factor * x, params['embedding']), 'encoder': encoder | small}


@pytest.mark.parametrize('frames, height, width, factor', [(4, 8, 6, 1), (4, 8, 6, 1e-3), (1, 12, 4, 1)])
def test_forward_equals_numpy_in_float64_at_any_size(frames, height, width, factor):
    """The learned grid, positions resized up and down, a single image, odd heads, taps in any order."""
    video, valid = _video(2, frames, height, width)
    params = _scaled(_random(), np.float32(factor))
    got = _run(params, video, valid)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(params))
    np.testing.assert_array_equal(got.valid, np.ones((2, max(1, frames // 2)), bool))
    for i in range(2):
        grid, cls, within = reference.forward_jointly(np.asarray(video[i], np.float64), exact, ODD.grid)
        assert grid.shape == (max(1, frames // 2), height // 4, width // 2, 15)
        np.testing.assert_allclose(got.grid[i], grid, atol=1e-4)
        np.testing.assert_allclose(got.pooled[i], cls, atol=1e-4)
        assert len(got.taps) == 3
        for tap, layer in zip(got.taps, ODD.taps, strict=True):
            np.testing.assert_allclose(tap[i], within[layer], atol=1e-4)


def test_padding_frames_change_no_other_token():
    params = _random()
    video, valid = _video()
    valid = valid.at[0, 2:].set(False).at[1, 3].set(False)  # a token of example 1 is half real
    a, b = _run(params, video, valid), _run(params, video.at[0, 2:].set(9.0), valid)
    np.testing.assert_array_equal(a.valid, [[True, False], [True, True]])
    np.testing.assert_allclose(a.grid[0, 0], b.grid[0, 0], atol=1e-5)
    np.testing.assert_allclose(a.pooled, b.pooled, atol=1e-5)
    assert np.abs(a.grid[0, 1] - b.grid[0, 1]).max() > 1e-2


def test_the_parameters_are_those_of_the_public_base_model():
    """google/vivit-b-16x2-kinetics400: 88,954,000 parameters."""
    backbone = vivit_joint.JointViViT(width=768, mlp=3072, heads=12, layers=12, grid=(16, 14, 14))
    heads = {'clips': classification_head.ClassificationHead(400)}
    model = localizer.Localizer(backbone, heads, preprocess.Preprocess())
    shape = jax.ShapeDtypeStruct
    batch = {
        'video': shape((2, 32, 224, 224, 3), jnp.uint8),
        'frame_valid': shape((2, 32), jnp.bool_),
        'seed': shape((2,), jnp.uint32),
    }
    run = jax.eval_shape(lambda key: localizer.init(model, key, {'clips': batch}), jax.random.key(0))
    tree = layers.to_canonical(run)
    assert set(tree) == {'backbone', 'heads_clips'} and set(tree['backbone']) == {'embedding', 'encoder'}
    assert tree['backbone']['embedding']['kernel'].shape == (2, 16, 16, 3, 768)
    assert tree['backbone']['encoder']['position'].shape == (1, 3137, 768)
    assert set(tree['backbone']['encoder']) == {'cls', 'position', 'norm', *(f'block_{i:02d}' for i in range(12))}
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree)) == 88_954_000


def test_bfloat16_and_the_randomness_of_training():
    video, valid = _video()
    model = ODD.clone(dtype=jnp.bfloat16, drop_path=0.5, layers=2, taps=(1,))
    params = layers.to_canonical(_random())
    del params['encoder']['block_02']
    params = layers.to_run(params, {})

    def loss(params, key):
        encoded = model.apply({'params': params}, video, valid, train=True, rngs={'dropout': key})
        return jnp.mean(encoded.pooled.astype(jnp.float32) ** 2), encoded

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradients, found = zip(*[run(params, jax.random.key(i)) for i in range(4)], strict=True)
    for leaf in jax.tree.leaves(gradients):
        assert leaf.dtype == jnp.float32 and np.all(np.isfinite(leaf)) and np.any(leaf)
    assert found[0].grid.dtype == found[0].pooled.dtype == found[0].taps[0].dtype == jnp.bfloat16
    assert any(np.any(found[0].pooled != other.pooled) for other in found[1:])
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), layers.to_canonical(params))
    want = [reference.forward_jointly(np.asarray(video[i], np.float64), exact, ODD.grid)[1] for i in range(2)]
    # The first layer is never left out, the second half of the time; where it is kept only rounding is left.
    assert min(np.abs(encoded.pooled[0].astype(np.float32) - want[0]).max() for encoded in found) < 0.1


def _shapes(model, **size):
    """Only traced: what is refused is refused before anything is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *_video(1, **size), train=False)['params'])


def test_segments_and_what_does_not_fit():
    encoder = _shapes(ODD.clone(segments={'encoder': ((0, 1), (2, 2))}))['encoder']
    assert set(encoder) == {'cls', 'position', 'norm', 'blocks_00_01', 'blocks_02_02'}
    for size in ({'frames': 3}, {'height': 9}, {'width': 11}):
        with pytest.raises(ValueError, match=f'{next(iter(size))} .* no multiple'):
            _shapes(ODD, **size)
    for field, text in (
        ({'taps': (0, -1)}, r'taps \[-1\]: the layers are 0 to 2'),
        ({'taps': (3, 0)}, r'taps \[3\]: the layers are 0 to 2'),
        ({'tubelet_init': 'other'}, "tubelet_init is 'other'; it must be one of"),
        ({'segments': {'spatial': ((0, 2),)}}, 'the stacks are encoder'),
        ({'width': 16}, 'width 16 cannot be split into 3 heads'),
    ):
        with pytest.raises(ValueError, match=text):
            _shapes(ODD.clone(**field))
