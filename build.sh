#!/bin/sh
# Called by `make build`: a virtual environment in $VENV with the package, its extensions and what the tests need.
set -eu
: "${PYTHON:=python3}" "${VENV:=.venv}"

missing() {
    echo "make build: $1" >&2
    echo "            On Debian or Ubuntu:  sudo apt-get install $2" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null 2>&1 || missing "there is no $PYTHON." "python3 python3-venv python3-dev gcc make"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "$("$PYTHON" --version 2>&1) is too old: 3.11 or later is needed (make PYTHON=python3.12 takes another one)." \
        "python3 (of Debian 12, Ubuntu 24.04 or later)"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || missing "Python's venv module is missing." "python3-venv"
header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -e "$header" ] || missing "Python's headers are missing ($header)." "python3-dev"
command -v "${CC:-cc}" >/dev/null 2>&1 || missing "there is no C compiler (${CC:-cc})." "gcc libc6-dev"

# A virtual environment of another Python, or one whose Python is gone, is of no use.
if ! [ -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c 'import pip' 2>/dev/null ||
    [ "$("$VENV/bin/python" -V)" != "$("$PYTHON" -V)" ]; then
    echo "creating $VENV with $("$PYTHON" --version)"
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
fi
echo "installing the package and its extensions into $VENV (a minute or two; later only what has changed)"
install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
# What compiles lies in this environment, not in one that pip makes anew: the next time nothing has to be fetched.
"$VENV/bin/python" - > "$VENV/build-requires.txt" <<'REQUIRES'
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
REQUIRES
install --requirement "$VENV/build-requires.txt"
install --no-build-isolation --editable '.[test]'
"$VENV/bin/python" - <<'CHECK'
import pathlib, importlib
for source in sorted(pathlib.Path("pacs/_codecs").glob("*.pyx")):
    importlib.import_module(f"pacs._codecs.{source.stem}")
CHECK
