"""What a run says while it trains: W/metrics.jsonl, W/warnings.jsonl, TensorBoard events, and a progress line.

metrics.jsonl holds one JSON object a line: `step` (int) and flat names such as `train/loss`, `train/ava/loss`
or `eval/street/frame_map@0.5` (numbers). JSON has no NaN, so the three floats that are not finite are written
as the strings "nan", "inf" and "-inf": a reader can tell them from a value that was never logged. The file is
opened for append; a run that goes on from a checkpoint writes some steps again, and for each step and name
the last line counts. warnings.jsonl, which is there only if there was something to warn of, holds objects of `step`,
`sign` (what is wrong) and `text`, of which the same is true. vidloc/report/run.py reads these formats; change both
together.
"""

import json
import logging
import math
import os
import pathlib
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

METRICS_FILE = 'metrics.jsonl'
WARNINGS_FILE = 'warnings.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'

# A tail longer than this without a newline is no line of ours.
_BLOCK = 1 << 16


class Writer:
    """Writes scalars and texts of a run; only one process of a run may be enabled."""

    def __init__(self, workdir: str | os.PathLike, *, enabled: bool):
        """Opens the files of `workdir` (made if absent) for append, after mending a last line cut by a kill.

        Raises:
          OSError: the folder cannot be made or the files not be opened.
        """
        self._file = None
        self._events = None
        if not enabled:
            return
        import tensorboardX

        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path, self._warnings = workdir / METRICS_FILE, workdir / WARNINGS_FILE
        mend(path)
        self._file = path.open('a', encoding='utf-8')
        self._events = tensorboardX.SummaryWriter(str(workdir / TENSORBOARD_FOLDER))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line of `values` (name -> Python, NumPy or JAX scalar) at `step`.

        Raises:
          ValueError: a value is no single number, or a name is `step`. Nothing is written then.
        """
        if self._file is None:
            return
        numbers = {name: _number(name, value) for name, value in values.items()}
        self._file.write(json_line(step, numbers) + '\n')
        # To the operating system at once: a kill of this process then costs at most the line being written.
        self._file.flush()
        for name, number in numbers.items():
            self._events.add_scalar(name, number, step)

    def warnings(self, step: int, warnings: Mapping[str, str]) -> None:
        """Logs each of `warnings` ({what is wrong: what to say of it}) and keeps it, in a line and in TensorBoard."""
        if self._file is None or not warnings:
            return
        # They are few: the file is opened for each, and is not there while there are none.
        mend(self._warnings)
        with self._warnings.open('a', encoding='utf-8') as file:
            for sign, text in warnings.items():
                logging.warning('step %d: %s', step, text)
                file.write(json.dumps({'step': int(step), 'sign': sign, 'text': text}, ensure_ascii=False) + '\n')
                self._events.add_text(f'warnings/{sign}', text, step)

    def text(self, name: str, text: str) -> None:
        """Shows `text` in TensorBoard under `name` (a parameter table, the config)."""
        if self._events is not None:
            self._events.add_text(name, text)

    def flush(self) -> None:
        """Brings all that was written to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes; the writer writes nothing more. Closing twice is fine."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._events.close()
            self._file = self._events = None

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def json_line(step: int, values: Mapping[str, float]) -> str:
    """One line of metrics.jsonl, without its newline.

    Raises:
      ValueError: a name is `step`.
    """
    if 'step' in values:
        raise ValueError("a metric is named `step`, which is the name of the line's own key; rename it.")
    line: dict[str, Any] = {'step': int(step)}
    for name, value in values.items():
        line[name] = value if math.isfinite(value) else str(value)
    return json.dumps(line, ensure_ascii=False, allow_nan=False)


def mend(path: str | os.PathLike) -> None:
    """Makes the file end in a whole line: a complete last object gets its newline, a fragment is cut off."""
    path = pathlib.Path(path)
    if not path.exists():
        return
    with open(path, 'rb+') as file:
        size = file.seek(0, os.SEEK_END)
        start, tail = size, b''
        while start > 0 and b'\n' not in tail:
            start = max(0, start - _BLOCK)
            file.seek(start)
            tail = file.read(size - start)
        last = tail[tail.rfind(b'\n') + 1 :]
        if not last:
            return
        try:
            whole = isinstance(json.loads(last), dict)
        except ValueError:
            whole = False
        if whole:
            file.seek(size)
            file.write(b'\n')
        else:
            file.truncate(size - len(last))


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f'metric {name} is {value!r}; a metric is a single number.') from error


