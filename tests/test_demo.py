"""The whole demo at size tiny: rendering, co-finetuning, evaluating, the page."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def demo(program, tmp_path_factory):
    """The workdir that tools/demo.sh leaves."""
    if subprocess.run([sys.executable, '-I', '-c', 'import vidloc'], capture_output=True, check=False).returncode:
        pytest.skip('vidloc is not installed in this environment: pip install -e .')
    folder = tmp_path_factory.mktemp('demo')
    environment = {
        **program.environment,
        'VENV': sys.prefix,
        'DEMO_SIZE': 'tiny',
        'DEMO_DATA': str(folder / 'data'),
        'DEMO_WORKDIR': str(folder / 'run'),
    }
    done = subprocess.run(
        ['bash', 'tools/demo.sh'], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'Installing' not in done.stdout
    assert f'Open {folder}/run/report/index.html' in done.stdout
    return folder / 'run'


@pytest.fixture(scope='module')
def scored(demo):
    """The last line of metrics.jsonl that has an evaluation."""
    lines = [json.loads(line) for line in (demo / 'metrics.jsonl').read_text().splitlines()]
    return [line for line in lines if 'eval/street/frame_map@0.5' in line][-1]


def test_everything_is_trained_and_evaluated(demo, scored):
    lines = [json.loads(line) for line in (demo / 'metrics.jsonl').read_text().splitlines()]
    trained = {name for line in lines for name in line}
    for task in ('street', 'studio', 'yard'):
        assert f'train/{task}/loss' in trained
    assert 0 <= scored['eval/studio/top1'] <= 1 and 0 <= scored['eval/yard/top1'] <= 1
    steps = json.loads((demo / 'environment.json').read_text())['source_steps']
    assert sum(steps.values()) == scored['step'] and steps['street'] > max(steps['studio'], steps['yard'])


def test_the_page_names_every_class_and_the_figures(demo, scored):
    page = (demo / 'report/index.html').read_text(encoding='utf-8')
    classes = json.loads((demo / 'model.json').read_text())['tasks']
    assert len(classes['street']['classes']) == 14 and len(classes['yard']['classes']) == 10
    for task in classes.values():
        for name in task['classes']:
            assert re.search(rf'\b{re.escape(name)}\b', page), name
    assert f'{scored["eval/street/frame_map@0.5"]:.3f}' in page
    assert not re.search(r'(src|href)="https?:', page)


def test_its_videos_are_h264_and_decode(demo):
    import av

    page = (demo / 'report/index.html').read_text(encoding='utf-8')
    shown = sorted(set(re.findall(r'src="([^"]+\.mp4)"', page)))
    assert shown
    for name in shown:
        with av.open(str(demo / 'report' / name)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'
            frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(stream)]
        assert len(frames) > 8 and all(frame.std() > 0 for frame in frames)


def test_the_files_score_as_the_run_said(demo, scored):
    result = json.loads((demo / 'eval/street.json').read_text())
    assert result['metrics']['frame_map@0.5'] == pytest.approx(scored['eval/street/frame_map@0.5'], abs=1e-6)
    command = [
        *(sys.executable, 'tools/evaluate.py', 'ava', '--ground_truth', ','.join(result['ground_truth'])),
        *('--predictions', str(demo / result['detections']), '--label_map', result['label_map']),
    ]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    for protocol, name in (('official', 'frame_map@0.5'), ('slowfast', 'frame_map_slowfast@0.5')):
        done = subprocess.run(
            [*command, '--protocol', protocol], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        assert found['frame_map@0.5'] == pytest.approx(scored[f'eval/street/{name}'], abs=1e-6)
        assert found['counts']['ground_truth'] > 50
    for clip_set in ('studio', 'yard'):
        result = json.loads((demo / f'eval/{clip_set}.json').read_text())
        assert result['metrics']['top1'] == pytest.approx(scored[f'eval/{clip_set}/top1'])
