"""Rules for the modules that several layouts share: norms, linear layers, blocks, encoders."""

import dataclasses

from vidloc.checkpoints.key_maps import Rule

Rules = tuple[Rule, ...]
PARTS = ('query', 'key', 'value')


def norm(leaf: str, source: str) -> Rules:
    return (Rule(f'{leaf}/scale', f'{source}.weight'), Rule(f'{leaf}/bias', f'{source}.bias'))


def linear(leaf: str, source: str, *, inputs: int = 1) -> Rules:
    return (Rule(f'{leaf}/kernel', f'{source}.weight', 'linear', inputs=inputs), Rule(f'{leaf}/bias', f'{source}.bias'))


def conv(leaf: str, source: str) -> Rules:
    return (Rule(f'{leaf}/kernel', f'{source}.weight', 'conv'), Rule(f'{leaf}/bias', f'{source}.bias'))


def by_head(leaf: str, source: str) -> Rules:
    """One of query, key and value."""
    return (Rule(f'{leaf}/kernel', f'{source}.weight', 'linear'), Rule(f'{leaf}/bias', f'{source}.bias', 'flat'))


def fused(names: tuple[str, ...], source: str) -> Rules:
    """Query, key and value (or the last two) one below the other in one matrix."""
    count = len(names)
    return tuple(
        dataclasses.replace(rule, part=(k, count)) for k, name in enumerate(names) for rule in by_head(name, source)
    )


def same(leaf: str, source: str, *names: str) -> Rules:
    """Leaves of a flax module, which have the canonical axes."""
    return tuple(Rule(f'{leaf}/{name}', f'{source}/{name}') for name in names)


def under(leaf: str, source: str, rules: Rules) -> Rules:
    """The rules with `leaf` and `source` in front of their names."""
    return tuple(
        dataclasses.replace(
            rule,
            canonical=leaf + rule.canonical,
            source=source + rule.source,
            beside=tuple(source + name for name in rule.beside),
        )
        for rule in rules
    )


MLP = (*linear('mlp/fc1', 'mlp.fc1'), *linear('mlp/fc2', 'mlp.fc2'))
# The block of timm, of which the original releases of V-JEPA 2, VideoMAE and InternVideo2 are variants.
TIMM = (
    *norm('ln1', 'norm1'),
    *fused(tuple(f'attn/{part}' for part in PARTS), 'attn.qkv'),
    *linear('attn/out', 'attn.proj', inputs=2),
    *norm('ln2', 'norm2'),
    *MLP,
)
FUSED_BIASES = tuple(rule for rule in TIMM if rule.source == 'attn.qkv.bias')
WITHOUT_QKV_BIAS = tuple(rule for rule in TIMM if rule not in FUSED_BIASES)
ENCODER = 'backbone/encoder/block_{i}/'

HF_SELF = tuple(rule for part in PARTS for rule in by_head(f'attn/{part}', f'attention.attention.{part}'))
HF_REST = (
    *linear('attn/out', 'attention.output.dense', inputs=2),
    *norm('ln1', 'layernorm_before'),
    *norm('ln2', 'layernorm_after'),
    *linear('mlp/fc1', 'intermediate.dense'),
    *linear('mlp/fc2', 'output.dense'),
)


def flax_block(first: str, attention: str, second: str, mlp: str) -> Rules:
    """A block of flax, whose modules are numbered in the order in which they are called."""
    return (
        *same('ln1', first, 'scale', 'bias'),
        *(rule for part in PARTS for rule in same(f'attn/{part}', f'{attention}/{part}', 'kernel', 'bias')),
        *same('attn/out', f'{attention}/out', 'kernel', 'bias'),
        *same('ln2', second, 'scale', 'bias'),
        *same('mlp/fc1', f'{mlp}/Dense_0', 'kernel', 'bias'),
        *same('mlp/fc2', f'{mlp}/Dense_1', 'kernel', 'bias'),
    )


POSITION = 'Transformer/posembed_input/pos_embedding'
FLAX = flax_block('LayerNorm_0', 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0')
AUGREG = flax_block('LayerNorm_0', 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3')


def flax_encoder(leaf: str, source: str, block: Rules, cls: str, position: str) -> Rules:
    """An encoder of flax at `source`; cls, position: the names of its CLS token and its positions."""
    return (
        Rule(f'{leaf}/cls', cls),
        Rule(f'{leaf}/position', position),
        *under(f'{leaf}/block_{{i}}/', f'{source}/encoderblock_{{i}}/', block),
        *same(f'{leaf}/norm', f'{source}/encoder_norm', 'scale', 'bias'),
    )


FLAX_EMBEDDING = same('backbone/embedding', 'embedding', 'kernel', 'bias')
