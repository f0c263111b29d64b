"""The part of a page that says what each class of boxes reached, alone and beside a second run."""

from collections.abc import Mapping, Sequence

from vidloc.report import class_plots, findings, markup, plots
from vidloc.report.run import Detection

# Colours and order of the groups by label count in training; other names follow in the order of the file.
GROUPS = ('head', 'mid', 'tail')
SCORE = 'AP at IoU 0.5'


def section(result: Detection, twin: Detection | None, other: str) -> str:
    """twin: a second run's result on the same source, other: that run's name."""
    group_of, style_of, order = _grouped(result)
    ranked = sorted(result.classes, key=lambda name: (result.per_class[name] is None, -(result.per_class[name] or 0)))
    entries = [
        plots.Bar(
            name,
            result.per_class[name],
            result.prevalence[name],
            group_of.get(name, ''),
            _of(twin, name),
            (
                ('baseline AP', markup.number(result.prior_per_class[name])),
                ('ratio', _ratio_text(result.per_class[name], result.prior_per_class[name])),
                ('training labels', markup.compact(result.train_count[name])),
                *((part, markup.number(values[name])) for part, values in result.parts.items()),
            ),
        )
        for name in ranked
    ]
    figure = plots.bars(
        entries,
        score=SCORE,
        mark='prevalence: share of the validation boxes that have the class',
        group_style=style_of,
        other=other if twin is not None else '',
    )
    dots = class_plots.by_frequency(
        _classes(result, twin, result.classes), score=SCORE, group_style=style_of, limits=result.group_limits
    )
    judged = verdict(
        findings.learning(result.per_class, result.prior_per_class),
        result.per_class,
        result.prior_per_class,
        'AP',
        "the AP of predicting the class's training frequency for every box",
        'because the validation truth has no box of them',
    )
    content = _protocols(result) + _counted(result) + judged + figure + _means(result, twin, other, order) + dots
    return markup.section(f'{result.source}: what each class reached', content)


def differences(result: Detection, twin: Detection, other: str) -> str:
    """The section that sets each class beside a second run's, most frequent class first."""
    _, style_of, _ = _grouped(result)
    ranked = sorted(result.classes, key=lambda name: -(result.train_count[name] or 0))
    entries = _classes(result, twin, ranked)
    figure = class_plots.differences(entries, score='AP', other=other, group_style=style_of)
    changes = [entry.change for entry in entries if entry.change is not None]
    note = (
        f'AP of this run minus AP of {markup.text(other)}; classes with the most training labels first. '
        f'Higher here in {sum(c > 0 for c in changes)} of {len(changes)} classes, lower in '
        f'{sum(c < 0 for c in changes)}. One pair of runs: small differences may be the seed.'
    )
    return markup.section(f'{result.source}: difference by class', figure, note=note)


def precisions(result: Detection, twin: Detection | None, other: str) -> str:
    """The section of precision curves, best class first."""
    ranked = sorted(result.classes, key=lambda name: -(result.per_class[name] or 0))
    entries = [
        class_plots.Precision(
            name,
            result.per_class[name],
            result.errors.precision[name],
            twin.errors.precision[name] if twin is not None and name in twin.errors.precision else (),
        )
        for name in ranked
    ]
    note = (
        'Across: recall from 0 to 1. Up: the best precision at that recall or a larger one, from 0 to 1; the area '
        'under it is the AP. A detection is right if the true box of its class that it overlaps most has an IoU of at '
        'least 0.5 and no detection with a higher score has it (official rules: at most 50 detections a keyframe).'
    )
    if any(entry.others for entry in entries):
        note += f' Dashed: {markup.text(other)}.'
    return markup.section(
        f'{result.source}: precision and recall', class_plots.precision_curves(entries, score='AP'), note=note
    )