class Progress:
    """The progress line: rewritten in place on a terminal, a plain line now and then elsewhere.

    Rates are those of the last half minute, so the time of compiling does not spoil the estimate for long.
    """

    WINDOW_SECONDS = 30.0
    TERMINAL_SECONDS = 0.5

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        every_seconds: float = 15.0,
        *,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
          total_steps: the step after which training ends.
          first_step: the steps already done when this process started.
          every_seconds: between two plain lines; a terminal's line is rewritten twice a second.
          enabled: False on all processes but one.
          stream: where to print; standard error if None.
          clock: seconds, monotonic.
        """
        self._total = total_steps
        self._enabled = enabled
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = self.TERMINAL_SECONDS if self._terminal else every_seconds
        self._clock = clock
        self._marks = deque([(clock(), first_step, 0)])  # (seconds, step, clips so far)
        self._clips = 0
        self._printed: float | None = None
        self._open_line = False

    def update(self, step: int, clips: int, losses: Mapping[str, float] | None = None) -> str | None:
        """Says that `step` steps are done, with `clips` clips since the last call; returns the printed line.

        On most calls nothing is due yet: then None is returned.

        losses: what to show behind the rates. Turning a device value into a number waits for the device, so
          give the values of a step that is surely done.
        """
        if not self._enabled:
            return None
        now = self._clock()
        self._clips += clips
        self._marks.append((now, step, self._clips))
        while len(self._marks) > 2 and now - self._marks[1][0] >= self.WINDOW_SECONDS:
            self._marks.popleft()
        due = self._printed is None or now - self._printed >= self._every or step >= self._total
        if not due:
            return None
        self._printed = now
        then, first, clips_then = self._marks[0]
        seconds = now - then
        line = progress_line(
            step,
            self._total,
            (step - first) / seconds if seconds > 0 else None,
            (self._clips - clips_then) / seconds if seconds > 0 else None,
            losses or {},
        )
        self._print(line)
        return line

    def close(self) -> None:
        """Ends the line on a terminal, so that what is printed next starts on its own."""
        if self._open_line:
            self._stream.write('\n')
            self._stream.flush()
            self._open_line = False

    def _print(self, line: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            # \x1b[K erases what a longer line before this one left standing.
            self._stream.write('\r' + line[:width] + '\x1b[K')
            self._open_line = True
        else:
            self._stream.write(line + '\n')
        self._stream.flush()


def progress_line(
    step: int,
    total_steps: int,
    steps_per_second: float | None,
    clips_per_second: float | None,
    losses: Mapping[str, float],
) -> str:
    """The text of the progress line; a rate that is not known yet (None or 0) is shown as a dash.

    >>> progress_line(250, 1000, 5.0, 80.0, {'loss': 0.12345})
    'step  250/1000  25%  5.00 steps/s  80.0 clips/s  ETA 2:30  loss 0.1235'
    """
    share = f'{100 * step // total_steps if total_steps else 100:d}%'
    steps = f'{steps_per_second:.2f}' if steps_per_second else '-'
    clips = f'{clips_per_second:.1f}' if clips_per_second else '-'
    left = duration((total_steps - step) / steps_per_second) if steps_per_second else '-'
    parts = [
        f'step {step:>{len(str(total_steps))}d}/{total_steps}',
        share,
        f'{steps} steps/s',
        f'{clips} clips/s',
        f'ETA {left}',
        *(f'{name} {float(value):.4g}' for name, value in losses.items()),
    ]
    return '  '.join(parts)


def duration(seconds: float) -> str:
    """Seconds as m:ss, h:mm:ss or d days h:mm, rounded up: an estimate of 0:00 means done."""
    whole = max(0, math.ceil(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f'{days}d {hour}:{minute:02d}'
    if hours:
        return f'{hours}:{minute:02d}:{second:02d}'
    return f'{minutes}:{second:02d}'
