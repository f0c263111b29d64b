"""python -m vidloc.benchmarks.linen_peer: ViViT-B from flax.linen's stock layers, to run beside ours (backbones.py).

Built in the way of google-research/scenic, projects/vivit: nn.MultiHeadDotProductAttention, layers written out one
by one, vmap over time, nothing computed again. It stands in for Scenic, which no package index has, and serves
nothing else. Prints a line when ready, then, for every line it is given, runs that mode once and prints
{"seconds": ..., "cpu_s": ...}.
"""

import json
import sys
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vidloc.benchmarks import suite

CLASSES = 400


class Encoder(nn.Module):
    """Tokens [N, D] -> their CLS token [D]."""

    layers: int
    heads: int = 12
    hidden: int = 3072

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = jnp.concatenate([self.param('cls', nn.initializers.zeros, (1, width)), x])
        x = x + self.param('position', nn.initializers.normal(0.02), x.shape)
        for _ in range(self.layers):
            normed = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads)(normed, normed)
            x = x + nn.Dense(width)(nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x))))
        return nn.LayerNorm()(x)[0]


class ViViT(nn.Module):
    """Video [B, T, H, W, 3] -> logits [B, C]."""

    @nn.compact
    def __call__(self, video: jax.Array) -> jax.Array:
        x = nn.Conv(768, (2, 16, 16), (2, 16, 16), padding='VALID')(video)
        x = x.reshape(*x.shape[:2], -1, x.shape[-1])  # [B, t, h w, D]
        shared = {'variable_axes': {'params': None}, 'split_rngs': {'params': False}}
        over_time = nn.vmap(nn.vmap(Encoder, **shared), **shared)(12)
        over_batch = nn.vmap(Encoder, **shared)(4)
        return nn.Dense(CLASSES)(over_batch(over_time(x)))


def main() -> None:
    model, video = ViViT(), jax.random.normal(jax.random.key(0), (1, 32, 224, 224, 3))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3, momentum=0.9))
    params = jax.jit(model.init)(jax.random.key(0), video)

    def step(state: Any, video: jax.Array) -> Any:
        params, moments = state

        def loss(params: Any) -> jax.Array:
            logits = model.apply(params, video)
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.zeros(len(logits), int)).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return optax.apply_updates(params, updates), moments

    forward, train = jax.jit(model.apply), jax.jit(step, donate_argnums=0)
    state = (jax.tree.map(jnp.copy, params), optimizer.init(params))
    print(json.dumps({'flax': flax.__version__}), flush=True)
    for line in sys.stdin:

        def work(mode: str = line.strip()) -> None:
            nonlocal state
            if mode == 'forward':
                jax.block_until_ready(forward(params, video))
            else:
                state = jax.block_until_ready(train(state, video))

        print(json.dumps(suite.timed(work)), flush=True)


if __name__ == '__main__':
    main()
