import io
import json
import math

import numpy as np
import pytest

from vidloc.train import writer


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text(encoding='utf-8').splitlines()]


def test_scalars_of_several_kinds_become_one_line(tmp_path):
    with writer.Writer(tmp_path / 'run', enabled=True) as out:
        out.scalars(3, {'train/loss': np.float32(0.5), 'train/ava/loss': np.asarray(2), 'eval/a/top1': 1})
        out.scalars(4, {'train/loss': 0.25})
    assert lines(tmp_path / 'run' / 'metrics.jsonl') == [
        {'step': 3, 'train/loss': 0.5, 'train/ava/loss': 2.0, 'eval/a/top1': 1.0},
        {'step': 4, 'train/loss': 0.25},
    ]
    assert list((tmp_path / 'run' / 'tensorboard').glob('events*'))


def test_floats_that_are_not_finite_stay_valid_json(tmp_path):
    with writer.Writer(tmp_path, enabled=True) as out:
        out.scalars(1, {'a': math.nan, 'b': math.inf, 'c': -math.inf})
    assert lines(tmp_path / 'metrics.jsonl') == [{'step': 1, 'a': 'nan', 'b': 'inf', 'c': '-inf'}]


def test_each_line_is_in_the_file_before_the_writer_is_closed(tmp_path):
    out = writer.Writer(tmp_path, enabled=True)
    out.scalars(1, {'a': 1.0})
    assert lines(tmp_path / 'metrics.jsonl') == [{'step': 1, 'a': 1.0}]
    out.close()
    out.close()
    out.scalars(2, {'a': 2.0})
    assert len(lines(tmp_path / 'metrics.jsonl')) == 1


def test_a_writer_that_is_not_enabled_leaves_no_trace(tmp_path):
    with writer.Writer(tmp_path / 'run', enabled=False) as out:
        out.scalars(1, {'a': 1.0})
        out.text('config', 'text')
        out.flush()
    assert not (tmp_path / 'run').exists()


def test_warnings_stand_in_a_file_that_is_there_only_if_there_were_some(tmp_path, caplog):
    path = tmp_path / 'run' / 'warnings.jsonl'
    with writer.Writer(tmp_path / 'run', enabled=True) as out:
        out.warnings(3, {})
        assert not path.exists()
        out.warnings(4, {'ava/noise': 'too much – of it', 'identity': 'none'})
        path.write_text(path.read_text() + '{"step": 5, "si')  # as a kill leaves it
        out.warnings(np.int64(6), {'identity': 'again'})
    expected = [(4, 'ava/noise', 'too much – of it'), (4, 'identity', 'none'), (6, 'identity', 'again')]
    assert [tuple(line.values()) for line in lines(path)] == expected
    assert caplog.messages == [f'step {step}: {text}' for step, _, text in expected]
    with writer.Writer(tmp_path / 'other', enabled=False) as out:
        out.warnings(1, {'identity': 'none'})
    assert not (tmp_path / 'other').exists() and len(caplog.messages) == 3


@pytest.mark.parametrize('value', [np.zeros(2), 'high', None])
def test_a_value_that_is_no_number_is_refused_by_name(tmp_path, value):
    with writer.Writer(tmp_path, enabled=True) as out:
        with pytest.raises(ValueError, match='train/loss'):
            out.scalars(1, {'fine': 1.0, 'train/loss': value})
        with pytest.raises(ValueError, match='`step`'):
            out.scalars(1, {'step': 1.0})
    assert (tmp_path / 'metrics.jsonl').read_text() == ''


@pytest.mark.parametrize(
    ('left', 'kept'),
    [
        (b'{"step": 1, "a": 1.0}\n{"step": 2, "a"', [1]),
        (b'{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}', [1, 2]),
        (b'{"step": 1, "a": 1.0}\n', [1]),
        (b'{"step": 1, "a": 1.0}\n12', [1]),
        (b'{"step": 1, "a": 1.0}\n\xc3', [1]),
        (b'{"st', []),
        (b'', []),
    ],
)
def test_a_last_line_torn_by_a_kill_is_mended_before_appending(tmp_path, left, kept):
    (tmp_path / 'metrics.jsonl').write_bytes(left)
    with writer.Writer(tmp_path, enabled=True) as out:
        out.scalars(9, {'a': 9.0})
    assert [line['step'] for line in lines(tmp_path / 'metrics.jsonl')] == [*kept, 9]


