"""The factorised encoder once more, in float64 NumPy, written from the papers and with plain loops over the layers."""

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


def encoder(x, p):
    """x [N, D] -> (tokens [N, D], CLS [D] or None)."""
    if 'cls' in p:
        x = np.concatenate([p['cls'][0], x])
    x = x + p['position'][0]
    for name in sorted(name for name in p if name.startswith('block_')):
        block = p[name]
        x = x + attention(norm(x, block['ln1']), block['attn'])
        hidden = gelu(norm(x, block['ln2']) @ block['mlp']['fc1']['kernel'] + block['mlp']['fc1']['bias'])
        x = x + hidden @ block['mlp']['fc2']['kernel'] + block['mlp']['fc2']['bias']
    x = norm(x, p['norm'])
    return (x[1:], x[0]) if 'cls' in p else (x, None)


def forward(video, p, temporal_on):
    """video [T, H, W, 3] -> (grid [t, h, w, D], pooled [D] or None). p: canonical, float64."""
    kernel = p['embedding']['kernel']
    tubelet, height, width = kernel.shape[:3]
    t, h, w = video.shape[0] // tubelet, video.shape[1] // height, video.shape[2] // width
    x = np.zeros((t, h, w, kernel.shape[-1]))
    for i, j, k in np.ndindex(t, h, w):
        cut = video[i * tubelet : (i + 1) * tubelet, j * height : (j + 1) * height, k * width : (k + 1) * width]
        x[i, j, k] = np.einsum('thwc,thwcd->d', cut, kernel) + p['embedding']['bias']
    slices = [encoder(x[i].reshape(h * w, -1), p['spatial']) for i in range(t)]
    tokens = np.stack([tokens for tokens, _ in slices])  # [t, h w, D]
    if temporal_on == 'tokens':
        places = [encoder(tokens[:, i], p['temporal'])[0] for i in range(h * w)]
        return np.stack(places, axis=1).reshape(t, h, w, -1), None
    summary = np.stack([tokens.mean(0) if cls is None else cls for tokens, cls in slices])  # [t, D]
    tokens_in_time, cls = encoder(summary, p['temporal'])
    return tokens.reshape(t, h, w, -1), tokens_in_time.mean(0) if cls is None else cls
