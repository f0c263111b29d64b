"""The part on augmented features, of made-up runs that the writer wrote."""

import json
import re

import pytest

from vidloc.report import augmentation, augmentation_plots, page, run
from vidloc.train import writer

GROUP = {'copies': 2.0, 'distillation': 0.5, 'entropy': -0.1, 'distance': 'cross_entropy'}
COPIES = 3


def figures(task, step):
    told = {'original': 1.0 / step, 'weighted_copies': 0.25, 'distillation': 0.3, 'copies': 0.5, 'loss': 1.0}
    told |= {'copies_entropy': 0.3, 'original_entropy': 0.2, 'divergence_spread': 0.1}
    for i in range(COPIES):
        told |= {f'gamma/{i:02d}': 0.01 * step * (i + 1), f'beta/{i:02d}': 0.1, f'divergence/{i:02d}': 0.2 + 0.01 * i}
    told |= {f'weights/{i / 10:.1f}': 0.7 if i == 9 else 0.1 if i > 6 else 0.0 for i in range(10)}
    return {f'train/{task}/{name}': value for name, value in told.items()}


def write(workdir, *, tasks=('street',), warnings=(), gap=True, config=None):
    if config is None:
        config = {'name': 'few', 'tasks': {task: {'group': GROUP} for task in tasks}}
        config['eval'] = {'seen': {'shots': 'street'} if gap else {}}
    with writer.Writer(workdir, enabled=True) as out:
        for step in range(10, 201, 10):
            out.scalars(step, {name: value for task in tasks for name, value in figures(task, step).items()})
            if gap and step % 100 == 0:
                seen, held = step / 250, step / 1000
                pair = {'eval/shots/map': seen, 'eval/street/map': held, 'eval/street/gap/map': seen - held}
                out.scalars(step, pair)
        for step, sign, text in warnings:
            out.warnings(step, {sign: text})
    (workdir / 'config.json').write_text(json.dumps(config))
    return workdir


@pytest.fixture(scope='module')
def few(tmp_path_factory):
    told = [(120, 'street/noise', '<b>too</b> much'), (110, 'identity', 'no copies')]
    return write(tmp_path_factory.mktemp('runs') / 'few', warnings=told)


@pytest.fixture(scope='module')
def written(few, tmp_path_factory, read_page):
    return read_page(page.write_page(few, tmp_path_factory.mktemp('page')))


def alts(read):
    return [attributes['aria-label'] for attributes in read.named('svg')]


def test_what_was_logged_is_read_by_copy_bin_and_term(few):
    (found,) = augmentation.augmented(run.read_run(few))
    assert found.task == 'street'
    assert list(found.gamma) == list(found.divergence) == ['00', '01', '02'] and len(found.weights) == 10
    assert found.gamma['02'][0] == (10, pytest.approx(0.3))
    # A cross-entropy of 0.2 and more, of which 0.2 are the originals' own entropy.
    assert [points[-1][1] for points in found.divergence.values()] == pytest.approx([0.0, 0.01, 0.02])
    assert {term: points[-1][1] for term, points in found.terms.items()} == pytest.approx(
        {'original': 0.005, 'copies': 0.5, 'distillation': 0.15, 'entropy': -0.03}
    )


def test_the_page_shows_warnings_drift_weights_terms_and_the_gap(written):
    assert 'Augmented features' in written.text
    assert written.text.index('Step 110 – no copies.') < written.text.index('Step 120 – <b>too</b> much.')
    said = alts(written)
    assert '|gamma − 1|, mean over channels over steps 10 to 200: copy 00 from 0.1 to 2, copy 01 from' in said[0]
    assert any('divergence from the original over steps' in each and 'to 0.02' in each for each in said)
    assert any('group weights, 0 to 1 over steps 10 to 200: at the end 70% of the weights from 0.9' in s for s in said)
    assert any('what adds to the loss' in each and 'entropy from -0.03 to -0.03' in each for each in said)
    assert any(
        'map over steps 100 to 200: shots, training data from 0.4 to 0.8, street from 0.1 to 0.2' in s for s in said
    )


def test_every_figure_has_its_numbers_and_what_is_drawn_is_not_drawn_twice(written):
    shown = [attributes for attributes in written.named('figure') if attributes['class'] == 'curve']
    assert len(shown) == len(alts(written)) == written.text.count('Table')
    assert '70% of the weights' in written.text  # the darkest of the map
    assert 'train/street/gamma/00' not in written.text and 'train/street/loss' in written.text
    assert 'Other logged values' not in written.text


def test_names_and_warnings_cannot_become_markup(few, tmp_path):
    content = page.write_page(few, tmp_path).read_text()
    assert '<b>too' not in content and '&lt;b&gt;too' in content


def test_beside_a_second_run_its_lines_are_drawn_too(few, tmp_path, read_page):
    read = read_page(page.write_page(few, tmp_path / 'out', write(tmp_path / 'two')))
    assert 'train/street/gamma/00' in read.text and 'Other logged values' in read.text


