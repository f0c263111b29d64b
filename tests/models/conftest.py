"""Gradients against an independent forward, which several families share, and the families at toy size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidloc.models import internvideo2, videomae, vivit, vivit_joint, vjepa2

SIZE = {'width': 16, 'mlp': 24, 'heads': 2, 'patch': (4, 4), 'tubelet': 2}
GRID = {'grid': (2, 2, 2)}


@pytest.fixture(scope='session')
def families():
    """{family: a backbone of it, of few layers}, for videos of 4 frames of 8 x 8 pixels."""
    return {
        'vivit': vivit.ViViT(**SIZE, **GRID, spatial_layers=2, temporal_layers=2),
        'vivit on rois': vivit.ViViT(**SIZE, **GRID, spatial_layers=2, temporal_layers=1, cls=True, temporal_on='rois'),
        'vivit_joint': vivit_joint.JointViViT(**SIZE, **GRID, layers=3),
        'videomae': videomae.VideoMAE(**SIZE, **GRID, layers=3, layer_scale=0.5, final_norm=True),
        'vjepa2': vjepa2.VJepa2(**SIZE, layers=3),
        'internvideo2': internvideo2.InternVideo2(**SIZE, **GRID, layers=3, layer_scale=0.5),
    }


@pytest.fixture(scope='session')
def clips():
    """Two videos for them, and which frames are real: the second video ends in padding."""
    video = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))
    return video, jnp.array([[True] * 4, [True, True, False, False]])


@pytest.fixture(scope='session')
def check_slopes():
    """(function, start, gradient, nothing): of every leaf of `start` (float64), the slope of `function` against the
    gradient: along the gradient itself, where all of it counts, plus a random way; 1e-3 of its length.

    nothing: name endings of leaves on which the function does not depend.
    """

    def check(function, start, gradient, nothing=()):
        rng = np.random.default_rng(1)
        places, treedef = jax.tree_util.tree_flatten_with_path(start)
        for index, ((path, value), leaf) in enumerate(zip(places, jax.tree.leaves(gradient), strict=True)):
            leaf = np.asarray(leaf, np.float64)
            length = np.linalg.norm(leaf)
            way = leaf / max(length, 1e-9) + rng.normal(size=value.shape) / np.sqrt(value.size)
            ends = []
            for sign in (1, -1):
                leaves = [each for _, each in places]
                leaves[index] = value + sign * 1e-4 * way
                ends.append(function(jax.tree.unflatten(treedef, leaves)))
            slope = (ends[0] - ends[1]) / 2e-4
            name = jax.tree_util.keystr(path)
            if name.endswith(nothing):
                assert length < 1e-5 and abs(slope) < 1e-6, name
            else:
                assert length > 1e-5 and abs(slope - np.sum(leaf * way)) < 1e-3 * length, name

    return check
