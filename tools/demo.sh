#!/usr/bin/env bash
# The whole of vidloc on a laptop: renders MocapStreet, co-finetunes a small ViViT on boxes and two sets of clips,
# evaluates it, and makes a page with annotated videos. DEMO_SIZE=tiny is the test suite's version.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh ''
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# On a CPU every step asks the system for some 100 MB anew; in huge pages that costs a quarter less time a step.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
size="${DEMO_SIZE:-small}"
data="${DEMO_DATA:-data/mocapstreet-$size}"
workdir="${DEMO_WORKDIR:-runs/mocapstreet-$size}"
option=""; [ "$size" = small ] || option=",$size"
started=$SECONDS
step() { printf '\n[%d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$1"; }

step "Rendering MocapStreet ($size) into $data"
python tools/make_mocapstreet.py --out "$data" --size "$size"
step "Training in $workdir"
python -m vidloc.main --config="configs/mocapstreet.py:$data$option" --workdir="$workdir" "$@"
step "Making the page"
python tools/report.py "$workdir"
step "Done. Open $(cd "$workdir" && pwd)/report/index.html in a browser."
