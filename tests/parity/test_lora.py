"""LoRA against Hugging Face's PEFT, by way of files in both directions, and against qwix on blocks of Flax's layers."""

import dataclasses

import pytest

peft = pytest.importorskip('peft')
qwix = pytest.importorskip('qwix')
transformers = pytest.importorskip('transformers')

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.torch as safetensors_torch  # noqa: E402
import torch  # noqa: E402
from flax import traverse_util  # noqa: E402

from vidloc import export  # noqa: E402
from vidloc.checkpoints import importer  # noqa: E402
from vidloc.checkpoints import peft as peft_files  # noqa: E402
from vidloc.checkpoints.adapters import Adapter  # noqa: E402
from vidloc.models import dense, layers, lora  # noqa: E402

torch.set_num_threads(1)
RANK, ALPHA = 2, 3.0
SIZES = {'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'num_labels': 5}
SQUARE = {**SIZES, 'intermediate_size': 40, 'image_size': 12, 'num_frames': 4}
PREDICTOR = {'pred_hidden_size': 12, 'pred_num_attention_heads': 1, 'pred_num_hidden_layers': 1}


@dataclasses.dataclass(frozen=True)
class Case:
    """public: makes the model with a classifier. modules: a pattern of those that PEFT adapts; ours: the same here."""

    public: object
    modules: str
    ours: lora.Lora


CASES = {
    'vjepa2': Case(
        lambda: transformers.VJEPA2ForVideoClassification(
            transformers.VJEPA2Config(
                **SIZES, **PREDICTOR, patch_size=4, crop_size=12, frames_per_clip=4, mlp_ratio=2.0, num_pooler_layers=1
            )
        ),
        r'.*vjepa2\.encoder\.layer\.[12]\.(attention\.(query|value|proj)|mlp\.fc2)'
        r'|pooler\..*(q_proj|v_proj|out_proj|fc2)',
        lora.Lora(RANK, ALPHA, on=('query', 'value', 'out', 'fc2'), where=('backbone', 'heads'), layers=(1, 2)),
    ),
    'videomae': Case(
        lambda: transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**SQUARE, patch_size=4)),
        r'.*encoder\.layer\.[12]\.(attention\.attention\.(key|value)|attention\.output\.dense|intermediate\.dense)',
        lora.Lora(RANK, ALPHA, on=('key', 'value', 'out', 'fc1'), layers=(1, 2)),
    ),
    'vivit_joint': Case(
        lambda: transformers.VivitForVideoClassification(
            transformers.VivitConfig(**SQUARE, tubelet_size=[2, 4, 4], hidden_act='gelu_fast')
        ),
        r'.*(layers|layer)\.[12]\.(attention\.q_proj|attention\.attention\.query|mlp\.fc1|intermediate\.dense)',
        lora.Lora(RANK, ALPHA, on=('query', 'fc1'), layers=(1, 2)),
    ),
}


def draw(parameters, seed):
    """Random numbers, also where a start would leave 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in parameters:
            is_scale = 'norm' in name and name.endswith('weight')
            std = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator) + is_scale)


@pytest.fixture(scope='module')
def video():
    return np.random.default_rng(1).normal(size=(2, 4, 12, 12, 3)).astype(np.float32)


def torch_video(video):
    return torch.tensor(video).permute(0, 1, 4, 2, 3)  # [B, T, H, W, 3] -> [B, T, 3, H, W]


class Ours:
    """A file's model with LoRA beside it, or merged."""

    def __init__(self, folder, change, video):
        self._imported = importer.load(folder)
        self._plain = traverse_util.flatten_dict(layers.to_canonical(self._imported.params), sep='/')
        self._change, self._video = change, video

    def outputs(self, adapter):
        """(tokens [B, t, h, w, D], logits [B, C]) with LoRA beside the matrices, and merged into them."""
        change, found = self._change, self._imported
        in_head = change if 'heads' in change.where else None
        changed = {'backbone': found.backbone.clone(lora=change), 'head': found.head}
        if in_head is not None:
            changed['head'] = found.head.clone(lora=in_head)
        params = self._plain | dict(adapter)
        beside = layers.to_run(traverse_util.unflatten_dict(params, sep='/'), {'backbone/encoder': change.runs(3)})
        plain = layers.to_run(traverse_util.unflatten_dict(lora.merged(params, change), sep='/'), {})
        modules = {'backbone': found.backbone, 'head': found.head}
        return self._run(changed, beside), self._run(modules, plain)

    def _run(self, modules, params):
        def run(params, video):
            valid = jnp.ones(video.shape[:2], bool)
            encoded = modules['backbone'].apply({'params': params['backbone']}, video, valid, train=False)
            return encoded.grid, modules['head'].apply({'params': params['head']}, encoded, {}, train=False)

        return jax.jit(run)(params, jnp.asarray(self._video))


