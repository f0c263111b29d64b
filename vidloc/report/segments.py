"""The parts of a page that say what a run reached on segments, where its precision is lost, and on which videos."""

import pathlib
from collections.abc import Sequence

from vidloc.annotations.records import AnnotationError
from vidloc.report import class_plots, films, markup, plots, segment_plots, timeline_picture, timeline_plots, timelines
from vidloc.report.run import Run
from vidloc.report.segment_run import Bin, SegmentErrors, Segments

_PROFILE = (
    'Of each class with G true segments, its G best-scored detections (1G), the next G (2G), and so on up to 10G where '
    'there are so many, all classes together. What is not right is named after the true segment it overlaps most, of '
    'any class. <b>double detection</b>: a tIoU of at least {tiou} with a segment of its class that a better one has; '
    '<b>wrong label</b>: the same with another class; <b>localization</b>: 0.1 to {tiou} with its class; '
    '<b>confusion</b>: the same with another class; <b>background</b>: below 0.1 with anything.'
)
_NORMALISED = (
    'Normalised mAP takes precision as if every class had as many true segments as the average class, so that it can '
    'be compared between parts of the truth.'
)
_BINS = {
    'thumos': "DETAD's for THUMOS-14, for each of them holds true segments of this source",
    'activitynet': "DETAD's for ActivityNet, for each of them holds true segments of this source",
    'fitted': (
        'fitted to the true segments of this source, so that each holds about as many; of the bins that DETAD has for '
        'THUMOS-14 and for ActivityNet some would be empty'
    ),
}
_TITLES = {
    'coverage': 'coverage: share of its video',
    'length': 'length in seconds',
    'instances': 'segments of the class in the video',
}


def reached(result: Segments, twin: Segments | None, other: str) -> str:
    """mAP at each threshold and AP of each class; twin, other: a second run's result on the source and its name."""
    named = other if twin is not None else ''
    entries = [
        plots.Bar(
            f'tIoU {threshold:g}',
            result.metrics.get(_metric(threshold)),
            None,
            other=twin.metrics.get(_metric(threshold)) if twin is not None else None,
            notes=tuple((f'recall of the best {k} G', markup.number(row[i])) for k, row in result.recall.items()),
        )
        for i, threshold in enumerate(result.thresholds)
    ]
    means = plots.bars(entries, score='mAP', mark='', group_style={}, other=named, what='threshold')
    ranked = sorted(result.classes, key=lambda name: (result.mean(name) is None, -(result.mean(name) or 0.0), name))
    classes = plots.bars(
        [
            plots.Bar(
                name,
                result.mean(name),
                None,
                other=twin.mean(name) if twin is not None and name in twin.per_class else None,
                notes=_notes(result, name),
            )
            for name in ranked
        ],
        score='average AP',
        mark='',
        group_style={},
        other=named,
    )
    counted = ''
    if result.counted_in != 'training':
        counted = (
            '<p class="note"><b>The training data were not there when this was evaluated.</b> What the table calls '
            'training segments is counted in the evaluated data.</p>'
        )
    if result.counts['left_out_videos']:
        missing = markup.count(int(result.counts['left_out_videos']))
        counted += f'<p class="note"><b>{missing} videos are not there</b>; their true segments count as missed.</p>'
    note = (
        'A detection is right if it has at least the tIoU with a true segment of its class that no detection with a '
        'higher score has taken. Classes without a true segment in validation take no part in the means.'
    )
    content = (
        f'{counted}<div class="two"><div><h3>mAP at each tIoU</h3>{means}</div>'
        f'<div><h3>AP of each class, mean over these tIoUs</h3>{classes}</div></div>{_dots(result)}'
    )
    return markup.section(f'{result.source}: what each class reached', content, note=note)


def _dots(result: Segments) -> str:
    """AP over how often a class occurs in training, where that is known."""
    if result.counted_in != 'training':
        return ''
    entries = [class_plots.Class(name, result.mean(name), result.train_count[name]) for name in result.classes]
    return class_plots.by_frequency(entries, score='average AP', group_style={}, limits=(0, 0))


def _metric(threshold: float) -> str:
    return f'map@{threshold:g}'


def _notes(result: Segments, name: str) -> tuple[tuple[str, str], ...]:
    at = result.operating[name]
    shown = [
        (f'AP at {threshold:g}', markup.number(value))
        for threshold, value in zip(result.thresholds, result.per_class[name], strict=True)
    ]
    shown += [
        ('true segments', markup.compact(result.truth_count[name])),
        ('training segments', markup.compact(result.train_count[name])),
        ('best F1', markup.number(at.f1 if at else None)),
        ('from score', markup.number(at.score if at else None)),
        ('precision', markup.number(at.precision if at else None)),
        ('recall', markup.number(at.recall if at else None)),
    ]
    return tuple(shown)


