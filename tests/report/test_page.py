import json
import pathlib
import subprocess
import sys

import pytest

from vidloc.report import page

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def written(workdir, tmp_path_factory, read_page):
    path = page.write_page(workdir, tmp_path_factory.mktemp('page'))
    return path, read_page(path)


def test_the_page_shows_the_numbers_beside_their_baselines(written):
    _, read = written
    assert 'street: frame mAP@0.5 0.362 1.8 × baseline' in read.text
    assert "1.8 × the 0.204 of predicting each class's training frequency for every box." in read.text
    assert 'yard: clip top-1 0.550 2.2 × baseline' in read.text
    assert '2.2 × the 0.250 of chance. On 40 clips of 4 classes.' in read.text
    assert '2026-03-01 10:20 · on 1 CPU (2 cores) · trained for 3 min' in read.text


def test_the_page_says_what_is_not_learned_and_by_which_rule(written):
    _, read = written
    assert (
        "Not learned by this rule – AP below 1.5 times the AP of predicting the class's training frequency for "
        'every box: <script>alert(1)</script> (0.040 against 0.070), kick (0.090 against 0.080), run (0.310 against '
        '0.210). Not judged, because the validation truth has no box of them: sit .'
    ) in read.text.replace(' (', ' (').replace('  ', ' ')
    assert 'Not learned by this rule – accuracy below 1.5 times chance: <script>alert(1)</script>' in read.text


def test_the_page_states_its_rules_for_the_videos_and_links_to_them(written):
    path, read = written
    assert 'sorted by their SHA-256' in read.text
    assert 'between them the boxes of the nearest keyframe are drawn' in read.text
    sources = [video['src'] for video in read.named('video')]
    assert sources == [f'video_{i:02d}.mp4' for i in range(1, 7)]
    assert all((path.parent / source).is_file() for source in sources)
    assert all('controls' in video and video['aria-label'] for video in read.named('video'))


def test_names_from_outside_cannot_become_markup(written):
    path, read = written
    content = path.read_text(encoding='utf-8')
    assert '<script>alert' not in content and '<b>street' not in content
    assert len(read.named('script')) == 1
    assert read.text.count('<script>alert(1)</script>') >= 6
    assert not [a for _, attributes in read.tags for a in attributes if a.startswith('on')]
    policy = next(meta['content'] for meta in read.named('meta') if 'http-equiv' in meta)
    assert "script-src 'sha256-" in policy and 'unsafe' not in policy


def test_the_page_loads_nothing_from_a_network(written):
    path, read = written
    for _, attributes in read.tags:
        for name in ('src', 'href', 'poster'):
            if name in attributes:
                assert attributes[name].startswith(('video_', 'data:image/jpeg;base64,'))
    content = path.read_text(encoding='utf-8')
    assert 'http://' not in content and 'https://' not in content and '@import' not in content
    assert sorted(p.name for p in path.parent.iterdir())[0] == 'index.html'


def test_every_picture_has_words_and_figures(written):
    _, read = written
    pictures = [a for _, a in read.tags if a.get('role') == 'img']
    assert len(pictures) >= 6 + 2 + 7 + 5 + 4 and all(a['aria-label'] for a in pictures)
    curves = [a for a in read.named('figure') if a['class'] == 'curve']
    assert len(curves) == 7
    assert [a['class'] for a in read.named('figure')].count('curve wide') == 1
    assert len(read.named('table')) >= 7 + 6 + 2
    assert 'Other logged values (1)' in read.text and 'train/grad_norm' in read.text


def test_the_page_says_where_precision_is_lost(written):
    _, read = written
    assert '12.5 % of the 80 true people have no detected box' in read.text
    assert 'Of the 0.638 that this run lacks to 1, the boxes cost 0.125 and their classes 0.513.' in read.text
    assert 'Most frequent confusion: run taken for walk, 7 labels.' in read.text
    assert 'all classes 60' in read.text and 'head 20' in read.text
    assert 'official rules SlowFast' in read.text and 'all 0.362 0.351' in read.text
    assert len([a for _, a in read.tags if a.get('class') == 'small']) == 5


