"""LoSA in float64, example by example, layer by layer, clip by clip, from the list of choices in docs/losa.md."""

import functools
import math

import numpy as np

_erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * params['scale'] + params['bias']


def linear(x, params):
    return x @ params['kernel'].reshape(x.shape[-1], -1) + params['bias'].reshape(-1)


def reduce_map(x, params):
    """[t, h, w, D] -> [t, d]; with no depthwise convolution among the parameters a mean vector [t, D] -> [t, d]."""
    y = linear(norm(x, params['norm']), params['conv'])
    if 'depthwise' not in params:
        return gelu(y)
    kernel, (h, w) = params['depthwise']['kernel'], y.shape[1:3]
    mixed = np.zeros_like(y)
    for row in range(h):
        for column in range(w):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if 0 <= row + i < h and 0 <= column + j < w:
                        mixed[:, row, column] += y[:, row + i, column + j] * kernel[i + 1, j + 1]
    return gelu(mixed + params['depthwise']['bias']).mean((1, 2))


def sinusoid(places, width):
    table = np.zeros((len(places), width))
    for k in range(width // 2):
        frequency = 10000.0 ** (-k / (width // 2))
        table[:, k], table[:, width // 2 + k] = np.sin(places * frequency), np.cos(places * frequency)
    return table


def cross_attention(x, source, shown, params, heads, tables=(0.0, 0.0)):
    """x [N, d] asks source [K, d] where shown [K]; everything if nothing is shown."""
    x, source = norm(x, params['query_norm']), norm(source, params['source_norm'])
    query, key = linear(x + tables[0], params['query']), linear(source + tables[1], params['key'])
    value, each = linear(source, params['value']), x.shape[-1] // heads
    shown = shown if shown.any() else np.ones_like(shown)
    mixed = np.zeros_like(x)
    for head in range(heads):
        some = slice(head * each, (head + 1) * each)
        scores = query[:, some] @ key[:, some].T / math.sqrt(each)
        scores[:, ~shown] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        mixed[:, some] = weights / weights.sum(1, keepdims=True) @ value[:, some]
    return mixed @ params['out']['kernel'].reshape(x.shape[-1], -1) + params['out']['bias']


def forward(model, params, maps, last, valid):
    """The fused features [B, T, D].

    params: one entry a layer (layers.to_canonical), float64. maps: for every tapped layer its maps [B, clips, t, h, w,
    D], after one another as in tapped(). last [B, T, D], valid [B, T].
    """
    stages = model.stages or ((model.depth, model.width, model.tokens),)
    own = model.conv == 'own' and model.short and model.long
    scopes, ends = [], np.cumsum([count for count, _, _ in stages])
    for layer in model.tapped():
        number = int(np.searchsorted(ends, layer, side='right'))
        scope = f'stage_{number}_' if model.stages else ''
        scopes.append((scope, sum(place == scope for place, _ in scopes)))

    @functools.cache
    def vectors(k, example, name):
        scope, place = scopes[k]
        block = params[f'{scope}{name}'][f'block_{place:02d}']
        own_maps = maps[k][example]
        if model.spatial == 'pool':
            own_maps = own_maps.mean((2, 3))
        return [reduce_map(clip, block) for clip in own_maps]  # one array [t, d] a clip

    outputs = []
    for example in range(len(last)):
        source_clips = vectors(len(maps) - 1, example, 'reduce')
        source, shown = np.concatenate(source_clips), valid[example]
        base = last[example] if model.up == 'layer' else source
        sums = {'short': np.zeros_like(base), 'long': np.zeros_like(base)}
        for k in range(len(maps) - 1):
            scope, place = scopes[k]
            layer = params[f'{scope}adapters'][f'block_{place:02d}']
            for kind in ('short', 'long'):
                if not getattr(model, kind):
                    continue
                clips = vectors(k, example, 'reduce_long' if own and kind == 'long' else 'reduce')
                count, tokens = len(clips), len(clips[0])
                places = (np.arange(count * tokens) + 0.5) * len(source) / (count * tokens) - 0.5
                tables = [0.0, 0.0]
                if model.positions == 'sincos':
                    tables = [sinusoid(p, model.adapter_width) for p in (places, np.arange(len(source)))]
                adapted = []
                for c, clip in enumerate(clips):
                    mine = slice(c * tokens, (c + 1) * tokens)
                    theirs = slice(None)
                    if kind == 'short' and model.short_keys == 'clip':
                        theirs = slice(c * model.tokens, (c + 1) * model.tokens)
                    own_tables = [
                        table if np.isscalar(table) else table[some]
                        for table, some in zip(tables, (mine, theirs), strict=True)
                    ]
                    attention = layer[kind]['attention']
                    y = cross_attention(clip, source[theirs], shown[theirs], attention, model.heads, own_tables)
                    if tokens != model.tokens:
                        time = layer[kind]['time']
                        y = time['kernel'].T @ y + time['bias'][:, None]  # [t, d] -> [tokens, d]
                    adapted.append(y)
                y = np.concatenate(adapted)
                y = linear(y, layer['up']) if model.up == 'layer' else y
                if model.gating in ('zero', 'one', 'random'):
                    y = y * layer[kind]['gate']
                elif model.gating == 'cosine':
                    there = [shown[c * model.tokens + j * model.tokens // tokens]
                             for c in range(count) for j in range(tokens)]  # fmt: skip
                    a, b = np.concatenate(clips)[there].mean(0), source[shown].mean(0)
                    y = y * (a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
                sums[kind] = sums[kind] + y
        if model.fusion == 'add':
            outputs.append(base + sums['short'] + sums['long'])
        else:
            both = np.concatenate([sums['short'] + base, sums['long'] + base], axis=-1)
            outputs.append(linear(both, params['projection']))
    return np.stack(outputs)