def lost(result: Segments, twin: Segments | None, other: str) -> str:
    """Where precision is lost, by the rules of DETAD (metrics/segment_errors.py)."""
    errors, theirs = result.errors, twin.errors if twin is not None else None
    if errors is None:
        return ''
    tiou = f'{errors.thresholds[0]:g}' if len(errors.thresholds) == 1 else 'the threshold'
    over = (
        f'At a tIoU of {errors.thresholds[0]:g}.'
        if len(errors.thresholds) == 1
        else f'Mean over tIoUs of {", ".join(f"{threshold:g}" for threshold in errors.thresholds)}.'
    )
    kinds = list(errors.profile[0])
    profiles = segment_plots.profile(errors.profile)
    if theirs is not None:
        profiles = (
            f'<div class="two"><div><h4>this run</h4>{profiles}</div>'
            f'<div><h4>{markup.text(other)}</h4>{segment_plots.profile(theirs.profile)}</div></div>'
        )
    gains = plots.bars(
        [
            plots.Bar(kind, gain, None, other=theirs.impact.get(kind) if theirs is not None else None)
            for kind, gain in errors.impact.items()
        ],
        score='gain in normalised mAP',
        mark='',
        group_style={},
        other=other if theirs is not None else '',
        what='kind of error',
    )
    content = (
        f'<h3>What the best-scored detections are</h3><p class="note">{_PROFILE.format(tiou=tiou)}</p>'
        f'{segment_plots.profile_keys(kinds)}{profiles}'
        f'<h3>What is gained when errors of a kind are taken away</h3><p class="note">{_NORMALISED}</p>{gains}'
        f'<h3>Which true segments are found well</h3>{_sensitivity(errors, theirs, other)}'
        f'<h3>Which true segments are not found at all</h3>{_missed(errors, theirs, other)}'
    )
    return markup.section(f'{result.source}: where precision is lost', content, note=f'{over} {_bins(errors)}')


def _bins(errors: SegmentErrors) -> str:
    return f'Bins of true segments: {_BINS.get(errors.bins, markup.text(errors.bins))}.'


def _charts(errors: SegmentErrors, theirs: SegmentErrors | None, value: str) -> list[segment_plots.Chart]:
    """One chart a characteristic of `value` (map or missed); a second run's where its bins are the same."""
    drawn = []
    for name, bins in errors.characteristics.items():
        there = theirs.characteristics.get(name, ()) if theirs is not None else ()
        same = [(bin.low, bin.high) for bin in there] == [(bin.low, bin.high) for bin in bins]
        columns = tuple(
            segment_plots.Column(
                bin.name,
                _range(bin),
                getattr(bin, value),
                bin.segments,
                getattr(there[i], value) if same else None,
            )
            for i, bin in enumerate(bins)
        )
        drawn.append(segment_plots.Chart(_TITLES.get(name, name), columns))
    return drawn


def _range(bin: Bin) -> str:
    if bin.high is None:
        return f'> {bin.low:g}'
    return f'≤ {bin.high:g}' if bin.low <= 0 else f'{bin.low:g}–{bin.high:g}'


def _sensitivity(errors: SegmentErrors, theirs: SegmentErrors | None, other: str) -> str:
    note = (
        '<p class="note">Normalised mAP in per cent on the true segments of each bin, with the detections that take '
        'none of another bin. Dashed: on all.</p>'
    )
    return (
        note
        + _keyed(other, theirs)
        + segment_plots.charts(
            _charts(errors, theirs, 'map'),
            score='normalised mAP, %',
            level=errors.map,
            other_level=theirs.map if theirs is not None else None,
            names=('this run', other if theirs is not None else ''),
        )
    )


def _missed(errors: SegmentErrors, theirs: SegmentErrors | None, other: str) -> str:
    note = (
        '<p class="note">The share of the true segments of each bin that no detection takes; from where normalised '
        'precision falls to 5 % on, detections take nothing.</p>'
    )
    return (
        note
        + _keyed(other, theirs)
        + segment_plots.charts(
            _charts(errors, theirs, 'missed'),
            score='not found',
            shares=True,
            names=('this run', other if theirs is not None else ''),
        )
    )


def _keyed(other: str, theirs: SegmentErrors | None) -> str:
    if theirs is None:
        return ''
    return (
        '<p class="keys"><span><i class="swatch"></i>this run</span>'
        f'<span><i class="swatch hatched"></i>{markup.text(other)}</span></p>'
    )


def shown(
    result: Segments, run: Run, folder: pathlib.Path, first: int, twin: Segments | None, other: Run | None
) -> tuple[str, int]:
    """The timelines of a source and the number of its next film; pictures of them are written beside the page."""
    title = f'{result.source}: timelines'
    named = other.workdir.name if other is not None and twin is not None else ''
    try:
        drawn = timelines.timelines(
            result, run.workdir, folder, first, twin, other.workdir if other is not None else None
        )
    except (AnnotationError, OSError) as error:
        return markup.section(title, f'<p class="note">No timeline is shown: {markup.text(error)}</p>'), first
    names = ('this run' if named else '', named)
    for number, timeline in enumerate(drawn, first):
        timeline_picture.write_picture(folder / f'timeline_{number:02d}.png', timeline, names=names)
    figures = ''.join(timeline_plots.film(timeline, names=names) for timeline in drawn)
    note = markup.text(f'{timelines.RULE} {films.RULE}')
    content = f'<div class="film-keys">{timeline_plots.keys(named)}</div><div class="films">{figures}</div>'
    return markup.section(title, content + _pictures(drawn, first), note=note), first + len(drawn)


def _pictures(drawn: Sequence[timelines.Timeline], first: int) -> str:
    if not drawn:
        return ''
    files = ', '.join(f'timeline_{number:02d}.png' for number, _ in enumerate(drawn, first))
    return f'<p class="note">As pictures, beside this page: {files}.</p>'


def card(result: Segments) -> tuple[str, float | None, str]:
    """(label, value, more words) of a source's card at the top of the page."""
    each = ', '.join(
        f'{threshold:g}: {markup.number(result.metrics.get(_metric(threshold)))}' for threshold in result.thresholds
    )
    said = (
        f'Mean over tIoU {each}. On {markup.count(int(result.counts["videos"] or 0))} videos with '
        f'{markup.count(int(result.counts["ground_truths"] or 0))} segments of {len(result.classes)} classes.'
    )
    return f'{result.source}: average mAP', result.metrics[Segments.MAIN], said
