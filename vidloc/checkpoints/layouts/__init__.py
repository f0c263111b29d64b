"""The layouts of published weight files: tables of rules, see key_maps."""

from vidloc.checkpoints.key_maps import Layout
from vidloc.checkpoints.layouts import actionformer, image_vit, internvideo2, videomae, vivit, vjepa2

LAYOUTS: tuple[Layout, ...] = (
    vjepa2.HF,
    vjepa2.OFFICIAL,
    vjepa2.OFFICIAL_2_1,
    vjepa2.PROBE,
    videomae.HF,
    videomae.HF_MEMORY,
    videomae.ORIGINAL,
    vivit.HF,
    vivit.HF_MEMORY,
    vivit.SCENIC_JOINT,
    vivit.SCENIC,
    image_vit.AUGREG,
    image_vit.SCENIC,
    image_vit.BIG_VISION,
    image_vit.BIG_VISION_STACKED,
    internvideo2.JOINT,
    internvideo2.SEPARATE,
    actionformer.LAYOUT,
)