def test_mending_finds_the_start_of_a_very_long_line(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(b'{"step": 1}\n{"step": 2, "' + b'x' * 200_000)
    writer.mend(path)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with writer.Writer(tmp_path, enabled=True) as out:
        out.scalars(7, {'train/loss': 0.5})
        out.text('parameters', 'a table')
    data = next((tmp_path / 'tensorboard').glob('events*')).read_bytes()
    found, at = {}, 0
    while at < len(data):  # records: length uint64, crc, payload, crc
        length = int.from_bytes(data[at : at + 8], 'little')
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found.update({value.tag: (event.step, value.simple_value) for value in event.summary.value})
        at += 16 + length
    assert found['train/loss'] == (7, 0.5)
    assert any(name.startswith('parameters') for name in found)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_line_shows_rates_and_what_is_left():
    assert writer.progress_line(250, 1000, 5.0, 80.0, {'loss': 0.12345, 'ava/loss': 2}) == (
        'step  250/1000  25%  5.00 steps/s  80.0 clips/s  ETA 2:30  loss 0.1235  ava/loss 2'
    )
    assert writer.progress_line(0, 10, None, None, {}) == 'step  0/10  0%  - steps/s  - clips/s  ETA -'
    assert '100%' in writer.progress_line(10, 10, 1.0, 1.0, {})
    assert 'ETA 0:00' in writer.progress_line(10, 10, 1.0, 1.0, {})


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0, '0:00'),
        (0.2, '0:01'),
        (59.5, '1:00'),
        (3599, '59:59'),
        (3600, '1:00:00'),
        (90061, '1d 1:01'),
        (-5, '0:00'),
    ],
)
def test_durations(seconds, text):
    assert writer.duration(seconds) == text


def test_plain_lines_come_at_the_interval_and_at_the_end():
    clock, stream = Clock(), io.StringIO()
    progress = writer.Progress(100, 0, 10.0, stream=stream, clock=clock)
    printed = []
    for step in range(1, 101):
        clock.now += 0.5
        printed.append(progress.update(step, 8, {'loss': 1.0}) is not None)
    progress.close()
    assert [i + 1 for i, was in enumerate(printed) if was] == [1, 21, 41, 61, 81, 100]
    text = stream.getvalue()
    assert text.count('\n') == 6 and '\r' not in text
    assert 'step  21/100  21%  2.00 steps/s  16.0 clips/s  ETA 0:40  loss 1' in text


def test_rates_forget_the_slow_start_and_count_from_the_first_step_of_this_process():
    clock, stream = Clock(), io.StringIO()
    progress = writer.Progress(1000, 500, 1.0, stream=stream, clock=clock)
    clock.now += 60  # compiling
    assert '0.02 steps/s' in progress.update(501, 8)
    for step in range(502, 602):
        clock.now += 1
        line = progress.update(step, 8)
    assert '1.00 steps/s  8.0 clips/s' in line


def test_a_terminal_line_is_rewritten_cut_to_the_width_and_ended_once(monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    clock, stream = Clock(), Terminal()
    progress = writer.Progress(100, 0, 60.0, stream=stream, clock=clock)
    for step in (1, 2, 3):
        clock.now += 1
        progress.update(step, 8, {'loss': 1.0})
    progress.close()
    progress.close()
    text = stream.getvalue()
    assert text.count('\r') == 3 and text.count('\n') == 1
    assert all(len(part.replace('\x1b[K', '').rstrip('\n')) <= 39 for part in text.split('\r'))


def test_a_process_that_does_not_speak_prints_nothing():
    stream = io.StringIO()
    progress = writer.Progress(10, stream=stream, enabled=False)
    assert progress.update(10, 8) is None
    progress.close()
    assert stream.getvalue() == ''
