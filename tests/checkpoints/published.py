"""Names and shapes of files as their authors write them, at toy widths: written down from the published code."""

import numpy as np

from vidloc.checkpoints.readers import weights

D, M, C, PATCH = 48, 96, 5, 4


def no_reading():
    raise AssertionError('recognition must not read arrays')


def opened(names, *, config=None, preprocessor=None, path='toy', kind='torch'):
    """{name: shape} as an opened file whose arrays cannot be read."""
    entries = {name: weights.Entry(tuple(shape), np.dtype('float32'), no_reading) for name, shape in names.items()}
    return weights.Weights(path, kind, entries, {}, config, preprocessor)


def prefixed(prefix, names):
    return {prefix + name: shape for name, shape in names.items()}


def _linear(name, out, into):
    return {f'{name}.weight': (out, into), f'{name}.bias': (out,)}


def _norm(name, width=D):
    return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def _conv(name, tubelet=2, patch=PATCH):
    return {f'{name}.weight': (D, 3, tubelet, patch, patch), f'{name}.bias': (D,)}


def _timm_block(name, mlp=M):
    return {
        **_norm(f'{name}.norm1'),
        **_linear(f'{name}.attn.qkv', 3 * D, D),
        **_linear(f'{name}.attn.proj', D, D),
        **_norm(f'{name}.norm2'),
        **_linear(f'{name}.mlp.fc1', mlp, D),
        **_linear(f'{name}.mlp.fc2', D, mlp),
    }


def vjepa2_encoder(layers=2):
    """facebookresearch/vjepa2, src/models/vision_transformer.py"""
    names = _conv('patch_embed.proj')
    for i in range(layers):
        names |= _timm_block(f'blocks.{i}')
    return names | _norm('norm')


def vjepa2_1_encoder(layers=4):
    """facebookresearch/vjepa2, app/vjepa_2_1/models/vision_transformer.py"""
    names = {'img_mod_embed': (1, 1, D), 'video_mod_embed': (1, 1, D)}
    names |= _conv('patch_embed.proj') | _conv('patch_embed_img.proj', tubelet=1)
    for i in range(layers):
        names |= _timm_block(f'blocks.{i}')
    for k in range(4):
        names |= _norm(f'norms_block.{k}')
    return names


def vjepa2_probe(layers=3, width=D):
    """facebookresearch/vjepa2, src/models/attentive_pooler.py"""
    names = {'pooler.query_tokens': (1, 1, width)}
    for i in range(layers):
        names |= _timm_block(f'pooler.blocks.{i}', 4 * D)
    cross = 'pooler.cross_attention_block'
    names |= _norm(f'{cross}.norm1', width) | _norm(f'{cross}.norm2', width)
    names |= _linear(f'{cross}.xattn.q', width, width) | _linear(f'{cross}.xattn.kv', 2 * width, width)
    names |= _linear(f'{cross}.mlp.fc1', 4 * width, width) | _linear(f'{cross}.mlp.fc2', width, 4 * width)
    return names | _linear('linear', C, width)


def vjepa2_hf(layers=2, pooler=1):
    """transformers, models/vjepa2: (backbone without its prefix and with a predictor, head)"""
    names = _conv('encoder.embeddings.patch_embeddings.proj')
    for i in range(layers):
        block = f'encoder.layer.{i}'
        names |= _norm(f'{block}.norm1') | _norm(f'{block}.norm2')
        for part in ('query', 'key', 'value', 'proj'):
            names |= _linear(f'{block}.attention.{part}', D, D)
        names |= _linear(f'{block}.mlp.fc1', M, D) | _linear(f'{block}.mlp.fc2', D, M)
    names |= _norm('encoder.layernorm')
    names |= {'predictor.embeddings.mask_tokens': (10, 1, 1, 12)} | _linear('predictor.proj', D, 12)
    head = {'pooler.query_tokens': (1, 1, D)}
    blocks = {f'pooler.self_attention_layers.{i}': ('self_attn', 'qkv', 'out_proj') for i in range(pooler)}
    for block, (attention, parts, out) in (
        blocks | {'pooler.cross_attention_layer': ('cross_attn', 'qkv', '')}
    ).items():
        head |= _norm(f'{block}.layer_norm1') | _norm(f'{block}.layer_norm2')
        for part in parts:
            head |= _linear(f'{block}.{attention}.{part}_proj', D, D)
        head |= _linear(f'{block}.{attention}.{out}', D, D) if out else {}
        head |= _linear(f'{block}.mlp.fc1', 4 * D, D) | _linear(f'{block}.mlp.fc2', D, 4 * D)
    return names, head | _linear('classifier', C, D)


