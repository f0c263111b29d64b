# To be sourced: makes .venv with vidloc and the extras named in $1, if it is not there yet, and puts it in front.
# PYTHON chooses the interpreter (3.11 to 3.13), VENV the place; a VENV of yours that has vidloc is used as it is.
extras="${1:-}"
if [ -z "${VENV:-}" ] || ! "$VENV/bin/python" -I -c 'import vidloc' 2> /dev/null; then
  VENV="${VENV:-.venv}"
  wanted="$(cat setup.py; echo "$extras")"
  stamp="$VENV/.vidloc-${extras:-base}"
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    python="${PYTHON:-python3}"
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
      echo "vidloc needs Python 3.11 to 3.13, $python is $("$python" --version 2>&1); set PYTHON=/path/to/python3.12" >&2
      exit 1
    }
    echo "Installing vidloc${extras:+[$extras]} into $VENV (once) ..."
    "$python" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    printf '%s\n' "$wanted" > "$stamp"
  fi
fi
PATH="$(cd "$VENV/bin" && pwd):$PATH"
export PATH
