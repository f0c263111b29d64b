"""Where in a weight file the model is, and in which layout: containers and wrappers are found, not listed."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vidloc.checkpoints import key_maps
from vidloc.checkpoints.layouts import LAYOUTS

if TYPE_CHECKING:
    from vidloc.checkpoints.readers.weights import Weights

# Optimisers keep arrays of the same names: their moments.
MOMENTS = {'opt_state', 'optimizer_state', 'param_states', 'mu', 'nu', 'trace', 'exp_avg', 'exp_avg_sq'}
# The weights that evaluation uses come first: averages, for V-JEPA, where they are the model that was trained for.
PREFERRED = {'target_encoder', 'ema_encoder'}
COPIES = {'model_ema', 'ema', 'ema_params', 'ema_model', 'teacher'}
# Deeper than any container and wrappers of a published file.
DEPTH = 12


class FamilyError(ValueError):
    """The weights are of no known family, or a size of the model cannot be read from them: what, and what to do."""


@dataclasses.dataclass(frozen=True)
class Place:
    """layout: of the model. prefix: what stands before the names of its backbone (a head alone: of the head).

    names: {name in the layout: name of the entry}. others: prefixes under which the file has further models.
    """

    layout: key_maps.Layout
    prefix: str
    names: dict[str, str]
    others: tuple[str, ...]


@dataclasses.dataclass
class _Candidate:
    layout: key_maps.Layout
    prefix: str
    seen: Counter = dataclasses.field(default_factory=Counter)

    @property
    def matched(self) -> int:
        sources = {source for rule in self.layout.rules for source in rule.sources}
        return sum(count for template, count in self.seen.items() if template in sources)

    @property
    def rank(self) -> int:
        """Lower ones are preferred; of several of the lowest the user has to choose."""
        parts = set(re.split(r'[/.]', self.prefix))
        head_alone = not any(rule.canonical.startswith('backbone/') for rule in self.layout.rules)
        preferred = PREFERRED.union(self.layout.preferred)
        return 10 * head_alone + (0 if parts & preferred else 2 if parts & COPIES else 1)

    def wrong(self, weights: 'Weights') -> list[str]:
        """What speaks against this layout."""
        found = [f'no {name}' for name in self.layout.telling if not self.seen[name]]
        found += [f'there is {name}, which such files do not have' for name in self.layout.absent if self.seen[name]]
        for rule in self.layout.rules:
            if rule.canonical == 'backbone/embedding/kernel' and self.seen[rule.source]:
                axes = len(weights.entries[self.prefix + rule.source].shape)
                if axes != self.layout.filter_axes:
                    found.append(f'{rule.source} has {axes} axes, not {self.layout.filter_axes}')
        return found


def find(weights: 'Weights', *, which: str = '') -> Place:
    """The model of a file; `which` names the container where there are several. Raises FamilyError."""
    candidates = _candidates(weights.entries)
    fitting = [candidate for candidate in candidates if not candidate.wrong(weights)]
    if not fitting:
        raise FamilyError(_nothing_fits(weights, candidates))
    chosen = [candidate for candidate in fitting if _is_in(candidate.prefix, which)]
    if not chosen:
        raise FamilyError(f'{weights.path}: there is no model in {which!r}; there are models in {_listed(fitting)}')
    best = min(candidate.rank for candidate in chosen)
    chosen = [candidate for candidate in chosen if candidate.rank == best]
    if len({candidate.prefix for candidate in chosen}) > 1:
        example = _called(candidate.prefix for candidate in chosen)[0]
        raise FamilyError(
            f'{weights.path}: there are models in {_listed(chosen)}; say which one is to be read: {_which(example)}'
        )
    place = max(chosen, key=lambda candidate: candidate.matched)
    for candidate in candidates:
        # Else a damaged copy would silently be replaced by another one.
        better = candidate.layout is place.layout and candidate.rank < best and candidate not in fitting
        if better and not which and 2 * candidate.matched > place.matched:
            (damaged,), (other,) = _called([candidate.prefix]), _called([place.prefix])
            raise FamilyError(
                f'{weights.path}: {damaged} would be read ({place.layout.name}), but there is something wrong with '
                f'it: {"; ".join(candidate.wrong(weights))}. To read {other} instead: {_which(other)}'
            )
    others = tuple(sorted({candidate.prefix for candidate in fitting} - {place.prefix}))
    return Place(place.layout, place.prefix, _names(weights, place), others)


def _candidates(entries: Iterable[str]) -> list[_Candidate]:
    """Every prefix behind which names of a layout begin, with what was seen of the layout."""
    index = _index()
    candidates: dict[tuple[str, str], _Candidate] = {}
    for name in entries:
        borders = [0, *(match.end() for match in re.finditer(r'[/.]', name))][:DEPTH]
        for border in borders:
            for layout, template in index.get(key_maps.name_key(name[border:]), ()):
                if key_maps.stands_for(template, name[border:]):
                    key = (layout.name, name[:border])
                    candidates.setdefault(key, _Candidate(layout, name[:border])).seen[template] += 1
    return [candidate for candidate in candidates.values() if not _is_moment(candidate.prefix)]


@functools.cache
def _index() -> dict[str, list[tuple[key_maps.Layout, str]]]:
    index: dict[str, list[tuple[key_maps.Layout, str]]] = {}
    for layout in LAYOUTS:
        sources = {source for rule in layout.rules for source in rule.sources}
        for template in sorted(sources.union(layout.telling, layout.absent)):
            index.setdefault(key_maps.name_key(template), []).append((layout, template))
    return index


def _is_moment(prefix: str) -> bool:
    """`opt/target/...` and `optimizer/target/...` hold parameters, all else of an optimiser does not."""
    parts = re.split(r'[/.]', prefix)
    optimiser = parts[0] in ('opt', 'optimizer') and parts[1:2] != ['target']
    return optimiser or bool(MOMENTS & set(parts))


def _is_in(prefix: str, which: str) -> bool:
    which = which.strip('/.')
    return not which or prefix.startswith((f'{which}/', f'{which}.'))


def _called(prefixes: Iterable[str]) -> list[str]:
    """What a user would call these places: containers if that tells them apart, else all of the prefixes."""
    prefixes = sorted(set(prefixes))
    names = [prefix[: prefix.rfind('/')] if '/' in prefix else prefix.rstrip('.') for prefix in prefixes]
    return names if len(set(names)) == len(names) else [prefix.rstrip('/.') for prefix in prefixes]


def _which(name: str) -> str:
    """How a user asks for a part of a file."""
    return f'which={name!r} (--which of the tools, --config.weights.which of a run)'


def _listed(candidates: Iterable[_Candidate]) -> str:
    names = [name or 'the file itself' for name in _called(candidate.prefix for candidate in candidates)]
    return ', '.join(names[:12]) + (f' and {len(names) - 12} more' if len(names) > 12 else '')


def _names(weights: 'Weights', place: _Candidate) -> dict[str, str]:
    """All entries of the container under their names in the layout.

    A classifier is often wrapped less than the backbone (`vjepa2.encoder...`, `classifier...`), so as much of the
    prefix as an entry has is taken off.
    """
    container = place.prefix[: place.prefix.rfind('/') + 1]
    nested = any('/' in rule.source for rule in place.layout.rules)
    borders = [0, *(match.end() for match in re.finditer(r'[/.]', place.prefix))]
    names: dict[str, str] = {}
    for full in weights.entries:
        if not full.startswith(container) or (not nested and '/' in full[len(container) :]):
            continue
        border = max(border for border in borders if full.startswith(place.prefix[:border]))
        if (name := full[border:]) in names:
            raise FamilyError(f'{weights.path}: {full} and {names[name]} are both {name} of {place.layout.name}')
        names[name] = full
    return names


def _nothing_fits(weights: 'Weights', candidates: list[_Candidate]) -> str:
    known = ', '.join(dict.fromkeys(layout.name.split(',')[0] for layout in LAYOUTS))
    names = list(weights.entries)
    text = f'{weights.path}: these weights are of no family that vidloc knows ({known}).'
    if candidates:
        nearest = max(candidates, key=lambda candidate: candidate.matched)
        where = f' behind {nearest.prefix!r}' if nearest.prefix else ''
        text += (
            f' The nearest is {nearest.layout.name}: {nearest.matched} of {len(names)} names are those of this layout'
            f'{where}, but {"; ".join(nearest.wrong(weights))}.'
        )
    return f'{text} The names begin with: {", ".join(names[:5]) or "none, the file has no arrays"}'
