"""The sizes of published models, as fields of their modules.

In a config: `backbone={'kind': 'videomae', **sizes.SIZES['videomae']['B']}`. Without jax, because what reads weight
files looks up numbers of heads here.
"""

from collections.abc import Mapping
from typing import Any

# V-JEPA 2.1 differs from 2.0 in these fields (facebookresearch/vjepa2, app/vjepa_2_1/models/vision_transformer.py).
VJEPA2_1 = {
    'rope_interleave': True,
    'rope_interpolate': True,
    'modality': True,
    'image_embedding': True,
    'level_norms': True,
}


def _vit(width: int, mlp: int, heads: int, layers: int, **fields: Any) -> dict[str, Any]:
    return {'width': width, 'mlp': mlp, 'heads': heads, 'layers': layers, **fields}


def _factorised(width: int, mlp: int, heads: int, spatial: int, temporal: int) -> dict[str, Any]:
    depth = {'spatial_layers': spatial, 'temporal_layers': temporal}
    # 32 frames of 224 x 224 in tubelets of 2 x 16 x 16.
    return {'width': width, 'mlp': mlp, 'heads': heads, **depth, 'grid': (16, 14, 14), 'cls': True}


SIZES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # google-research/scenic, projects/vivit/configs: L has 24 temporal layers for Kinetics, 4 for the others.
    'vivit': {
        'B': _factorised(768, 3072, 12, 12, 4),
        'L-4': _factorised(1024, 4096, 16, 24, 4),
        'L-24': _factorised(1024, 4096, 16, 24, 24),
    },
    # The same, without factorisation; Arnab et al. 2021, section 4.1.
    'vivit_joint': {
        'B': _vit(768, 3072, 12, 12, grid=(16, 14, 14)),
        'L': _vit(1024, 4096, 16, 24, grid=(16, 14, 14)),
    },
    # OpenGVLab/VideoMAEv2, models/modeling_finetune.py.
    'videomae': {
        'S': _vit(384, 1536, 6, 12),
        'B': _vit(768, 3072, 12, 12),
        'L': _vit(1024, 4096, 16, 24),
        'H': _vit(1280, 5120, 16, 32),
        'g': _vit(1408, 6144, 16, 40, patch=(14, 14), grid=(8, 16, 16)),
    },
    # facebookresearch/vjepa2, src/models/vision_transformer.py and app/vjepa_2_1; g and G are the "xformers" models.
    'vjepa2': {
        'L': _vit(1024, 4096, 16, 24),
        'H': _vit(1280, 5120, 16, 32),
        'g': _vit(1408, 6144, 22, 40),
        'B-2.1': _vit(768, 3072, 12, 12, **VJEPA2_1),
        'L-2.1': _vit(1024, 4096, 16, 24, **VJEPA2_1),
        'g-2.1': _vit(1408, 6144, 22, 40, **VJEPA2_1),
        'G-2.1': _vit(1664, 8192, 26, 48, **VJEPA2_1),
    },
    # OpenGVLab/InternVideo, InternVideo2/single_modality/models/internvideo2.py; 8 frames of 224 x 224.
    'internvideo2': {
        'S': _vit(384, 1536, 6, 12, grid=(8, 16, 16)),
        'B': _vit(768, 3072, 12, 12, grid=(8, 16, 16)),
        'L': _vit(1024, 4096, 16, 24, grid=(8, 16, 16)),
        '1B': _vit(1408, 6144, 16, 40, grid=(8, 16, 16)),
        '6B': _vit(3200, 12800, 25, 48, grid=(8, 16, 16)),
    },
}


def heads_of(kind: str, width: int, layers: int | None = None) -> int | None:
    """The number of heads of the published models of this width and depth (None: any); None if that is not one number.

    For 'vivit' the depth is that of the spatial encoder.
    """
    heads = {
        size['heads']
        for size in SIZES[kind].values()
        if size['width'] == width and layers in (None, size.get('layers', size.get('spatial_layers')))
    }
    return heads.pop() if len(heads) == 1 else None
