"""Checks array shapes and types of vidloc.models and vidloc.ops while the tests run (jaxtyping with beartype), and
gives the tests that run the program its data and a way to start it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jaxtyping
import pytest

jaxtyping.install_import_hook(['vidloc.models', 'vidloc.ops'], 'beartype.beartype')

ROOT = pathlib.Path(__file__).parent.parent
# A guard against a hang, far beyond what a run takes; nothing is measured with it.
PATIENCE = 300


@pytest.fixture(scope='session')
def shared(tmp_path_factory):
    """One folder for all the workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'shared'
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path):
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope='session')
def mocapstreet(shared):
    """The folder of MocapStreet of size tiny, rendered once; tests must not change it."""
    out = shared / 'mocapstreet'
    with locked(shared / 'mocapstreet.lock'):
        if not out.exists():
            tool = [sys.executable, 'tools/make_mocapstreet.py', '--out', str(out), '--size', 'tiny']
            subprocess.run(tool, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE)
    return out


@dataclasses.dataclass
class Started:
    """A process of the program, in a workdir."""

    process: subprocess.Popen
    workdir: pathlib.Path
    lines_before: int
    lines_after: int | None = None

    def end(self):
        """Waits; returns the exit code, negative for a signal. Fills out and err."""
        try:
            self.out, self.err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.out, self.err = self.process.communicate()
            pytest.fail(f'the run hangs; it had said: {self.err}')
        self.lines_after = len(metrics(self.workdir))
        return self.process.returncode

    def lines(self):
        """What this process has logged to metrics.jsonl."""
        return metrics(self.workdir)[self.lines_before : self.lines_after]

    def until(self, seen):
        """Waits until seen() is true; fails if the process ends before."""
        for _ in range(PATIENCE * 1000):
            if seen():
                return
            if self.process.poll() is not None:
                self.end()
                pytest.fail(f'the run ended with {self.process.returncode} before it was to be stopped: {self.err}')
            time.sleep(0.001)
        self.process.kill()
        pytest.fail('the run does not get there')

    def until_step(self, step):
        self.until(lambda: any(line['step'] >= step for line in self.lines()))

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.end()


def metrics(workdir):
    """The whole lines of metrics.jsonl; a last line without its newline is still being written, or was cut."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith('\n')]


class Program:
    """Starts `python -m vidloc.main` as a user does."""

    def __init__(self, cache):
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(('XLA_', 'JAX_'))},
            'JAX_PLATFORMS': 'cpu',
            # Compiling is most of the time of such small runs. All processes share what is compiled.
            'JAX_COMPILATION_CACHE_DIR': str(cache),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
            'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
            'XLA_FLAGS': '--xla_backend_optimization_level=0',
        }

    def start(self, config, workdir, *flags, devices=1):
        environment = dict(self.environment)
        if devices > 1:
            environment['XLA_FLAGS'] += f' --xla_force_host_platform_device_count={devices}'
        command = [sys.executable, '-m', 'vidloc.main', f'--config={config}', f'--workdir={workdir}', *flags]
        lines = len(metrics(workdir))
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        return Started(process, pathlib.Path(workdir), lines)

    def run(self, config, workdir, *flags, devices=1):
        started = self.start(config, workdir, *flags, devices=devices)
        started.end()
        return started

    def run_pair(self, config, workdir, *flags):
        """Two processes that train together."""
        with contextlib.closing(socket.socket()) as listener:
            listener.bind(('127.0.0.1', 0))
            port = listener.getsockname()[1]
        flags = (*flags, f'--coordinator=127.0.0.1:{port}', '--processes=2')
        both = [self.start(config, workdir, *flags, f'--process={i}') for i in range(2)]
        for started in both:
            started.end()
        return both


@pytest.fixture(scope='session')
def program(shared):
    return Program(shared / 'compiled')


@pytest.fixture(scope='session')
def tiny_run(mocapstreet):
    """(options) -> the --config of tests/tiny_run.py; folder: other data than the shared ones."""
    recipe = ROOT / 'tests/tiny_run.py'
    return lambda *options, folder=mocapstreet: ','.join([f'{recipe}:{folder}', *options])


@pytest.fixture(scope='session')
def broken_copy(mocapstreet):
    """(folder, share) -> (a copy of the data in which that share of the street's videos is cut off, their paths)."""

    def make(folder, share):
        shutil.copytree(mocapstreet, folder)
        videos = sorted((folder / 'street/train').glob('*.mp4'))
        cut = videos[: round(share * len(videos))]
        for path in cut:
            path.write_bytes(path.read_bytes()[:200])
        return folder, cut

    return make
