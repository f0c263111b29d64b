"""Features against the backbone called by hand, and everything that can happen to the process that writes them."""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vidloc import build
from vidloc.checkpoints import store
from vidloc.data import encode, feature_files, footage, transforms, video
from vidloc.inference import clips, encoder, feature_folder, features
from vidloc.models import layers

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
OVERRIDES = {'heads': 2, 'grid': (2, 3, 3)}
FPS = 10
PATIENCE = 120


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = module_of(HERE / 'colours.py')
colours, extraction, named, FRAMES, PLAIN = plain.colours, plain.extraction, plain.named, plain.FRAMES, plain.PLAIN


def toy_weights():
    return module_of(ROOT / 'tests' / 'checkpoints' / 'toy_weights.py')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return toy_weights().write(tmp_path_factory.mktemp('weights'), 'videomae_original')[1]


@pytest.fixture(scope='module')
def toy(weights):
    """A backbone of 3 layers, tubelets of 2 frames, patches of 4 x 4 pixels."""
    return encoder.open_encoder(weights, overrides=OVERRIDES)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    rng = np.random.default_rng(0)
    for name, count in FRAMES.items():
        encode.write_video(folder / f'{name}.mp4', rng.integers(0, 255, (count, 20, 28, 3)).astype(np.uint8), fps=FPS)
    return folder


def seen_by(toy, videos, name, times):
    """[n, 12, 12, 3] float32, as the network gets the frames at `times`."""
    frames = video.read_frames(str(videos / f'{name}.mp4'), np.asarray(times))
    frames, _ = transforms.fit(frames, (12, 12), cover=True)
    return (frames - np.asarray(toy.preprocess.mean)) / np.asarray(toy.preprocess.std)


@pytest.fixture(scope='module')
def by_hand(toy):
    """(clip [4, 12, 12, 3], count of valid frames) -> (last [t, h, w, D], layers [3, t, h, w, D])"""
    module = toy.backbone.clone(taps=(0, 1, 2))

    @jax.jit
    def run(clip, valid):
        found = module.apply({'params': toy.params}, clip[None], valid[None], train=False)
        return found.grid[0], jnp.concatenate(found.taps)

    return lambda clip, count: run(jnp.asarray(clip, jnp.float32), jnp.arange(4) < count)


@pytest.fixture(scope='module')
def tokens(toy, videos, tmp_path_factory):
    """(the folder of features with layers, their description, report)"""
    out = tmp_path_factory.mktemp('features') / 'tokens'
    chosen = extraction(layers=True)
    described = chosen.description(toy)
    folder = feature_folder.FeatureFolder(out, described)
    report = features.extract(footage.VideoFiles(videos), named(videos), folder, chosen.program(toy), chosen)
    folder.close()
    return out, described, report


