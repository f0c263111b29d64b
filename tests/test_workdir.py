"""What a workdir's files forbid: to go on with, or to score, what the run was not trained for."""

import json
import pathlib

import pytest

from vidloc import config, run
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
