"""InternVideo2 and its head once more, in float64 NumPy, from the public code's formulas; one clip at a time."""

import numpy as np


def rms(x, scale, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def layer_norm(x, p, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p['scale'] + p['bias']


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attend(query, key, value, hidden):
    """[N, h, d], [K, h, d], [K, h, d], keys that are hidden [K] -> [N, h, d]."""
    scores = np.einsum('nhd,khd->hnk', query, key) / np.sqrt(query.shape[-1])
    scores[:, :, hidden] = -np.inf
    return np.einsum('hnk,khd->nhd', softmax(scores), value)


def project(x, p):
    return np.einsum('nd,dhe->nhe', x, p['kernel']) + p.get('bias', 0)


def block(x, p, hidden, gelu):
    normed = rms(x, p['ln1']['scale'])
    query, key, value = (project(normed, p['attn'][part]) for part in ('query', 'key', 'value'))
    shape = query.shape
    query = rms(query.reshape(x.shape), p['attn']['query_norm']['scale']).reshape(shape)
    key = rms(key.reshape(x.shape), p['attn']['key_norm']['scale']).reshape(shape)
    mixed = attend(query, key, value, hidden)
    x = x + p['gamma1'] * (np.einsum('nhd,hde->ne', mixed, p['attn']['out']['kernel']) + p['attn']['out']['bias'])
    fc1, fc2 = p['mlp']['fc1'], p['mlp']['fc2']
    inner = gelu(rms(x, p['ln2']['scale']) @ fc1['kernel'] + fc1['bias'])
    return x + p['gamma2'] * (inner @ fc2['kernel'] + fc2['bias'])


def resized(table, new):
    """[t, h, w, D] to another grid, place by place: linear, corners on corners, the middle for an axis of one."""

    def around(place, size, count):
        x = place * (size - 1) / (count - 1) if count > 1 else (size - 1) / 2
        low = min(int(x), size - 1)
        return (low, 1 - (x - low)), (min(low + 1, size - 1), x - low)

    out = np.zeros((*new, table.shape[-1]))
    for place in np.ndindex(*new):
        sides = [around(*of_axis) for of_axis in zip(place, table.shape[:3], new, strict=True)]
        for i, a in sides[0]:
            for j, b in sides[1]:
                for k, c in sides[2]:
                    out[place] += a * b * c * table[i, j, k]
    return out


def tower(video, p, learned, valid=None, gelu=tanh_gelu):
    """video [T, H, W, 3] -> (tokens behind each layer [1 + t h w, D], grid (t, h, w)); the CLS token is the first.

    learned: the grid that has positions. valid: [T], False for frames to whose tokens nothing attends.
    """
    kernel = p['embedding']['kernel'][0]  # tubelets of one frame
    rows, columns = kernel.shape[:2]
    t, h, w = len(video), video.shape[1] // rows, video.shape[2] // columns
    patches = video.reshape(t, h, rows, w, columns, 3)
    x = np.einsum('thrwcx,rcxd->thwd', patches, kernel) + p['embedding']['bias']
    position = p['encoder']['position'][0]
    x = x + resized(position[1:].reshape(*learned, -1), (t, h, w))
    x = np.concatenate([p['encoder']['cls'][0] + position[:1], x.reshape(t * h * w, -1)])
    valid = np.ones(t, bool) if valid is None else valid
    hidden = np.concatenate([[False], np.repeat(~valid, h * w)])
    within = []
    for name in sorted(name for name in p['encoder'] if name.startswith('block_')):
        x = block(x, p['encoder'][name], hidden, gelu)
        within.append(x)
    return within, (t, h, w)


def head(tokens, p, hidden=None):
    """tokens [N, D] -> logits [C]; hidden [N]: tokens that count for nothing."""
    hidden = np.zeros(len(tokens), bool) if hidden is None else hidden
    pool = p['pool']
    query = project(layer_norm(tokens[~hidden].mean(0, keepdims=True), pool['ln_query']), pool['query'])
    key = project(layer_norm(tokens, pool['ln_key']), pool['key'])
    value = project(layer_norm(tokens, pool['ln_value']), pool['value'])
    mixed = attend(query, key, value, hidden)[0]
    projected = np.einsum('hd,hde->e', mixed, pool['out']['kernel']) + pool['out']['bias']
    return layer_norm(projected, p['norm']) @ p['output']['kernel'] + p['output']['bias']