def test_tokens_are_those_of_the_backbone(tokens, toy, videos, by_hand):
    out, described, report = tokens
    assert (report.written, report.broken, report.vectors) == (3, {}, 6 + 3 + 1)
    for name, count in FRAMES.items():
        times = np.arange(0, count, 2) / FPS
        padded = np.concatenate([times, np.repeat(times[-1:], -len(times) % 4)])
        shown = seen_by(toy, videos, name, padded)
        last, every = [], []
        for start in range(0, len(shown), 4):
            held = min(4, len(times) - start)
            grid, tapped = by_hand(shown[start : start + 4], held)
            kept = -(-held // 2)  # tokens of which a frame is there
            last.append(grid[:kept].mean((1, 2)))
            every.append(tapped[:, :kept].mean((2, 3)))
        found = np.load(out / f'{name}.npz')
        np.testing.assert_allclose(found['last'], np.concatenate(last), atol=2e-5)
        np.testing.assert_allclose(found['layers'], np.concatenate(every, axis=1), atol=2e-5)
        assert found['last'].dtype == found['layers'].dtype == np.float32
        read = feature_files.FeatureFiles(str(out))
        np.testing.assert_array_equal(read.vectors(read.find(name)), found['last'])
        np.testing.assert_array_equal(read.layers(read.find(name), 3), found['layers'])
    expected = {'stride': 4, 'span': 2, 'rate': 0, 'mode': 'window', 'width': 32, 'layers': 3, 'frames_per_clip': 4}
    assert expected.items() <= described.items() and described['sampling'] == 'tokens'
    described = feature_files.describe(out)
    assert (described.stride, described.span, described.rate, described.width, described.layers) == (4, 2, 0, 32, 3)
    assert json.loads((out / 'features.json').read_text())['weights'] == toy.fingerprint


def test_clips_are_the_mean_over_their_tokens(toy, videos, by_hand, tmp_path):
    chosen = extraction(mode='clips', every=3, stride=4, dtype='float16')
    folder = feature_folder.FeatureFolder(tmp_path, chosen.description(toy))
    report = features.extract(footage.VideoFiles(videos), named(videos), folder, chosen.program(toy), chosen)
    assert report.vectors == 7 + 2 + 1  # whole clips, and one of a video that has none
    for name, count in FRAMES.items():
        found = np.load(tmp_path / f'{name}.npy')
        assert found.dtype == np.float16
        for k, vector in enumerate(found):
            places = np.minimum(3 * k + np.arange(4), count - 1)
            grid, _ = by_hand(seen_by(toy, videos, name, places / FPS), count - 3 * k)
            np.testing.assert_allclose(vector, grid.mean((0, 1, 2)), atol=1e-3, rtol=1e-3)
    assert {'stride': 3, 'span': 4, 'rate': 0.0}.items() <= chosen.description(toy).items()


def test_which_frames_are_sampled(videos):
    timeline = video.index_video(str(videos / 'a.mp4'))
    np.testing.assert_allclose(clips.Sampling(4, 4, rate=4.0).times(timeline), np.arange(10) / 4)
    np.testing.assert_allclose(clips.Sampling(4, 4, stride=5).times(timeline), np.arange(0, 23, 5) / FPS)
    # Frames as the annotations count them: 25 a second where the file has 10.
    counted = clips.Sampling(4, 4, stride=5).times(timeline, 25.0)
    np.testing.assert_allclose(counted, np.arange(0, 58, 5) / 25)
    assert clips.Sampling(4, 4).starts(9).tolist() == [0, 4, 8]
    assert clips.Sampling(4, 3, padded=False).starts(10).tolist() == [0, 3, 6]
    assert clips.Sampling(4, 3, padded=False).starts(3).tolist() == [0]


def test_a_long_video_is_read_in_blocks(videos, monkeypatch):
    whole = list(clips.cut(footage.VideoFiles(videos), *named(videos, 'a'), clips.Sampling(4, 2), (12, 12)))
    monkeypatch.setattr(clips, 'BLOCK', 6)
    parts = list(clips.cut(footage.VideoFiles(videos), *named(videos, 'a'), clips.Sampling(4, 2), (12, 12)))
    assert (len(whole), len(parts)) == (1, 6) and max(len(part.frames) for part in parts) <= 6
    assert [part.number for part in parts] == list(range(0, 12, 2)) and {part.clips for part in parts} == {12}
    np.testing.assert_array_equal(
        np.concatenate([part.frames[part.rows] for part in parts]), whole[0].frames[whole[0].rows]
    )
    np.testing.assert_array_equal(np.concatenate([part.valid for part in parts]), whole[0].valid)


# What needs no backbone.


def test_what_is_there_is_not_made_again(videos, tmp_path):
    chosen = extraction()
    folder = feature_folder.FeatureFolder(tmp_path, PLAIN)
    done = []
    features.extract(footage.VideoFiles(videos), named(videos), folder, colours, chosen, lambda: done.append(1))
    assert len(done) == 3
    before = {name: (tmp_path / f'{name}.npy').stat().st_mtime_ns for name in 'ac'}
    (tmp_path / 'b.npy').unlink()
    again = feature_folder.FeatureFolder(tmp_path, PLAIN)
    report = features.extract(footage.VideoFiles(videos), named(videos), again, colours, chosen)
    assert (report.written, report.there) == (1, 2)
    assert before == {name: (tmp_path / f'{name}.npy').stat().st_mtime_ns for name in 'ac'}
    assert not list(tmp_path.glob('.*writing'))


def test_a_video_that_cannot_be_read_is_named_and_the_others_are_written(videos, tmp_path):
    whole = (videos / 'a.mp4').read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / 'none.mp4').write_bytes(b'<html>not found</html>')
    some = named(tmp_path, ('cut', 'none', 'gone')) + named(videos)
    folder = feature_folder.FeatureFolder(tmp_path / 'out', PLAIN)
    report = features.extract(footage.VideoFiles(videos), some, folder, colours, extraction())
    assert report.written == 3 and set(report.broken) == {'cut', 'none', 'gone'}
    assert 'is text, not a video' in report.broken['none']
    assert sorted(path.name for path in (tmp_path / 'out').glob('[!.]*')) == [
        'a.npy',
        'b.npy',
        'c.npy',
        'features.json',
    ]


