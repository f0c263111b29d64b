"""What the arrays of a weight file are, by their canonical names, and what the configuration beside it says."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidloc.checkpoints import containers, key_maps, preprocessing
from vidloc.checkpoints import overrides as overrides_lib
from vidloc.checkpoints.containers import FamilyError
from vidloc.models import sizes

if TYPE_CHECKING:
    from vidloc.checkpoints.readers.weights import Weights

# What config.json of Hugging Face calls the families.
MODEL_TYPES = {'vjepa2': 'vjepa2', 'videomae': 'videomae', 'vivit_joint': 'vivit'}
# What vidloc computes where config.json could ask for something else: GELU as it is (with erf) or its tanh form.
EXACT, TANH = ('gelu', 'gelu_python'), ('gelu_fast', 'gelu_new', 'gelu_pytorch_tanh', 'gelu_accurate')
COMPUTED = {
    'vjepa2': {'hidden_act': EXACT, 'qkv_bias': (True,)},
    'videomae': {'hidden_act': EXACT, 'qkv_bias': (True,)},
    'vivit_joint': {'hidden_act': TANH, 'qkv_bias': (True,), 'layer_norm_eps': (1e-6,)},
}


class Sheet:
    """The shapes of a file under their canonical names, and the configuration beside it if that belongs to the file."""

    def __init__(self, weights: 'Weights', place: containers.Place, overrides: dict[str, Any]) -> None:
        self.weights, self.place, self.overrides = weights, place, overrides
        self.layout, self.path = place.layout, weights.path
        self.family = place.layout.family
        self.notes: list[str] = []
        self.beside = self._read_beside()

    def _read_beside(self) -> Mapping[str, Any] | None:
        beside = self.weights.config
        expected = MODEL_TYPES.get(self.family)
        if beside is not None and beside.get('model_type', expected) != expected:
            self.notes.append(
                f'config.json beside the weights is of {beside["model_type"]!r} and not of {self.layout.name}; '
                f'nothing of it is used'
            )
            return None
        for key, known in COMPUTED.get(self.family, {}).items():
            if beside is not None and key in beside and beside[key] not in known:
                raise FamilyError(
                    f'{self.path}: config.json says {key}: {beside[key]!r}; vidloc has {self.family} with '
                    f'{" or ".join(map(repr, known))} only, and would compute other numbers than this model'
                )
        return beside

    def has(self, canonical: str) -> bool:
        return self._rule(canonical) is not None

    def _rule(self, canonical: str) -> key_maps.Rule | None:
        for rule in self.layout.bind(canonical):
            if all(source in self.place.names for source in rule.sources):
                return rule
        return None

    def somewhere(self, template: str, layers: int) -> str:
        """The leaf of the first layer that has it; of the first layer if none has."""
        leaves = [template.format(i=f'{i:02d}') for i in range(layers)]
        return next(filter(self.has, leaves), template.format(i='00'))

    def shape(self, canonical: str, axes: int) -> tuple[int, ...]:
        """The natural shape of a leaf that must be there and have so many axes."""
        rule = self._rule(canonical)
        if rule is None:
            names = ' or '.join(' with '.join(each.sources) for each in self.layout.bind(canonical))
            raise FamilyError(f'{self.path}: {names or canonical} is missing ({self.layout.name})')
        shapes = [self.weights.entries[self.place.names[source]].shape for source in rule.sources]
        try:
            shape = key_maps.natural_shape(rule, *shapes)
        except key_maps.FormError as error:
            raise FamilyError(f'{self.path}: {error}') from error
        if len(shape) != axes or not math.prod(shape):
            raise FamilyError(f'{self.path}: {rule.source} has the shape {shapes[0]} ({self.layout.name})')
        return shape

    def layers(self, stack: str) -> int:
        """The number of layers of a stack. Raises FamilyError if of one of them nothing is there."""
        found: set[int] = set()
        for source, full in self.place.names.items():
            for rule in self.layout.leaves(source):
                if rule.canonical.startswith(f'{stack}/block_'):
                    shape = self.weights.entries[full].shape
                    found |= set(range(min(shape[0], 1000) if shape else 0)) if rule.stacked else {rule.layer}
        if missing := [i for i in range(len(found)) if i not in found]:
            raise FamilyError(
                f'{self.path}: there are {len(found)} layers up to number {max(found)}, but nothing of layer '
                f'{", ".join(map(str, missing[:8]))} ({self.layout.name}); the file is damaged or incomplete'
            )
        if self.beside is not None and stack == 'backbone/encoder':
            self.expect('num_hidden_layers', len(found), 'layers')
        return len(found)

    def expect(self, key: str, value: int, what: str) -> None:
        """Raises FamilyError if config.json says something else than the weights."""
        said = self.beside.get(key) if self.beside is not None else None
        if said is not None and said != value:
            raise FamilyError(
                f'{self.path}: the weights have {value} {what}, config.json beside them says {key}: {said!r}; '
                f'they do not belong together, or the file is incomplete'
            )

    def heads(self, width: int, layers: int | None) -> int:
        """The number of heads, which divides the width: from overrides, config.json or the published sizes."""
        heads = self.overrides.get('heads')
        if heads is None and self.beside is not None:
            heads = self.beside.get('num_attention_heads')
        if heads is None:
            heads = sizes.heads_of(self.family, width, layers) if self.family in sizes.SIZES else None
        if heads is None:
            depth = '' if layers is None else f' and {layers} layers'
            raise FamilyError(
                f'{self.path}: the number of attention heads is not in the weights, no config.json beside them says '
                f'it, and no published model of {self.layout.name} has width {width}{depth}. Give it: '
                f'{overrides_lib.example("heads", 12)}'
            )
        heads = preprocessing.whole(heads, 'the number of heads', self.path)
        if width % heads:
            raise FamilyError(f'{self.path}: width {width} cannot be split into {heads} heads')
        return heads
