"""What a workdir's files forbid: to go on with, or to score, what the run was not trained for."""

import json
import pathlib

import pytest

from vidloc import build, config, run
from vidloc import workdir as workdir_lib
from vidloc.annotations import label_map
from vidloc.checkpoints.store import CheckpointError
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
