"""What a workdir's files forbid: to go on with, or to score, what the run was not trained for."""

import json
import pathlib

import pytest

from vidloc import build, config, run, supply
from vidloc import workdir as workdir_lib
from vidloc.annotations import label_map
from vidloc.checkpoints.store import CheckpointError
from vidloc.train import sharding
from vidloc.workdir import RunError

TINY = pathlib.Path(__file__).with_name('tiny_run.py')


def test_an_evaluation_with_the_classes_in_another_order_is_refused(tmp_path):
    """Heads know numbers, not names: scored with a list in another order every figure would be of another class."""
    names = [f'action {i}' for i in range(14)]
    label_map.write_label_map(tmp_path / 'street/action_list.pbtxt', dict(enumerate(names, 1)))
    workdir = tmp_path / 'run'
    workdir.mkdir()
    given = config.load(f'{TINY}:{tmp_path},street,unscored')
    trained = {'tasks': {'street': {'classes': names[::-1], 'max_boxes': 12}}}
    (workdir / 'model.json').write_text(json.dumps(trained))
    with pytest.raises(RunError, match='classes of task street were others, or in another order'):
        run.evaluate(given, workdir)
    trained['tasks']['street']['classes'] = names
    (workdir / 'model.json').write_text(json.dumps(trained))
    with pytest.raises(CheckpointError):  # the next thing that is looked at
        run.evaluate(given, workdir)


def test_the_config_of_an_earlier_version_gets_what_came_later(tmp_path):
    """Sections and fields that it does not have stand at their defaults: it can be opened, and gone on with."""
    given = config.load(f'{TINY}:{tmp_path},street,unscored')
    early = json.loads(workdir_lib.as_json(given))
    for section in ('side', 'clips', 'film', 'lora'):
        del early[section]
    del early['tasks']['street']['group']
    for section, field in (('precision', 'frozen'), ('schedule', 'warmup_from_zero'), ('log', 'gradient_norm')):
        del early[section][field]
    completed = build.completed(early)
    assert workdir_lib.as_json(completed) == workdir_lib.as_json(given)
    experiment = build.experiment(given)
    assert build.experiment(completed).partition.total() == experiment.partition.total()
    (tmp_path / 'config.json').write_text(json.dumps(early))
    workdir_lib.check(tmp_path, given, experiment, {})
    given.lora.rank = 2
    with pytest.raises(RunError, match=r'lora\.rank: 0 there, 2 now'):
        workdir_lib.check(tmp_path, given, experiment, {})
    given.lora.rank = 0
    early['precision']['compute'] = 'bfloat16'
    (tmp_path / 'config.json').write_text(json.dumps(early))
    with pytest.raises(RunError, match=r"precision\.compute: 'bfloat16' there, 'float32' now"):
        workdir_lib.check(tmp_path, given, experiment, {})


def test_the_shots_of_a_run_are_written_and_others_refused(tiny_run, tmp_path):
    given = config.load(tiny_run('street', 'unscored'))
    given.sources.street.shots = 2
    experiment = build.experiment(given)

    def opened(**fields):
        with given.sources.unlocked():
            given.sources.street.update(fields)
        return supply.open_sources(given, experiment.tasks, train=True)

    first = opened()
    workdir_lib.write(tmp_path, given, experiment, first)
    said = json.loads((tmp_path / 'shots.json').read_text())
    assert list(said) == ['street']  # the other source is whole
    about = said['street']
    assert (about['shots'], about['seed'], about['available']) == (2, 0, first['street'].shots.total)
    assert all(count >= 2 or about['short'].get(name) == count for name, count in about['per_class'].items())
    for video, second, x1, y1, x2, y2, labels in about['chosen']:
        assert video and second >= 0 and 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 and labels
    counts = {name: sum(name in row[-1] for row in about['chosen']) for name in about['per_class']}
    classes = experiment.tasks['street'].classes
    assert counts == about['per_class'] == dict(zip(classes, first['street'].label_counts().tolist(), strict=True))
    workdir_lib.check(tmp_path, given, experiment, first)

    # Told by the settings, and by the data should the draw ever be another one.
    other = opened(shots_seed=1)
    with pytest.raises(RunError, match=r'sources\.street\.shots_seed: 0 there, 1 now'):
        workdir_lib.check(tmp_path, given, experiment, other)
    opened(shots_seed=0)
    with pytest.raises(RunError, match='other examples of street'):
        workdir_lib.check(tmp_path, given, experiment, other)

    lines = run.summary(given, first, {'held_out': other['street']}, run.length(given, first), sharding.make_mesh())
    assert f'  sources.street: {first["street"].shots.line()}' in lines.splitlines()
    assert '  eval_sources.held_out: 2 shots a class, seed 1: ' in lines and 'sources.truth:' not in lines


def test_a_run_from_before_there_were_shots_goes_on(tiny_run, tmp_path):
    given = config.load(tiny_run('street', 'unscored'))
    experiment = build.experiment(given)
    opened = supply.open_sources(given, experiment.tasks, train=True)
    workdir_lib.write(tmp_path, given, experiment, opened)
    assert not (tmp_path / 'shots.json').exists()
    early = json.loads((tmp_path / 'config.json').read_text())
    for source in early['sources'].values():
        for field in ('shots', 'shots_seed', 'folds', 'fold'):
            del source[field]
    (tmp_path / 'config.json').write_text(json.dumps(early))
    workdir_lib.check(tmp_path, given, experiment, opened)
    given.sources.street.shots = 2
    with pytest.raises(RunError, match='other examples of street'):
        workdir_lib.check(tmp_path, given, experiment, supply.open_sources(given, experiment.tasks, train=True))
