import json
import pathlib

import pytest

RECIPE = f'--config={pathlib.Path(__file__).parents[1] / "tiny_run.py"}:data,street'
METRIC = '--metric=eval/street/frame_map@0.5'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ((RECIPE,), '--set, --metric must be given'),
        ((RECIPE, METRIC, '--set=a=1', '--trials=0'), '0 is not above 0'),
        ((RECIPE, METRIC, '--set=a=1', '--seeds=0,x'), '--seeds'),
    ],
)
def test_options_without_sense_are_refused(run_tool, capsys, tmp_path, words, message):
    with pytest.raises(SystemExit) as stopped:
        run_tool('sweep', *words, f'--out={tmp_path / "out"}')
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (
            (METRIC, '--set', 'schedule.rat=1,2'),
            "--set schedule.rat: config.schedule has no 'rat'; did you mean 'rate'?",
        ),
        ((METRIC, '--set', 'schedule.rate=1,2', '--halve=3'), '--halve 3 needs --budget, the steps of the first rung'),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line_before_anything_is_written(run_tool, tmp_path, words, message):
    done = run_tool('sweep', RECIPE, *words, f'--out={tmp_path / "out"}')
    assert done.returncode == 2 and done.stderr == f'sweep: {message}\n' and not done.stdout
    assert not (tmp_path / 'out').exists()


def test_data_that_are_not_there_fail_all_trials_with_the_reason(run_tool, tmp_path):
    words = ('--set=schedule.rate=1', f'--out={tmp_path / "out"}')
    done = run_tool('sweep', RECIPE, METRIC, *words)
    assert done.returncode == 2 and 'all trials failed, the first one so: ' in done.stderr
    assert 'ava_train.csv' in done.stderr and '--retry-failed' in done.stderr
    assert json.loads((tmp_path / 'out/results.json').read_text())['best'] is None
    done = run_tool('sweep', '--best', f'--out={tmp_path / "out"}')
    assert done.returncode == 2 and 'no trial has a score' in done.stderr


@pytest.mark.parametrize('finished', [True, False])
def test_best_prints_only_the_command_line(run_tool, tmp_path, finished):
    found = {'best': {'command': 'python -m vidloc.main --config=x.py'}, 'finished': finished}
    (tmp_path / 'results.json').write_text(json.dumps(found))
    done = run_tool('sweep', '--best', f'--out={tmp_path}')
    assert (done.returncode, done.stdout) == (0, 'python -m vidloc.main --config=x.py\n')
    assert ('not finished' in done.stderr) is not finished


def test_there_is_no_best_of_nothing(run_tool, tmp_path):
    done = run_tool('sweep', '--best', f'--out={tmp_path}')
    assert done.returncode == 2 and str(tmp_path) in done.stderr
