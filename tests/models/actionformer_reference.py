"""ActionFormer in float64 NumPy from its definition, and the names of its public weights, for its tests."""

import math
import re

import numpy as np

_ERF = np.vectorize(math.erf)
_RENAMED = (
    (r'^backbone\.embd\.(\d+)\.conv\.', r'embed.conv_\1.'),
    (r'^backbone\.embd_norm\.(\d+)\.', r'embed.norm_\1.'),
    (r'^backbone\.(stem|branch)\.(\d+)\.', r'\1_\2.'),
    (r'_conv\.conv\.', '_conv.'),
    (r'\.attn\.proj\.', '.attn.out.'),
    (r'\.mlp\.0\.', '.mlp.fc1.'),
    (r'\.mlp\.3\.', '.mlp.fc2.'),
    (r'^neck\.fpn_norms\.(\d+)\.', r'neck.norm_\1.'),
    (r'^cls_head\.', 'classify.'),
    (r'^reg_head\.', 'regress.'),
    (r'\.head\.(\d+)\.conv\.', r'.conv_\1.'),
    (r'\.norm\.(\d+)\.', r'.norm_\1.'),
    (r'\.(cls_head|offset_head)\.conv\.', '.output.'),
)


def from_public(names):
    """{public name: array} -> our canonical parameters."""
    tree = {}
    scales = {}
    for name, value in names.items():
        if match := re.fullmatch(r'reg_head\.scale\.(\d+)\.scale', name):
            scales[int(match[1])] = value
            continue
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        *path, last = name.split('.')
        if value.ndim == 3 and value.shape[::2] == (1, 1):  # a norm
            value, last = value.reshape(-1), {'weight': 'scale', 'bias': 'bias'}[last]
        elif value.ndim == 3:
            value, last = value.transpose(2, 1, 0), 'kernel'  # [out, in, k] -> [k, in, out]
            value = value[0] if len(value) == 1 else value
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    tree['regress']['scale'] = np.array([scales[i] for i in range(len(scales))], np.float32)
    return tree


def forward(params, x, valid, *, heads, windows, stem, neck='identity', places=0):
    """float64: (logits [B, P, C], distances [B, P, 2]); places: max_length, where positions are added.

    x [B, T, C], valid [B, T]; windows: one a level.
    """
    found = [_example(params, *each, heads, windows, stem, neck, places) for each in zip(x, valid, strict=True)]
    return tuple(np.stack(each) for each in zip(*found, strict=True))


def _example(params, x, valid, heads, windows, stem, neck, places):
    x = _convs(params['embed'], x, valid)
    if places:
        x = x + _sines(places, *x.shape) * valid[:, None] / math.sqrt(x.shape[1])
    for i in range(stem):
        x = _block(params[f'stem_{i}'], x, valid, heads, windows[0], 1)
    pyramid, valids = [x], [valid]
    for i, window in enumerate(windows[1:]):
        valids.append(valids[-1][::2])
        pyramid.append(_block(params[f'branch_{i}'], pyramid[-1], valids[-1], heads, window, 2))
    own = params['neck']
    if neck == 'fpn':
        laterals = [each @ own[f'lateral_{i}']['kernel'] * valids[i][:, None] for i, each in enumerate(pyramid)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + np.repeat(laterals[i], 2, axis=0)
        pyramid = [_depthwise(own[f'conv_{i}'], each, 1) * valids[i][:, None] for i, each in enumerate(laterals)]
    pyramid = [_norm(own[f'norm_{i}'], each) for i, each in enumerate(pyramid)]
    logits, distances = [], []
    for i, (level, mask) in enumerate(zip(pyramid, valids, strict=True)):
        for name, into in (('classify', logits), ('regress', distances)):
            head = params[name]
            hidden = _convs({key: leaf for key, leaf in head.items() if key[:4] in ('conv', 'norm')}, level, mask)
            into.append(_conv(head['output'], hidden) * mask[:, None])
        distances[-1] = np.maximum(distances[-1] * params['regress']['scale'][i], 0)
    return np.concatenate(logits), np.concatenate(distances)


def _convs(params, x, valid):
    for i in range(sum(key.startswith('conv') for key in params)):
        x = _conv(params[f'conv_{i}'], x) * valid[:, None]
        x = np.maximum(_norm(params[f'norm_{i}'], x) if f'norm_{i}' in params else x, 0)
    return x


def _conv(params, x):
    kernel = params['kernel']
    reach = len(kernel) // 2
    padded = np.pad(x, ((reach, reach), (0, 0)))
    return sum(padded[i : i + len(x)] @ kernel[i] for i in range(len(kernel))) + params.get('bias', 0.0)


def _depthwise(params, x, stride):
    padded = np.pad(x, ((1, 1), (0, 0)))
    return np.stack([np.sum(padded[t : t + 3] * params['kernel'][:, 0], axis=0) for t in range(0, len(x), stride)])


def _norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5) * params['scale'] + params['bias']


def _block(params, x, valid, heads, window, stride):
    mask = valid[:, None]
    y = params.get('gamma1', 1.0) * _attention(params['attn'], _norm(params['ln1'], x), valid, heads, window, stride)
    if stride == 2:
        padded = np.pad(x, ((1, 1), (0, 0)), constant_values=-np.inf)
        x = np.stack([padded[t : t + 3].max(0) for t in range(0, len(x), 2)])
    x = x * mask + y
    hidden = _linear(params['mlp']['fc1'], _norm(params['ln2'], x))
    hidden = hidden * 0.5 * (1 + _ERF(hidden / math.sqrt(2)))
    return x + params.get('gamma2', 1.0) * _linear(params['mlp']['fc2'], hidden) * mask


def _attention(params, x, valid, heads, window, stride):
    query, key, value = (
        _linear(
            params[name], _norm(params[f'{name}_norm'], _depthwise(params[f'{name}_conv'], x, stride) * valid[:, None])
        )
        for name in ('query', 'key', 'value')
    )
    length, width = query.shape
    query, key, value = (each.reshape(length, heads, -1) for each in (query, key, value))
    reach = window // 2 if window > 1 else length
    distance = np.arange(length) - np.arange(length)[:, None]
    scores = np.einsum('qhd,khd->hqk', query, key) / math.sqrt(width // heads)
    if 'position' in params and window > 1:
        scores = scores + params['position'][0, 0][:, np.clip(distance + reach, 0, 2 * reach)]
    scores = np.where(valid & (np.abs(distance) <= reach), scores, -1e4)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = np.einsum('hqk,khd->qhd', weights / weights.sum(-1, keepdims=True), value)
    return _linear(params['out'], out.reshape(length, width)) * valid[:, None]


def _linear(params, x):
    return x @ params['kernel'] + params['bias']


def _sines(places, length, width):
    """[length, width]; the table of `places` rows is stretched if it is too short."""
    angle = np.arange(places)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    table = np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle))
    return table[:length] if length <= places else stretch(table, length)


def stretch(x, length):
    """[t, C] -> [length, C]: linear; each row stands for the same share of the time."""
    at = (np.arange(length) + 0.5) * len(x) / length - 0.5
    return np.stack([np.interp(at, np.arange(len(x)), column) for column in x.T], axis=1)
