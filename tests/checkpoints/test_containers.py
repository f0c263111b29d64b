"""The model is found wherever a file keeps it, and a choice is never made in silence."""

import importlib.util
import pathlib

import pytest

from vidloc.checkpoints import containers
from vidloc.checkpoints.containers import FamilyError

_SPEC = importlib.util.spec_from_file_location('published', pathlib.Path(__file__).with_name('published.py'))
published = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
D, opened, prefixed = published.D, published.opened, published.prefixed

JEPA = published.vjepa2_encoder() | {'pos_embed': (1, 2048, D)}
OFFICIAL = {
    **prefixed('encoder/module.backbone.', JEPA),
    **prefixed('target_encoder/module.backbone.', JEPA),
    **prefixed('predictor/module.backbone.', {'predictor_blocks.0.norm1.weight': (D,), 'norm.weight': (D,)}),
}
VIDEOMAE, _ = published.videomae_original()


def test_a_container_can_be_chosen():
    names = OFFICIAL
    found = containers.find(opened(names), which='encoder')
    assert found.prefix == 'encoder/module.backbone.'
    assert set(found.names.values()) == {name for name in names if name.startswith('encoder/')}
    assert found.others == ('target_encoder/module.backbone.',)
    with pytest.raises(FamilyError, match=r"no model in 'predictor'; there are models in encoder, target_encoder"):
        containers.find(opened(names), which='predictor')


def test_a_damaged_first_choice_is_not_replaced_in_silence():
    names = dict(OFFICIAL)
    del names['target_encoder/module.backbone.patch_embed.proj.weight']
    with pytest.raises(FamilyError, match=r"target_encoder.*no patch_embed\.proj\.weight.*which='encoder"):
        containers.find(opened(names))


def test_two_models_of_equal_rank_are_a_question():
    names = prefixed('student/', VIDEOMAE) | prefixed('tutor/', VIDEOMAE)
    with pytest.raises(FamilyError, match='student, tutor'):
        containers.find(opened(names))
    nested = prefixed('net/a.', VIDEOMAE) | prefixed('net/b.', VIDEOMAE)
    with pytest.raises(FamilyError, match=r"net/a, net/b; .*which='net/a'"):
        containers.find(opened(nested))
    assert containers.find(opened(nested), which='net/b').prefix == 'net/b.'
    copies = prefixed('model/', VIDEOMAE) | prefixed('model_ema/', VIDEOMAE)
    assert containers.find(opened(copies)).prefix == 'model/'
    assert containers.find(opened(copies), which='model_ema').prefix == 'model_ema/'


def test_weights_of_something_else():
    with pytest.raises(FamilyError, match=r'of no family.*V-JEPA 2, .*InternVideo2.*begin with: layer1\.0'):
        containers.find(opened({'layer1.0.conv1.weight': (64, 64, 1, 1)}))
    with pytest.raises(FamilyError, match='no arrays'):
        containers.find(opened({}))
    moments = {f'optimizer/state/{name}': shape for name, shape in VIDEOMAE.items()}
    with pytest.raises(FamilyError, match='of no family'):
        containers.find(opened(moments))


def test_two_names_for_one_array():
    names = prefixed('encoder.', VIDEOMAE) | {'norm.weight': (D,), 'encoder.norm.weight': (D,)}
    with pytest.raises(FamilyError, match=r'are both norm\.weight'):
        containers.find(opened(names))
