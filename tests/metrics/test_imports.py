"""Annotations and metrics are NumPy only: importing them loads no jax and no decoder."""

import subprocess
import sys

CODE = """
import pkgutil, sys
import vidloc.annotations, vidloc.metrics
for room in (vidloc.annotations, vidloc.metrics):
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):
        __import__(module.name)
heavy = ('jax', 'jaxlib', 'flax', 'av', 'PIL', 'grain', 'pyarrow', 'scipy')
print(','.join(name for name in heavy if name in sys.modules))
"""


def test_no_heavy_library_is_loaded():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''
