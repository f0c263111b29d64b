"""What is looked at while a run with LoRA or augmented features trains: the signs of tasks/group_signs.py."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidloc import build
from vidloc.data import sources
from vidloc.models import film
from vidloc.report import run as report_run
from vidloc.tasks import group_signs
from vidloc.train import loop
from vidloc.workdir import RunError


def watch(
    experiment: build.Experiment,
    opened: Mapping[str, sources.Source],
    drawn: Sequence[int],
    warmup: int,
    workdir: pathlib.Path,
    done: int,
) -> Callable[[int, Mapping[str, float]], Mapping[str, str]]:
    """What Fit.watch takes; it has seen all that was logged in `workdir` up to the step `done`.

    opened: the training sources; drawn: how many examples each of them gives. warmup: steps. Raises RunError.
    """
    augmenting = experiment.model.film
    if augmenting is None and not experiment.config.lora.rank:
        return loop.unwatched
    made = group_signs.Signs(
        {name: _watched(experiment, name, opened, drawn) for name in experiment.tasks},
        copies=augmenting.count if augmenting is not None else 0,
        start=start(augmenting) if augmenting is not None else None,
        lora=experiment.config.lora.rank > 0,
        warmup=warmup,
    )
    path = workdir / 'metrics.jsonl'
    try:
        logged = report_run.read_metrics(path) if path.exists() else []
    except report_run.RunError as error:
        raise RunError(str(error)) from error
    for figures in logged:
        if figures['step'] <= done:
            made.look(figures['step'], figures)
    return made.look


def start(augmenting: film.Film | film.Noise) -> float | None:
    """|gamma - 1| on average before training, of any seed; None where the changes are not learned."""

    def begin(key: jax.Array) -> tuple[jax.Array, Mapping[str, Any]]:
        copies, variables = augmenting.init_with_output(key, 1)
        return copies.gamma, variables

    gamma, variables = jax.jit(begin)(jax.random.key(0))
    return float(jnp.mean(jnp.abs(gamma - 1.0))) if variables else None


def _watched(
    experiment: build.Experiment, name: str, opened: Mapping[str, sources.Source], drawn: Sequence[int]
) -> group_signs.Watched:
    config, task = experiment.config, experiment.tasks[name]
    shares = {
        source: (opened[source].label_share(), count)
        for source, count in zip(opened, drawn, strict=True)
        if config.sources[source].task == name and hasattr(opened[source], 'label_share') and count
    }
    known = bool(shares) and hasattr(task, 'base_rate_loss')
    return group_signs.Watched(
        group=task.group if experiment.model.film is not None else None,
        base_rates=task.base_rate_loss(_mean(shares)) if known else None,
        held=tuple(held for held in config.eval.seen.values() if config.eval_sources[held].task == name),
    )


def _mean(shares: Mapping[str, tuple[np.ndarray, int]]) -> np.ndarray:
    return np.average([share for share, _ in shares.values()], axis=0, weights=[count for _, count in shares.values()])