def videomae_original(layers=2, gammas=False):
    """OpenGVLab/VideoMAEv2, models/modeling_finetune.py: (encoder, its end in fine-tuned files)"""
    names = _conv('patch_embed.proj')
    for i in range(layers):
        names |= _timm_block(f'blocks.{i}')
        del names[f'blocks.{i}.attn.qkv.bias']
        names |= {f'blocks.{i}.attn.{part}_bias': (D,) for part in 'qv'}
        names |= {f'blocks.{i}.gamma_{k}': (D,) for k in (1, 2)} if gammas else {}
    return names, _norm('fc_norm') | _linear('head', C, D)


def _hf_vit(layers, biases, cls):
    names = _conv('embeddings.patch_embeddings.projection')
    names |= {'embeddings.cls_token': (1, 1, D), 'embeddings.position_embeddings': (1, 1 + 2 * 4 * 4, D)} if cls else {}
    for i in range(layers):
        block = f'encoder.layer.{i}'
        names |= {f'{block}.attention.attention.{part}.weight': (D, D) for part in ('query', 'key', 'value')}
        names |= {f'{block}.attention.attention.{bias}': (D,) for bias in biases}
        names |= _linear(f'{block}.attention.output.dense', D, D)
        names |= _linear(f'{block}.intermediate.dense', M, D) | _linear(f'{block}.output.dense', D, M)
        names |= _norm(f'{block}.layernorm_before') | _norm(f'{block}.layernorm_after')
    return names


def videomae_hf(layers=2, biases=('q_bias', 'v_bias')):
    """transformers, models/videomae, as the hub has it: (backbone, head)"""
    return _hf_vit(layers, biases, cls=False), _norm('fc_norm') | _linear('classifier', C, D)


def vivit_hf(layers=2):
    """transformers, models/vivit, as the hub has it: (backbone, head)"""
    backbone = _hf_vit(layers, ('query.bias', 'key.bias', 'value.bias'), cls=True)
    return backbone | _norm('layernorm'), _linear('classifier', C, D)