@pytest.mark.parametrize('kind', CASES)
def test_a_model_adapted_by_peft_and_ours_by_way_of_files(kind, video, tmp_path):
    case = CASES[kind]
    public = case.public()
    draw(public.named_parameters(), 0)
    public.eval().save_pretrained(tmp_path / 'base')
    ours = Ours(tmp_path / 'base', case.ours, video)

    # Theirs -> ours.
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.1, target_modules=case.modules)
    adapted = peft.get_peft_model(public, config)
    draw([(name, value) for name, value in adapted.named_parameters() if 'lora_' in name], 1)
    adapted.eval().save_pretrained(tmp_path / 'theirs')
    given = peft_files.read(tmp_path / 'theirs', kind)
    assert dataclasses.replace(given.lora, dropout=0.0) == case.ours
    _as_pickle(tmp_path / 'theirs')
    again = peft_files.read(tmp_path / 'theirs', kind).params
    assert again.keys() == given.params.keys() and all(
        np.array_equal(again[name], given.params[name]) for name in again
    )
    (tokens, logits), (merged_tokens, merged_logits) = ours.outputs(given.params)
    with torch.no_grad():
        want = adapted(torch_video(video)).logits
        with adapted.disable_adapter():
            assert (want - adapted(torch_video(video)).logits).abs().max() > 1e-2
    np.testing.assert_allclose(logits, want, atol=2e-5, rtol=0)
    np.testing.assert_allclose(merged_logits, logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(merged_tokens, tokens, atol=1e-5, rtol=1e-5)

    if kind == 'vivit_joint' and not hasattr(public.vivit, 'layers'):
        pytest.skip('this release of transformers calls the modules of ViViT otherwise')
    # Ours -> theirs: other numbers under the same names.
    rng = np.random.default_rng(2)
    params = {name: rng.normal(0, 0.3, value.shape).astype(np.float32) for name, value in given.params.items()}
    _, model, _ = export.of_weights(tmp_path / 'base')
    peft_files.write(tmp_path / 'ours', Adapter(params, case.ours, None, base=str(tmp_path / 'base')), model)
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path / 'ours').eval()
    held = {name: value for name, value in loaded.named_parameters() if 'lora_' in name}
    assert len(held) == len(params) and sum(value.sum() for value in held.values()) == pytest.approx(
        sum(value.sum() for value in params.values()), abs=1e-3
    )
    (tokens, logits), _ = ours.outputs(params)
    with torch.no_grad():
        if 'heads' in case.ours.where:
            np.testing.assert_allclose(loaded(torch_video(video)).logits, logits, atol=2e-5, rtol=0)
        else:
            got = loaded(torch_video(video)).last_hidden_state
            got = got[:, 1:] if kind == 'vivit_joint' else got  # without the CLS token
            np.testing.assert_allclose(got.reshape(tokens.shape), tokens, atol=1e-4, rtol=0)


def _as_pickle(folder):
    """The arrays as PEFT wrote them before safetensors."""
    path = folder / 'adapter_model.safetensors'
    torch.save(safetensors_torch.load_file(path), folder / 'adapter_model.bin')
    path.unlink()


def test_one_matrix():
    torch.manual_seed(0)
    public = torch.nn.Sequential(torch.nn.Linear(6, 8))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=['0'])
    adapted = peft.get_peft_model(public, config)
    draw(adapted.named_parameters(), 0)
    weights = {name: value.detach().numpy() for name, value in adapted.named_parameters()}
    layer = 'base_model.model.0'
    change = lora.Lora(RANK, ALPHA, on=('query',))
    params = {
        'kernel': weights[f'{layer}.base_layer.weight'].T.reshape(6, 2, 4),
        'bias': weights[f'{layer}.base_layer.bias'].reshape(2, 4),
        'lora_a': weights[f'{layer}.lora_A.default.weight'].T,
        'lora_b': weights[f'{layer}.lora_B.default.weight'].T,
    }
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    got = dense.Dense((6,), (2, 4), lora=change).apply({'params': params}, jnp.asarray(x))
    want = adapted(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(got.reshape(5, 8), want, atol=1e-6)
    kernel = lora.merged(params, change)['kernel']
    theirs = adapted.merge_and_unload()[0].weight.detach().numpy()
    np.testing.assert_allclose(kernel.reshape(6, 8).T, theirs, atol=1e-6)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1], name='fc2')(nn.gelu(nn.Dense(40, name='fc1')(x)))


class Block(nn.Module):
    """A block of Flax's own layers, with the names of ours."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name='attn')(nn.LayerNorm(name='ln1')(x))
        return x + Mlp(name='mlp')(nn.LayerNorm(name='ln2')(x))


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = Block(name=f'block_{i:02d}')(x)
        return x


def test_qwix_on_a_stack_of_flax_blocks():
    x = jax.random.normal(jax.random.key(0), (2, 7, 24))
    provider = qwix.LoraProvider(
        module_path=r'block_0[12]/(attn/(query|out)|mlp/fc2)', rank=RANK, alpha=ALPHA, dropout=0.0
    )
    peer = qwix.apply_lora_to_model(Blocks(), provider)
    flat = traverse_util.flatten_dict(jax.jit(peer.init)(jax.random.key(1), x)['params'], sep='/')
    rng = np.random.default_rng(0)
    flat = {name: value + rng.normal(0, 0.2, value.shape).astype(np.float32) for name, value in flat.items()}
    flat = jax.tree.map(np.asarray, flat)
    want = jax.jit(peer.apply)({'params': traverse_util.unflatten_dict(flat, sep='/')}, x)
    change = lora.Lora(RANK, ALPHA, on=('query', 'out', 'fc2'), layers=(1, 2))
    # kernel_lora_a beside kernel there, lora_a beside it here.
    params = {name.replace('kernel_lora_', 'lora_'): value for name, value in flat.items()}
    assert sum(name.endswith(lora.LEAVES) for name in params) == 2 * 2 * 3
    stack = layers.Stack(layers.Block(24, 40, 2, parent=None), 3, lora=change)
    got = jax.jit(lambda params: stack.apply({'params': params}, x, train=False))(
        layers.to_run(traverse_util.unflatten_dict(params, sep='/'), {'': change.runs(3)})
    )
    np.testing.assert_allclose(got, want, atol=1e-5)
    plain = layers.Stack(layers.Block(24, 40, 2, parent=None), 3)
    merged = layers.to_run(traverse_util.unflatten_dict(lora.merged(params, change), sep='/'), {})
    np.testing.assert_allclose(
        jax.jit(lambda params: plain.apply({'params': params}, x, train=False))(merged), got, atol=1e-5
    )
