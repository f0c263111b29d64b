"""InternVideo2: the parameters as OpenGVLab/InternVideo (InternVideo2/single_modality/models) defines them.

No published file has been opened.
"""

import dataclasses

from vidloc.checkpoints.key_maps import Layout, Rule
from vidloc.checkpoints.layouts import pieces

SHARED = (
    *pieces.conv('backbone/embedding', 'patch_embed.proj'),
    Rule('backbone/encoder/cls', 'cls_token'),
    *pieces.under(
        pieces.ENCODER,
        'blocks.{i}.',
        (
            *(rule for rule in pieces.WITHOUT_QKV_BIAS if rule.source not in ('norm1.bias', 'norm2.bias')),
            Rule('attn/query_norm/scale', 'attn.q_norm.weight'),
            Rule('attn/key_norm/scale', 'attn.k_norm.weight'),
            Rule('gamma1', 'ls1.gamma'),
            Rule('gamma2', 'ls2.gamma'),
        ),
    ),
    *(rule for part in pieces.PARTS for rule in pieces.norm(f'head/pool/ln_{part}', f'clip_projector.norm1_{part[0]}')),
    *(
        Rule(f'head/pool/{part}/kernel', f'clip_projector.cross_attn.{part[0]}.weight', 'linear')
        for part in pieces.PARTS
    ),
    *(Rule(f'head/pool/{part}/bias', f'clip_projector.cross_attn.{part[0]}_bias', 'flat') for part in pieces.PARTS),
    *pieces.linear('head/pool/out', 'clip_projector.cross_attn.proj', inputs=2),
    *pieces.norm('head/norm', 'fc_norm'),
    *pieces.linear('head/output', 'head'),
)
JOINT = Layout(
    name='InternVideo2, OpenGVLab/InternVideo',
    family='internvideo2',
    rules=(*SHARED, Rule('backbone/encoder/position', 'pos_embed')),
    telling=('patch_embed.proj.weight', 'blocks.{i}.ls1.gamma', 'blocks.{i}.attn.q_norm.weight', 'pos_embed'),
    absent=('blocks.{i}.attn.qkv.bias',),
    ignored=(
        (r'^(clip_decoder|final_clip_decoder|mae_decoder)\.', 'a decoder of the pretraining'),
        (r'^(clip|mae|img)_pos_embed', 'positions for the pretraining or for images'),
    ),
)
SEPARATE = dataclasses.replace(
    JOINT,
    name='InternVideo2, OpenGVLab/InternVideo, positions of space and time apart',
    rules=(
        *SHARED,
        Rule(
            'backbone/encoder/position',
            'pos_embed_spatial',
            'positions',
            beside=('pos_embed_temporal', 'pos_embed_cls'),
        ),
    ),
    telling=(*JOINT.telling[:3], 'pos_embed_spatial'),
)
