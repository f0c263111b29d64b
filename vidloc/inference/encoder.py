"""A backbone with its weights, from wherever they are, as what computes features."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vidloc import trained, transfer
from vidloc.checkpoints import importer
from vidloc.models import layers, tap
from vidloc.models import preprocess as preprocess_lib

COMPUTE = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class EncoderError(ValueError):
    """No features can be computed with this: what it is, and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """backbone: unbound. params: in run form. kind: of the backbone, as configs name it. size: (height, width) that the
    weights were made for. fingerprint: of the parameters, whatever file they came in."""

    backbone: nn.Module
    params: Any
    preprocess: preprocess_lib.Preprocess
    kind: str
    size: tuple[int, int]
    fingerprint: str

    @property
    def layers(self) -> int:
        """Of all its stacks."""
        return sum(self.backbone.stacks().values())

    def encode(
        self, params: Any, video: jax.Array, frame_valid: jax.Array, *, with_layers: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Clips -> their tokens, mean over space; to be compiled.

        params: self.params, on the device. video: uint8 [N, F, H, W, 3]. frame_valid: [N, F], False for padding.
        Returns last [N, t, D] float32, the backbone's output; valid [N, t]; and the output of every layer
        [N, K, t, D] float32, as adapters with a pooled reduction see it (models/tap.py), or None.
        """
        x = self.preprocess(video, frame_valid, jnp.zeros(len(video), jnp.uint32), train=False)
        # Only the means leave the loop over the layers.
        taken = tap.Tap(tuple(range(self.layers)), lambda _, x: _over_space(x), {}) if with_layers else None
        found = self.backbone.apply({'params': params}, x, frame_valid, train=False, tap=taken)
        each = None if found.tapped is None else found.tapped.transpose(1, 0, 2, 3)  # [K, N, t, D] -> [N, K, t, D]
        return _over_space(found.grid), found.valid, each


def _over_space(x: jax.Array) -> jax.Array:
    """[N, t, h, w, D] -> [N, t, D] float32"""
    return jnp.mean(x.astype(jnp.float32), axis=(2, 3))


def open_encoder(
    place: str | os.PathLike[str],
    *,
    which: str = '',
    overrides: Mapping[str, Any] | None = None,
    compute: str = 'float32',
) -> Encoder:
    """The backbone of a weights file or folder, or of a run: `WORKDIR`, `WORKDIR@best`, `WORKDIR@1000`.

    which, overrides: of a weights file, see families.recognise. compute: type of the activations, see COMPUTE.
    Raises EncoderError, and what importer.load and trained.read_run raise.
    """
    place = os.fspath(place)
    workdir, step = transfer.split(place)
    if trained.is_workdir(workdir):
        if which or overrides:
            raise EncoderError(f'{place} is the workdir of a run: name a checkpoint as {workdir}@best; nothing to set')
        encoder = _of_run(workdir, step)
    else:
        imported = importer.load(place, which=which, overrides=overrides)
        if imported.backbone is None:
            raise EncoderError(f'{place} holds a head without a backbone: name the weights of a backbone')
        prepared = imported.preprocessing
        preprocess = preprocess_lib.Preprocess(mean=prepared.mean, std=prepared.std)
        params = imported.params['backbone']
        kind = imported.found.backbone['kind']
        encoder = Encoder(imported.backbone, params, preprocess, kind, prepared.size, fingerprint(params))
    if compute not in COMPUTE:
        raise EncoderError(f'compute is {compute!r}; it must be one of {", ".join(COMPUTE)}')
    return dataclasses.replace(encoder, backbone=encoder.backbone.clone(dtype=COMPUTE[compute]))


def _of_run(workdir: str, which: str) -> Encoder:
    run = trained.read_run(workdir, which)
    experiment = run.experiment
    found = transfer.backbone_of(run)
    videos = [batch['video'] for batch in experiment.abstract_batches.values() if 'video' in batch]
    if not found or not videos:
        raise EncoderError(f'{workdir}: the model of this run starts from features; name a backbone that sees videos')
    params = traverse_util.unflatten_dict(transfer.into(found, experiment.abstract_params), sep='/')['backbone']
    model, size = experiment.model, tuple(videos[0].shape[2:4])
    kind = experiment.config.backbone.kind
    # LoRA is merged, so that features and fingerprint are those of the run as export_checkpoint writes it.
    return Encoder(model.backbone.clone(lora=None), params, model.preprocess, kind, size, fingerprint(params))


def fingerprint(params: Any) -> str:
    """SHA-256 over name, shape and SHA-256 of the bytes of each parameter, by its canonical name."""
    flat = traverse_util.flatten_dict(params, sep='/')
    described = []
    for name, names in layers.canonical_names(params).items():
        array = np.asarray(flat[name], np.float32)
        for each, part in zip(names, [array] if names == (name,) else array, strict=True):
            part = np.ascontiguousarray(part)
            described.append([each, list(part.shape), hashlib.sha256(part.reshape(-1).view(np.uint8)).hexdigest()])
    return hashlib.sha256(json.dumps(sorted(described)).encode()).hexdigest()