def test_features_that_do_not_fit_the_type_are_refused(videos, tmp_path):
    def infinite(video, valid):
        last, valid, _ = colours(video, valid)
        return np.full(last.shape, np.inf, np.float16), valid, None

    folder = feature_folder.FeatureFolder(tmp_path, PLAIN)
    report = features.extract(
        footage.VideoFiles(videos), named(videos, 'c'), folder, infinite, extraction(dtype='float16')
    )
    assert report.broken == {'c': 'its features are not finite in float16; try --dtype float32'}
    assert not folder.done('c') and folder.claim('c')


def test_an_error_of_ours_ends_all_and_no_thread_waits(videos, tmp_path):
    def fails(video, valid):
        raise RuntimeError('out of memory')

    folder = feature_folder.FeatureFolder(tmp_path, PLAIN)
    with pytest.raises(RuntimeError, match='out of memory'):
        features.extract(footage.VideoFiles(videos), named(videos), folder, fails, extraction(batch=1))

    class Failing(footage.VideoFiles):
        def read(self, *given):
            raise MemoryError('of a thread')

    with pytest.raises(MemoryError, match='of a thread'):
        features.extract(Failing(videos), named(videos), folder, colours, extraction())


# Other processes.


@pytest.fixture
def worker():
    """(videos, out, mine, wait) -> a process, see colours.py; none outlives its test."""
    begun = []

    def begin(*arguments):
        command = [sys.executable, str(HERE / 'colours.py'), *map(str, arguments)]
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
        begun.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def until(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.02)


def test_two_processes_at_once_share_the_videos(worker, videos, tmp_path):
    out, many = tmp_path / 'out', tmp_path / 'many'
    many.mkdir()
    # More than one process decodes ahead.
    for number in range(10):
        shutil.copy(videos / f'{"abc"[number % 3]}.mp4', many / f'{number}.mp4')
    first, second = tmp_path / 'first', tmp_path / 'second'
    # Each computes nothing before the other one is at its first video, too.
    both = [worker(many, out, first, second), worker(many, out, second, first)]
    reports = []
    for process in both:
        said, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        reports.append(json.loads(said))
    assert sum(written for written, _ in reports) == 10 and all(written for written, _ in reports)
    assert all(written + others == 10 for written, others in reports)
    alone = feature_folder.FeatureFolder(tmp_path / 'alone', PLAIN)
    every = named(many, map(str, range(10)))
    features.extract(footage.VideoFiles(many), every, alone, colours, extraction())
    for each in every:
        np.testing.assert_array_equal(np.load(out / f'{each.name}.npy'), np.load(alone.path(each.name)))


def test_a_killed_process_leaves_nothing_half_done(worker, videos, tmp_path):
    out, mine = tmp_path / 'out', tmp_path / 'mine'
    process = worker(videos, out, mine, tmp_path / 'never')
    until(mine.exists, process)
    folder = feature_folder.FeatureFolder(out, PLAIN)
    # What it is at is its own as long as it lives.
    report = features.extract(footage.VideoFiles(videos), named(videos), folder, colours, extraction())
    assert report.elsewhere and report.written + report.elsewhere == 3
    held = next(name for name in FRAMES if not folder.done(name))
    (out / f'.{held}.writing').write_bytes(b'the beginning of a file')
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    report = features.extract(footage.VideoFiles(videos), named(videos), folder, colours, extraction())
    assert (report.elsewhere, report.broken) == (0, {}) and all(map(folder.done, FRAMES))
    assert np.load(out / f'{held}.npy').shape[1] == 3 and not list(out.glob('.*writing'))


# The folder, and the options.


def test_a_folder_of_other_features_is_refused(tmp_path):
    feature_folder.FeatureFolder(tmp_path, PLAIN).close()
    with pytest.raises(feature_folder.FolderError, match='width 3 there, 4 here'):
        feature_folder.FeatureFolder(tmp_path, PLAIN | {'width': 4})
    (tmp_path / 'features.json').write_text('{')
    with pytest.raises(feature_folder.FolderError, match='is damaged'):
        feature_folder.FeatureFolder(tmp_path, PLAIN)
    (tmp_path / 'features.json').unlink()
    (tmp_path / 'mine.npy').write_bytes(b'')
    with pytest.raises(feature_folder.FolderError, match=r'holds mine\.npy and no features\.json'):
        feature_folder.FeatureFolder(tmp_path, PLAIN)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'mode': 'frames'}, 'it must be one of tokens, clips'),
        ({'mode': 'clips', 'layers': True}, 'layers are those of time tokens'),
        ({'dtype': 'int8'}, 'float16, float32'),
        ({'batch': 0}, 'at least 1'),
        ({'rate': -1.0}, 'rate is -1.0'),
    ],
)
def test_options_that_make_no_sense_are_refused(given, said):
    with pytest.raises(features.ExtractionError, match=said):
        extraction(**given)