def test_two_tasks_have_figures_of_their_own_but_for_the_copies(tmp_path, read_page):
    read = read_page(page.write_page(write(tmp_path, tasks=('yard', 'street'), gap=False)))
    said = [each.split(' over steps')[0] for each in alts(read)]
    assert said.count('|gamma − 1|, mean over channels') == 1
    assert 'street: entropy of predictions' in said and 'yard: entropy of predictions' in said
    assert 'The run gave no warning while it trained.' in read.text


def test_a_run_without_augmentation_has_the_section_only_for_what_it_has(tmp_path, read_page):
    plain = tmp_path / 'plain'
    with writer.Writer(plain, enabled=True) as out:
        out.scalars(1, {'train/street/loss': 1.0})
        (plain / 'config.json').write_text('{}')
        read = read_page(page.write_page(plain))
        assert 'Augmented features' not in read.text and 'Signs of failure' not in read.text
        out.scalars(1, {'eval/shots/map': 0.5, 'eval/street/map': 0.25, 'eval/street/gap/map': 0.25})
        (plain / 'config.json').write_text(json.dumps({'eval': {'seen': {'shots': 'street'}}}))
        read = read_page(page.write_page(plain))
        assert 'What was learned by heart' in read.text and 'gave no warning' not in read.text
        out.warnings(1, {'street/underfitting': 'LoRA underfits'})
    read = read_page(page.write_page(plain))
    assert 'Signs of failure' in read.text and 'Step 1 – LoRA underfits.' in read.text


@pytest.mark.parametrize(
    ('config', 'words'),
    [({}, 'group loss of street'), ({'tasks': {'street': {'group': {'distance': 'kl'}}}}, 'the key `copies`')],
)
def test_a_config_that_does_not_say_how_copies_count_is_named(tmp_path, config, words):
    write(tmp_path, config=config, gap=False)
    with pytest.raises(run.RunError, match=rf'config\.json: .*{words}'):
        page.write_page(tmp_path)


def test_warnings_are_read_in_order_and_the_last_of_a_step_counts(tmp_path):
    path = tmp_path / 'warnings.jsonl'
    lines = [(20, 'a', 'first'), (10, 'a', 'old'), (10, 'b', 'b'), (10, 'a', 'new')]
    texts = [json.dumps(dict(zip(('step', 'sign', 'text'), line, strict=True))) for line in lines]
    path.write_text('\n'.join([*texts, '{"step": 3']))
    found = [(warned.step, warned.sign, warned.text) for warned in run.read_warnings(path)]
    assert found == [(10, 'a', 'new'), (10, 'b', 'b'), (20, 'a', 'first')]
    path.write_text('{"step": true, "sign": "a", "text": "b"}\n' + texts[0])
    with pytest.raises(run.RunError, match=r'warnings\.jsonl:1: no line of warnings'):
        run.read_warnings(path)


def test_figures_of_training_data_are_called_so_and_show_no_validation_videos(run_writer, tmp_path, read_page):
    workdir = run_writer(tmp_path / 'run', videos=1)
    said = '2 keyframes, which the run trained on'
    assert said not in read_page(page.write_page(workdir)).text
    path = workdir / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'eval': {'seen': {'street': 'val'}}}))
    read = read_page(page.write_page(workdir))
    assert ', which the run trained on.' in read.text
    assert 'what each class reached' in read.text and not read.named('video')


def test_a_map_is_shaded_by_the_largest_share_and_begins_at_the_step_before():
    rows = [('0.0', [(10, 0.2), (20, 0.4)]), ('0.5', [(10, 0.8), (20, 0.6)])]
    drawn = augmentation_plots.heat('weights', rows, unit='of the weights')
    assert re.findall(r'fill-opacity="([0-9.]+)"', drawn) == ['0.250', '0.500', '1.000', '0.750']
    assert 'darkest: 80% of the weights' in drawn and 'step 20, from 0.5: 60%' in drawn
    assert re.search(r'<text class="tick" x="46.0"[^>]*>0</text>', drawn)  # the left edge
    assert '<th scope="row">10</th><td>0.2</td><td>0.8</td>' in drawn


def test_a_map_of_many_steps_is_averaged_and_one_of_a_single_step_is_drawn():
    rows = [(name, [(step, share) for step in range(1, 1001)]) for name, share in (('0.0', 0.25), ('0.5', 0.75))]
    assert augmentation_plots.heat('weights', rows, unit='').count('<rect') <= 1 + 2 * augmentation_plots.HEAT_COLUMNS
    assert augmentation_plots.heat('weights', [('0.0', [(7, 0.0)])], unit='').count('<rect') == 2


def test_lines_share_a_frame_and_values_that_are_no_numbers_are_left_out():
    entries = [
        augmentation_plots.Line('a', 'red', [(10, 1.0), (20, float('nan')), (30, 3.0)]),
        augmentation_plots.Line('b', 'blue', [(20, 2.0)]),
        augmentation_plots.Line('c', 'green', [(20, float('inf'))]),
    ]
    drawn = augmentation_plots.lines('title', entries)
    assert drawn.count('<polyline') == 1 and drawn.count('<circle') == 3 and 'green' not in drawn
    assert '<th scope="row">20</th><td>–</td><td>2</td>' in drawn
    assert 'No finite value' in augmentation_plots.lines('title', entries[2:])
    assert '>0<' not in drawn and '>0<' in augmentation_plots.lines('title', entries, zero=True)
