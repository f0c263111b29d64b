"""tools/evaluate.py temporal as a user runs it."""

import json
import pathlib

import pytest

CASES = pathlib.Path(__file__).parents[1] / 'reference' / 'temporal_eval'


@pytest.fixture
def run(run_tool, tmp_path):
    """(ground truth, predictions, arguments) -> what the tool says; texts are written as they are."""

    def run(truth, found, *arguments):
        for name, content in (('g.json', truth), ('p.json', found)):
            if content is not None:
                (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        files = ('--ground_truth', tmp_path / 'g.json', '--predictions', tmp_path / 'p.json')
        return run_tool('evaluate', 'temporal', *files, *arguments)

    return run


def _json(done):
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def truth(**videos):
    """{video: (subset, [(start, end, label)])} as ActivityNet JSON."""
    database = {
        video: {
            'subset': subset,
            'duration': 100.0,
            'annotations': [{'label': label, 'segment': [start, end]} for start, end, label in rows],
        }
        for video, (subset, rows) in videos.items()
    }
    return {'database': database}


def found(**videos):
    """{video: [(start, end, label, score)]} as ActivityNet JSON."""
    rows = {
        video: [{'label': label, 'score': score, 'segment': [start, end]} for start, end, label, score in rows]
        for video, rows in videos.items()
    }
    return {'results': rows}


TRUTH = truth(
    a=('validation', [(0, 10, 'run'), (20, 30, 'jump')]), b=('validation', []), t=('training', [(0, 1, 'swim')])
)
FOUND = found(a=[(0, 10, 'run', 0.9), (20, 25, 'jump', 0.8)])


@pytest.mark.parametrize(
    'name', sorted(path.stem for path in CASES.glob('[cr]*.json') if json.loads(path.read_text()).get('compare_with'))
)
def test_public_programs(run, name):
    case = json.loads((CASES / f'{name}.json').read_text())
    tiou = ','.join(str(level) for level in case['tiou_thresholds'])
    result = _json(run(case['ground_truth'], case['predictions'], '--subset', case['subset'], '--tiou', tiou))
    expected = case['expected'][case['compare_with']]
    assert result['average_map'] == pytest.approx(expected['average_mAP'], abs=1e-9)
    assert list(result['map']) == [str(level) for level in case['tiou_thresholds']]
    assert list(result['map'].values()) == pytest.approx(expected['mAP'], abs=1e-9)
    for label, values in expected['ap_by_class'].items():
        assert list(result['per_class_map'][label].values()) == pytest.approx(values, abs=1e-9)
        assert result['per_class'][label] == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_result(run):
    done = run(TRUTH, FOUND)
    result = _json(done)
    assert result['map'] == {'0.3': 1.0, '0.4': 1.0, '0.5': 1.0, '0.6': 0.5, '0.7': 0.5}
    assert result['average_map'] == pytest.approx(0.8)
    assert result['per_class'] == {'jump': pytest.approx(0.6), 'run': 1.0, 'swim': None}
    assert result['per_class_map']['swim'] == dict.fromkeys(result['map'])
    assert result['recall@1x']['0.7'] == 0.5
    assert result['counts']['videos'] == 2 and result['counts']['ground_truths'] == 2
    assert done.stderr == 'evaluate: 2 videos, 1 of them with ground truth, 2 ground truths, 2 predictions\n'
    assert 'errors' not in result


@pytest.mark.parametrize('name', ['anet', 'activitynet'])
def test_thresholds_by_name_are_decimal_literals(run, name):
    result = _json(run(TRUTH, FOUND, '--tiou', name))
    assert list(result['map']) == ['0.5', '0.55', '0.6', '0.65', '0.7', '0.75', '0.8', '0.85', '0.9', '0.95']


def test_blocked_videos_lose_truth_and_predictions(run, tmp_path):
    (tmp_path / 'blocked.json').write_text('["c", "x"]')
    more = truth(c=('validation', [(0, 10, 'run')]))['database']
    done = run(
        {'database': TRUTH['database'] | more},
        {'results': FOUND['results'] | found(c=[(50, 60, 'run', 1.0)], x=[(0, 1, 'run', 1.0)])['results']},
        '--blocked',
        tmp_path / 'blocked.json',
    )
    result = _json(done)
    assert result['map'] == _json(run(TRUTH, FOUND))['map']
    assert result['counts']['blocked_videos'] == 1 and result['counts']['predictions_blocked'] == 2
    assert '1 videos are blocked; 2 predictions are on blocked videos' in done.stderr


def test_an_empty_name_takes_all_subsets(run):
    assert _json(run(TRUTH, FOUND, '--subset', ''))['counts']['videos'] == 3


def test_what_is_odd_is_counted_and_said(run):
    odd = truth(a=('Test', [(0, 10, 'run'), (0, 10.0005, 'run'), (4, 4, 'run')]), b=('Validation', []))
    done = run(
        odd,
        found(a=[(0, 10, 'run', 0.9), (9, 2, 'run', 0.8), (0, 1, 'fly', 0.7)], z=[(0, 1, 'run', 0.1)]),
        '--subset',
        'test',
    )
    result = _json(done)
    assert result['average_map'] == 1.0
    assert result['counts'] == {
        'videos': 1,
        'videos_with_ground_truth': 1,
        'ground_truths': 1,
        'predictions': 4,
        'duplicate_ground_truths': 1,
        'empty_ground_truths': 1,
        'predictions_ignored': 1,
        'predictions_elsewhere': 1,
        'blocked_videos': 0,
        'predictions_blocked': 0,
        'predictions_inverted': 1,
    }
    for text in (
        "'test' is read as 'Test'",
        'given twice',
        'without length',
        'ignored',
        'and false',
        'before they start',
    ):
        assert text in done.stderr


def test_errors(run):
    case = json.loads((CASES / 'detad_r01_random_12v_4c.json').read_text())
    for entry in case['ground_truth']['database'].values():
        # The durations of the file are not those that its coverages were made with.
        entry['duration'] = entry['annotations'][0]['length'] / entry['annotations'][0]['coverage']
    errors = _json(run(case['ground_truth'], case['predictions'], '--errors', 'thumos'))['errors']
    assert errors['map_n'] == pytest.approx(case['expected']['base_average_mAP_N'], abs=1e-9)
    assert errors['tiou'] == [0.5] and errors['n'] == 9.5
    assert errors['sensitivity']['coverage'] == pytest.approx(case['expected']['sensitivity_average_mAP_N']['coverage'])
    assert errors['sensitivity']['instances']['L'] is None
    assert errors['profile'][0]['true positive'] == pytest.approx(0.5526315789473685)
    assert errors['profile'][0]['predictions'] == 38
    anet = _json(run(case['ground_truth'], case['predictions'], '--errors', 'activitynet'))['errors']
    assert len(anet['tiou']) == 10 and sum(anet['kinds'].values()) == pytest.approx(1.0)


def test_no_predictions_at_all(run):
    result = _json(run(TRUTH, found(a=[])))
    assert result['average_map'] == 0.0 and result['counts']['predictions'] == 0


@pytest.mark.parametrize(
    ('true', 'predicted', 'arguments', 'says'),
    [
        (TRUTH, FOUND, ['--subset', 'testing'], "Found: 'training' (1 videos), 'validation' (2 videos)"),
        (truth(a=('validation', []), t=('training', [(0, 1, 'swim')])), FOUND, [], 'no segments in the 1 videos'),
        (TRUTH, found(v_a=[(0, 1, 'run', 0.5)]), [], "predictions are on 'v_a', the truth is on 'a'"),
        (TRUTH, found(a=[(0, 1, 'Run', 0.5)]), [], "a class of the ground truth, which are 'jump', 'run', 'swim'"),
        (TRUTH, FOUND, ['--tiou', '0.5;0.6'], '--tiou'),
        (TRUTH, FOUND, ['--tiou', '50'], '--tiou'),
        (TRUTH, FOUND, ['--tiou', '0.5,0.50'], '--tiou'),
        (TRUTH, FOUND, ['--tiou', 'nan'], '--tiou'),
        (TRUTH, FOUND, ['--blocked', 'nowhere.json'], 'file-missing'),
        (TRUTH, found(a=[(0, 1, 'run', 'high')]), [], "the score of prediction 0 of 'a'"),
        (TRUTH, {'version': 1}, [], 'there is no object "results"'),
        (TRUTH, '{"results":', [], 'json-syntax'),
        (TRUTH, None, [], 'file-missing'),
        (FOUND, FOUND, [], 'there is no object "database"'),
        (truth(a=('validation', [(0, 101, 'run')])), FOUND, ['--errors', 'thumos'], 'no ground truth fits'),
    ],
)
def test_faults_are_one_line(run, true, predicted, arguments, says):
    done = run(true, predicted, *arguments)
    assert done.returncode == 2 and done.stdout == ''
    last = done.stderr.splitlines()[-1]
    assert says in last and 'Traceback' not in done.stderr
    assert len(done.stderr.splitlines()) == (2 if '--errors' in arguments else 1)
