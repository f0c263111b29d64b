"""tools/evaluate.py as a user runs it."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CASES = ROOT / 'tests' / 'reference' / 'ava_eval'
MAP = 'item {\n  name: "walk"\n  id: 1\n}\nitem {\n  name: "run"\n  id: 2\n}\nitem {\n  name: "jump"\n  id: 3\n}\n'


@pytest.fixture
def run(run_tool):
    return lambda *arguments: run_tool('evaluate', 'ava', *arguments)


def _json(done):
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


@pytest.fixture
def case(tmp_path):
    (tmp_path / 'map.pbtxt').write_text(MAP)
    (tmp_path / 'a.csv').write_text('v,0902,0.1,0.2,0.3,0.4,1,0\nv,0903,0.1,0.2,0.3,0.4,2,0\n')
    (tmp_path / 'k.csv').write_text('k,12.5,0.1,0.2,0.3,0.4,2\nk,13.5\n')
    (tmp_path / 'p.csv').write_text(
        'v,902,0.1,0.2,0.3,0.4,1,0.9\nv,903,0.1,0.2,0.3,0.4,2,0.4\nk,12.5,0.5,0.2,0.7,0.4,2,0.8\n'
    )
    return tmp_path


def test_in_a_process_of_its_own(case):
    files = ('--ground_truth', case / 'a.csv', '--predictions', case / 'p.csv', '--label_map', case / 'map.pbtxt')
    command = [sys.executable, str(ROOT / 'tools' / 'evaluate.py'), 'ava', *map(str, files)]
    result = _json(subprocess.run(command, capture_output=True, text=True))
    assert result['frame_map@0.5'] == 1.0
    assert result['per_class'] == {'walk': 1.0, 'run': 1.0, 'jump': None}
    assert result['counts']['keyframes'] == 2 and result['counts']['detections'] == 3
    assert 'parts' not in result and 'groups' not in result


def test_parts_and_groups(case, run):
    (case / 'train.csv').write_text(''.join(f'v{row},0902,0.1,0.2,0.3,0.4,{1 + row // 4},0\n' for row in range(6)))
    result = _json(
        run(
            *('--ground_truth', f'{case / "a.csv"},{case / "k.csv"}', '--predictions', case / 'p.csv'),
            *('--label_map', case / 'map.pbtxt', '--train', case / 'train.csv', '--head', 3, '--tail', 1),
        )
    )
    assert result['per_class'] == {'walk': 1.0, 'run': 0.25, 'jump': None}
    assert result['parts'][str(case / 'a.csv')]['frame_map@0.5'] == 1.0
    assert result['parts'][str(case / 'k.csv')]['frame_map@0.5'] == 0.0
    assert result['groups']['head'] == {'frame_map@0.5': 1.0, 'classes': ['walk']}
    assert result['groups']['mid'] == {'frame_map@0.5': 0.25, 'classes': ['run']}
    assert result['groups']['tail'] == {'frame_map@0.5': None, 'classes': ['jump']}


@pytest.mark.parametrize('protocol', ['official', 'slowfast'])
def test_parts_may_share_a_video(case, run, protocol):
    (case / 'b.csv').write_text('v,0904,0.1,0.2,0.3,0.4,1\n')
    (case / 'p.csv').write_text(
        'v,902,0.1,0.2,0.3,0.4,1,0.2\nv,904,0.1,0.2,0.3,0.4,1,0.9\nv,905,0.1,0.2,0.3,0.4,1,0.8\n'
    )
    result = _json(
        run(
            *('--ground_truth', f'{case / "a.csv"},{case / "b.csv"}', '--predictions', case / 'p.csv'),
            *('--label_map', case / 'map.pbtxt', '--protocol', protocol),
        )
    )
    # At 904 s there is nothing wrong; at 905 s, which nobody annotates, SlowFast's rules find fault.
    walk = 1.0 if protocol == 'official' else 0.5
    assert result['parts'][str(case / 'a.csv')]['per_class'] == {'walk': walk, 'run': 0.0, 'jump': None}
    assert result['parts'][str(case / 'b.csv')]['per_class'] == {'walk': 1.0, 'run': None, 'jump': None}


def test_predictions_in_several_files_are_joined(case, run):
    first, *others = (case / 'p.csv').read_text().splitlines(keepends=True)
    (case / 'one.csv').write_text(first)
    (case / 'others.csv').write_text(''.join(others))
    common = ('--ground_truth', f'{case / "a.csv"},{case / "k.csv"}', '--label_map', case / 'map.pbtxt')
    whole = _json(run(*common, '--predictions', case / 'p.csv'))
    assert _json(run(*common, '--predictions', f'{case / "one.csv"},{case / "others.csv"}')) == whole
    assert whole['counts']['detections'] == 3
    done = run(*common, '--predictions', f'{case / "one.csv"},{case}/./one.csv')
    assert done.returncode == 2 and '--predictions' in done.stderr and 'different csv files' in done.stderr


@pytest.mark.parametrize('protocol', ['official', 'slowfast'])
def test_reference_with_exclusion(protocol, run):
    case = CASES / '08_exclusion'
    result = _json(
        run(
            *(
                '--ground_truth',
                case / 'gt.csv',
                '--predictions',
                case / 'det.csv',
                '--label_map',
                case / 'labelmap.pbtxt',
            ),
            *('--excluded', case / 'exclude.csv', '--protocol', protocol),
        )
    )
    name = 'expected.json' if protocol == 'official' else 'expected_slowfast.json'
    assert abs(result['frame_map@0.5'] - json.loads((case / name).read_text())['mAP']) < 1e-9


@pytest.mark.parametrize(
    ('file', 'text', 'says'),
    [
        ('p.csv', 'v,902,10,20,30,40,1,0.9\n', 'box-not-normalised'),
        ('p.csv', 'v,902,0.1,0.2,0.3,0.4,0,0.9\n', 'action-id-zero'),
        ('p.csv', 'v,2,0.1,0.2,0.3,0.4,1,0.9\n', 'no prediction is on a keyframe'),
        ('p.csv', 'v,902,0.1,0.2,0.3,0.4,9,0.9\n', 'no prediction is of a class'),
        ('p.csv', '', 'file-empty'),
        ('a.csv', 'v,0902,0.1,0.2,0.3,0.4,9,0\n', 'no label is of a class'),
        ('a.csv', 'v,0902,0.3,0.2,0.1,0.4,1,0\n', 'box-swapped'),
        ('a.csv', 'v;0902\n', 'semicolon-separated'),
        ('a.csv', None, 'file-missing'),
        ('map.pbtxt', 'walk 1\n', 'label-map-syntax'),
    ],
)
def test_faults_are_one_line(case, run, file, text, says):
    (case / file).unlink() if text is None else (case / file).write_text(text)
    done = run('--ground_truth', case / 'a.csv', '--predictions', case / 'p.csv', '--label_map', case / 'map.pbtxt')
    assert done.returncode == 2 and done.stdout == ''
    assert len(done.stderr.splitlines()) == 1 and says in done.stderr
