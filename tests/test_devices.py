"""One device, eight simulated ones as 8x1 and as 2x4, and two processes: the same data, the same losses."""

import pytest

STEPS = 5
NEAR = 1e-5


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('devices')


@pytest.fixture(scope='module')
def alone(program, tiny_run, folder):
    run = program.run(tiny_run('street'), folder / 'alone')
    assert run.process.returncode == 0, run.err
    return run.lines()


def assert_same(found, expected):
    """Losses, gradients, and what tells which examples were read: sources, boxes, replacements."""
    trained = [line for line in expected if 'train/loss' in line]
    assert [line['step'] for line in trained] == list(range(1, STEPS + 1))
    found = [line for line in found if 'train/loss' in line]
    assert len(found) == STEPS
    for line, other in zip(found, trained, strict=True):
        assert line.keys() == other.keys()
        for name, value in other.items():
            exact = name.startswith('train/share/') or name in ('step', 'train/street/boxes', 'train/replaced')
            assert line[name] == (value if exact else pytest.approx(value, abs=NEAR)), name


@pytest.mark.parametrize('fsdp', [1, 4])
def test_eight_devices(program, tiny_run, folder, alone, fsdp):
    run = program.run(tiny_run('street', 'unscored'), folder / f'{fsdp}', f'--config.mesh.fsdp={fsdp}', devices=8)
    assert run.process.returncode == 0, run.err
    assert 'on 8 cpu device(s)' in run.out
    assert_same(run.lines(), alone)


def test_two_processes(program, tiny_run, folder, alone):
    first, second = program.run_pair(tiny_run('street'), folder / 'two')
    assert [first.process.returncode, second.process.returncode] == [0, 0], first.err + second.err
    assert 'on 2 cpu device(s)' in first.out and 'device(s)' not in second.out
    assert_same(first.lines(), alone)
    assert len(first.lines()) == len(alone)  # one process writes
    scored = 'eval/street/frame_map@0.5'
    assert first.lines()[-1][scored] == pytest.approx(alone[-1][scored], abs=1e-3)
    assert (folder / 'two/checkpoints' / str(STEPS)).is_dir()


def test_too_many_broken_videos_stop_all_processes(program, tiny_run, broken_copy, tmp_path):
    data, cut = broken_copy(tmp_path / 'data', 0.5)
    for run in program.run_pair(tiny_run('street', folder=data), tmp_path / 'run'):
        assert run.process.returncode == 2, run.err
        assert 'Traceback' not in run.err
        said = run.err[run.err.index('vidloc: ') :]
        assert 'cannot be read, more than the allowed 20%' in said and 'log.broken_share' in said
        assert any(str(path) in said for path in cut)


def test_a_mesh_that_does_not_fit_is_an_error_in_words(program, tiny_run, folder):
    run = program.run(tiny_run('street'), folder / 'wrong', '--config.mesh.fsdp=3')
    assert run.process.returncode == 2
    assert 'there are 1' in run.err and 'Traceback' not in run.err
