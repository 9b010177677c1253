#!/bin/sh
# Builds extensions of pacs._codecs so that atheris sees inside them, in a scratch directory:
#
#   tests/fuzz/build.sh DIRECTORY NAME…          e.g.  tests/fuzz/build.sh build/fuzz part10 jsonmodel dictionary
#
# The directory then holds a copy of the package whose NAMEs are instrumented; run a target with
#
#   tests/fuzz/run.sh DIRECTORY TARGET [libFuzzer options] [corpus]
#
# PYTHON names the interpreter (with cython and atheris), CC a clang with its runtime (Debian: clang libclang-rt-14-dev).
# SANITIZE=fuzzer-no-link leaves the address sanitizer out.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
cc=${CC:-clang}
sanitize=${SANITIZE:-fuzzer-no-link,address}
[ $# -ge 2 ] || { sed -n '2,11p' "$0"; exit 2; }
command -v "$cc" >/dev/null || { echo "there is no $cc: apt-get install clang libclang-rt-14-dev" >&2; exit 1; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
shift
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
rm -rf "$target/pacs"
cp -r "$root/pacs" "$target/pacs"
cd "$target"
for name in "$@"; do
    "$python" -m cython -3 -X boundscheck=False -X wraparound=False -X cdivision=True "pacs/_codecs/$name.pyx"
    "$cc" -g -O1 -fPIC -shared -fno-strict-aliasing -fno-omit-frame-pointer -Wno-unused-function \
        -fsanitize="$sanitize" -I "$include" -o "pacs/_codecs/$name$suffix" "pacs/_codecs/$name.c"
    echo "instrumented pacs._codecs.$name"
done