@pytest.mark.parametrize('given', [{'clip_frames': 5}, {'size': (12, 13)}])
def test_clips_that_the_backbone_does_not_take_are_refused(toy, given):
    with pytest.raises(features.ExtractionError, match='do not split into tubelets of 2 frames and patches of 4 x 4'):
        extraction(**given).description(toy)


# The backbone.


def test_the_fingerprint_is_that_of_the_parameters(toy, weights, tmp_path):
    _, arrays = toy_weights().arrays('videomae_original')
    again = encoder.open_encoder(toy_weights().write_safetensors(tmp_path / 'x', arrays), overrides=OVERRIDES)
    assert again.fingerprint == toy.fingerprint
    arrays['blocks.1.mlp.fc1.weight'][0, 0] += 1
    other = encoder.open_encoder(toy_weights().write_safetensors(tmp_path / 'y', arrays), overrides=OVERRIDES)
    assert other.fingerprint != toy.fingerprint
    halved = encoder.open_encoder(weights, overrides=OVERRIDES, compute='bfloat16')
    assert halved.backbone.dtype == jnp.bfloat16 and halved.fingerprint == toy.fingerprint


def test_what_has_no_backbone_is_refused(weights, tmp_path):
    with pytest.raises(encoder.EncoderError, match='compute is'):
        encoder.open_encoder(weights, overrides=OVERRIDES, compute='int8')
    head = ROOT / 'tests/reference/actionformer/thumos_small_win5_state_dict.npz'
    with pytest.raises(encoder.EncoderError, match='a head without a backbone'):
        encoder.open_encoder(head)


def test_the_backbone_of_a_run(tmp_path):
    """Its averaged weights, and its colours and size."""
    classes = tmp_path / 'classes.txt'
    classes.write_text('walk\nrun\n')
    source = {'task': 'clips', 'format': 'clips', 'videos': 'gone', 'annotations': ('gone',), 'labels': str(classes)}
    config = build.config(
        name='small',
        backbone={
            'kind': 'vivit_joint',
            'width': 16,
            'mlp': 32,
            'heads': 2,
            'layers': 2,
            'grid': (2, 3, 4),
            'patch': (8, 8),
        },
        preprocess={'mean': (1.0, 2.0, 3.0), 'std': (50.0, 50.0, 50.0)},
        tasks={
            'clips': {
                'kind': 'classification',
                'class_list': str(classes),
                'num_classes': 2,
                'head': {'kind': 'linear'},
            }
        },
        sources={'clips': {**source, 'size': (24, 32), 'frames': 4}},
        optimizer={'kind': 'adamw'},
        train={'steps': 5, 'ema': 0.9},
    )
    experiment = build.experiment(config)
    workdir = tmp_path / 'run'
    workdir.mkdir()
    store.write_json(workdir / 'config.json', json.loads(config.to_json_best_effort()))
    store.write_json(workdir / 'model.json', {'tasks': {'clips': {'classes': ['walk', 'run']}}})
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), experiment.abstract_params)
    average = jax.tree.map(lambda leaf: 2 * leaf, params)
    with store.Store(workdir / 'checkpoints') as checkpoints:
        checkpoints.save(2, {'params': params, 'ema': average}, {})
    found = encoder.open_encoder(f'{workdir}@2')
    assert (found.kind, found.size, found.layers) == ('vivit_joint', (24, 32), 2)
    assert tuple(found.preprocess.mean) == (1.0, 2.0, 3.0)
    flat = [
        traverse_util.flatten_dict(layers.to_canonical(tree), sep='/') for tree in (found.params, average['backbone'])
    ]
    assert flat[0].keys() == flat[1].keys()
    for name, array in flat[0].items():
        np.testing.assert_array_equal(array, flat[1][name], err_msg=name)
    assert found.fingerprint == encoder.fingerprint(average['backbone'])
    with pytest.raises(encoder.EncoderError, match='name a checkpoint as'):
        encoder.open_encoder(workdir, which='encoder')
