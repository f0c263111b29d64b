"""What an evaluation of segments writes, and that others' readers get the same scores from it."""

import json

import numpy as np
import pytest

from vidloc.annotations import segment_predictions, segment_table
from vidloc.metrics import segment_errors, temporal
from vidloc.report import page, results, run, segment_results


@pytest.fixture(scope='module')
def content(segment_workdir):
    return json.loads((segment_workdir / 'eval' / 'films.json').read_text())


def test_the_means_over_classes_are_the_metrics(content):
    assert content['kind'] == 'segments' and content['thresholds'] == [0.3, 0.5, 0.7]
    for place, threshold in enumerate(content['thresholds']):
        values = [row[place] for row in content['per_class'].values() if row[place] is not None]
        assert np.mean(values) == pytest.approx(content['metrics'][f'map@{threshold:g}'], abs=1e-12)
    assert content['metrics']['average_map'] == pytest.approx(
        np.mean([content['metrics'][f'map@{t:g}'] for t in (0.3, 0.5, 0.7)])
    )
    assert sum(content['truth_count'].values()) == content['counts']['ground_truths']
    assert content['counts']['videos'] == 7 and content['counted_in'] == 'evaluation'


def test_the_files_beside_it_give_the_same_scores(segment_workdir, content):
    classes = content['classes']
    table = segment_table.read_segment_table(segment_workdir / content['truth'])
    found = segment_predictions.read_segment_predictions(segment_workdir / content['detections'], classes)
    truth = dict(table.columns)
    truth['label'] = np.array([classes.index(table.classes[i]) for i in truth['label'].tolist()])
    result = temporal.segment_ap(truth, found, dict(enumerate(classes)), content['thresholds'])
    assert result.average == content['metrics']['average_map']
    assert len(table.videos) == 7 and not np.isnan(truth['duration']).any()


def test_training_segments_are_counted_where_the_training_source_is_there(segment_maker, tmp_path):
    made = segment_maker
    truth, seconds = made.untrimmed(3)
    made.write_films(tmp_path / 'films', truth, seconds)
    source = made.window_source(tmp_path / 'films', truth, seconds)
    training = made.window_source(tmp_path / 'films', {'long_00': truth['long_00'][:1]}, seconds, train=True)
    found = made.guessed(truth, seconds, 0.5)
    files = {'task': 'actions', 'videos': '', 'frame_rate': 30.0}
    metrics = results.measure(made.segment_score, source, found, files)
    scored = results.Scored(source, training, found, metrics, 1, files, head=10, tail=2)
    written = segment_results.content(scored)
    assert written['counted_in'] == 'training' and sum(written['train_count'].values()) == 1
    assert written['train_count'][made.ACTIONS[truth['long_00'][0][2]]] == 1


def test_a_run_that_finds_nothing_is_written_and_shown(segment_maker, tmp_path):
    made = segment_maker
    truth, seconds = made.untrimmed(2)
    made.write_films(tmp_path / 'films', truth, seconds)
    source = made.window_source(tmp_path / 'films', truth, seconds)
    found = {name: values[:0] for name, values in made.guessed(truth, seconds, 0.5).items()}
    files = {'task': 'actions', 'videos': str(tmp_path / 'films'), 'frame_rate': 30.0}
    metrics = results.measure(made.segment_score, source, found, files)
    results.write(tmp_path, results.Scored(source, None, found, metrics, 1, files, head=10, tail=2))
    (tmp_path / 'config.json').write_text('{}')
    (read,) = run.read_run(tmp_path).segments
    assert read.metrics['average_map'] == 0.0 and set(read.operating.values()) == {None}
    assert 'films: timelines' in page.write_page(tmp_path).read_text()


def spread(bins):
    """A value in every bin of a characteristic."""
    highs = [high if np.isfinite(high) else low + 10 for low, high in zip(bins.edges, bins.edges[1:], strict=False)]
    return np.array([(max(low, 0.0) + high) / 2 for low, high in zip(bins.edges, highs, strict=False)])


@pytest.mark.parametrize('name', ['thumos', 'activitynet'])
def test_public_bins_are_taken_where_each_holds_something(name):
    settings = segment_errors.SETTINGS[name]
    measured = {bins.of: spread(bins) for bins in settings.bins}
    assert segment_results.settings_for(measured, (0.5,)) == (name, settings)
    measured['instances'] = np.array([1.0, 3.0])
    assert segment_results.settings_for(measured, (0.5,))[0] == segment_results.FITTED


def test_fitted_bins_hold_all_and_about_as_many_each():
    random = np.random.default_rng(3)
    measured = {
        'coverage': random.uniform(0.2, 0.9, 200),
        'length': np.repeat([1.0, 2.0], 100),
        'instances': np.full(200, 4.0),
    }
    name, settings = segment_results.settings_for(measured, (0.3, 0.5))
    assert name == segment_results.FITTED and settings.thresholds == (0.5,)
    counts = [np.bincount(bins.place(measured[bins.of]), minlength=len(bins.names)) for bins in settings.bins]
    assert [count.sum() for count in counts] == [200, 200, 200]
    assert len(counts[0]) == 5 and counts[0].min() > 30
    assert counts[1].tolist() == [100, 100] and counts[2].tolist() == [200]
    assert segment_results.settings_for(measured, (0.3, 0.7))[1].thresholds == (0.3, 0.7)


def test_a_truth_is_of_the_kind_that_its_columns_say():
    kinds = {kind.__name__.rsplit('.', 1)[-1]: kind for kind in results.KINDS}
    for name, kind in kinds.items():
        assert results.kind_of(dict.fromkeys(kind.COLUMNS)) is kinds[name]
    with pytest.raises(ValueError, match='video'):
        results.kind_of({'video': np.zeros(1)})
