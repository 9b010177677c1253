#!/bin/sh
# Runs a fuzz target on instrumented extensions (see build.sh):  tests/fuzz/run.sh DIRECTORY TARGET.py [options] [corpus]
set -eu
python=${PYTHON:-python3}
directory=$(cd "$1" && pwd)
target=$(realpath "$2")
shift 2
# The address sanitizer has to be loaded first; PYTHONMALLOC makes it see every allocation.
runtime=$("$python" -c 'import atheris, pathlib; print(pathlib.Path(atheris.__file__).parent / "asan_with_fuzzer.so")')
[ -f "$runtime" ] || runtime=$("$python" -c 'import atheris, pathlib; print(pathlib.Path(atheris.__file__).parent.parent / "asan_with_fuzzer.so")')
exec env LD_PRELOAD="${SANITIZE_RUNTIME-$runtime}" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    PYTHONPATH="$directory" PYTHONDONTWRITEBYTECODE=1 "$python" "$target" "$@"
