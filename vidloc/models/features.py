"""Features: what every backbone returns and every head takes.

Axis letters: B batch, T frames, t tokens in time, h w token grid, D width, N boxes, C classes, L layers.
"""

import flax
import jax


@flax.struct.dataclass
class Features:
    """Encoded video.

    grid: [B, t, h, w, D] tokens in their places, never with a CLS token.
    valid: [B, t] bool, False where a token stems from padding frames only.
    pooled: [B, D], the backbone's own summary if it has one (CLS or classic pooling), else None.
    taps: outputs of the layers that were asked for, in their order.
    tapped: what a tap made of its layers (models/tap.py), [K, B, ...].
    """

    grid: jax.Array
    valid: jax.Array
    pooled: jax.Array | None = None
    taps: tuple[jax.Array, ...] = ()
    tapped: jax.Array | None = None