def _flax_block(name, modules=('LayerNorm_0', 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0'), lead=()):
    first, attention, second, mlp = (f'{name}/{module}' for module in modules)
    names = {f'{attention}/{part}/kernel': (D, 3, D // 3) for part in ('query', 'key', 'value')}
    names |= {f'{attention}/{part}/bias': (3, D // 3) for part in ('query', 'key', 'value')}
    names |= {f'{attention}/out/kernel': (3, D // 3, D), f'{attention}/out/bias': (D,)}
    names |= {f'{norm}/{leaf}': (D,) for norm in (first, second) for leaf in ('scale', 'bias')}
    names |= {f'{mlp}/Dense_0/kernel': (D, M), f'{mlp}/Dense_0/bias': (M,)}
    names |= {f'{mlp}/Dense_1/kernel': (M, D), f'{mlp}/Dense_1/bias': (D,)}
    return {name: (*lead, *shape) for name, shape in names.items()}


def _flax_encoder(name, layers, tokens, **block):
    names = {f'{name}/posembed_input/pos_embedding': (1, tokens, D)}
    for i in range(layers):
        names |= _flax_block(f'{name}/encoderblock_{i}', **block)
    return names | {f'{name}/encoder_norm/{leaf}': (D,) for leaf in ('scale', 'bias')}


def scenic_joint(layers=2):
    """google-research/scenic, projects/vivit, without factorisation, at 2 x 4 x 4 tokens of a 56 x 56 video"""
    names = {'embedding/kernel': (2, 14, 14, 3, D), 'embedding/bias': (D,), 'cls': (1, 1, D)}
    names |= _flax_encoder('Transformer', layers, 1 + 2 * 16)
    return names | {'output_projection/kernel': (D, C), 'output_projection/bias': (C,)}


def scenic_factorised(spatial=2, temporal=3, cls=True):
    """google-research/scenic, projects/vivit, factorised encoder"""
    names = {'embedding/kernel': (2, PATCH, PATCH, 3, D), 'embedding/bias': (D,)}
    for kind, layers, tokens in (('Spatial', spatial, 16), ('Temporal', temporal, 2)):
        names |= {f'cls_{kind}Transformer': (1, 1, D)} if cls else {}
        names |= _flax_encoder(f'{kind}Transformer', layers, tokens + cls)
    return names | {'output_projection/kernel': (D, C), 'output_projection/bias': (C,)}


def vit_augreg(layers=2):
    """google-research/vision_transformer, the augreg npz files"""
    modules = ('LayerNorm_0', 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3')
    names = {'embedding/kernel': (PATCH, PATCH, 3, D), 'embedding/bias': (D,), 'cls': (1, 1, D)}
    names |= _flax_encoder('Transformer', layers, 17, modules=modules)
    return names | {'head/kernel': (D, 21), 'head/bias': (21,), 'pre_logits/kernel': (D, D), 'pre_logits/bias': (D,)}


def vit_big_vision(layers=2, stacked=False):
    """google-research/big_vision, models/vit.py, pooled by the mean"""
    names = {'embedding/kernel': (PATCH, PATCH, 3, D), 'embedding/bias': (D,), 'pos_embedding': (1, 16, D)}
    if stacked:
        names |= _flax_block('Transformer/encoderblock', lead=(layers,))
    for i in range(0 if stacked else layers):
        names |= _flax_block(f'Transformer/encoderblock_{i}')
    names |= {f'Transformer/encoder_norm/{leaf}': (D,) for leaf in ('scale', 'bias')}
    return names | {'head/kernel': (D, 21), 'head/bias': (21,)}


def internvideo2(layers=2, separate=False):
    """OpenGVLab/InternVideo, InternVideo2/single_modality/models/internvideo2.py: 2 frames of 16 x 16 patches"""
    names = _conv('patch_embed.proj', tubelet=1, patch=14) | {'cls_token': (1, 1, D)}
    if separate:
        names |= {'pos_embed_spatial': (1, 256, D), 'pos_embed_temporal': (1, 2, D), 'pos_embed_cls': (1, 1, D)}
    else:
        names |= {'pos_embed': (1, 1 + 2 * 256, D)}
    for i in range(layers):
        block = _timm_block(f'blocks.{i}')
        for gone in ('norm1.bias', 'norm2.bias', 'attn.qkv.bias'):
            del block[f'blocks.{i}.{gone}']
        names |= block
        names |= {f'blocks.{i}.{name}': (D,) for name in ('attn.q_norm.weight', 'attn.k_norm.weight')}
        names |= {f'blocks.{i}.ls{k}.gamma': (D,) for k in (1, 2)}
    for part in 'qkv':
        names |= _norm(f'clip_projector.norm1_{part}') | {f'clip_projector.cross_attn.{part}_bias': (D,)}
        names |= {f'clip_projector.cross_attn.{part}.weight': (D, D)}
    return names | _linear('clip_projector.cross_attn.proj', 32, D) | _norm('fc_norm', 32) | _linear('head', C, 32)