def test_kinds_of_actions_come_from_a_file_and_are_compared(workdir, run_writer, tmp_path, read_page):
    groups = tmp_path / 'groups.csv'
    groups.write_text('walk,moving\nrun,moving\nfly,none\nwave,<b>social</b>\n')
    other = run_writer(tmp_path / 'two', videos=1, shift=-0.02)
    read = read_page(page.write_page(workdir, tmp_path / 'out', other, groups))
    assert 'By kind of action group classes mean AP two difference moving 2 0.545 0.525 +0.020' in read.text
    assert '<b>social</b> 1 0.590 0.570 +0.020' in read.text and 'fly' not in read.text
    assert 'Higher here in 5 of 5 classes, lower in 0.' in read.text
    assert [a['style'] for a in read.named('i') if a.get('class') == 'fill g0'][-1].startswith('left:0.00%')


def test_without_a_second_run_nothing_is_said_of_cofinetuning(written):
    _, read = written
    assert 'co-finetuning' not in read.text.lower()


def test_a_second_run_stands_beside_it_with_both_numbers(workdir, run_writer, tmp_path, read_page):
    other = run_writer(tmp_path / 'boxes_only', videos=1, shift=-0.02, source_steps={'street': 600})
    read = read_page(page.write_page(workdir, tmp_path / 'out', other))
    assert 'street: frame_map@0.5 0.362 0.342 +0.020 1000 / 1000' in read.text
    assert 'the difference is what co-finetuning changed in this pair of runs' in read.text
    assert 'Config entries that differ (1) entry this run boxes_only rate 0.0012 ' in read.text
    assert len([a for a in read.named('i') if a.get('class') == 'other']) == 5 + 4
    assert 'street: difference by class' in read.text and 'Dashed: boxes_only.' in read.text
    assert any(a['class'] == 'line second' for a in read.named('polyline'))


def test_a_run_that_has_only_a_config_gets_a_page_that_says_so(tmp_path, read_page):
    (tmp_path / 'config.json').write_text(json.dumps({'rate': 1}))
    path = page.write_page(tmp_path)
    read = read_page(path)
    assert path == tmp_path / 'report' / 'index.html'
    for sentence in ('has not been evaluated yet', 'no metrics.jsonl', 'no environment.json', 'no model.json'):
        assert sentence in read.text


def test_labels_that_are_not_of_training_are_said_to_be_so(written, run_writer, tmp_path, read_page):
    said = 'The training data were not there when this was evaluated.'
    assert said not in written[1].text
    workdir = run_writer(tmp_path / 'w')
    path = workdir / 'eval' / 'street.json'
    path.write_text(path.read_text().replace('"training"', '"evaluation"'))
    assert said in read_page(page.write_page(workdir)).text


def test_annotations_that_are_gone_leave_the_rest_of_the_page(run_writer, tmp_path, read_page):
    workdir = run_writer(tmp_path / 'run', videos=1, environment=False)
    (workdir / 'data' / 'truth.csv').unlink()
    read = read_page(page.write_page(workdir))
    assert 'No video is shown:' in read.text and 'truth.csv' in read.text
    assert 'street: what each class reached' in read.text and not read.named('video')


def test_the_tool_writes_the_page_or_one_line_of_error(run_writer, tmp_path):
    workdir = run_writer(tmp_path / 'run', videos=1)
    command = [sys.executable, str(ROOT / 'tools' / 'report.py')]
    good = subprocess.run([*command, str(workdir)], capture_output=True, text=True, cwd=ROOT)
    assert (good.returncode, good.stderr) == (0, '')
    assert pathlib.Path(good.stdout.strip()) == workdir / 'report' / 'index.html'
    bad = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert bad.returncode == 1 and bad.stdout == ''
    assert bad.stderr.startswith('report: ') and bad.stderr.count('\n') == 1
    assert 'config.json' in bad.stderr
