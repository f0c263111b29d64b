"""Who may import whom (docs/design.md, Layers), read from the source of every module."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / 'vidloc'
# What says of a file of weights what it is, without jax.
SNIFFING = {
    'checkpoints.readers', 'checkpoints.key_maps', 'checkpoints.layouts', 'checkpoints.containers',
    'checkpoints.overrides', 'checkpoints.preprocessing', 'checkpoints.sheet', 'checkpoints.actionformer',
    'models.sizes',
}  # fmt: skip
# Room or module -> what it may import of ours. A module of its own line is not bound by its room's line.
MAY = {
    'config': set(),
    'losses': {'ops'},
    'ops': {'ops'},
    'plain_pickle': set(),
    'annotations': {'annotations', 'plain_pickle'},
    'metrics': {'metrics', 'ops'},
    'data': {'data', 'annotations', 'ops'},
    'models': {'models', 'ops'},
    'tasks': {'tasks', 'models', 'metrics', 'losses', 'ops', 'annotations.video_scores', 'annotations.records'},
    'settings': set(),
    'checkpoints.store': set(),
    'checkpoints.frozen': {'checkpoints.store'},
    'checkpoints.readers': {'checkpoints.readers', 'plain_pickle'},
    'checkpoints.key_maps': set(),
    'checkpoints.layouts': {'checkpoints.layouts', 'checkpoints.key_maps'},
    'checkpoints.containers': SNIFFING,
    'checkpoints.overrides': SNIFFING,
    'checkpoints.preprocessing': SNIFFING,
    'checkpoints.sheet': SNIFFING,
    'checkpoints.actionformer': SNIFFING,
    'checkpoints.families': SNIFFING,
    'checkpoints.key_table': set(),
    'checkpoints.description': SNIFFING
    | {'checkpoints.families', 'checkpoints.key_table', 'checkpoints.converted'},
    'checkpoints': {'checkpoints', 'models'},
    'synthetic': {'synthetic', 'annotations', 'data.video', 'data.encode'},
    'report': {'report', 'metrics', 'data', 'annotations'},
    'train': {'train', 'tasks.base', 'models.localizer', 'models.layers', 'checkpoints.store'},
    'build': {
        'config', 'settings', 'losses', 'ops', 'annotations', 'metrics', 'data', 'models', 'tasks', 'checkpoints',
        'train', 'synthetic', 'report', 'texts', 'adaptation',
    },
    'texts': {'config', 'checkpoints', 'models'},
    'adaptation': {'config', 'models'},
    'supply': {'build', 'texts', 'config', 'annotations', 'data', 'tasks'},
    'trained': {'build', 'checkpoints', 'models'},
    'transfer': {'trained', 'build', 'texts', 'config', 'checkpoints', 'models'},
    'settling': {'transfer', 'trained', 'build', 'texts', 'config', 'models'},
    'export': {'trained', 'config', 'checkpoints', 'models'},
    'workdir': {'build', 'config', 'checkpoints', 'data'},
    'watching': {'build', 'data', 'models', 'report', 'tasks', 'train', 'workdir'},
    'parameters': {'models', 'train'},
    'experiments': {
        'experiments', 'build', 'supply', 'config', 'settings', 'workdir', 'transfer', 'trained', 'losses', 'ops',
        'annotations', 'metrics', 'data', 'models', 'tasks', 'checkpoints', 'train', 'synthetic', 'report', 'run',
        'inference',
    },
    'recipes': {'config', 'train.trainable'},
    'few_shot': {'recipes', 'config', 'models.sizes', 'train.trainable'},
    'inference': {
        'inference', 'build', 'config', 'settings', 'workdir', 'transfer', 'trained', 'ops', 'annotations', 'data',
        'models', 'tasks', 'checkpoints', 'train',
    },
    'main': {'*'},
    'run': {'*'},
    'benchmarks': {'*'},
}  # fmt: skip
HEAVY = ('av', 'grain', 'tensorflow_datasets', 'orbax', 'dm_pix', 'matplotlib', 'PIL')
WITHOUT_JAX = (
    'vidloc.annotations.formats',
    'vidloc.checkpoints.description',
    'vidloc.checkpoints.families',
    'vidloc.checkpoints.readers.opening',
    'vidloc.models.sizes',
    'vidloc.annotations.check',
    'vidloc.metrics.ava',
    'vidloc.data.pipeline',
)


def modules() -> list[str]:
    found = [path.relative_to(ROOT).with_suffix('') for path in sorted(ROOT.rglob('*.py'))]
    return ['.'.join(path.parts) for path in found if path.name != '__init__']


def imports(module: str) -> set[str]:
    """Our own modules that `module` imports, anywhere in it."""
    tree = ast.parse((ROOT / (module.replace('.', '/') + '.py')).read_text(encoding='utf-8'))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{module}: relative import'
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return {name.removeprefix('vidloc.') for name in found if name.startswith('vidloc.')}


def rule(module: str) -> set[str]:
    rooms = [module.rsplit('.', depth)[0] for depth in range(module.count('.') + 1)]
    return next(MAY[room] for room in (module, *rooms) if room in MAY)


def allowed(target: str, may: set[str]) -> bool:
    return '*' in may or any(target == name or target.startswith(name + '.') for name in may)


@pytest.mark.parametrize('module', modules())
def test_module_imports_only_what_its_room_may(module):
    wrong = sorted(target for target in imports(module) if not allowed(target, rule(module)))
    assert not wrong, f'{module} may import {sorted(rule(module))}, not {wrong}'


def test_rule_refuses_what_is_not_listed():
    assert not allowed('tasks.action_detection', MAY['train'])
    assert allowed('tasks.base.Batch', MAY['train'])


def test_package_imports_nothing():
    tree = ast.parse((ROOT / '__init__.py').read_text(encoding='utf-8'))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_no_file_is_longer_than_600_lines():
    files = [
        path for folder in ('vidloc', 'configs', 'tools', 'tests') for path in (ROOT.parent / folder).rglob('*.py')
    ]
    too_long = {path.name: len(path.read_text(encoding='utf-8').splitlines()) for path in files}
    assert not {name: lines for name, lines in too_long.items() if lines > 600}


def test_defaults_are_not_hidden_in_lookups():
    found = [path for path in ROOT.rglob('*.py') if 'config.get(' in path.read_text(encoding='utf-8')]
    assert not found


@pytest.mark.parametrize('module', WITHOUT_JAX)
def test_importing_does_not_load_jax(module):
    code = f'import sys, {module}; sys.exit("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize('package', ['vidloc.models', 'vidloc.train', 'vidloc.tasks'])
def test_rooms_work_without_decoders_and_loaders(package):
    room = package.split('.')[1]
    names = [f'vidloc.{module}' for module in modules() if module.startswith(f'{room}.')]
    code = (
        'import sys, importlib\n'
        f'for name in {HEAVY}: sys.modules[name] = None\n'
        f'for name in {names}: importlib.import_module(name)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
