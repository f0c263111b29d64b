"""The encoder over a grid of tokens, with all its options off; the backbones' tests run it with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vidloc.models import embedding, encoder, layers


class Clip(nn.Module):
    """One encoder over the tokens of a clip, without CLS and norm."""

    taps: tuple[int, ...]

    def setup(self):
        self.embedding = embedding.TubeletEmbedding(6, 2, (2, 2), nn.initializers.normal(0.3))
        self.encoder = encoder.Encoder(
            block=layers.Block(width=6, hidden=8, heads=2, parent=None),
            layers=2,
            grid=(2, 1, 3),
            with_cls=False,
            position_init=nn.initializers.normal(1.0),
            with_norm=False,
        )

    def __call__(self, video, frame_valid):
        return encoder.encode_jointly(self.embedding, self.encoder, video, frame_valid, train=False, taps=self.taps)


def test_without_cls_and_norm_there_is_no_summary_and_the_result_is_the_last_tap():
    video = jax.random.normal(jax.random.key(1), (2, 4, 2, 6, 3))
    valid = jnp.array([[True] * 4, [True, True, False, False]])
    encoded, start = jax.jit(Clip((1, 0, 1)).init_with_output)(jax.random.key(0), video, valid)
    assert set(start['params']['encoder']) == {'position', 'blocks_00_01'}
    assert start['params']['encoder']['position'].shape == (1, 6, 6)
    assert encoded.pooled is None and encoded.grid.shape == (2, 2, 1, 3, 6)
    np.testing.assert_array_equal(encoded.valid, [[True, True], [True, False]])
    first, middle, last = encoded.taps
    np.testing.assert_array_equal(first, encoded.grid)
    np.testing.assert_array_equal(last, encoded.grid)
    assert middle.shape == last.shape and np.abs(middle - last).max() > 1e-2


@pytest.mark.parametrize('taps', [(2,), (0, -1)])
def test_taps_must_be_layers(taps):
    with pytest.raises(ValueError, match=rf'taps \[{taps[-1]}\]: the layers are 0 to 1'):
        jax.eval_shape(Clip(taps).init, jax.random.key(0), jnp.zeros((1, 4, 2, 6, 3)), jnp.ones((1, 4), bool))
