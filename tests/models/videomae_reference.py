"""VideoMAE in float64 from its definition, and the names of Hugging Face, for the tests of VideoMAE."""

import json
import math
import struct

import numpy as np

MLP = ('intermediate.dense', 'output.dense')


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack('<Q', data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop('__metadata__', None)
    return {
        name: np.frombuffer(data[8 + size :][slice(*entry['data_offsets'])], np.float32).reshape(entry['shape'])
        for name, entry in header.items()
    }


def from_hugging_face(names, *, layers_count, heads):
    """{name of Hugging Face: array} -> our canonical parameters."""

    def linear(name, inputs, outputs):
        return names[f'{name}.weight'].T.reshape(*inputs, *outputs)

    def pair(name):
        return {'scale': names[f'{name}.weight'], 'bias': names[f'{name}.bias']}

    projection = 'videomae.embeddings.patch_embeddings.projection'
    width = len(names[f'{projection}.bias'])
    split = (heads, width // heads)
    blocks = {}
    for i in range(layers_count):
        at = f'videomae.encoder.layer.{i}'
        own, out, fc1, fc2 = (f'{at}.{name}' for name in ('attention.attention', 'attention.output.dense', *MLP))
        hidden = len(names[f'{fc1}.bias'])
        attn = {part: {'kernel': linear(f'{own}.{part}', (width,), split)} for part in ('query', 'key', 'value')}
        attn['query']['bias'] = names[f'{own}.q_bias'].reshape(split)
        attn['value']['bias'] = names[f'{own}.v_bias'].reshape(split)
        attn['out'] = {'kernel': linear(out, split, (width,)), 'bias': names[f'{out}.bias']}
        blocks[f'block_{i:02d}'] = {
            'ln1': pair(f'{at}.layernorm_before'),
            'ln2': pair(f'{at}.layernorm_after'),
            'attn': attn,
            'mlp': {
                'fc1': {'kernel': linear(fc1, (width,), (hidden,)), 'bias': names[f'{fc1}.bias']},
                'fc2': {'kernel': linear(fc2, (hidden,), (width,)), 'bias': names[f'{fc2}.bias']},
            },
        }
    kernel = names[f'{projection}.weight'].transpose(2, 3, 4, 1, 0)  # [D, 3, t, p, p] -> [t, p, p, 3, D]
    backbone = {'embedding': {'kernel': kernel, 'bias': names[f'{projection}.bias']}, 'encoder': blocks}
    output = {'kernel': names['classifier.weight'].T, 'bias': names['classifier.bias']}
    return {'backbone': backbone, 'head': {'norm': pair('fc_norm'), 'output': output}}


def forward(params, model, video, *, frames_valid=None, head_eps=None):
    """The same in float64, from canonical parameters: (tokens [B, t, h, w, D], of each layer, logits or None)."""
    params = in_float64(params)
    own, (tubelet, (p, q)) = params['backbone'], (model.tubelet, model.patch)
    kernel = own['embedding']['kernel'].reshape(-1, model.width)
    batch, frames, height, width, _ = video.shape
    if frames < tubelet:
        video = np.concatenate([video] * tubelet, axis=1)[:, :tubelet]
    t, h, w = max(frames // tubelet, 1), height // p, width // q
    cells = np.zeros((batch, t, h, w, model.width))
    for place in np.ndindex(t, h, w):
        a, b, c = place
        part = video[:, a * tubelet : (a + 1) * tubelet, b * p : (b + 1) * p, c * q : (c + 1) * q]
        cells[:, a, b, c] = part.reshape(batch, -1) @ kernel
    x = cells + own['embedding']['bias'] + places(model, (t, h, w))
    x = x.reshape(batch, -1, model.width)
    valid = np.ones((batch, t), bool) if frames_valid is None else frames_valid.reshape(batch, t, -1).any(-1)
    seen = np.repeat(valid, h * w, axis=1)
    found = []
    for i in range(model.layers):
        x = layer(own['encoder'][f'block_{i:02d}'], x, seen, model)
        found.append(x.reshape(cells.shape))
    if model.final_norm:
        x = normed(x, own['norm'], model.eps)
    x = x.reshape(cells.shape)
    if head_eps is None:
        return x, found, None
    mean = np.stack([each[some].mean((0, 1, 2)) for each, some in zip(x, valid, strict=True)])
    output = params['head']['output']
    return x, found, normed(mean, params['head']['norm'], head_eps) @ output['kernel'] + output['bias']


def in_float64(tree):
    return {k: in_float64(v) for k, v in tree.items()} if isinstance(tree, dict) else np.asarray(tree, np.float64)


def normed(x, params, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * params['scale'] + params['bias']


def layer(params, x, seen, model):
    attn, mlp, dims = params['attn'], params['mlp'], model.width // model.heads
    y = normed(x, params['ln1'], model.eps)
    query = np.einsum('bnD,Dhd->bhnd', y, attn['query']['kernel']) + attn['query']['bias'][:, None]
    key = np.einsum('bnD,Dhd->bhnd', y, attn['key']['kernel'])
    value = np.einsum('bnD,Dhd->bhnd', y, attn['value']['kernel']) + attn['value']['bias'][:, None]
    scores = np.where(seen[:, None, None], query @ key.swapaxes(2, 3) / math.sqrt(dims), -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = share / share.sum(-1, keepdims=True) @ value
    x = x + params.get('gamma1', 1.0) * (np.einsum('bhnd,hdD->bnD', mixed, attn['out']['kernel']) + attn['out']['bias'])
    y = normed(x, params['ln2'], model.eps) @ mlp['fc1']['kernel'] + mlp['fc1']['bias']
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return x + params.get('gamma2', 1.0) * (y @ mlp['fc2']['kernel'] + mlp['fc2']['bias'])


def places(model, grid):
    """The table by its definition, value by value: bicubic within the frame, linear over time, edges repeated."""

    def at(place, table, weights):
        low = math.floor(place)
        return sum(
            weights(abs(place - cell)) * table[min(max(cell, 0), len(table) - 1)] for cell in range(low - 1, low + 3)
        )

    def cubic(x):
        return 1.25 * x**3 - 2.25 * x**2 + 1 if x < 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) * (x < 2)

    table = np.zeros((math.prod(model.grid), model.width))
    for n, j in np.ndindex(*table.shape):
        angle = n / 10000 ** ((j - j % 2) / model.width)
        table[n, j] = math.cos(angle) if j % 2 else math.sin(angle)
    table = table.reshape(*model.grid, -1)
    if grid == model.grid:
        return table
    for axis, kernel in ((1, cubic), (2, cubic), (0, lambda x: max(0.0, 1 - x))):
        old, new = model.grid[axis], grid[axis]
        moved = np.moveaxis(table, axis, 0)
        table = np.moveaxis(np.stack([at((i + 0.5) * old / new - 0.5, moved, kernel) for i in range(new)]), 0, axis)
    return table
