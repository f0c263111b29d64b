import json

import pytest

from vidloc.report import run


def test_a_result_is_read_as_it_was_written(segment_workdir):
    read = run.read_run(segment_workdir)
    data = json.loads((segment_workdir / 'eval' / 'films.json').read_text())
    (result,) = read.segments
    assert not read.detections and not read.classifications
    assert (result.source, result.step, result.thresholds) == ('films', 700, (0.3, 0.5, 0.7))
    assert result.mean('wave') == pytest.approx(sum(data['per_class']['wave']) / 3)
    assert result.operating['jump'].f1 == data['operating']['jump']['f1']
    last = result.errors.characteristics['length'][-1]
    assert last.high is None and sum(b.segments for b in result.errors.characteristics['length']) == sum(
        data['truth_count'].values()
    )
    assert result.errors.profile[-1]['background'] is None  # nothing has ten times as many detections


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'classes': []}, '`classes`'),
        ({'metrics': {}}, 'average_map'),
        ({'thresholds': []}, '`thresholds`'),
        ({'thresholds': [0.5]}, 'has 3 values for 1 thresholds'),
        ({'per_class': {'wave': [1.0, 1.0, 1.0]}}, 'say nothing of jump'),
        ({'operating': {}}, 'say nothing of jump'),
        ({'operating': dict.fromkeys(('jump', 'wave', 'kick', '<b>spin</b>'), 3)}, '`operating` of jump'),
        ({'operating': {name: {} for name in ('jump', 'wave', 'kick', '<b>spin</b>')}}, '`score`'),
        ({'recall': {'1 x': [1.0]}}, '`1 x`'),
        ({'counts': {}}, '`counts`'),
        ({'ranked': {'a': 'first'}}, '`ranked`'),
        ({'analysis': 3}, '`analysis`'),
        ({'analysis': {'profile': []}}, '`profile`'),
        ({'analysis': {'profile': [{'a': 1.0}, {'b': 1.0}]}}, '`profile`'),
        ({'truth': None}, '`truth`'),
    ],
)
def test_a_damaged_result_is_named_in_one_line(tmp_path, segment_workdir, change, message):
    data = json.loads((segment_workdir / 'eval' / 'films.json').read_text()) | change
    (tmp_path / 'eval').mkdir()
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'eval' / 'films.json').write_text(json.dumps(data))
    with pytest.raises(run.RunError) as caught:
        run.read_run(tmp_path)
    assert 'films.json' in str(caught.value) and message in str(caught.value) and '\n' not in str(caught.value)


def test_a_damaged_bin_is_named(tmp_path, segment_workdir):
    data = json.loads((segment_workdir / 'eval' / 'films.json').read_text())
    data['analysis']['characteristics']['length'][0]['segments'] = 1.5
    (tmp_path / 'eval').mkdir()
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'eval' / 'films.json').write_text(json.dumps(data))
    with pytest.raises(run.RunError, match='`segments`'):
        run.read_run(tmp_path)


def test_a_source_may_be_called_like_the_files_of_another(tmp_path, workdir):
    """Only what a result names as its own is no result."""
    data = (workdir / 'eval' / 'street.json').read_text()
    (tmp_path / 'eval').mkdir()
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'eval' / 'street.json').write_text(data)
    (tmp_path / 'eval' / 'street_detections.json').write_text(data.replace('"street"', '"street_detections"'))
    assert [result.source for result in run.read_run(tmp_path).detections] == ['street', 'street_detections']
