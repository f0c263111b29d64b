"""What the exporter writes, loaded by transformers: every parameter arrives, and the outputs are ours."""

import pytest

transformers = pytest.importorskip('transformers')

import dataclasses  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from vidloc.checkpoints import exporter  # noqa: E402
from vidloc.models import attentive_pooler, classification_head, videomae, vivit_joint, vjepa2  # noqa: E402

torch.set_num_threads(1)
LABELS = ('wave', 'jump', 'fall')
MEAN, STD = (123.0, 116.0, 103.0), (58.0, 57.0, 59.0)


@dataclasses.dataclass(frozen=True)
class Case:
    backbone: object
    head_kind: str
    head: object
    size: tuple[int, int]


CASES = {
    'videomae': Case(
        videomae.VideoMAE(width=33, mlp=20, layers=2, heads=3, grid=(2, 3, 4), patch=(4, 4), eps=1e-12),
        'linear',
        classification_head.ClassificationHead(3, norm=True, norm_eps=1e-5),
        (12, 16),
    ),
    'vivit_joint': Case(
        vivit_joint.JointViViT(width=12, mlp=20, layers=2, heads=2, grid=(2, 3, 4), patch=(4, 4)),
        'linear',
        classification_head.ClassificationHead(3),
        (12, 16),
    ),
    'vjepa2': Case(
        vjepa2.VJepa2(width=24, mlp=44, layers=2, heads=2, patch=(4, 4)),
        'attentive',
        attentive_pooler.AttentiveHead(3, heads=2, layers=1),
        (12, 12),
    ),
}


def fields_of(kind, module):
    names = [field.name for field in dataclasses.fields(module) if field.name not in ('parent', 'name')]
    return {'kind': kind} | {name: getattr(module, name) for name in names}


def random_params(shapes):
    """Random biases and norms, too: with zeros and ones it would not be seen that they do not arrive."""
    rng = np.random.default_rng(0)
    paths, tree = jax.tree_util.tree_flatten_with_path(shapes)
    return jax.tree.unflatten(
        tree, [(path[-1].key == 'scale') + rng.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in paths]
    )


@pytest.fixture(scope='module', params=CASES)
def case(request):
    """(kind, case, video, parameters in run form, tokens, logits)"""
    case = CASES[request.param]
    video = np.random.default_rng(1).normal(size=(2, 4, *case.size, 3)).astype(np.float32)

    def run(params, video):
        valid = jnp.ones(video.shape[:2], bool)
        encoded = case.backbone.apply({'params': params['backbone']}, video, valid, train=False)
        return encoded.grid, case.head.apply({'params': params['head']}, encoded, {}, train=False)

    def start(video):
        valid = jnp.ones(video.shape[:2], bool)
        encoded, params = case.backbone.init_with_output(jax.random.key(0), video, valid, train=False)
        head = case.head.init(jax.random.key(0), encoded, {}, train=False)
        return {'backbone': params['params'], 'head': head['params']}

    params = random_params(jax.eval_shape(start, video))
    grid, logits = jax.jit(run)(params, video)
    return request.param, case, video, params, grid, logits


def export(case, out, with_head):
    kind, parts, _, params, _, _ = case
    head = fields_of(parts.head_kind, parts.head) if with_head else None
    return exporter.export(
        out, params, exporter.Model(fields_of(kind, parts.backbone), head, LABELS, MEAN, STD, parts.size, 4)
    )


def load(kind, out):
    """The model, which must have got every parameter from the file and used all of the file."""
    model, report = kind.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def channels_first(video):
    return torch.tensor(video).permute(0, 1, 4, 2, 3)  # [B, T, H, W, 3] -> [B, T, 3, H, W]


def test_a_classifier_gives_our_logits(case, tmp_path):
    kind, _, video, params, _, want = case
    done = export(case, tmp_path, True)
    assert done.with_head
    model = load(transformers.AutoModelForVideoClassification, tmp_path)
    assert type(model).__name__ == done.architecture
    assert model.config.id2label == dict(enumerate(LABELS))
    with torch.no_grad():
        got = model(channels_first(video)).logits
    np.testing.assert_allclose(got, want, atol=2e-5, rtol=0)
    if kind == 'videomae':
        # Some releases of transformers 5 leave these at zero and say nothing.
        attention = model.videomae.encoder.layer[1].attention.attention
        ours = params['backbone']['encoder']['blocks_00_01']['attn']
        for theirs, name in ((attention.query, 'query'), (attention.value, 'value')):
            np.testing.assert_array_equal(theirs.bias.detach(), ours[name]['bias'][1].reshape(-1))


def test_a_bare_backbone_gives_our_tokens(case, tmp_path):
    kind, _, video, _, want, _ = case
    assert not export(case, tmp_path, False).with_head
    model = load(transformers.AutoModel, tmp_path)
    options = {'skip_predictor': True} if kind == 'vjepa2' else {}
    with torch.no_grad():
        got = model(channels_first(video), **options).last_hidden_state
    got = got[:, 1:] if kind == 'vivit_joint' else got  # without the CLS token
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-4, rtol=0)


def test_the_tokens_behind_the_norm_of_pretraining(tmp_path):
    case = CASES['videomae']
    backbone = case.backbone.clone(final_norm=True)
    video = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 12, 16, 3)), jnp.float32)
    valid = jnp.ones((1, 4), bool)
    params = random_params(
        jax.eval_shape(lambda: backbone.init(jax.random.key(0), video, valid, train=False)['params'])
    )
    want = jax.jit(lambda params: backbone.apply({'params': params}, video, valid, train=False).grid)(params)
    model = exporter.Model(fields_of('videomae', backbone), None, None, MEAN, STD, case.size, 4)
    exporter.export(tmp_path, {'backbone': params}, model)
    with torch.no_grad():
        got = load(transformers.AutoModel, tmp_path)(channels_first(np.asarray(video))).last_hidden_state
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ('kind', 'processor'), [('videomae', 'VideoMAEImageProcessorPil'), ('vivit_joint', 'VivitImageProcessor')]
)
def test_processors_normalise_as_we_do(kind, processor, tmp_path):
    part = CASES[kind]
    video = jnp.zeros((1, 4, *part.size, 3))
    start = jax.eval_shape(
        lambda key: part.backbone.init(key, video, jnp.ones((1, 4), bool), train=False)['params'], jax.random.key(0)
    )
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), start)
    model = exporter.Model(fields_of(kind, part.backbone), None, None, MEAN, STD, part.size, 4)
    exporter.export(tmp_path, {'backbone': params}, model)
    frames = np.random.default_rng(2).integers(0, 256, (4, *part.size, 3)).astype(np.uint8)
    prepare = getattr(transformers, processor).from_pretrained(tmp_path)
    got = np.asarray(prepare(list(frames), return_tensors='np')['pixel_values'])
    np.testing.assert_allclose(got[0].transpose(0, 2, 3, 1), (frames - np.array(MEAN)) / np.array(STD), atol=1e-5)
