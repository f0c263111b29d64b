import json
import math

import pytest

from vidloc.report import run
from vidloc.train import writer


def test_a_run_is_read_as_it_was_written(workdir):
    read = run.read_run(workdir)
    assert read.name == 'mocap <b>street</b>'
    assert [result.source for result in read.detections] == ['street']
    assert read.detections[0].per_class['sit'] is None
    assert read.detections[0].groups['head'] == ('walk', 'run')
    assert read.detections[0].video_start == 0.0
    assert read.detections[0].ground_truth == ('data/truth.csv',)
    assert read.detections[0].errors.kinds['run']['wrong class'] == 3
    assert read.detections[0].errors.precision['sit'][0] is None
    assert read.classifications[0].confusion[3] == (0, 5, 3, 2)
    assert read.metrics[0]['step'] == 5


def test_what_a_run_may_lack(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    read = run.read_run(tmp_path)
    assert read.name == tmp_path.name
    assert (read.metrics, read.detections, read.classifications) == ((), (), ())
    assert read.environment is None and read.model is None


def test_what_the_writer_writes_comes_back_and_the_last_value_of_a_step_counts(tmp_path):
    with writer.Writer(tmp_path, enabled=True) as out:
        out.scalars(1, {'a': 1.0, 'b': math.nan})
        out.scalars(2, {'a': 2.0})
        out.scalars(3, {'a': math.inf})
    with writer.Writer(tmp_path, enabled=True) as out:
        out.scalars(2, {'a': 2.5, 'c': -math.inf})
    rows = run.read_metrics(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows] == [1, 2, 3]
    assert rows[0]['a'] == 1.0 and math.isnan(rows[0]['b'])
    assert rows[1] == {'step': 2, 'a': 2.5, 'c': -math.inf}
    assert run.series(rows)['a'] == [(1, 1.0), (2, 2.5), (3, math.inf)]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a"')
    assert run.read_metrics(path) == [{'step': 1, 'a': 1.0}]
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}')
    assert [row['step'] for row in run.read_metrics(path)] == [1, 2]


@pytest.mark.parametrize(
    'bad', ['{"step": 1', '[1]', '{"a": 1}', '{"step": 1, "a": null}', '{"step": true}', '7', '\x00']
)
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(f'{{"step": 1, "a": 1}}\n{bad}\n{{"step": 2, "a": 1}}\n')
    with pytest.raises(run.RunError, match=r'metrics\.jsonl:2: .*delete it'):
        run.read_metrics(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'kind': 'segmentation'}, "kind is 'segmentation'"),
        ({'kind': None}, '`kind`'),
        ({'metrics': {}}, 'frame_map@0.5'),
        ({'classes': []}, '`classes`'),
        ({'classes': ['a', 'a']}, '`classes`'),
        ({'per_class': {'walk': 0.5}}, '`per_class` says nothing of run'),
        ({'prevalence': 3}, '`prevalence` is 3'),
        ({'prior_map': 'high'}, '`prior_map`'),
        ({'groups': {'head': ['fly']}}, '`head`'),
        ({'step': 'last'}, '`step`'),
        ({'video_start': '0'}, '`video_start`'),
        ({'ground_truth': 'truth.csv'}, '`ground_truth`'),
        ({'ground_truth': []}, '`ground_truth`'),
        ({'group_limits': [1]}, '`group_limits`'),
        ({'parts': {'ava': 3}}, '`parts`'),
        ({'parts': {'ava': {'per_class': {}}}}, '`per_class` says nothing of walk'),
        ({'action_groups': {'moving': ['fly']}}, '`moving`'),
        ({'analysis': None}, '`analysis`'),
        ({'analysis': {}}, '`kinds`'),
    ],
)
def test_a_damaged_detection_result_is_named_in_one_line(tmp_path, workdir, change, message):
    data = json.loads((workdir / 'eval' / 'street.json').read_text()) | change
    check_refused(tmp_path, json.dumps(data), message)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'confusion': [[1, 2]]}, '`confusion`'),
        ({'confusion': [[1, 2, 3, 'x']] * 4}, '`confusion`'),
        ({'chance': None}, '`chance`'),
        ({'metrics': {'top5': 1.0}}, 'top1'),
    ],
)
def test_a_damaged_classification_result_is_named_in_one_line(tmp_path, workdir, change, message):
    data = json.loads((workdir / 'eval' / 'yard.json').read_text()) | change
    check_refused(tmp_path, json.dumps(data), message)


@pytest.mark.parametrize('text', ['', '{', '[]', '[' * 100_000, '\x00'])
def test_a_result_that_is_no_json_object_is_named_in_one_line(tmp_path, text):
    check_refused(tmp_path, text, 'JSON')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'people': None}, '`people`'),
        ({'missed': 'few'}, '`missed`'),
        ({'bound_per_class': {}}, '`bound_per_class`'),
        ({'confusion': [[1.0]]}, '`confusion`'),
        ({'kinds': {'walk': {}}}, '`kinds`'),
        ({'precision': {}}, '`precision`'),
        ({'kinds': dict.fromkeys(('walk', 'run', 'wave', 'kick', 'sit', '<script>alert(1)</script>'), 3)}, '`walk`'),
    ],
)
def test_a_damaged_analysis_is_named_in_one_line(tmp_path, workdir, change, message):
    data = json.loads((workdir / 'eval' / 'street.json').read_text())
    check_refused(tmp_path, json.dumps(data | {'analysis': data['analysis'] | change}), message)


def check_refused(folder, text, message):
    (folder / 'eval').mkdir()
    (folder / 'config.json').write_text('{}')
    (folder / 'eval' / 'street.json').write_text(text)
    with pytest.raises(run.RunError) as caught:
        run.read_run(folder)
    assert 'street.json' in str(caught.value) and message in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['absent', ''])
def test_a_folder_that_is_no_run_is_refused(tmp_path, name):
    with pytest.raises(run.RunError, match='workdir'):
        run.read_run(tmp_path / name)


def test_a_tree_is_flattened_to_dotted_names():
    tree = {'a': {'b': 1, 'c': {'d': 'x'}}, 'e': [1, 2], 'f': {}, 'g': None}
    assert run.flat(tree) == {'a.b': '1', 'a.c.d': 'x', 'e': '[1, 2]', 'f': '{}', 'g': 'null'}
