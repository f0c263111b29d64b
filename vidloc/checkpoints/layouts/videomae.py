"""VideoMAE: Hugging Face, and OpenGVLab/VideoMAEv2 (models/modeling_finetune.py, modeling_pretrain.py)."""

from vidloc.checkpoints.key_maps import Layout, Rule
from vidloc.checkpoints.layouts import pieces


def _hf(name: str, query_bias: str, value_bias: str) -> Layout:
    block = (
        *(rule for rule in pieces.HF_SELF if rule.canonical.endswith('kernel')),
        Rule('attn/query/bias', f'attention.attention.{query_bias}', 'flat'),
        Rule('attn/value/bias', f'attention.attention.{value_bias}', 'flat'),
        *pieces.HF_REST,
    )
    return Layout(
        name=name,
        family='videomae',
        rules=(
            *pieces.conv('backbone/embedding', 'embeddings.patch_embeddings.projection'),
            *pieces.under(pieces.ENCODER, 'encoder.layer.{i}.', block),
            *pieces.norm('backbone/norm', 'layernorm'),
            *pieces.norm('head/norm', 'fc_norm'),
            *pieces.linear('head/output', 'classifier'),
        ),
        telling=('embeddings.patch_embeddings.projection.weight', 'encoder.layer.{i}.attention.attention.query.weight'),
        absent=('embeddings.cls_token',),
        ignored=((r'^(decoder\.|encoder_to_decoder\.|mask_token$)', 'the decoder of the pretraining'),),
        base='videomae.',
    )


HF = _hf('VideoMAE, Hugging Face', 'q_bias', 'v_bias')
# What transformers 5 calls them in memory; its save_pretrained writes the names above.
HF_MEMORY = _hf('VideoMAE, Hugging Face (names in memory)', 'query.bias', 'value.bias')
ORIGINAL = Layout(
    name='VideoMAE, OpenGVLab/VideoMAEv2',
    family='videomae',
    rules=(
        *pieces.conv('backbone/embedding', 'patch_embed.proj'),
        *pieces.under(
            pieces.ENCODER,
            'blocks.{i}.',
            (
                *pieces.WITHOUT_QKV_BIAS,
                Rule('attn/query/bias', 'attn.q_bias', 'flat'),
                Rule('attn/value/bias', 'attn.v_bias', 'flat'),
                Rule('gamma1', 'gamma_1'),
                Rule('gamma2', 'gamma_2'),
            ),
        ),
        *pieces.norm('backbone/norm', 'norm'),
        *pieces.norm('head/norm', 'fc_norm'),
        *pieces.linear('head/output', 'head'),
    ),
    telling=('patch_embed.proj.weight', 'blocks.{i}.attn.qkv.weight'),
    absent=('blocks.{i}.attn.qkv.bias', 'blocks.{i}.ls1.gamma', 'cls_token', 'norms_block.{i}.weight'),
    ignored=((r'^(decoder\.|encoder_to_decoder\.|mask_token$)', 'the decoder of the pretraining'),),
)
