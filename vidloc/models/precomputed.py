"""A backbone that has run already: batches hold its features, and there is nothing to compute or to train."""

import flax.linen as nn
import jax

from vidloc.models import features


class Precomputed(nn.Module):
    """Stands where a backbone stands, for sources of features (data/feature_windows.py).

    width: channels. layers: of the network the features are of, where they hold each layer's for an adapter beside it.
    tokens: time tokens of one of its clips.
    """

    width: int
    layers: int = 0
    tokens: int = 8

    def stacks(self) -> dict[str, int]:
        """{name of each stack: its number of layers}: there are none to run."""
        return {}

    def __call__(self, video: jax.Array, frame_valid: jax.Array, *, train: bool) -> features.Features:
        raise ValueError('the backbone "features" reads no video; give its task sources of features')
