"""The embeddings of class names with which heads compare features: which tasks have some, how wide, and what they are.

Their file is read when a run begins. What it gave is then part of the run: one that goes on, is evaluated or exported
needs no file.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from vidloc.checkpoints import text_embeddings
from vidloc.checkpoints.readers import weights
from vidloc.config import ConfigError
from vidloc.models import text_similarity


def files(config: ml_collections.ConfigDict) -> dict[str, str]:
    """{task: file} of the tasks whose head has some."""
    return {name: task.head.text for name, task in config.tasks.items() if 'text' in task.head and task.head.text}


def leaves(config: ml_collections.ConfigDict) -> dict[str, str]:
    """{task: canonical name of its embeddings}"""
    return {name: f'heads_{name}/{text_similarity.EMBEDDING}' for name in files(config)}


def output(config: ml_collections.ConfigDict, task: str) -> str:
    """Where the parameters of what a task's head gives out stand, by canonical name."""
    return f'heads_{task}/{text_similarity.NAME if task in files(config) else "output"}'


def width(name: str, head: ml_collections.ConfigDict) -> int:
    """E of the task `name`: what its head's config says, else the width of the file; 0 where it has none.

    Raises ConfigError.
    """
    if 'text' not in head or not head.text:
        return 0
    if head.text_width:
        return head.text_width
    try:
        return text_embeddings.width(head.text)
    except weights.ReadError as error:
        raise ConfigError(f'tasks.{name}.head.text: {error}') from error


def open_widths(config: ml_collections.ConfigDict, known: Mapping[str, Any]) -> dict[str, int]:
    """{field of the config that is open: width}; known: {field: value} of the run in the workdir, asked before files.

    Raises ConfigError.
    """
    found = {}
    for name in files(config):
        field, head = f'tasks.{name}.head.text_width', config.tasks[name].head
        if not head.text_width:
            found[field] = known.get(field) or width(name, head)
    return found


def embeddings(config: ml_collections.ConfigDict, classes: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """{canonical name: [C, E] float32, each of length 1}, read from the files; classes: {task: names}.

    Raises ConfigError or ReadError.
    """
    found = {}
    for name, leaf in leaves(config).items():
        head = config.tasks[name].head
        found[leaf] = text_embeddings.read(head.text, classes[name])
        if head.text_width not in (0, found[leaf].shape[1]):
            raise ConfigError(
                f'tasks.{name}.head.text_width is {head.text_width}, the embeddings in {head.text} have '
                f'{found[leaf].shape[1]} channels; leave it at 0 to take what the file has'
            )
    return found
