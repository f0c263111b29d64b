"""V-JEPA 2 and 2.1 and their classifier once more, in float64 NumPy with plain loops, and their public names.

Parameters are canonical trees. The flags of 2.1 are keywords; the level norms, the vectors of the modalities and the
embedding of images are used where the tree has them.
"""

import json
import math
import pathlib
import struct

import numpy as np

LEVEL_LAYERS = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39), 48: (11, 23, 37, 47)}


def linear(x, p):
    kernel = p['kernel'].reshape(x.shape[-1], -1)
    return x @ kernel + p['bias'].reshape(-1)


def norm(x, p, eps=1e-6):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * p['scale'] + p['bias']


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def mlp(x, p):
    return linear(gelu(linear(x, p['fc1'])), p['fc2'])


def turn(x, places, interleave):
    """x [N, d], one head; places [N, 3] -> [N, d]."""
    part = 2 * (x.shape[1] // 3 // 2)
    half = part // 2
    out = x.copy()
    for axis in range(3):
        for pair in range(half):
            first = axis * part + 2 * pair
            neighbours = {first: -x[:, first + 1], first + 1: x[:, first]}
            for offset, channel in enumerate(neighbours):
                which = pair if interleave else (2 * pair + offset) % half
                angle = places[:, axis] * 10000.0 ** (-which / half)
                out[:, channel] = x[:, channel] * np.cos(angle) + neighbours[channel] * np.sin(angle)
    return out


def attention(query, x, p, seen, places=None, interleave=False):
    """query [Q, D], x [N, D] -> [Q, D] before any output layer; seen [N]: tokens of x that count."""
    mixed = []
    for head in range(p['query']['kernel'].shape[1]):
        q = query @ p['query']['kernel'][:, head] + p['query']['bias'][head]
        k, v = (x @ p[name]['kernel'][:, head] + p[name]['bias'][head] for name in ('key', 'value'))
        if places is not None:
            q, k = turn(q, places, interleave), turn(k, places, interleave)
        logits = np.where(seen, q @ k.T / math.sqrt(q.shape[-1]), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ v)
    return np.concatenate(mixed, axis=-1)


def block(x, p, seen, places=None, interleave=False):
    normed = norm(x, p['ln1'])
    x = x + linear(attention(normed, normed, p['attn'], seen, places, interleave), p['attn']['out'])
    return x + mlp(norm(x, p['ln2']), p['mlp'])


def embed(video, p):
    """video [T, H, W, 3] -> [t, h, w, D]; too few frames for a tubelet are repeated."""
    tubelet, height, width = p['kernel'].shape[:3]
    if len(video) < tubelet:
        video = np.concatenate([video] * tubelet)[:tubelet]
    t, h, w = video.shape[0] // tubelet, video.shape[1] // height, video.shape[2] // width
    x = np.zeros((t, h, w, p['kernel'].shape[-1]))
    for i, j, k in np.ndindex(t, h, w):
        cut = video[i * tubelet : (i + 1) * tubelet, j * height : (j + 1) * height, k * width : (k + 1) * width]
        x[i, j, k] = np.einsum('thwc,thwcd->d', cut, p['kernel']) + p['bias']
    return x


def encode(video, p, *, seen=None, interleave=False, interpolate=False, hierarchical=False):
    """video [T, H, W, 3] -> (grid [t, h, w, D], every layer's tokens); seen [t]: times that may be attended to."""
    image = len(video) == 1
    x = embed(video, p['image_embedding' if image and 'image_embedding' in p else 'embedding'])
    if 'video_modality' in p:
        x = x + p['image_modality' if image else 'video_modality'][0, 0]
    grid = x.shape[:3]
    places = np.array(list(np.ndindex(*grid)), np.float64)
    if interpolate:
        for axis in (1, 2):
            if grid[axis] > 1:
                places[:, axis] = places[:, axis] * 15 / (grid[axis] - 1)
    seen = np.repeat(np.ones(grid[0], bool) if seen is None else seen, grid[1] * grid[2])
    x = x.reshape(len(places), -1)
    layers = []
    for name in sorted(p['encoder']):
        x = block(x, p['encoder'][name], seen, places, interleave)
        layers.append(x)
    if 'norm' in p:
        x = norm(x, p['norm'])
    elif hierarchical:
        levels = enumerate(LEVEL_LAYERS[len(layers)])
        x = np.concatenate([norm(layers[layer], p[f'norm_{i}']) for i, layer in levels], axis=-1)
    else:
        x = norm(x, p['norm_3'])
    return x.reshape(*grid, -1), [layer.reshape(*grid, -1) for layer in layers]


def classify(grid, p, *, seen=None):
    """grid [t, h, w, D] -> logits [C]; seen [t]: times that may be attended to."""
    t, h, w, width = grid.shape
    seen = np.repeat(np.ones(t, bool) if seen is None else seen, h * w)
    x = grid.reshape(-1, width)
    pooler = p['pooler']
    for name in sorted(pooler.get('self', {})):
        x = block(x, pooler['self'][name], seen)
    query = pooler['query'][0]
    query = query + attention(query, norm(x, pooler['cross']['ln1']), pooler['cross']['attn'], seen)
    query = query + mlp(norm(query, pooler['cross']['ln2']), pooler['cross']['mlp'])
    return linear(query, p['output'])[0]


def read(path):
    """{name: array} of a safetensors file of float32."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != '__metadata__':
            first, last = (8 + length + offset for offset in entry['data_offsets'])
            arrays[name] = np.frombuffer(data[first:last], np.float32).reshape(entry['shape'])
    return arrays


def canonical(public, heads):
    """{name in Hugging Face's VJEPA2ForVideoClassification: array} -> {'backbone': canonical tree, 'head': ...}.

    The predictor is left out, everything else is used.
    """
    left = {name: array for name, array in public.items() if not name.startswith('vjepa2.predictor.')}
    tree = {}

    def put(path, array):
        *parents, last = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array

    def put_linear(path, name, split='none'):
        kernel, bias = left.pop(f'{name}.weight').T, left.pop(f'{name}.bias')
        inputs, outputs = kernel.shape
        if split == 'outputs':
            kernel, bias = kernel.reshape(inputs, heads, -1), bias.reshape(heads, -1)
        elif split == 'inputs':
            kernel = kernel.reshape(heads, -1, outputs)
        put(f'{path}/kernel', kernel)
        put(f'{path}/bias', bias)

    def put_norm(path, name):
        put(f'{path}/scale', left.pop(f'{name}.weight'))
        put(f'{path}/bias', left.pop(f'{name}.bias'))

    def put_block(path, name, norms, parts, out):
        for i in (1, 2):
            put_norm(f'{path}/ln{i}', f'{name}.{norms}{i}')
            put_linear(f'{path}/mlp/fc{i}', f'{name}.mlp.fc{i}')
        for part, public_part in zip(('query', 'key', 'value'), parts, strict=True):
            put_linear(f'{path}/attn/{part}', f'{name}.{public_part}', 'outputs')
        if out:
            put_linear(f'{path}/attn/out', f'{name}.{out}', 'inputs')

    def count(prefix):
        return len({name[len(prefix) :].split('.')[0] for name in left if name.startswith(prefix)})

    embeddings = 'vjepa2.encoder.embeddings.patch_embeddings.proj'
    put('backbone/embedding/kernel', left.pop(f'{embeddings}.weight').transpose(2, 3, 4, 1, 0))  # [t, p, p, 3, D]
    put('backbone/embedding/bias', left.pop(f'{embeddings}.bias'))
    for i in range(count('vjepa2.encoder.layer.')):
        parts = [f'attention.{part}' for part in ('query', 'key', 'value')]
        name = f'vjepa2.encoder.layer.{i}'
        put_block(f'backbone/encoder/block_{i:02d}', name, 'norm', parts, 'attention.proj')
    put_norm('backbone/norm', 'vjepa2.encoder.layernorm')
    for i in range(count('pooler.self_attention_layers.')):
        parts = [f'self_attn.{part}_proj' for part in 'qkv']
        name = f'pooler.self_attention_layers.{i}'
        put_block(f'head/pooler/self/block_{i:02d}', name, 'layer_norm', parts, 'self_attn.out_proj')
    parts = [f'cross_attn.{part}_proj' for part in 'qkv']
    put_block('head/pooler/cross', 'pooler.cross_attention_layer', 'layer_norm', parts, '')
    put('head/pooler/query', left.pop('pooler.query_tokens'))
    put_linear('head/output', 'classifier')
    assert not left, f'not used: {sorted(left)}'
    return tree
