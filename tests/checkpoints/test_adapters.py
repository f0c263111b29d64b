"""Adapters in files of our own: round trip, what is compared with a model, and what is refused."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from vidloc.checkpoints import adapters
from vidloc.checkpoints.adapters import Adapter, AdapterError
from vidloc.models.lora import Lora

LORA = Lora(rank=2, alpha=4.0, on=('query', 'value'), where=('backbone',), layers=(1, 2))
CLASSES = {'clips': ('wave', 'jump')}


def parameters():
    rng = np.random.default_rng(0)
    shapes = {'film/table': (2, 4), 'heads_clips/output/kernel': (6, 2)}
    for i in (1, 2):
        for name in LORA.on:
            owner = f'backbone/encoder/block_{i:02d}/attn/{name}'
            shapes |= {f'{owner}/lora_a': (6, 2), f'{owner}/lora_b': (2, 6)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def adapter(**changes):
    return dataclasses.replace(Adapter(parameters(), LORA, 'abc', CLASSES), **changes)


def test_round_trip(tmp_path):
    path = tmp_path / 'new' / 'adapter.safetensors'
    adapters.write(path, adapter())
    found = adapters.read(path)
    assert (found.lora, found.fingerprint, found.classes) == (LORA, 'abc', CLASSES)
    assert found.params.keys() == parameters().keys()
    for name, value in parameters().items():
        np.testing.assert_array_equal(found.params[name], value)
        assert found.params[name].dtype == np.float32
    assert found.told == 'LoRA of rank 2, alpha 4, on query, value of layers 1 to 2; film, heads_clips'
    with pytest.raises(AdapterError, match='is there already'):
        adapters.write(path, adapter())


def rewritten(path, change):
    """The file with other notes."""
    raw = path.read_bytes()
    (length,) = struct.unpack('<Q', raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header['__metadata__'])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + raw[8 + length :])
    return path


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda notes: notes.pop('fingerprint'), r'its notes lack fingerprint\. Of an adapter by PEFT name the folder'),
        (lambda notes: notes.update(format='2'), r'of format 2, newer than this vidloc \(1\)'),
        (lambda notes: notes.update(format='x'), 'its notes cannot be read'),
        (lambda notes: notes.update(lora='{"rank": 2, "size": 3}'), 'its notes cannot be read .*size'),
        (lambda notes: notes.update(lora='{"rank": -2}'), 'its notes cannot be read .*rank'),
        (lambda notes: notes.update(classes='[1]'), 'its notes cannot be read'),
    ],
)
def test_notes_that_tell_nothing(tmp_path, change, text):
    adapters.write(tmp_path / 'adapter', adapter())
    with pytest.raises(AdapterError, match=text):
        adapters.read(rewritten(tmp_path / 'adapter', change))


def test_numbers_that_are_not_finite(tmp_path):
    params = parameters()
    params['film/table'][0, 0] = np.nan
    adapters.write(tmp_path / 'adapter', adapter(params=params))
    with pytest.raises(AdapterError, match='film/table holds numbers that are not finite'):
        adapters.read(tmp_path / 'adapter')


def check(given, *, lora=LORA, classes=CLASSES, shapes=(), wanted=None):
    whole = {name: value.shape for name, value in parameters().items()} | {'backbone/norm/scale': (6,)} | dict(shapes)
    adapters.check(
        'A', given, shapes=whole, wanted=parameters() if wanted is None else wanted, lora=lora, classes=classes
    )


def test_an_adapter_of_the_model_itself():
    check(adapter())
    # What of the LoRA is of training alone, and the order of its names, are free.
    check(adapter(), lora=dataclasses.replace(LORA, on=('value', 'query'), dropout=0.1, dropout_on='rank'))
    without = {name: value for name, value in parameters().items() if 'lora' not in name}
    check(adapter(params=without, lora=Lora()), lora=Lora(), wanted=without)


def lora(**changes):
    return {'lora': dataclasses.replace(LORA, **changes)}


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (lora(rank=4), 'set lora.rank=2'),
        (lora(alpha=2.0), 'set lora.alpha=4.0'),
        (lora(layers=(0, 2)), r'set lora.layers=\(1, 2\)'),
        (lora(on=('query',)), r"set lora.on=\('query', 'value'\)"),
        (lora(where=('backbone', 'heads')), r"set lora.where=\('backbone',\)"),
        ({'lora': Lora()}, 'set lora.rank=2, lora.alpha=4.0, lora.on=.*, lora.where=.*, lora.layers='),
        ({'classes': {'clips': ('jump', 'wave')}}, "task clips: class 0 is 'wave' in it and 'jump' here"),
        ({'classes': {'clips': ('wave',)}}, 'task clips: 2 classes in it, 1 here'),
        ({'shapes': {'film/table': (3, 4)}}, r'film/table: \[2, 4\] in it, \[3, 4\] here'),
        ({'wanted': ('side/gate',)}, 'side/gate: not in it'),
    ],
)
def test_differences(changes, text):
    with pytest.raises(AdapterError, match=rf'A, LoRA of rank 2.* is not for this model:\n  {text}'):
        check(adapter(), **changes)


def test_what_the_model_does_not_have():
    params = parameters() | {'heads_other/output/kernel': np.zeros((6, 2), np.float32)}
    with pytest.raises(AdapterError, match='heads_other/output/kernel: only in it'):
        check(adapter(params=params))
    with pytest.raises(AdapterError, match=r'set lora\.rank=0$'):
        check(adapter(lora=Lora()))


def test_without_a_fingerprint_the_names_decide_what_it_is_on():
    both = dataclasses.replace(LORA, where=('backbone', 'heads'))  # of which no head has blocks
    check(adapter(fingerprint=None), lora=both)
    with pytest.raises(AdapterError, match=r'set lora\.alpha=4\.0$'):
        check(adapter(fingerprint=None), lora=dataclasses.replace(both, alpha=1.0))
