"""ViViT: Hugging Face, and google-research/scenic (projects/vivit)."""

import dataclasses

from vidloc.checkpoints.key_maps import Layout, Rule
from vidloc.checkpoints.layouts import pieces

HF = Layout(
    name='ViViT, Hugging Face',
    family='vivit_joint',
    rules=(
        *pieces.conv('backbone/embedding', 'embeddings.patch_embeddings.projection'),
        Rule('backbone/encoder/cls', 'embeddings.cls_token'),
        Rule('backbone/encoder/position', 'embeddings.position_embeddings'),
        *pieces.under(pieces.ENCODER, 'encoder.layer.{i}.', (*pieces.HF_SELF, *pieces.HF_REST)),
        *pieces.norm('backbone/encoder/norm', 'layernorm'),
        *pieces.linear('head/output', 'classifier'),
    ),
    telling=('embeddings.cls_token', 'encoder.layer.{i}.attention.attention.query.weight'),
    ignored=((r'^pooler\.', 'the pooler, which the classifier does not use'),),
    base='vivit.',
)
HF_MEMORY = dataclasses.replace(
    HF,
    name='ViViT, Hugging Face (names in memory)',
    rules=(
        *(rule for rule in HF.rules if '{i}' not in rule.source),
        *pieces.under(
            pieces.ENCODER,
            'layers.{i}.',
            (
                *(
                    rule
                    for part in pieces.PARTS
                    for rule in pieces.by_head(f'attn/{part}', f'attention.{part[0]}_proj')
                ),
                *pieces.linear('attn/out', 'attention.o_proj', inputs=2),
                *pieces.norm('ln1', 'layernorm_before'),
                *pieces.norm('ln2', 'layernorm_after'),
                *pieces.MLP,
            ),
        ),
    ),
    telling=('embeddings.cls_token', 'layers.{i}.attention.q_proj.weight'),
)

SCENIC_HEAD = pieces.same('head/output', 'output_projection', 'kernel', 'bias')
SCENIC_JOINT = Layout(
    name='ViViT without factorisation, Scenic',
    family='vivit_joint',
    rules=(
        *pieces.FLAX_EMBEDDING,
        *pieces.flax_encoder('backbone/encoder', 'Transformer', pieces.FLAX, 'cls', pieces.POSITION),
        *SCENIC_HEAD,
    ),
    telling=('embedding/kernel', 'Transformer/encoderblock_{i}/MultiHeadDotProductAttention_0/query/kernel', 'cls'),
)
SCENIC = Layout(
    name='ViViT, factorised encoder, Scenic',
    family='vivit',
    rules=(
        *pieces.FLAX_EMBEDDING,
        *(
            rule
            for leaf, source in (('spatial', 'SpatialTransformer'), ('temporal', 'TemporalTransformer'))
            for rule in pieces.flax_encoder(
                f'backbone/{leaf}', source, pieces.FLAX, f'cls_{source}', f'{source}/posembed_input/pos_embedding'
            )
        ),
        *SCENIC_HEAD,
    ),
    telling=(
        'embedding/kernel',
        'SpatialTransformer/encoderblock_{i}/LayerNorm_0/scale',
        'TemporalTransformer/encoderblock_{i}/LayerNorm_0/scale',
    ),
)
