"""V-JEPA 2 and its classifier against Hugging Face's, with random weights: features, logits and all gradients."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import attentive_pooler, layers, vjepa2

transformers = pytest.importorskip('transformers')
torch = pytest.importorskip('torch')

_SPEC = importlib.util.spec_from_file_location(
    'vjepa2_reference', pathlib.Path(__file__).parents[1] / 'models/vjepa2_reference.py'
)
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)


def _public(width, heads, depth, ratio, pooler_layers):
    """Their model, with biases, norms and a query that a default start would leave at 0 or 1."""
    config = transformers.VJEPA2Config(
        patch_size=4,
        crop_size=12,
        frames_per_clip=4,
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        mlp_ratio=ratio,
        num_pooler_layers=pooler_layers,
        num_labels=5,
        pred_hidden_size=12,
        pred_num_attention_heads=1,
        pred_num_hidden_layers=1,
        attn_implementation='eager',
    )
    model = transformers.VJEPA2ForVideoClassification(config).eval()
    draw = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = 'norm' in name and name.endswith('weight')
            std = 0.3 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(std * torch.randn(parameter.shape, generator=draw) + is_scale)
    return model


@pytest.mark.parametrize(
    ('width', 'heads', 'depth', 'ratio', 'pooler_layers', 'frames'),
    [
        (24, 2, 2, 4.0, 1, 6),
        (64, 2, 1, 4.0, 2, 4),
        (88, 1, 2, 48 / 11, 1, 4),  # as ViT-g: the MLPs of the encoder are wider than those of the pooler
        (80, 1, 1, 4.0, 0, 1),  # a single frame, and no self-attention in the pooler
    ],
)
def test_features_logits_and_gradients(width, heads, depth, ratio, pooler_layers, frames):
    public = _public(width, heads, depth, ratio, pooler_layers)
    video = torch.randn((2, frames, 3, 12, 12), generator=torch.Generator().manual_seed(1), requires_grad=True)
    encoded = public.vjepa2(video, skip_predictor=True, output_hidden_states=True)
    logits = public(video).logits
    weight = np.linspace(-1, 1, logits.numel(), dtype=np.float32).reshape(logits.shape)
    (logits * torch.from_numpy(weight)).sum().backward()
    arrays = {name: parameter.detach().numpy() for name, parameter in public.named_parameters()}
    gradients = {name: p.grad.numpy() for name, p in public.named_parameters() if p.grad is not None}

    model = vjepa2.VJepa2(width, int(width * ratio), heads, depth, patch=(4, 4), taps=tuple(range(depth)))
    head = attentive_pooler.AttentiveHead(5, heads, pooler_layers)

    @jax.jit
    def run(params, video):
        def loss(params, video):
            found = model.apply({'params': params['backbone']}, video, jnp.ones(video.shape[:2], bool), train=False)
            logits = head.apply({'params': params['head']}, found, {}, train=False)
            return jnp.sum(logits * weight), (found, logits)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, video)

    params = layers.to_run(reference.canonical(arrays, heads), {})
    ours = jnp.asarray(video.detach().numpy().transpose(0, 1, 3, 4, 2))
    (params_gradient, video_gradient), (found, ours_logits) = run(params, ours)

    flat = encoded.last_hidden_state.shape
    np.testing.assert_allclose(found.grid.reshape(flat), encoded.last_hidden_state.detach().numpy(), atol=1e-4)
    for i, tap in enumerate(found.taps):
        # Hidden states begin with the embeddings; the last one is not normed.
        want = encoded.hidden_states[i + 1].detach().numpy()
        np.testing.assert_allclose(tap.reshape(flat), want, atol=1e-4)
    np.testing.assert_allclose(ours_logits, logits.detach().numpy(), atol=2e-5)

    want = video.grad.numpy().transpose(0, 1, 3, 4, 2)
    assert np.abs(video_gradient - want).max() < 1e-3 * np.abs(want).max()
    want = reference.canonical(gradients, heads)
    # A bias of keys moves no softmax: its gradient is rounding, so what is small is compared with what is not.
    floor = 1e-4 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))

    def near(path, got, want):
        error = np.abs(got - want).max() / max(np.abs(want).max(), floor)
        assert error < 1e-3, (jax.tree_util.keystr(path), error)

    jax.tree_util.tree_map_with_path(near, layers.to_canonical(params_gradient), want)
