"""Joint ViViT against transformers with random weights."""

import pytest

transformers = pytest.importorskip('transformers', minversion='5')

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from vidloc.models import classification_head, layers, vivit_joint  # noqa: E402

torch.set_num_threads(1)

# Heads of 5 channels, frames and patches that are not square; one head of 7 channels, tubelets of 3 frames, one layer.
ODD = {
    'hidden_size': 15,
    'num_attention_heads': 3,
    'intermediate_size': 22,
    'num_hidden_layers': 3,
    'image_size': [12, 8],
    'tubelet_size': [2, 4, 2],
    'num_frames': 4,
    'num_labels': 5,
}
SINGLE = {
    'hidden_size': 7,
    'num_attention_heads': 1,
    'intermediate_size': 5,
    'num_hidden_layers': 1,
    'image_size': [4, 12],
    'tubelet_size': [3, 4, 6],
    'num_frames': 9,
    'num_labels': 2,
}


def _random_model(fields):
    """A model of transformers whose biases, norms, positions and CLS are random, too."""
    config = transformers.VivitConfig(**fields)
    model = transformers.VivitForVideoClassification(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim == 1 or 'embeddings' in name else value.shape[-1] ** -0.5
            centre = 1.0 if value.ndim == 1 and name.endswith('weight') else 0.0
            value.copy_(centre + spread * torch.randn(value.shape, generator=generator))
    return model.eval()


def _canonical(weights, config):
    """The names of the module in memory -> our parameters (backbone, head); linear, so good for gradients as well."""
    heads, width, hidden = config.num_attention_heads, config.hidden_size, config.intermediate_size
    split = (heads, width // heads)

    def linear(name, inputs, outputs):
        kernel = weights[f'{name}.weight'].T.reshape(*inputs, *outputs)
        return {'kernel': kernel, 'bias': weights[f'{name}.bias'].reshape(outputs)}

    def norm(name):
        return {'scale': weights[f'{name}.weight'], 'bias': weights[f'{name}.bias']}

    embeddings = 'vivit.embeddings'
    projection = f'{embeddings}.patch_embeddings.projection'
    encoder = {
        'cls': weights[f'{embeddings}.cls_token'],
        'position': weights[f'{embeddings}.position_embeddings'],
        'norm': norm('vivit.layernorm'),
    }
    for i in range(config.num_hidden_layers):
        source = f'vivit.layers.{i}'
        attention = {
            part: linear(f'{source}.attention.{part[0]}_proj', (width,), split) for part in ('query', 'key', 'value')
        }
        encoder[f'block_{i:02d}'] = {
            'ln1': norm(f'{source}.layernorm_before'),
            'attn': attention | {'out': linear(f'{source}.attention.o_proj', split, (width,))},
            'ln2': norm(f'{source}.layernorm_after'),
            'mlp': {
                'fc1': linear(f'{source}.mlp.fc1', (width,), (hidden,)),
                'fc2': linear(f'{source}.mlp.fc2', (hidden,), (width,)),
            },
        }
    embedding = {
        'kernel': weights[f'{projection}.weight'].transpose(2, 3, 4, 1, 0),  # [D, 3, t, h, w] -> [t, h, w, 3, D]
        'bias': weights[f'{projection}.bias'],
    }
    head = {'output': linear('classifier', (width,), (config.num_labels,))}
    return layers.to_run({'embedding': embedding, 'encoder': encoder}, {}), head


def _ours(config):
    tubelet, *patch = config.tubelet_size
    rows, columns = (size // step for size, step in zip(config.image_size, patch, strict=True))
    return vivit_joint.JointViViT(
        width=config.hidden_size,
        mlp=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        grid=(config.num_frames // tubelet, rows, columns),
        patch=tuple(patch),
        tubelet=tubelet,
        taps=tuple(range(config.num_hidden_layers)),
    )


@pytest.mark.parametrize('fields', [ODD, SINGLE], ids=['odd', 'single'])
def test_layers_logits_and_gradients_are_those_of_transformers(fields):
    theirs = _random_model(fields)
    config = theirs.config
    within = []
    for layer in [*theirs.vivit.layers, theirs.vivit.layernorm]:
        layer.register_forward_hook(lambda module, inputs, output: within.append(output.detach().numpy()))
    shape = (2, config.num_frames, 3, *config.image_size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    logits = theirs(pixel_values=pixels).logits
    coefficients = np.linspace(-1, 1, logits.numel(), dtype=np.float32).reshape(logits.shape)
    (logits * torch.tensor(coefficients)).sum().backward()

    ours, head = _ours(config), classification_head.ClassificationHead(config.num_labels)

    def function(params, video):
        encoded = ours.apply({'params': params[0]}, video, jnp.ones(video.shape[:2], bool), train=False)
        found = head.apply({'params': params[1]}, encoded, {}, train=False)
        return jnp.sum(found * coefficients), (encoded, found)

    params = _canonical({name: value.detach().numpy() for name, value in theirs.named_parameters()}, config)
    video = jnp.asarray(pixels.detach().numpy().transpose(0, 1, 3, 4, 2))  # [B, T, 3, H, W] -> [B, T, H, W, 3]
    run = jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))
    (_, (encoded, found)), (got, of_video) = run(params, video)

    for tap, want in zip((*encoded.taps, encoded.grid), within, strict=True):
        np.testing.assert_allclose(tap.reshape(2, -1, config.hidden_size), want[:, 1:], rtol=0, atol=1e-4)
    np.testing.assert_allclose(encoded.pooled, within[-1][:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found, logits.detach().numpy(), rtol=0, atol=2e-5)

    want = _canonical({name: value.grad.numpy() for name, value in theirs.named_parameters()}, config)
    want = jax.tree.leaves((want, pixels.grad.numpy().transpose(0, 1, 3, 4, 2)))
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path((got, of_video))[0], want, strict=True):
        # Biases of keys have no gradient but rounding.
        assert np.abs(a - b).max() <= max(1e-3 * np.abs(b).max(), 1e-6), jax.tree_util.keystr(path)
