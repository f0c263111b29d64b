"""Finished cells as means, spreads and verdicts, and as a text for people."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vidloc.experiments import statistics

HOLDS, REVERSED, UNRESOLVED, NOT_RUN = 'holds', 'the reverse holds', 'not resolved', 'not run'


@dataclasses.dataclass(frozen=True)
class Claim:
    """`better` is to exceed `than` in `metric`; paper: the figures of (`than`, `better`) in percent, if it has them."""

    table: str
    metric: str
    better: str
    than: str
    paper: tuple[float, float] | None = None


def summed_up(
    claims: Sequence[Claim], arms: Sequence[str], cells: Sequence[Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, Any]:
    """{'arms': {arm: {metric: {mean, spread, values by seed}}}, 'claims': [one row each]}; values are shares of 1.

    Differences are taken between cells of one seed; seeds of which either cell is missing are left out.
    """
    values: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    for cell in cells:
        for metric, value in cell['metrics'].items():
            values[cell['arm']].setdefault(metric, {})[cell['seed']] = value
    means = {
        arm: {
            metric: {
                'mean': math.fsum(by_seed.values()) / len(by_seed),
                'spread': statistics.spread(list(by_seed.values())) if len(by_seed) > 1 else None,
                'values': {str(seed): by_seed[seed] for seed in sorted(by_seed)},
            }
            for metric, by_seed in metrics.items()
        }
        for arm, metrics in values.items()
    }
    return {'arms': means, 'claims': [_row(claim, values, seeds) for claim in claims], 'planned_seeds': list(seeds)}


def _row(claim: Claim, values: Mapping[str, Mapping[str, Mapping[int, float]]], seeds: Sequence[int]) -> dict[str, Any]:
    better, than = (values[arm].get(claim.metric, {}) for arm in (claim.better, claim.than))
    shared = [seed for seed in seeds if seed in better and seed in than]
    row = {
        'table': claim.table,
        'metric': claim.metric,
        'better': claim.better,
        'than': claim.than,
        'paper': list(claim.paper) if claim.paper else None,
        'seeds': shared,
    }
    if not shared:
        return row | {'verdict': NOT_RUN, 'difference': None, 'half_interval': None}
    found = statistics.paired([better[seed] for seed in shared], [than[seed] for seed in shared])
    verdict = UNRESOLVED if not found.resolved else HOLDS if found.mean > 0 else REVERSED
    half = found.half if math.isfinite(found.half) else None
    return row | {'verdict': verdict, 'difference': found.mean, 'half_interval': half}


def markdown(
    summed: Mapping[str, Any],
    setting: str,
    reading: str,
    metrics: Sequence[str],
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """claims.md: the setting, every arm, every claim. Figures in percent.

    setting, reading: what all arms share, and how names and figures are to be read. columns: {title: {arm: text}},
    what else is told of the arms.
    """
    columns = columns or {}
    titles = ['arm', 'seeds', *metrics, *columns]
    lines = [
        setting,
        '',
        f'Arms, in percent, mean and sample standard deviation over seeds; {reading}',
        '',
        _cells(titles),
        _cells(['---'] * len(titles)),
    ]
    for arm, found in summed['arms'].items():
        count = max((len(each['values']) for each in found.values()), default=0)
        more = [texts.get(arm, '') for texts in columns.values()]
        lines.append(_cells([arm, str(count) if count else NOT_RUN, *_figures(found, metrics), *more]))
    lines += [
        '',
        'Claims. The difference is A - B between runs of one seed, in points, with its '
        f'{statistics.COVERAGE:.0%} interval (Student t over seeds). A claim is resolved if the interval leaves out 0. '
        f'Of {len(summed["claims"])} claims about {(1 - statistics.COVERAGE) * len(summed["claims"]):.0f} would look '
        'resolved by chance if no arm differed.',
        '',
        _cells(['table', 'metric', 'A', 'B', 'paper A', 'paper B', 'paper A - B', 'ours A - B', 'seeds', 'verdict']),
        _cells(['---'] * 10),
    ]
    for row in summed['claims']:
        than, better = row['paper'] or (None, None)
        paper = ['', '', ''] if than is None else [f'{better:.1f}', f'{than:.1f}', f'{better - than:+.1f}']
        ours = ''
        if row['difference'] is not None:
            half = '' if row['half_interval'] is None else f' ± {100 * row["half_interval"]:.1f}'
            ours = f'{100 * row["difference"]:+.1f}{half}'
        lines.append(
            _cells(
                [row['table'], row['metric'], row['better'], row['than'], *paper, ours, str(len(row['seeds']))]
                + [row['verdict']]
            )
        )
    return '\n'.join(lines) + '\n'


def one_line(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    """Those of `names` that are among the figures, in percent."""
    return ', '.join(f'{name} {100 * metrics[name]:.1f}' for name in names if name in metrics)


def _figures(found: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    texts = []
    for metric in metrics:
        if metric not in found:
            texts.append('')
            continue
        spread = found[metric]['spread']
        texts.append(f'{100 * found[metric]["mean"]:.1f}' + ('' if spread is None else f' ± {100 * spread:.1f}'))
    return texts


def _cells(texts: Sequence[str]) -> str:
    return f'| {" | ".join(texts)} |'
