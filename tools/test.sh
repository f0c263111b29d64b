#!/usr/bin/env bash
# Installs vidloc for testing into .venv (once) and runs the linter and the tests. Extra arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh test
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# Compiling is most of the tests' time: models of toy width need no optimised code.
export XLA_FLAGS="${XLA_FLAGS:---xla_backend_optimization_level=0}"
ruff check .
ruff format --check .
exec python -m pytest -q -n "${TEST_WORKERS:-2}" --dist loadfile -m 'not slow' "$@"
