"""tools/describe_checkpoint.py as a user runs it."""

import gzip
import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = ROOT / 'tests' / 'reference'
# Runs the tool as a program and adds its peak memory and whether it loaded what takes long to load.
PROBE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as end:
    code = end.code
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
heavy = sorted({'jax', 'flax', 'orbax', 'torch'} & sys.modules.keys())
print(code, int(status['VmHWM'].split()[0]) * 1024, heavy, file=sys.stderr)
"""


@pytest.fixture
def run(run_tool):
    return lambda *arguments: run_tool('describe_checkpoint', *arguments)


@pytest.fixture
def toys():
    path = ROOT / 'tests' / 'checkpoints' / 'toy_weights.py'
    spec = importlib.util.spec_from_file_location('toy_weights', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not pathlib.Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_a_large_file_needs_little_memory_and_no_jax(toys, tmp_path):
    shapes = json.loads(gzip.decompress((REFERENCE / 'names' / 'vjepa2_vitl_cls174.json.gz').read_bytes()))
    size = toys.write_zeros(tmp_path / 'model.safetensors', shapes)
    assert size > 1.5e9
    command = [sys.executable, '-c', PROBE, 'tools/describe_checkpoint.py', str(tmp_path), '--json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    code, memory, heavy = done.stderr.strip().splitlines()[-1].split(' ', 2)
    assert (code, heavy) == ('0', '[]'), done.stderr
    assert int(memory) < 200e6
    about = json.loads(done.stdout)
    # The published counts of V-JEPA 2 L, its pooler and a head of 174 classes.
    assert about['parameters'] == {'backbone': 303_885_312, 'head': 49_336_320 + 174 * 1025}
    assert about['backbone']['heads'] == 16 and about['head']['classes'] == 174
    assert about['size'] == 'vjepa2-L'


def test_for_people(run):
    done = run(REFERENCE / 'backbones' / 'videomae_b')
    assert done.returncode == 0, done.stderr
    for said in (
        'safetensors, 36 arrays (36 float32)', 'videomae: VideoMAE, Hugging Face', "prefix        'videomae.'",
        'kind=videomae, width=24', 'heads=3', 'labels        none', '4 frames, every 4, of 16 x 16 pixels',
    ):  # fmt: skip
        assert said in done.stdout


def test_names_and_labels(run, tmp_path):
    folder = REFERENCE / 'backbones' / 'vjepa2_d64'
    config = json.loads((folder / 'config.json').read_text())
    config['id2label'] = {'0': 'jump', '1': 'run', '2': 'walk'}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    (tmp_path / 'model.safetensors').write_bytes((folder / 'model.safetensors').read_bytes())
    assert 'labels        3: jump, run, walk' in run(tmp_path).stdout
    about = json.loads(run(tmp_path, '--json', '--names').stdout)
    assert about['labels'] == ['jump', 'run', 'walk']
    assert about['names']['classifier.bias'] == [[3], 'float32']
    assert about['left_out'].keys() == {'the predictor of the pretraining'}
    assert 'classifier.weight [3, 64] float32' in run(tmp_path, '--names').stdout


def test_a_folder_of_our_own(run, run_tool, tmp_path):
    source = REFERENCE / 'backbones' / 'vivit_b'
    assert run_tool('import_checkpoint', source, '--out', tmp_path / 'out').returncode == 0
    ours, theirs = (json.loads(run(path, '--json').stdout) for path in (tmp_path / 'out', source))
    for name in ('family', 'backbone', 'head', 'parameters', 'preprocessing', 'labels'):
        assert ours[name] == theirs[name]
    assert ours['format'] == 'orbax' and 'imported from model.safetensors' in ours['notes']


def test_a_model_of_v_jepa_2_1_is_not_taken_for_2(toys):
    from vidloc.checkpoints import description
    from vidloc.models import sizes

    published = {'kind': 'vjepa2', 'patch': (16, 16), 'eps': 1e-6, **sizes.SIZES['vjepa2']['L-2.1']}
    assert description.published(published) == 'vjepa2-L-2.1'
    assert description.published(published | {'level_norms': False}) == 'vjepa2-L'
    assert description.published(published | {'layers': 25}) is None


def test_what_the_file_does_not_tell_is_given(run, toys, tmp_path):
    _, path = toys.write(tmp_path, 'vjepa2_official')
    done = run(path)
    assert done.returncode == 2 and '--set heads=12' in done.stderr and done.stderr.count(str(path)) == 1
    done = run(path, '--set', 'heads=4')
    assert done.returncode == 0 and 'heads=4' in done.stdout and 'size  ' not in done.stdout
    assert run(path, '--set', 'heads=5').returncode == 2


def test_an_unknown_family_shows_what_is_there(run, tmp_path):
    np.savez(tmp_path / 'x.npz', **{f'tower/layer_{i}/w': np.zeros(3, np.float32) for i in range(3)}, step=np.ones(1))
    done = run(tmp_path / 'x.npz')
    assert done.returncode == 2
    assert 'npz, 4 arrays (3 float32, 1 float64)' in done.stdout
    assert 'tower/layer_{0..2}/w' in done.stdout
    assert done.stderr.startswith('describe_checkpoint: ')
    assert json.loads(run(tmp_path / 'x.npz', '--json').stdout)['tree'] == ['step', 'tower/layer_{0..2}/w']


def test_a_file_that_cannot_be_read(run, tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(b'\x10\0\0\0\0\0\0\0{')
    done = run(tmp_path / 'model.safetensors')
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
