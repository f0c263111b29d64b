"""Vision transformers for images, which start video models; their classifiers are of no use for that.

google-research/vision_transformer (the augreg npz files), google-research/scenic (projects/baselines/vit.py) and
google-research/big_vision (models/vit.py).
"""

import dataclasses

from vidloc.checkpoints.key_maps import Layout
from vidloc.checkpoints.layouts import pieces

CLASSIFIER = (r'^(head|pre_logits|output_projection|MAPHead_0)/', 'the classifier of images')
AUGREG = Layout(
    name='ViT for images, google-research/vision_transformer',
    family='image_vit',
    rules=(
        *pieces.FLAX_EMBEDDING,
        *pieces.flax_encoder('backbone/encoder', 'Transformer', pieces.AUGREG, 'cls', pieces.POSITION),
    ),
    telling=('embedding/kernel', 'Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/query/kernel'),
    filter_axes=4,
    ignored=(CLASSIFIER,),
)
SCENIC = Layout(
    name='ViT for images, Scenic',
    family='image_vit',
    rules=(
        *pieces.FLAX_EMBEDDING,
        *pieces.flax_encoder('backbone/encoder', 'Transformer', pieces.FLAX, 'cls', pieces.POSITION),
    ),
    telling=('embedding/kernel', 'Transformer/encoderblock_{i}/MultiHeadDotProductAttention_0/query/kernel'),
    absent=('pos_embedding',),
    filter_axes=4,
    ignored=(CLASSIFIER,),
)
BIG_VISION = dataclasses.replace(
    SCENIC,
    name='ViT for images, big_vision',
    rules=(
        *pieces.FLAX_EMBEDDING,
        *pieces.flax_encoder('backbone/encoder', 'Transformer', pieces.FLAX, 'cls', 'pos_embedding'),
    ),
    telling=(*SCENIC.telling, 'pos_embedding'),
    absent=(),
)
BIG_VISION_STACKED = dataclasses.replace(
    BIG_VISION,
    name='ViT for images, big_vision, layers stacked',
    rules=tuple(
        dataclasses.replace(rule, source=rule.source.replace('encoderblock_{i}', 'encoderblock'), stacked=True)
        if '{i}' in rule.source
        else rule
        for rule in BIG_VISION.rules
    ),
    telling=(
        'embedding/kernel',
        'pos_embedding',
        'Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel',
    ),
)
