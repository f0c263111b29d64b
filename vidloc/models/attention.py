"""Multi-head attention, in a form whose memory grows with the number of tokens and not with its square."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vidloc.models import dense
from vidloc.models import lora as lora_lib

# Queries at most whose scores are alive at a time, and the length up to which all are: measured on CPUs, where 128
# rows of scores stay in the cache (a third faster than the whole map at 2,048 tokens).
CHUNK = 128
WHOLE = 512
KERNELS = ('xla', 'cudnn')
BIASES = {'full': (True, True, True), 'qv': (True, False, True), 'none': (False, False, False)}

Rope = tuple[Float[Any, 'N d'], Float[Any, 'N d']]


def attend(
    query: Float[Array, 'M N h d'],
    key: Float[Array, 'M K h d'],
    value: Float[Array, 'M K h d'],
    valid: Bool[Array, 'M K'] | None = None,
    *,
    kernel: str = 'xla',
) -> Float[Array, 'M N h d']:
    """softmax(query key^T / sqrt(d)) value, head by head (Vaswani et al. 2017, section 3.2.1); softmax in float32.

    valid: the keys that may be attended to; all of them if None. A sequence without any attends to all its keys.
    kernel: 'xla': products and a softmax, everywhere; more than WHOLE queries in chunks of at most CHUNK, whose scores
      the backward pass computes again. 'cudnn': NVIDIA's fused kernel on GPUs, checked with plain products elsewhere.
    Raises ValueError for any other kernel, and for arrays that NVIDIA's does not take (see `fused`).
    """
    if kernel not in KERNELS:
        raise ValueError(f'the attention kernel is {kernel!r}; it must be one of {", ".join(KERNELS)}')
    if valid is not None:
        valid = valid | ~jnp.any(valid, axis=-1, keepdims=True)
    return (_fused if kernel == 'cudnn' else _plain)(query, key, value, valid)


def _plain(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array | None) -> jax.Array:
    sequences, count, heads, width = query.shape
    query, key, value = (_by_head(x) for x in (query * width**-0.5, key, value))
    shown = None if valid is None else jnp.repeat(valid, heads, axis=0)[:, None]  # [M h, 1, K]

    def mix(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """[M h, n, d] -> [M h, n, d]"""
        key, value = key.astype(query.dtype), value.astype(query.dtype)
        scores = jnp.einsum('bqd,bkd->bqk', query, key, preferred_element_type=jnp.float32)
        scores = scores if shown is None else jnp.where(shown, scores, jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        # Divided behind the product, where there are d columns and not K: the backward pass keeps one map, not two.
        mixed = jnp.einsum('bqk,bkd->bqd', weights.astype(query.dtype), value, preferred_element_type=jnp.float32)
        return (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(query.dtype)

    if count <= WHOLE:
        mixed = mix(query, key, value)
    else:
        # The largest multiple of 8 that leaves the fewest rows of padding.
        rows = min(range(CHUNK, CHUNK // 2, -8), key=lambda rows: -count % rows)
        query = jnp.pad(query, ((0, 0), (0, -count % rows), (0, 0)))
        query = query.reshape(sequences * heads, -1, rows, width).transpose(1, 0, 2, 3)  # [chunks, M h, rows, d]
        # Gradients of keys and values are sums over the chunks: in float32, whatever the products are in.
        key, value = key.astype(jnp.float32), value.astype(jnp.float32)
        again = jax.checkpoint(mix, prevent_cse=False)
        _, mixed = jax.lax.scan(lambda carry, some: (carry, again(some, key, value)), None, query)
        mixed = mixed.transpose(1, 0, 2, 3).reshape(sequences * heads, -1, width)[:, :count]  # [M h, N, d]
    return mixed.reshape(sequences, heads, count, width).transpose(0, 2, 1, 3)  # [M, N, h, d]


def fused(width: int, heads: int, dtype: Any) -> bool:
    """Whether NVIDIA's kernel takes heads of this width: 16-bit floats, up to 120 channels, a multiple of 8.

    jax 0.10's limit is 128 channels before Hopper and 256 from there on; hidden keys need 8 more (`_fused`).
    """
    head = width // heads
    return jnp.dtype(dtype) in (jnp.float16, jnp.bfloat16) and head % 8 == 0 and head <= 120


def _fused(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array | None) -> jax.Array:
    width = query.shape[-1]
    if not fused(width, 1, query.dtype):
        raise ValueError(
            f'the fused attention kernel takes bfloat16 or float16 and heads of 8, 16, .. 120 channels, got '
            f'{query.dtype} and {width}; use the attention kernel xla'
        )
    if valid is not None:
        # A mask would be a whole map, which this kernel is there to avoid. One more channel does the same: a number in
        # every query whose product with that of a hidden key is very negative; 8 channels, as widths are multiples
        # of 8. Powers of two that float16 holds: nothing is rounded, nothing infinite.
        query, key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 8))) for x in (query, key, value))
        query = query.at[..., width].set(2.0**6)
        key = key.at[..., width].set(jnp.where(valid, 0.0, -(2.0**15))[..., None].astype(key.dtype))
    # There is no such kernel but on GPUs.
    implementation = 'cudnn' if jax.default_backend() == 'gpu' else 'xla'
    mixed = jax.nn.dot_product_attention(query, key, value, scale=width**-0.5, implementation=implementation)
    return mixed[..., :width]


def _by_head(x: jax.Array) -> jax.Array:
    """[M, N, h, d] -> [M h, N, d]: one batch axis makes plain matrix products, faster on CPUs."""
    return x.transpose(0, 2, 1, 3).reshape(-1, x.shape[1], x.shape[3])


def rotate(x: Float[Array, 'M N h d'], rope: Rope) -> Float[Array, 'M N h d']:
    """x times the cosines plus its neighbour in each pair of channels times the sines.

    rope: (cosines, sines) [N, d], per token and channel; (x0, x1) has the neighbours (-x1, x0). Channels with
    cosine 1 and sine 0 stay. Where the two channels of a pair share an angle this is a rotation (Su et al. 2021).
    Computed in float32.
    """
    cosine, sine = (jnp.asarray(table, jnp.float32)[:, None] for table in rope)  # [N, 1, d]
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    neighbour = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    return (x * cosine + neighbour * sine).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2).

    bias: of query, key and value: 'full', 'qv' (none for the key, as in VideoMAE) or 'none'; the output has one.
    qk_norm: RMS norms over the whole width of queries and keys, before they are split into heads (InternVideo2).
    kernel: see `attend`. lora: of those of its dense layers that it names.
    """

    width: int
    heads: int
    bias: str = 'full'
    qk_norm: bool = False
    eps: float = 1e-6
    kernel: str = 'xla'
    dtype: Any = jnp.float32
    lora: lora_lib.Lora | None = None

    def setup(self):
        if self.width % self.heads:
            raise ValueError(f'width {self.width} cannot be split into {self.heads} heads')
        if self.bias not in BIASES:
            raise ValueError(f'bias is {self.bias!r}; it must be one of {", ".join(BIASES)}')
        split = (self.heads, self.width // self.heads)
        with_bias = BIASES[self.bias]
        change = {name: self.lora and self.lora.dense(name) for name in ('query', 'key', 'value', 'out')}
        self.query = dense.Dense((self.width,), split, use_bias=with_bias[0], dtype=self.dtype, lora=change['query'])
        self.key = dense.Dense((self.width,), split, use_bias=with_bias[1], dtype=self.dtype, lora=change['key'])
        self.value = dense.Dense((self.width,), split, use_bias=with_bias[2], dtype=self.dtype, lora=change['value'])
        self.out = dense.Dense(split, (self.width,), dtype=self.dtype, lora=change['out'])
        if self.qk_norm:
            self.query_norm = nn.RMSNorm(epsilon=self.eps, dtype=self.dtype)
            self.key_norm = nn.RMSNorm(epsilon=self.eps, dtype=self.dtype)

    def __call__(
        self,
        x: Float[Array, 'M N D'],
        valid: Bool[Array, 'M N'] | None = None,
        rope: Rope | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, 'M N D']:
        """valid: tokens that may be attended to; all of them if None. rope: turns queries and keys, see `rotate`.

        train: for the dropout of the LoRA.
        """
        # Flat before the projections: one array for the backward pass to keep, not one for each of them.
        flat = x.reshape(-1, self.width)  # [M N, D]
        split = (*x.shape[:-1], self.heads, -1)
        projections = (self.query, self.key, self.value)
        query, key, value = (part(flat, train=train).reshape(split) for part in projections)  # [M, N, h, d]
        if self.qk_norm:
            query, key = (
                norm(part.reshape(x.shape)).reshape(part.shape)
                for norm, part in ((self.query_norm, query), (self.key_norm, key))
            )
        if rope is not None:
            query, key = rotate(query, rope), rotate(key, rope)
        mixed = attend(query, key, value, valid, kernel=self.kernel)
        return self.out(mixed, train=train)  # [M, N, h, d] -> [M, N, D]
