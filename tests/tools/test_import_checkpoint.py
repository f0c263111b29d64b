"""tools/import_checkpoint.py as a user runs it; what it writes is checked in tests/checkpoints/test_converted.py."""

import ast
import pathlib
import re

import numpy as np
import pytest

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'backbones'


@pytest.fixture
def run(run_tool):
    return lambda *arguments: run_tool('import_checkpoint', *arguments)


def pasted(text):
    """The arguments of build.config among the lines that the tool prints."""
    backbone = re.search(r'^backbone=(\{.*\}),$', text, re.MULTILINE)
    source = re.search(r'^init_from=(.*),$', text, re.MULTILINE)
    return ast.literal_eval(backbone[1]), ast.literal_eval(source[1])


def test_the_table_and_the_lines_for_a_config(run, tmp_path):
    done = run(REFERENCE / 'vjepa2_d64', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert '53 used: as it is' in done.stdout
    assert 'vjepa2.predictor.*: the predictor of the pretraining (23 arrays' in done.stdout
    backbone, source = pasted(done.stdout)
    assert source == str(tmp_path / 'out')
    assert backbone == {'kind': 'vjepa2', 'width': 64, 'mlp': 256, 'heads': 1, 'patch': (4, 4), 'layers': 1}
    assert "head={'kind': 'attentive', 'heads': 1, 'layers': 1}, 3 classes" in done.stdout


def test_an_image_model(run, tmp_path):
    shapes = {
        'embedding/kernel': (4, 4, 3, 16), 'embedding/bias': (16,), 'cls': (1, 1, 16), 'head/kernel': (16, 9),
        'Transformer/posembed_input/pos_embedding': (1, 10, 16), 'Transformer/encoder_norm/scale': (16,),
        'Transformer/encoder_norm/bias': (16,),
    }  # fmt: skip
    block = {
        'LayerNorm_0/scale': (16,), 'LayerNorm_0/bias': (16,), 'LayerNorm_2/scale': (16,), 'LayerNorm_2/bias': (16,),
        'MlpBlock_3/Dense_0/kernel': (16, 24), 'MlpBlock_3/Dense_0/bias': (24,), 'MlpBlock_3/Dense_1/bias': (16,),
        'MlpBlock_3/Dense_1/kernel': (24, 16), 'MultiHeadDotProductAttention_1/out/kernel': (2, 8, 16),
        'MultiHeadDotProductAttention_1/out/bias': (16,),
    }  # fmt: skip
    for part in ('query', 'key', 'value'):
        block[f'MultiHeadDotProductAttention_1/{part}/kernel'] = (16, 2, 8)
        block[f'MultiHeadDotProductAttention_1/{part}/bias'] = (2, 8)
    shapes |= {f'Transformer/encoderblock_0/{name}': shape for name, shape in block.items()}
    np.savez(tmp_path / 'vit.npz', **{name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()})
    more = ('--into', 'vivit', '--frames', 8, '--size', 16, 12, '--temporal_layers', 1, '--inflate', 'mean')
    done = run(tmp_path / 'vit.npz', '--out', tmp_path / 'out', *more)
    assert done.returncode == 0, done.stderr
    assert 'backbone/temporal/block_00/* (16 names): from scratch: an image has no time' in done.stdout
    assert 'the filter on the mean of 2 frames' in done.stdout
    backbone, _ = pasted(done.stdout)
    assert backbone == {
        'kind': 'vivit', 'width': 16, 'mlp': 24, 'heads': 2, 'patch': (4, 4), 'grid': (4, 4, 3), 'spatial_layers': 1,
        'temporal_layers': 1, 'cls': True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('source', 'more', 'said'),
    [
        ('missing.safetensors', (), 'there is no such file'),
        (REFERENCE / 'vjepa2_d64', ('--into', 'vivit'), 'into is for images'),
        (REFERENCE / 'vjepa2_d64', ('--set', 'heads=3'), 'width 64 cannot be split into 3 heads'),
        (REFERENCE / 'vjepa2_d64', ('--set', 'depth=3'), 'overrides has depth'),
        (REFERENCE / 'vjepa2_d64', ('--allow', '['), 'no regular expression'),
        (REFERENCE / 'vjepa2_d64', ('--which', 'decoder'), 'decoder'),
    ],
)
def test_what_cannot_be_imported_ends_with_one_text(run, tmp_path, source, more, said):
    done = run(source, '--out', tmp_path / 'out', *more)
    assert done.returncode == 2
    assert done.stderr.startswith('import_checkpoint: ') and said in done.stderr
    assert not done.stdout and not (tmp_path / 'out').exists()


def test_a_folder_that_is_there_is_refused_before_anything_is_read(run, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('keep')
    done = run('missing.safetensors', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'is there already' in done.stderr


@pytest.mark.parametrize(('given', 'said'), [('heads', 'is not NAME=VALUE'), ('heads=many', 'a value is a number')])
def test_a_setting_that_is_none_is_refused(run, tmp_path, given, said):
    done = run(REFERENCE / 'vjepa2_d64', '--out', tmp_path / 'out', '--set', given)
    assert done.returncode == 2 and said in done.stderr
