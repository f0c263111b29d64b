"""Layer-wise rate decay, as rows of a freezing table (train/trainable.py): the deeper a layer, the slower it learns.

As Bao et al. 2022, "BEiT", and after it facebookresearch/mae, util/lr_decay.py, and google-research/scenic,
projects/objectvivit/optimizer_utils.py: layer i of L (from 1) has the rate decay ** (L + 1 - i), what lies below the
first layer is layer 0, and what lies above the last one, the final norm and the heads, is layer L + 1 with rate 1.
"""

import re
from collections.abc import Collection, Mapping

from vidloc.train.trainable import PLAIN, Rule


def table(
    stacks: Mapping[str, int], decay: float, root: str = 'backbone', names: Collection[str] | None = None
) -> tuple[Rule, ...]:
    """A freezing table in which everything trains; biases, norms, positions and CLS tokens without weight decay.

    Stacks count on: the first layer of a stack comes after the last one of the stack before it. What a stack has
    besides its layers goes with its place: a norm comes after its last layer, so it has the rate of the layer that
    follows; positions and CLS tokens come in before its first layer, so they have the rate of the layer before (those
    of the first stack that of the embedding, the lowest of all). Norms beside the stacks come after all of them and
    have rate 1. Rates differ, frozen is nothing: stacks stay whole.

    Args:
      stacks: {stack: its number of layers}, in the order in which the input passes them, all below `root`.
      decay: above 0, up to 1; 0.65 in objectvivit's baseline for Something-Something.
      root: of the parameters that the stacks belong to; all others (heads) have rate 1.
      names: canonical names of the parameters of `root`; rows that none of them would take are left out, because not
        every backbone has positions or a norm in its stacks. None: every row, for a stack that has both.

    Raises:
      ValueError: decay out of range, no stack, or a stack without layers.
    """
    if not 0 < decay <= 1:
        raise ValueError(f'the layer-wise decay is {decay}; it must be above 0 and at most 1.')
    if not stacks or min(stacks.values()) < 1:
        raise ValueError(f'layer-wise decay needs stacks of at least one layer, not {dict(stacks)}.')
    top = sum(stacks.values()) + 1
    rules: list[Rule] = []
    passed = 0
    for stack, count in stacks.items():
        path = f'{root}/{stack}'
        for i in range(count):
            rate = decay ** (top - (passed + i + 1))
            block = f'{path}/block_{i:02d}'
            rules += [Rule(f'{block}/(.*/)?{PLAIN}', rate, False), Rule(f'{block}/.*', rate, True)]
        rules.append(Rule(f'{path}/norm/.*', decay ** (top - (passed + count + 1)), False))
        rules.append(Rule(f'{path}/{PLAIN}', decay ** (top - passed), False))
        passed += count
    if names is not None:
        rules.append(Rule(rf'{root}/norm(_\d+)?/.*', 1.0, False))
    lowest = decay**top
    rules += [Rule(f'{root}/(.*/)?{PLAIN}', lowest, False), Rule(f'{root}/.*', lowest, True)]
    if names is not None:
        rules = _taken(rules, names)
    return (*rules, Rule(f'.*/{PLAIN}', 1.0, False), Rule('.*', 1.0, True))


def _taken(rules: list[Rule], names: Collection[str]) -> list[Rule]:
    """The rules that win a name, first match first."""
    winners = {next((i for i, rule in enumerate(rules) if re.fullmatch(rule.pattern, name)), None) for name in names}
    return [rule for i, rule in enumerate(rules) if i in winners]
