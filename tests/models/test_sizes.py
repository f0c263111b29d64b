"""Published sizes: the modules have the numbers of parameters that their authors and users count."""

import math

import pytest

from vidloc.checkpoints import native
from vidloc.models import sizes

ATTENTIVE = {'kind': 'attentive', 'layers': 3}
LINEAR = {'kind': 'linear'}
# Counted in the models of transformers and Scenic: the encoder, or with the head the whole classifier.
COUNTED = [
    ('vjepa2', 'L', None, 303_885_312),
    ('vjepa2', 'H', None, 631_648_000),
    ('vjepa2', 'g', None, 1_012_173_952),
    ('vjepa2', 'L', ATTENTIVE | {'heads': 16, 'classes': 174}, 303_885_312 + 49_336_320 + 1025 * 174),
    ('vjepa2', 'H', ATTENTIVE | {'heads': 16, 'classes': 174}, 631_648_000 + 77_071_360 + 1281 * 174),
    ('vjepa2', 'g', ATTENTIVE | {'heads': 22, 'classes': 174}, 1_012_173_952 + 93_249_024 + 1409 * 174),
    ('videomae', 'B', LINEAR | {'norm': True, 'classes': 400}, 86_534_800),
    ('videomae', 'g', LINEAR | {'norm': True, 'classes': 710}, 1_012_611_142),
    ('vivit_joint', 'B', LINEAR | {'classes': 400}, 88_954_000),
    ('vivit', 'B', LINEAR | {'classes': 400}, 115_062_928),
]


def parameters(kind, size, head=None):
    modules = native.make_modules({'kind': kind, **sizes.SIZES[kind][size]}, head, {})
    shapes = native.canonical_shapes(native.abstract_params(modules))
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize(('kind', 'size', 'head', 'count'), COUNTED)
def test_counts_of_published_models(kind, size, head, count):
    assert parameters(kind, size, head) == count


def stack(layers, width, mlp, *, biases=3, norm=2, extra=0):
    """Blocks: four matrices of attention and two of the MLP with their biases, two norms of `norm` vectors each."""
    attention = 4 * width**2 + (biases + 1) * width
    return layers * (attention + 2 * width * mlp + mlp + width + (2 * norm + extra) * width)


def embedding(width, tubelet, patch):
    return (3 * tubelet * patch**2 + 1) * width


def newer_jepa(layers, width, mlp):
    """Embeddings of videos and images, a vector for each of the two, and four norms."""
    ends = embedding(width, 2, 16) + embedding(width, 1, 16) + 2 * width + 4 * 2 * width
    return stack(layers, width, mlp) + ends


def videomae(layers, width, patch=16):
    return stack(layers, width, 4 * width, biases=2) + embedding(width, 2, patch)


def encoder(layers, width, tokens):
    """CLS token, positions of that and of the tokens, norm."""
    return stack(layers, width, 4 * width) + width + (1 + tokens) * width + 2 * width


def internvideo2(layers, width, mlp):
    """RMS norms of the blocks and of queries and keys, two vectors of LayerScale; no norm behind the blocks."""
    blocks = stack(layers, width, mlp, biases=0, norm=1, extra=4)
    return blocks + embedding(width, 1, 14) + width + (1 + 8 * 16 * 16) * width


@pytest.mark.parametrize(
    ('kind', 'size', 'count'),
    [
        ('vjepa2', 'B-2.1', newer_jepa(12, 768, 4 * 768)),
        ('vjepa2', 'L-2.1', newer_jepa(24, 1024, 4 * 1024)),
        ('vjepa2', 'g-2.1', newer_jepa(40, 1408, 1408 * 48 // 11)),
        ('vjepa2', 'G-2.1', newer_jepa(48, 1664, 1664 * 64 // 13)),
        ('videomae', 'S', videomae(12, 384)),
        ('videomae', 'L', videomae(24, 1024)),
        ('videomae', 'H', videomae(32, 1280)),
        ('vivit', 'L-4', encoder(24, 1024, 196) + encoder(4, 1024, 16) + embedding(1024, 2, 16)),
        ('vivit', 'L-24', encoder(24, 1024, 196) + encoder(24, 1024, 16) + embedding(1024, 2, 16)),
        ('vivit_joint', 'L', encoder(24, 1024, 16 * 196) + embedding(1024, 2, 16)),
        ('internvideo2', 'S', internvideo2(12, 384, 4 * 384)),
        ('internvideo2', 'B', internvideo2(12, 768, 4 * 768)),
        ('internvideo2', 'L', internvideo2(24, 1024, 4 * 1024)),
        ('internvideo2', '1B', internvideo2(40, 1408, 1408 * 48 // 11)),
        ('internvideo2', '6B', internvideo2(48, 3200, 4 * 3200)),
    ],
)
def test_counts_of_the_other_sizes(kind, size, count):
    assert parameters(kind, size) == count


def test_every_size_is_counted():
    counted = {(kind, size) for kind, size, *_ in COUNTED}
    (mark,) = test_counts_of_the_other_sizes.pytestmark
    counted |= {(kind, size) for kind, size, _ in mark.args[1]}
    assert counted == {(kind, size) for kind, named in sizes.SIZES.items() for size in named}


def test_heads_are_found_by_width_and_depth():
    assert sizes.heads_of('vjepa2', 1408, 40) == 22
    assert sizes.heads_of('videomae', 1408, 40) == 16
    assert sizes.heads_of('vivit', 1024, 24) == 16
    assert sizes.heads_of('vjepa2', 1664) == 26
    assert sizes.heads_of('vjepa2', 1408, 39) is None
    assert sizes.heads_of('videomae', 24) is None
