"""The page of a run: one static HTML file, and the annotated videos beside it; no network.

Page: W/report/index.html; videos: W/report/video_01.mp4 and so on, named by relative links, because browsers
on phones do not play videos embedded as text. Rules that pick or judge something stand on the page in words.
"""

import base64
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

from vidloc.annotations.records import AnnotationError
from vidloc.report import (
    action_groups,
    augmentation,
    classes,
    errors,
    findings,
    markup,
    plots,
    segment_style,
    segments,
    style,
    videos,
)
from vidloc.report.run import Classification, Detection, Run, Segments, Union, flat, read_run, series

REPORT_FOLDER = 'report'


def write_page(
    workdir: str | os.PathLike,
    out: str | os.PathLike | None = None,
    compare: str | os.PathLike | None = None,
    groups: str | os.PathLike | None = None,
    films: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Writes the page of the run in `workdir` to the folder `out` (default: W/report); returns its path.

    compare: the workdir of a second run whose numbers are shown beside this one's. groups: csv of classes and the
    kind of action they are (report/action_groups.py), in place of what the label map tells. films: the folder of videos
    of the timelines of sources that do not name one, such as those of features.

    Raises:
      RunError: a workdir is none, or a file in it is damaged.
      GroupError: the file of groups is not as it should be.
      OSError: the page cannot be written.
    """
    run = read_run(workdir)
    other = read_run(compare) if compare is not None else None
    if groups is not None:
        run = _with_groups(run, action_groups.read_groups(groups))
    if films is not None:
        run = _with_films(run, os.path.abspath(films))
    folder = pathlib.Path(out) if out is not None else run.workdir / REPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = _page(run, other, folder)
    path = folder / 'index.html'
    partial = folder / f'.index.{os.getpid()}.partial'
    partial.write_text(content, encoding='utf-8')
    os.replace(partial, path)
    return path


def _page(run: Run, other: Run | None, folder: pathlib.Path) -> str:
    script, css = style.SCRIPT + segment_style.SCRIPT, style.CSS + segment_style.CSS
    digest = base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')
    # Escaping keeps names harmless; the policy also stops any script but the page's own.
    policy = f"script-src 'sha256-{digest}'; object-src 'none'; base-uri 'none'; connect-src 'none'"
    parts = [_headline(run)]
    if other is not None:
        parts.append(_comparison(run, other))
    number = 1
    for result in run.detections:
        twin, named = _twin(result, other), other.workdir.name if other is not None else ''
        again = any(findings.with_true_boxes(shown, run) is result for shown in run.detections)
        if not again and result.source not in augmentation.seen(run):
            section, number = _videos(result, run, folder, number)
            parts.append(section)
        parts.append(classes.section(result, twin, named))
        if twin is not None:
            parts.append(classes.differences(result, twin, named))
        parts += [errors.section(result, run), classes.precisions(result, twin, named)]
    number = 1
    for result in run.segments:
        twin, named = _twin(result, other), other.workdir.name if other is not None else ''
        section, number = segments.shown(result, run, folder, number, twin, other)
        parts += [section, segments.reached(result, twin, named), segments.lost(result, twin, named)]
    parts.extend(_clips(result, _twin(result, other), other) for result in run.classifications)
    parts += [augmentation.section(run), _curves(run, other)]
    parts.append(_about(run))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{markup.text(run.name)} – vidloc run</title>\n<style>{css}</style>\n</head>\n<body>\n'
        f'{_header(run)}<main>\n{"".join(parts)}</main>\n'
        '<footer>Written by vidloc from the files of this run. Keep the files beside this page.</footer>\n'
        f'<script>{script}</script>\n</body>\n</html>\n'
    )


def _with_groups(run: Run, groups: Mapping[str, Sequence[str]]) -> Run:
    detections = tuple(
        dataclasses.replace(result, action_groups=action_groups.among(groups, result.classes))
        for result in run.detections
    )
    return dataclasses.replace(run, detections=detections)


def _with_films(run: Run, films: str) -> Run:
    named = tuple(result if result.videos else dataclasses.replace(result, videos=films) for result in run.segments)
    return dataclasses.replace(run, segments=named)


def _header(run: Run) -> str:
    said = []
    environment = flat(run.environment)
    if 'finished' in environment or 'started' in environment:
        said.append(environment['finished' if 'finished' in environment else 'started'])
    if 'devices' in environment:
        said.append(f'on {environment["devices"]}')
    if 'seconds' in environment:
        said.append(f'trained for {_spoken(float(environment["seconds"]))}')
    results = (*run.detections, *run.segments, *run.classifications)
    if results:
        said.append(f'evaluated at step {markup.count(max(result.step for result in results))}')
    return (
        f'<header><p class="eyebrow">vidloc run</p><h1>{markup.text(run.name)}</h1>'
        f'<p class="meta">{markup.text(" · ".join(said))}</p></header>\n'
    )


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'


def _headline(run: Run) -> str:
    cards = []
    for result in run.unions:
        more = f'{" and ".join(result.members)} scored together.'
        cards.append(_card(f'{result.source}: frame mAP@0.5', result.metrics[result.MAIN], None, '', more))
    for result in run.detections:
        value = result.metrics[Detection.MAIN]
        baseline = "predicting each class's training frequency for every box"
        more = f'{_against(value, result.prior_map)} of {baseline}.'
        rest = findings.without_best(result)
        if rest is not None:
            more += (
                f' Without its {findings.BEST_LEFT_OUT} best classes: {rest[0]:.3f} against {rest[1]:.3f} '
                f'({_times(*rest)}).'
            )
        size = f'{markup.count(result.keyframes)} keyframes'
        if result.source in augmentation.seen(run):
            size += ', which the run trained on'
        cards.append(_card(f'{result.source}: frame mAP@0.5', value, result.prior_map, baseline, f'{more} On {size}.'))
    cards.extend(_card(label, value, None, '', more) for label, value, more in map(segments.card, run.segments))
    for result in run.classifications:
        value = result.metrics[Classification.MAIN]
        more = f'{_against(value, result.chance)} of chance.'
        if 'top5' in result.metrics and len(result.classes) > 5:
            more += f' Top-5 {markup.number(result.metrics["top5"])}.'
        clips = sum(map(sum, result.confusion))
        more += f' On {markup.count(clips)} clips of {len(result.classes)} classes.'
        cards.append(_card(f'{result.source}: clip top-1', value, result.chance, 'chance', more))
    if not cards:
        return '<p class="note">This run has not been evaluated yet: its folder eval/ holds no results.</p>\n'
    return f'<div class="cards">{"".join(cards)}</div>\n'


def _card(label: str, value: float | None, baseline: float | None, name: str, more: str) -> str:
    times = f'<small>{_times(value, baseline)} baseline</small>' if _times(value, baseline) else ''
    beside = plots.versus(value, baseline, name) if name else ''
    return (
        f'<div class="card"><p class="label">{markup.text(label)}</p><p class="big">{markup.number(value)}'
        f'{times}</p>{beside}'
        f'<p class="more">{markup.text(more)}</p></div>'
    )


def _times(value: float | None, baseline: float | None) -> str:
    """`3.6 ×`, or '' where there is no ratio."""
    ratio = findings.ratio(value, baseline)
    return '' if ratio is None else f'{ratio:.1f} ×'


def _against(value: float | None, baseline: float | None) -> str:
    """`3.6 × the 0.101`, or the baseline alone where there is no ratio."""
    return (
        f'{_times(value, baseline)} the {markup.number(baseline)}'
        if _times(value, baseline)
        else (f'Beside the {markup.number(baseline)}')
    )


def _twin(result: Detection | Segments | Classification | Union, other: Run | None):
    """The second run's result on the same source, None where it has none."""
    results = () if other is None else (*other.unions, *other.detections, *other.segments, *other.classifications)
    same = (twin for twin in results if twin.source == result.source and type(twin) is type(result))
    return next(same, None)


def _comparison(run: Run, other: Run) -> str:
    rows, meanings = [], []
    for result in (*run.unions, *run.detections, *run.segments, *run.classifications):
        twin = _twin(result, other)
        here, there = result.metrics[result.MAIN], twin.metrics[result.MAIN] if twin else None
        gap = here - there if here is not None and there is not None else None
        steps = f'{result.step} / {twin.step}' if twin else f'{result.step} / –'
        heading = f'{result.source}: {result.MAIN}'
        rows.append((heading, markup.number(here), markup.number(there), markup.signed(gap), steps))
        if twin is not None and isinstance(result, Detection):
            meanings.append(f'<p>{markup.text(findings.pairing(run, other, result.source))}</p>')
    headers = ('metric', 'this run', other.workdir.name, 'difference', 'steps')
    differing = findings.differences(run, other)
    config = [(name, here or '–', there or '–') for name, here, there in differing]
    folded = (
        markup.details(
            f'Config entries that differ ({len(config)})',
            f'<div class="plain">{markup.table(("entry", "this run", other.workdir.name), config)}</div>',
        )
        if config
        else '<p class="note">The two configs are equal.</p>'
    )
    title = f'Beside a second run: {other.workdir.name}'
    return markup.section(title, markup.table(headers, rows) + ''.join(meanings) + folded)


def _videos(result: Detection, run: Run, folder: pathlib.Path, first: int) -> tuple[str, int]:
    title = f'{result.source}: validation videos'
    try:
        clips = videos.annotated(result, run.workdir, folder, first)
    except (AnnotationError, OSError) as error:
        return markup.section(title, f'<p class="note">No video is shown: {markup.text(error)}</p>'), first
    note = markup.text(
        f'{videos.RULE} Boxes are annotated and predicted at keyframes only; between them the boxes of the nearest '
        f'keyframe are drawn, so a moving person may leave the box. Each predicted box shows its best class, and '
        f'the second best from a score of {videos.SECOND_LABEL:g} on. Videos longer than {videos.MAX_SECONDS:g} s are '
        f'cut. Truth: solid white line, label below. Prediction: dashed orange line, label above.'
    )
    keys = (
        '<p class="keys"><span><i class="swatch true"></i>true at this keyframe</span><span><i class="swatch guess">'
        "</i>predicted: the best box's score is its height</span><span>click to go there</span></p>"
    )
    figures = ''.join(_clip(clip) for clip in clips)
    return markup.section(title, f'{keys}<div class="videos">{figures}</div>', note=note), first + len(clips)


def _clip(clip: videos.Annotated) -> str:
    caption = f'<figcaption>{markup.text(clip.name)}</figcaption>'
    if clip.file is None:
        return f'<figure class="clip">{caption}<p class="missing">Not shown: {markup.text(clip.problem)}</p></figure>'
    label = markup.text(f'Video {clip.name} with true and predicted boxes, {clip.seconds:.1f} seconds')
    cut = f' <span class="note">from {clip.start:.1f} s</span>' if clip.start else ''
    rows = [
        (
            name,
            *(f'{"true" if span.truth else "–"} / {markup.number(span.score, 2)}' for span in spans),
        )
        for name, spans in clip.rows
    ]
    headers = ('class', *(f'{time:g} s' for time in clip.keyframes))
    numbers = markup.table(headers, rows, caption='at each keyframe: whether true / best predicted score')
    return (
        f'<figure class="clip"><figcaption>{markup.text(clip.name)}{cut}</figcaption>'
        f'<div class="stage"><video src="{markup.text(clip.file)}" poster="{clip.poster_url}" width="{clip.width}" '
        f'height="{clip.height}" aria-label="{label}" controls muted loop playsinline preload="metadata">'
        f'</video><button class="play" type="button" aria-label="Play {markup.text(clip.name)}" hidden>▶</button></div>'
        f'{plots.timeline(clip.rows, clip.seconds, clip.keyframes)}{markup.details("Table", numbers)}</figure>'
    )


def _clips(result: Classification, twin: Classification | None, other: Run | None) -> str:
    ranked = sorted(result.classes, key=lambda name: (result.per_class[name] is None, -(result.per_class[name] or 0)))
    entries = [
        plots.Bar(
            name,
            result.per_class[name],
            result.chance,
            other=twin.per_class[name] if twin is not None and name in twin.per_class else None,
        )
        for name in ranked
    ]
    named = other.workdir.name if other is not None and twin is not None else ''
    figure = plots.bars(entries, score='accuracy', mark='chance', group_style={}, other=named)
    verdict = classes.verdict(
        findings.learning(result.per_class, dict.fromkeys(result.classes, result.chance)),
        result.per_class,
        dict.fromkeys(result.classes, result.chance),
        'accuracy',
        'chance',
        'because validation has no clip of them',
    )
    matrix = plots.confusion(result.classes, result.confusion)
    pair = (
        f'<div class="pair"><div><h3>Accuracy by class</h3>{figure}</div>'
        f'<div><h3>Which class is taken for which</h3>{matrix}</div></div>'
    )
    return markup.section(f'{result.source}: clips', verdict + pair)


def _curves(run: Run, other: Run | None) -> str:
    if not run.metrics:
        return markup.section('Training', '<p class="note">This run has logged nothing yet: no metrics.jsonl.</p>')
    own = series(run.metrics)
    others = series(other.metrics) if other is not None else {}
    names = (run.name, other.workdir.name) if other is not None else ('', '')

    def figures(chosen: Sequence[str]) -> str:
        curves = (plots.curve(n, own[n], others.get(n, ()), names=names) for n in chosen)
        return f'<div class="curves">{"".join(curves)}</div>'

    shown = [n for n in own if n.startswith('eval/') or n.rsplit('/', 1)[-1] in ('loss', 'rate', 'learning_rate')]
    shown.sort(key=lambda n: (n.startswith('eval/'), n.rsplit('/', 1)[-1] != 'loss'))
    # Beside a second run they are drawn again, with its lines.
    drawn = augmentation.logged(tuple(own)) if other is None else set()
    rest = [n for n in own if n not in shown and n not in drawn]
    key = ''
    if other is not None:
        key = (
            f'<p class="keys"><span><i class="line-key"></i>{markup.text(run.name)}, this run</span>'
            f'<span><i class="line-key second"></i>{markup.text(other.workdir.name)}</span></p>'
        )
    folded = markup.details(f'Other logged values ({len(rest)})', figures(rest)) if rest else ''
    note = 'Horizontal: training step. Vertical: the value; most axes do not start at 0.'
    return markup.section('Training', key + figures(shown) + folded, note=note)


def _about(run: Run) -> str:
    parts = []
    named = (('environment.json', run.environment, 'Where it ran'), ('model.json', run.model, 'Model'))
    for file, tree, title in named:
        if tree is None:
            parts.append(f'<p class="note">This run has no {file}, so the page cannot show it.</p>')
        else:
            table = markup.table(('entry', 'value'), flat(tree).items())
            parts.append(markup.details(title, f'<div class="plain">{table}</div>'))
    table = markup.table(('entry', 'value'), flat(run.config).items())
    parts.append(markup.details('Config', f'<div class="plain">{table}</div>'))
    return markup.section('The run', ''.join(parts))
