"""VideoMAE against transformers with random weights, and its positions against PyTorch's interpolation."""

import pytest

transformers = pytest.importorskip('transformers')

import importlib.util  # noqa: E402
import pathlib  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from vidloc.models import classification_head, layers, positions, videomae  # noqa: E402

_SPEC = importlib.util.spec_from_file_location(
    'videomae_reference', pathlib.Path(__file__).parents[1] / 'models/videomae_reference.py'
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

torch.set_num_threads(1)


def random_model(kind, seed=0, **sizes):
    """A model of transformers whose biases, norms and other starts are random, too."""
    fields = {'hidden_size': 33, 'num_attention_heads': 3, 'intermediate_size': 40, 'num_hidden_layers': 2}
    fields |= {'image_size': [8, 12], 'patch_size': 4, 'num_frames': 6, 'num_labels': 5}
    model = kind(transformers.VideoMAEConfig(**{**fields, **sizes}))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim == 1 else value[0].numel() ** -0.5
            value.copy_(torch.randn(value.shape) * spread + (name.endswith('.weight') and value.ndim == 1))
    return model.eval()


def ours(config, **fields):
    rows, columns = (size // config.patch_size for size in config.image_size)
    return videomae.VideoMAE(
        width=config.hidden_size,
        mlp=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        grid=(config.num_frames // config.tubelet_size, rows, columns),
        patch=(config.patch_size, config.patch_size),
        tubelet=config.tubelet_size,
        eps=config.layer_norm_eps,
        **fields,
    )


def some_video(config, batch=2):
    shape = (batch, config.num_frames, *config.image_size, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def channels_first(video):
    return torch.tensor(video).permute(0, 1, 4, 2, 3)  # [B, T, H, W, 3] -> [B, T, 3, H, W]


def public(named):
    """The names of a model in memory -> those of published files."""
    return {
        name.replace('query.bias', 'q_bias').replace('value.bias', 'v_bias'): value.detach().numpy()
        for name, value in named
    }


@pytest.mark.parametrize(
    'sizes',
    [
        {},  # heads of 11 channels
        {'hidden_size': 88, 'num_attention_heads': 1, 'layer_norm_eps': 1e-6, 'tubelet_size': 1},  # as wide as a g's
    ],
)
def test_features_logits_and_gradients(sizes):
    model = random_model(transformers.VideoMAEForVideoClassification, **sizes)
    config, video = model.config, some_video(model.config)
    names = public(model.named_parameters())
    params = reference.from_hugging_face(names, layers_count=2, heads=config.num_attention_heads)
    backbone, head = ours(config, taps=(0, 1)), classification_head.ClassificationHead(5, norm=True, norm_eps=1e-5)
    weight = np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5)

    @jax.jit
    def run(params, video):
        def loss(params, video):
            valid = jnp.ones(video.shape[:2], bool)
            encoded = backbone.apply({'params': params['backbone']}, video, valid, train=False)
            logits = head.apply({'params': params['head']}, encoded, {}, train=False)
            return jnp.sum(logits * weight), (encoded, logits)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, video)

    (_, (encoded, logits)), (slopes, by_video) = run(layers.to_run(params, {}), video)
    clip = channels_first(video).requires_grad_()
    want = model(clip, output_hidden_states=True)
    (want.logits * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(logits, want.logits.detach(), atol=2e-5, rtol=0)
    for tap, hidden in zip(encoded.taps, want.hidden_states[1:], strict=True):
        np.testing.assert_allclose(tap.reshape(hidden.shape), hidden.detach(), atol=1e-4, rtol=0)
    expected = reference.from_hugging_face(
        public((name, value.grad) for name, value in model.named_parameters()),
        layers_count=2,
        heads=config.num_attention_heads,
    )
    expected['video'] = clip.grad.permute(0, 1, 3, 4, 2).numpy()
    got = {**layers.to_canonical(slopes), 'video': by_video}
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(got)[0]]
    for path, mine, other in zip(paths, jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.abs(mine - other).max() < 1e-3 * np.abs(other).max(), path


def test_the_norm_of_pretraining():
    model = random_model(transformers.VideoMAEModel, use_mean_pooling=False)
    names = {f'videomae.{name}': value for name, value in public(model.named_parameters()).items()}
    names |= {'classifier.weight': np.zeros((1, 33)), 'classifier.bias': np.zeros(1)}
    names |= {f'fc_norm.{part}': names[f'videomae.layernorm.{part}'] for part in ('weight', 'bias')}
    params = reference.from_hugging_face(names, layers_count=2, heads=3)
    params['backbone']['norm'] = params['head']['norm']
    video = some_video(model.config)
    with torch.no_grad():
        want = model(channels_first(video)).last_hidden_state
    backbone = ours(model.config, final_norm=True)
    got = jax.jit(lambda params, *clip: backbone.apply({'params': params}, *clip, train=False))(
        layers.to_run(params, {})['backbone'], video, np.ones(video.shape[:2], bool)
    )
    np.testing.assert_allclose(got.grid.reshape(want.shape), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ('native', 'grid'),
    [((8, 14, 14), (4, 10, 18)), ((3, 5, 4), (7, 2, 9)), ((2, 3, 3), (1, 3, 6)), ((4, 2, 2), (4, 1, 1))],
)
def test_positions_are_interpolated_as_by_pytorch(native, grid):
    table = positions.flat_sincos(native[0] * native[1] * native[2], 12)
    frames = torch.tensor(table).reshape(*native, 12).permute(0, 3, 1, 2)  # [t, D, h, w]
    frames = torch.nn.functional.interpolate(frames, size=grid[1:], mode='bicubic', align_corners=False)
    columns = frames.flatten(1).T[None]  # [1, D h w, t]
    moved = torch.nn.functional.interpolate(columns, size=grid[0], mode='linear', align_corners=False)
    want = moved[0].T.reshape(grid[0], 12, *grid[1:]).permute(0, 2, 3, 1).reshape(-1, 12)
    np.testing.assert_allclose(positions.resample(table, native, grid), want, atol=5e-6, rtol=0)
