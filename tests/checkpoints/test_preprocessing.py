"""What the files beside weights say about the input, and what they cannot say."""

import numpy as np
import pytest

from vidloc.checkpoints import preprocessing
from vidloc.checkpoints.containers import FamilyError

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}
COLOURS = {'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ('preprocessor', 'mean', 'std'),
    [
        (COLOURS, *IMAGENET),
        (COLOURS | {'do_normalize': None, 'rescale_factor': None, 'crop_size': None}, *IMAGENET),
        ({**HALF, 'rescale_factor': 1 / 255}, (127.5,) * 3, (127.5,) * 3),
        ({'do_normalize': False}, (0.0,) * 3, (255.0,) * 3),
        ({**HALF, 'do_rescale': False}, (0.5,) * 3, (0.5,) * 3),
        ({'do_normalize': False, 'rescale_factor': 1 / 127.5, 'offset': True}, (127.5,) * 3, (127.5,) * 3),
        # Normalised twice by ViViT's processor; the weights were trained with [-1, 1].
        ({**HALF, 'rescale_factor': 1 / 127.5, 'offset': True}, (127.5,) * 3, (127.5,) * 3),
        ({**HALF, 'image_processor_type': 'VivitImageProcessor'}, (127.5,) * 3, (127.5,) * 3),
    ],
)
def test_colours_from_the_preprocessor(preprocessor, mean, std):
    prepared, _ = preprocessing.read(preprocessing.FAMILIES['vjepa2'], None, preprocessor, 'toy')
    np.testing.assert_allclose(prepared.mean, mean, atol=1e-9)
    np.testing.assert_allclose(prepared.std, std, atol=1e-9)


def part_from(prepared, place):
    """The fields that are said to be from there."""
    parts = dict(reversed(part.split(': ')) for part in prepared.source.split('; '))
    return parts[place].split(', ')


def test_colours_that_nothing_is_said_of_are_those_of_the_family():
    prepared, notes = preprocessing.read(preprocessing.FAMILIES['vivit'], None, {'size': 32}, 'toy')
    assert (prepared.mean, prepared.std, prepared.size) == ((127.5,) * 3, (127.5,) * 3, (32, 32))
    assert any('those of the family' in note for note in notes)
    assert {'mean', 'std'} <= set(part_from(prepared, 'family default'))


@pytest.mark.parametrize(
    ('size', 'want'),
    [
        ({'crop_size': {'height': 16, 'width': 20}, 'size': {'shortest_edge': 32}}, (16, 20)),
        ({'crop_size': 24}, (24, 24)),
        ({'do_center_crop': False, 'crop_size': 24, 'size': {'shortest_edge': 32}}, (32, 32)),
        ({'size': [8, 12]}, (8, 12)),
        ({}, (16, 16)),
    ],
)
def test_the_size_of_the_input(size, want):
    beside = {'crop_size': 16, 'frames_per_clip': 6}
    prepared, _ = preprocessing.read(preprocessing.FAMILIES['vjepa2'], beside, COLOURS | size, 'toy')
    assert (prepared.size, prepared.frames, prepared.stride) == (want, 6, 4)
    place = 'preprocessor_config.json' if size else 'config.json'
    assert ('size' in part_from(prepared, place)) and 'mean' in part_from(prepared, 'preprocessor_config.json')
    assert part_from(prepared, 'family default') == ['stride']


def test_what_the_preprocessor_cannot_say():
    for wrong in (
        COLOURS | {'image_std': [0, 1, 1]},
        COLOURS | {'image_mean': 'imagenet'},
        {**COLOURS, 'rescale_factor': 0},
        {**COLOURS, 'crop_size': {'height': 'tall'}},
        {'image_mean': [0.5] * 3},
    ):
        with pytest.raises(FamilyError, match=r'image_|rescale_factor|size'):
            preprocessing.read(preprocessing.FAMILIES['vjepa2'], None, wrong, 'toy')


def test_what_a_user_gives_wins():
    given = {'size': (64, 96), 'frames': 8, 'stride': 1, 'mean': (1, 2, 3), 'std': 10}
    base = preprocessing.FAMILIES['vjepa2']
    source = 'size, frames, stride, mean, std: as given; else family default'
    want = preprocessing.Preprocessing((1.0, 2.0, 3.0), (10.0,) * 3, (64, 96), 8, 1, source)
    assert preprocessing.overridden(base, given) == want
    assert preprocessing.overridden(base, {}) == base
    for wrong in ({'frames': 0}, {'frames': 1.5}, {'stride': True}, {'mean': (1, 2)}, {'size': '64x96'}):
        with pytest.raises(FamilyError, match=r'overrides: (frames|stride|mean|size) is'):
            preprocessing.overridden(base, wrong)
