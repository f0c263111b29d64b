"""The encoders of ViViT once more, in float64 NumPy, written from the papers and with plain loops over the layers."""

import numpy as np


def norm(x, p, eps=1e-6):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps) * p['scale'] + p['bias']


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(x, p):
    """x [N, D], one sequence."""
    heads = p['query']['kernel'].shape[1]
    mixed = []
    for h in range(heads):
        q, k, v = (x @ p[n]['kernel'][:, h] + p[n]['bias'][h] for n in ('query', 'key', 'value'))
        logits = q @ k.T / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
    return sum(m @ p['out']['kernel'][h] for h, m in enumerate(mixed)) + p['out']['bias']


def stretch(table, old, new):
    """table [tokens, D] over a grid of any number of axes: linear along each, the first and last places kept."""
    table = table.reshape(*old, -1)
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        places = np.linspace(0, n - 1, m) if m > 1 else np.array([(n - 1) / 2])
        table = np.apply_along_axis(lambda values: np.interp(places, np.arange(len(values)), values), axis, table)  # noqa: B023
    return table.reshape(-1, table.shape[-1])


def encoder(x, p, learned, grid):
    """x [N, D] over `grid` -> (tokens [N, D], CLS [D] or None, tokens behind each layer).

    learned: the grid that has positions.
    """
    cls = 'cls' in p
    position = np.concatenate([p['position'][0, : int(cls)], stretch(p['position'][0, int(cls) :], learned, grid)])
    x = (np.concatenate([p['cls'][0], x]) if cls else x) + position
    within = []
    for name in sorted(name for name in p if name.startswith('block_')):
        block = p[name]
        x = x + attention(norm(x, block['ln1']), block['attn'])
        hidden = gelu(norm(x, block['ln2']) @ block['mlp']['fc1']['kernel'] + block['mlp']['fc1']['bias'])
        x = x + hidden @ block['mlp']['fc2']['kernel'] + block['mlp']['fc2']['bias']
        within.append(x[int(cls) :])
    x = norm(x, p['norm'])
    return (x[1:], x[0], within) if cls else (x, None, within)


def embed(video, p):
    """video [T, H, W, 3] -> [t, h, w, D]; fewer frames than a tubelet has are filled up with the last one."""
    kernel = p['kernel']
    tubelet, height, width = kernel.shape[:3]
    video = np.concatenate([video, *[video[-1:]] * max(0, tubelet - len(video))])
    t, h, w = video.shape[0] // tubelet, video.shape[1] // height, video.shape[2] // width
    x = np.zeros((t, h, w, kernel.shape[-1]))
    for i, j, k in np.ndindex(t, h, w):
        cut = video[i * tubelet : (i + 1) * tubelet, j * height : (j + 1) * height, k * width : (k + 1) * width]
        x[i, j, k] = np.einsum('thwc,thwcd->d', cut, kernel) + p['bias']
    return x


def forward(video, p, temporal_on, learned):
    """The factorised encoder: video [T, H, W, 3] -> (grid [t, h, w, D], pooled [D] or None, every layer's tokens).

    p: canonical, float64. learned: the grid (t, h, w) that has positions.
    """
    x = embed(video, p['embedding'])
    t, h, w, width = x.shape
    slices = [encoder(x[i].reshape(h * w, -1), p['spatial'], learned[1:], (h, w)) for i in range(t)]
    tokens = np.stack([tokens for tokens, _, _ in slices])  # [t, h w, D]
    within = [np.stack(layer).reshape(t, h, w, width) for layer in zip(*[layer for _, _, layer in slices], strict=True)]
    if temporal_on == 'tokens':
        places = [encoder(tokens[:, i], p['temporal'], learned[:1], (t,)) for i in range(h * w)]
        late = zip(*[layer for _, _, layer in places], strict=True)
        within += [np.stack(layer, axis=1).reshape(t, h, w, width) for layer in late]
        return np.stack([tokens for tokens, _, _ in places], axis=1).reshape(t, h, w, width), None, within
    summary = np.stack([tokens.mean(0) if cls is None else cls for tokens, cls, _ in slices])  # [t, D]
    tokens_in_time, cls, _ = encoder(summary, p['temporal'], learned[:1], (t,))
    return tokens.reshape(t, h, w, width), tokens_in_time.mean(0) if cls is None else cls, within


def forward_jointly(video, p, learned):
    """Model 1: video [T, H, W, 3] -> (grid [t, h, w, D], CLS [D], every layer's tokens)."""
    x = embed(video, p['embedding'])
    tokens, cls, within = encoder(x.reshape(-1, x.shape[-1]), p['encoder'], learned, x.shape[:3])
    return tokens.reshape(x.shape), cls, [layer.reshape(x.shape) for layer in within]