def verdict(
    found: findings.Learning,
    scores: Mapping[str, float | None],
    baselines: Mapping[str, float | None],
    score: str,
    baseline: str,
    why_unknown: str,
) -> str:
    """Which classes are not learned, with the rule that says so."""
    rule = f'{score} below {findings.LEARNED_RATIO:g} times {baseline}'
    if found.not_learned:
        items = [
            f'<b>{markup.text(name)}</b> ({markup.number(scores[name])} against {markup.number(baselines[name])})'
            for name in found.not_learned
        ]
        said = f'<b>Not learned</b> by this rule – {markup.text(rule)}: {", ".join(items)}.'
    elif found.learned:
        said = f'No class is below the line for “not learned”: {markup.text(rule)}.'
    else:
        said = 'No class has both a score and a baseline, so nothing can be said of what was learned.'
    if found.unknown and (found.learned or found.not_learned):
        said += f' Not judged, {markup.text(why_unknown)}: {markup.listing(found.unknown)}.'
    tone = 'verdict' if found.not_learned or not found.learned else 'verdict fine'
    return f'<p class="{tone}">{said}</p>'


def _grouped(result: Detection) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """({class: group}, {group: colour}, groups in order)."""
    group_of = {name: group for group, names in result.groups.items() for name in names}
    order = [g for g in GROUPS if g in result.groups] + [g for g in result.groups if g not in GROUPS]
    return group_of, {group: i % len(GROUPS) for i, group in enumerate(order)}, order


def _of(twin: Detection | None, name: str) -> float | None:
    return twin.per_class[name] if twin is not None and name in twin.per_class else None


def _classes(result: Detection, twin: Detection | None, names: Sequence[str]) -> list[class_plots.Class]:
    group_of, _, _ = _grouped(result)
    return [
        class_plots.Class(
            name, result.per_class[name], result.train_count[name], group_of.get(name, ''), _of(twin, name)
        )
        for name in names
    ]


def _protocols(result: Detection) -> str:
    """Both ways of scoring, for all of the source and for each of its ground-truth files."""
    if Detection.SLOWFAST not in result.metrics:
        return ''
    rows = [
        (
            part or 'all',
            markup.number(result.metrics.get(f'{part}/{Detection.MAIN}' if part else Detection.MAIN)),
            markup.number(result.metrics.get(f'{part}/{Detection.SLOWFAST}' if part else Detection.SLOWFAST)),
        )
        for part in ('', *result.parts)
    ]
    note = (
        '<p class="note">Official rules: at most 50 detections a keyframe, only keyframes that are annotated. '
        "SlowFast's rules: no limit, and detections on seconds without truth are false."
    )
    if result.parts:
        note += ' Each mean is over the classes that have truth there.'
    return markup.table(('frame mAP@0.5', 'official rules', "SlowFast's rules"), rows) + f'{note}</p>'


def _counted(result: Detection) -> str:
    if result.counted_in == 'training':
        return ''
    return (
        '<p class="note"><b>The training data were not there when this was evaluated.</b> Labels are counted in the '
        'evaluated data instead: what is said here of training labels, head, mid and tail and the baseline is of those.'
        '</p>'
    )


def _means(result: Detection, twin: Detection | None, other: str, order: Sequence[str]) -> str:
    """Mean AP over groups of classes: by label count in training, and by kind of action where it is known."""
    headers = ['group', 'classes', 'mean AP', *([other, 'difference'] if twin is not None else [])]
    tables = ''
    for title, groups in (
        ('By how often a class occurs in training', {g: result.groups[g] for g in order}),
        ('By kind of action', result.action_groups),
    ):
        if not any(groups.values()):
            continue
        rows = []
        for group, names in groups.items():
            here = findings.mean(result.per_class, names)
            row = [group, len(names), markup.number(here)]
            if twin is not None:
                there = findings.mean(twin.per_class, names)
                gap = here - there if here is not None and there is not None else None
                row += [markup.number(there), markup.signed(gap)]
            rows.append(row)
        tables += f'<div><h3>{title}</h3>{markup.table(headers, rows)}</div>'
    return f'<div class="beside">{tables}</div>' if tables else ''


def _ratio_text(value: float | None, baseline: float | None) -> str:
    ratio = findings.ratio(value, baseline)
    return '–' if ratio is None else f'{ratio:.1f}'
