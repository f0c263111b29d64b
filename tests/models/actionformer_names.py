"""The public ActionFormer's parameter names and shapes in ours, for numbers computed with the public code.

Written apart from the importer, so that the two check each other.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

_PARTS = (
    (r'backbone\.embd\.(\d+)\.conv', r'embed/conv_\1'),
    (r'backbone\.embd_norm\.(\d+)', r'embed/norm_\1'),
    (r'backbone\.(stem|branch)\.(\d+)\.', r'\1_\2/'),
    (r'attn\.(query|key|value)_(conv|norm)(\.conv)?', r'attn/\1_\2'),
    (r'attn\.proj', 'attn/out'),
    (r'attn\.rel_pe', 'attn/position'),
    (r'mlp\.0', 'mlp/fc1'),
    (r'mlp\.3', 'mlp/fc2'),
    (r'drop_path_attn\.scale', 'gamma1'),
    (r'drop_path_mlp\.scale', 'gamma2'),
    (r'neck\.fpn_norms\.(\d+)', r'neck/norm_\1'),
    (r'cls_head\.cls_head\.conv', 'classify/output'),
    (r'reg_head\.offset_head\.conv', 'regress/output'),
    (r'cls_head\.head\.(\d+)\.conv', r'classify/conv_\1'),
    (r'reg_head\.head\.(\d+)\.conv', r'regress/conv_\1'),
    (r'cls_head\.norm\.(\d+)', r'classify/norm_\1'),
    (r'reg_head\.norm\.(\d+)', r'regress/norm_\1'),
)
_SCALE = re.compile(r'reg_head\.scale\.(\d+)\.scale')


def name(theirs: str) -> str:
    """The canonical name of a parameter, below the root of the head."""
    if _SCALE.fullmatch(theirs):
        return 'regress/scale'
    ours = theirs
    for pattern, replacement in _PARTS:
        ours = re.sub(f'^{pattern}' if pattern[0] in 'bcnr' else pattern, replacement, ours)
    ours = ours.replace('.', '/')
    ours = re.sub(r'((?:_norm|ln\d|norm_\d+))/weight$', r'\1/scale', ours)
    return re.sub(r'/weight$', '/kernel', ours)


def value(theirs: str, array: np.ndarray) -> np.ndarray:
    """A parameter in the shape of ours."""
    if array.ndim != 3:
        return array
    if 1 in (array.shape[0], array.shape[1]) and array.shape[2] == 1:
        return array.reshape(-1)  # [1, C, 1] of norms and scales -> [C]
    if 'rel_pe' in theirs:
        return array
    kernel = array.transpose(2, 1, 0)  # [out, in, k] -> [k, in, out]
    linear = re.search(r'attn\.(query|key|value|proj)\.|mlp\.|lateral', theirs)
    return kernel[0] if linear else kernel


def tree(state: Mapping[str, np.ndarray]) -> dict:
    """The nested parameters of the head from {public name: array}."""
    flat = {name(theirs): value(theirs, array) for theirs, array in state.items() if not _SCALE.fullmatch(theirs)}
    scales = {int(found[1]): state[key] for key in state if (found := _SCALE.fullmatch(key))}
    flat['regress/scale'] = np.array([scales[level] for level in sorted(scales)], np.float32)
    return traverse_util.unflatten_dict(flat, sep='/')
