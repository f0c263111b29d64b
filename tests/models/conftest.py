"""Gradients against an independent forward, which several families share."""

import jax
import numpy as np
import pytest


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
