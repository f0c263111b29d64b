"""The part of a page on augmented features: what the copies did while a run trained, and what it warned of.

The names of what is logged are those of vidloc/tasks/group_relative.py; how terms count stands in the run's config.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from vidloc.report import fields, markup
from vidloc.report.augmentation_plots import Line, heat, keys, lines, ramp
from vidloc.report.run import Run, RunError, flat, series

Points = Sequence[tuple[int, float]]

# (what a term is called, its figure, the weight of it in the config: '' counts 1)
TERMS = (
    ('original', 'original', ''),
    ('copies', 'weighted_copies', 'copies'),
    ('distillation', 'distillation', 'distillation'),
    ('entropy', 'copies_entropy', 'entropy'),
)
ALIKE = 'Training and validation data, evaluated alike'
COLOURS = tuple(f'var(--k{i})' for i in (0, 2, 1, 3))
_LOGGED = re.compile(
    r'train/([^/]+)/(gamma|beta|divergence|weights|weighted_copies|distillation|copies|copies_entropy|original_entropy'
    r'|original|divergence_spread)(/.*)?'
)


@dataclasses.dataclass(frozen=True)
class Augmented:
    """What a run logged of the copies of one task.

    gamma, beta: {copy: how far it is from 1, from 0}. divergence: {copy: of its predictions from the original's, less
    the entropy of those where it is a cross-entropy}. weights: {lower edge of a bin: share of the weights in it}.
    entropy: of 'originals' and 'copies'. terms: {term: what it adds to the loss of the task}.
    """

    task: str
    gamma: Mapping[str, Points]
    beta: Mapping[str, Points]
    divergence: Mapping[str, Points]
    weights: Mapping[str, Points]
    entropy: Mapping[str, Points]
    terms: Mapping[str, Points]


def augmented(run: Run) -> tuple[Augmented, ...]:
    """Of each task whose copies the run logged. Raises RunError where the config does not say how they count."""
    own = series(run.metrics)
    tasks = sorted({name.split('/')[1] for name in own if re.fullmatch(r'train/[^/]+/gamma/\d+', name)})
    return tuple(_of_task(run, task, own) for task in tasks)


def logged(names: Sequence[str]) -> set[str]:
    """Those of `names` that this part of the page draws."""
    return {name for name in names if (match := _LOGGED.fullmatch(name)) and f'train/{match[1]}/gamma/00' in names}


def _of_task(run: Run, task: str, own: Mapping[str, Points]) -> Augmented:
    path = run.workdir / 'config.json'
    try:
        group = run.config['tasks'][task]['group']
    except (KeyError, TypeError) as error:
        raise RunError(f'{path}: `tasks` says nothing of the group loss of {task}, which the run logged.') from error

    def numbered(what: str) -> dict[str, Points]:
        start = f'train/{task}/{what}/'
        return {name.removeprefix(start): own[name] for name in sorted(own) if name.startswith(start)}

    def figure(what: str) -> Points:
        return own.get(f'train/{task}/{what}', ())

    distance = fields.field(path, group, 'distance', str)
    least = dict(figure('original_entropy')) if distance == 'cross_entropy' else {}
    divergence = {
        copy: [(step, value - least.get(step, 0.0)) for step, value in points]
        for copy, points in numbered('divergence').items()
    }
    terms = {}
    for term, what, weight in TERMS:
        times = float(fields.field(path, group, weight, float)) if weight else 1.0
        terms[term] = [(step, times * value) for step, value in figure(what)]
    return Augmented(
        task=task,
        gamma=numbered('gamma'),
        beta=numbered('beta'),
        divergence=divergence,
        weights=numbered('weights'),
        entropy={'originals': figure('original_entropy'), 'copies': figure('copies_entropy')},
        terms=terms,
    )


def seen(run: Run) -> dict[str, str]:
    """{source that is evaluated on training data: the one it is compared with}"""
    start = 'eval.seen.'
    entries = flat(run.config).items()
    return {name.removeprefix(start): held for name, held in entries if name.startswith(start)}


def section(run: Run) -> str:
    """The section, '' for a run that has nothing of it. Raises RunError."""
    tasks = augmented(run)
    gaps = _gaps(run)
    if not (tasks or gaps or run.warnings):
        return ''
    note = ''
    if tasks:
        note = (
            'Behind one layer of the backbone every example has copies, whose channels are scaled by gamma and shifted '
            'by beta. A copy whose gamma is 1 and beta 0 is the example itself. Its divergence is that of its '
            'predictions from those of the example, beyond the entropy that these have themselves; it weighs the less '
            'the more its divergence differs from the mean over the copies. Horizontal: training step. Axes of '
            'entropies and of evaluations do not start at 0.'
        )
    # Without copies it is not known whether anything was looked at.
    parts = [_warned(run)] if tasks or run.warnings else []
    if tasks:
        parts.append(_copies(tasks))
    if gaps:
        parts.append(f'<h3>{ALIKE}</h3><div class="curves">{gaps}</div>')
    title = 'Augmented features' if tasks else 'Signs of failure' if run.warnings else 'What was learned by heart'
    return markup.section(title, ''.join(parts), note=note)


def _warned(run: Run) -> str:
    if not run.warnings:
        return '<p class="verdict fine">The run gave no warning while it trained.</p>'
    said = ''.join(f'<p><b>Step {markup.count(w.step)}</b> – {markup.text(w.text)}.</p>' for w in run.warnings)
    return f'<div class="verdict">{said}</div>'


def _copies(tasks: Sequence[Augmented]) -> str:
    """The figures of all tasks; how far copies are is the same in all of them, for they share the copies."""
    count = len(tasks[0].gamma)

    def each(title: str, of: Mapping[str, Points]) -> str:
        entries = [Line(f'copy {copy}', ramp(i, count), points) for i, (copy, points) in enumerate(of.items())]
        return lines(title, entries, keyed=False, zero=True)

    def told(title: str, of: Mapping[str, Points]) -> str:
        entries = [Line(name, COLOURS[i], points) for i, (name, points) in enumerate(of.items())]
        return lines(title, entries)

    shared = keys([Line(f'copy {copy}', ramp(i, count), ()) for i, copy in enumerate(tasks[0].gamma)])
    figures = each('|gamma − 1|, mean over channels', tasks[0].gamma) + each(
        '|beta|, mean over channels', tasks[0].beta
    )
    for task in tasks:
        named = f'{task.task}: ' if len(tasks) > 1 else ''
        figures += each(f'{named}divergence from the original', task.divergence)
        figures += heat(f'{named}group weights, 0 to 1', tuple(task.weights.items()), unit='of the weights')
        figures += told(f'{named}entropy of predictions', task.entropy)
        figures += told(f'{named}what adds to the loss', task.terms)
    return f'{shared}<div class="curves">{figures}</div>'


def _gaps(run: Run) -> str:
    own, figures = series(run.metrics), ''
    for learned, held in seen(run).items():
        start = f'eval/{held}/gap/'
        for metric in (name.removeprefix(start) for name in own if name.startswith(start)):
            pair = ((f'{learned}, training data', learned), (held, held))
            entries = [
                Line(said, COLOURS[i], own.get(f'eval/{source}/{metric}', ())) for i, (said, source) in enumerate(pair)
            ]
            figures += lines(metric, entries)
    return figures
