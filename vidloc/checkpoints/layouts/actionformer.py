"""ActionFormer, a head over features: happyharrycn/actionformer_release, libs/modeling."""

import dataclasses

from vidloc.checkpoints.key_maps import Layout, Rule
from vidloc.checkpoints.layouts import pieces

AVERAGE = 'state_dict_ema'


def _norm(leaf: str, source: str) -> pieces.Rules:
    return tuple(
        Rule(f'{leaf}/{ours}', f'{source}.{theirs}', 'channels')
        for ours, theirs in (('scale', 'weight'), ('bias', 'bias'))
    )


def _pointwise(leaf: str, source: str) -> pieces.Rules:
    return (Rule(f'{leaf}/kernel', f'{source}.weight', 'pointwise'), Rule(f'{leaf}/bias', f'{source}.bias'))


def _trunk(leaf: str, source: str, norms: str) -> pieces.Rules:
    """Convolutions with their norms, numbered in both."""
    return (*pieces.conv(f'{leaf}/conv_{{i}}', f'{source}.{{i}}.conv'), *_norm(f'{leaf}/norm_{{i}}', f'{norms}.{{i}}'))


_BLOCK = (
    *_norm('ln1', 'ln1'),
    *(Rule(f'attn/{part}_conv/kernel', f'attn.{part}_conv.conv.weight', 'conv') for part in pieces.PARTS),
    *(rule for part in pieces.PARTS for rule in _norm(f'attn/{part}_norm', f'attn.{part}_norm')),
    *(rule for part in pieces.PARTS for rule in _pointwise(f'attn/{part}', f'attn.{part}')),
    *_pointwise('attn/out', 'attn.proj'),
    Rule('attn/position', 'attn.rel_pe'),
    *_norm('ln2', 'ln2'),
    *_pointwise('mlp/fc1', 'mlp.0'),
    *_pointwise('mlp/fc2', 'mlp.3'),
    Rule('gamma1', 'drop_path_attn.scale', 'channels'),
    Rule('gamma2', 'drop_path_mlp.scale', 'channels'),
)
LAYOUT = Layout(
    name='ActionFormer, happyharrycn/actionformer_release',
    family='actionformer',
    rules=(
        *_trunk('head/embed', 'backbone.embd', 'backbone.embd_norm'),
        *(
            rule
            for part in ('stem', 'branch')
            for rule in pieces.under(f'head/{part}_{{i}}/', f'backbone.{part}.{{i}}.', _BLOCK)
        ),
        *_norm('head/neck/norm_{i}', 'neck.fpn_norms.{i}'),
        Rule('head/neck/lateral_{i}/kernel', 'neck.lateral_convs.{i}.conv.weight', 'pointwise'),
        Rule('head/neck/conv_{i}/kernel', 'neck.fpn_convs.{i}.conv.weight', 'conv'),
        *_trunk('head/classify', 'cls_head.head', 'cls_head.norm'),
        *pieces.conv('head/classify/output', 'cls_head.cls_head.conv'),
        *_trunk('head/regress', 'reg_head.head', 'reg_head.norm'),
        *pieces.conv('head/regress/output', 'reg_head.offset_head.conv'),
    ),
    telling=(
        'backbone.embd.{i}.conv.weight',
        'backbone.branch.{i}.attn.query_conv.conv.weight',
        'cls_head.cls_head.conv.weight',
        'reg_head.scale.{i}.scale',
    ),
    # Its evaluation reads nothing else (eval.py).
    preferred=(AVERAGE,),
)


def of_levels(levels: int) -> Layout:
    """The layout of files whose pyramid has so many levels, each with a learned scale of its own."""
    first, *others = (f'reg_head.scale.{level}.scale' for level in range(levels))
    scale = Rule('head/regress/scale', first, 'levels', beside=tuple(others))
    return dataclasses.replace(LAYOUT, rules=(*LAYOUT.rules, scale))
