"""V-JEPA 2 and 2.1: Hugging Face, and facebookresearch/vjepa2 (src/models, app/vjepa_2_1/models)."""

from vidloc.checkpoints.key_maps import Layout, Rule
from vidloc.checkpoints.layouts import pieces

HF_BLOCK = (
    *pieces.norm('ln1', 'norm1'),
    *(rule for part in pieces.PARTS for rule in pieces.by_head(f'attn/{part}', f'attention.{part}')),
    *pieces.linear('attn/out', 'attention.proj', inputs=2),
    *pieces.norm('ln2', 'norm2'),
    *pieces.MLP,
)
POOLER_HF_SELF = (
    *pieces.norm('ln1', 'layer_norm1'),
    *(rule for part in pieces.PARTS for rule in pieces.by_head(f'attn/{part}', f'self_attn.{part[0]}_proj')),
    *pieces.linear('attn/out', 'self_attn.out_proj', inputs=2),
    *pieces.norm('ln2', 'layer_norm2'),
    *pieces.MLP,
)
POOLER_HF_CROSS = (
    *pieces.norm('ln1', 'layer_norm1'),
    *(rule for part in pieces.PARTS for rule in pieces.by_head(f'attn/{part}', f'cross_attn.{part[0]}_proj')),
    *pieces.norm('ln2', 'layer_norm2'),
    *pieces.MLP,
)
PROBE_CROSS = (
    *pieces.norm('ln1', 'norm1'),
    *pieces.by_head('attn/query', 'xattn.q'),
    *pieces.fused(('attn/key', 'attn/value'), 'xattn.kv'),
    *pieces.norm('ln2', 'norm2'),
    *pieces.MLP,
)
OFFICIAL_ENCODER = (
    *pieces.conv('backbone/embedding', 'patch_embed.proj'),
    *pieces.under(pieces.ENCODER, 'blocks.{i}.', pieces.TIMM),
)
STALE_POSITIONS = (r'^pos_embed$', 'a table of positions that V-JEPA 2 does not use')

HF = Layout(
    name='V-JEPA 2, Hugging Face',
    family='vjepa2',
    rules=(
        *pieces.conv('backbone/embedding', 'encoder.embeddings.patch_embeddings.proj'),
        *pieces.under(pieces.ENCODER, 'encoder.layer.{i}.', HF_BLOCK),
        *pieces.norm('backbone/norm', 'encoder.layernorm'),
        Rule('head/pooler/query', 'pooler.query_tokens'),
        *pieces.under('head/pooler/self/block_{i}/', 'pooler.self_attention_layers.{i}.', POOLER_HF_SELF),
        *pieces.under('head/pooler/cross/', 'pooler.cross_attention_layer.', POOLER_HF_CROSS),
        *pieces.linear('head/output', 'classifier'),
    ),
    telling=('encoder.embeddings.patch_embeddings.proj.weight', 'encoder.layer.{i}.attention.query.weight'),
    ignored=((r'^predictor\.', 'the predictor of the pretraining'),),
    base='vjepa2.',
)
OFFICIAL = Layout(
    name='V-JEPA 2, facebookresearch/vjepa2',
    family='vjepa2',
    rules=(*OFFICIAL_ENCODER, *pieces.norm('backbone/norm', 'norm')),
    telling=('patch_embed.proj.weight', 'blocks.{i}.attn.qkv.bias'),
    absent=('norms_block.{i}.weight', 'cls_token', 'blocks.{i}.ls1.gamma', 'fc_norm.weight', 'blocks.{i}.attn.q_bias'),
    ignored=(STALE_POSITIONS,),
)
OFFICIAL_2_1 = Layout(
    name='V-JEPA 2.1, facebookresearch/vjepa2',
    family='vjepa2',
    rules=(
        *OFFICIAL_ENCODER,
        *pieces.conv('backbone/image_embedding', 'patch_embed_img.proj'),
        Rule('backbone/image_modality', 'img_mod_embed'),
        Rule('backbone/video_modality', 'video_mod_embed'),
        *(rule for k in range(4) for rule in pieces.norm(f'backbone/norm_{k}', f'norms_block.{k}')),
    ),
    telling=('patch_embed.proj.weight', 'blocks.{i}.attn.qkv.bias', 'norms_block.{i}.weight'),
    absent=('cls_token', 'norm.weight'),
    ignored=(STALE_POSITIONS,),
)
PROBE = Layout(
    name='attentive probe, facebookresearch/vjepa2',
    family='vjepa2',
    rules=(
        Rule('head/pooler/query', 'pooler.query_tokens'),
        *pieces.under('head/pooler/self/block_{i}/', 'pooler.blocks.{i}.', pieces.TIMM),
        *pieces.under('head/pooler/cross/', 'pooler.cross_attention_block.', PROBE_CROSS),
        *pieces.linear('head/output', 'linear'),
    ),
    telling=('pooler.query_tokens', 'pooler.cross_attention_block.xattn.kv.weight'),
)
