"""The part of a page that says where the precision of boxes is lost: by the boxes, or by the classes given to them."""

from vidloc.metrics.error_analysis import KINDS, NEAR
from vidloc.report import class_plots, findings, markup, plots
from vidloc.report.run import Detection, Run

_KINDS = (
    'Of each class, as many of its best-scored detections as it has true labels. <b>duplicate</b>: an IoU of 0.5 with '
    'a person of the class, who has been found already or is not the one it overlaps most; <b>wrong class</b>: an IoU '
    f'of 0.5 with a person who does not do this; <b>wrong place</b>: {NEAR:g} to 0.5 at best; <b>background</b>: below '
    f'{NEAR:g} with anyone.'
)
_CONFUSION = (
    'A found person (IoU of at least 0.5) is judged by the detected box that overlaps it most. If k classes are true '
    'of the person, the k best-scored classes of the box are taken. A true class that is not among them is spread '
    'evenly over the wrong ones that are.'
)


def section(result: Detection, run: Run) -> str:
    """Detector against classifier, kinds of detections, and confusions of one source."""
    errors = result.errors
    if not errors.people:
        return ''
    content = _boxes_and_classes(result, findings.with_true_boxes(result, run))
    kinds = {name: errors.kinds[name] for name in result.classes if sum(errors.kinds[name].values())}
    if kinds:
        rows = [('all classes', _together(kinds, list(kinds)))]
        rows += [
            (group, _together(kinds, [name for name in names if name in kinds]))
            for group, names in result.groups.items()
            if any(name in kinds for name in names)
        ]
        ranked = sorted(kinds, key=lambda name: -(result.per_class[name] or 0))
        each = class_plots.stacked([(name, kinds[name]) for name in ranked], label='class')
        content += (
            f'<h3>What the best-scored detections are</h3><p class="note">{_KINDS}</p>'
            + class_plots.stacked(rows, label='classes')
            + markup.details(f'Class by class ({len(ranked)})', each)
        )
    matrix = plots.confusion(result.classes, errors.confusion, unit='labels')
    content += f'<h3>Which class is taken for which</h3><p class="note">{_CONFUSION}</p>{matrix}'
    return markup.section(f'{result.source}: where precision is lost', content)


def _together(kinds, names) -> dict[str, int]:
    return {kind: sum(kinds[name][kind] for name in names) for kind in KINDS}


def _boxes_and_classes(result: Detection, true_boxes: Detection | None) -> str:
    errors, value = result.errors, result.metrics[Detection.MAIN]
    rows = [('this run', value)]
    if true_boxes is not None:
        rows.append((f'on true boxes ({true_boxes.source})', true_boxes.metrics[Detection.MAIN]))
    rows.append(('bound: a perfect classifier on these boxes', errors.bound))
    if result.boxes == 'truth':
        said = 'The boxes of this source are the true ones, so all that is lost is lost by their classes.'
    else:
        missed = '–' if errors.missed is None else f'{100 * errors.missed:.1f} %'
        said = (
            f'<b>{missed}</b> of the {markup.count(errors.people)} true people have no detected box with an IoU of at '
            'least 0.5.'
        )
        if value is not None and errors.bound is not None:
            said += (
                f' A classifier that knew the truth would reach {markup.number(errors.bound)} on these boxes. Of the '
                f'{markup.number(1 - value)} that this run lacks to 1, the boxes cost '
                f'{markup.number(1 - errors.bound)} and their classes {markup.number(errors.bound - value)}.'
            )
    if true_boxes is not None and value is not None and true_boxes.metrics[Detection.MAIN] is not None:
        gain = true_boxes.metrics[Detection.MAIN] - value
        said += f' The same classifier on true boxes: {markup.signed(gain)}.'
    listed = sorted(
        (name for name in result.classes if errors.bound_per_class[name] is not None),
        key=lambda name: errors.bound_per_class[name],
    )
    headers = ['class', 'labels on people not found', 'bound', 'AP', *(['AP on true boxes'] if true_boxes else [])]
    table = markup.table(
        headers,
        [
            [
                name,
                '–' if errors.missed_per_class[name] is None else f'{100 * errors.missed_per_class[name]:.1f} %',
                markup.number(errors.bound_per_class[name]),
                markup.number(result.per_class[name]),
                *([markup.number(true_boxes.per_class.get(name))] if true_boxes else []),
            ]
            for name in listed
        ],
    )
    figure = class_plots.levels(rows, label='frame mAP at IoU 0.5')
    return f'<p>{said}</p>{figure}' + markup.details('Class by class', table)
