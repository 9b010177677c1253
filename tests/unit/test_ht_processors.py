"""The C of our HTJ2K coder on other processors: what they compile computes what the tiers of x86-64 do.

`ht_digest.c` codes invented blocks and images, sound and damaged, and prints digests. Small: the coder's own tests have
real frames and OpenJPH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pacs._codecs import htj2k_encoder

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "pacs" / "_codecs" / "ht"
NO_SUCH_TIER = 3
# On arm64 char is unsigned. What the standard leaves undefined, unaligned access too, ends the program.
AS_ELSEWHERE = (
    "-DHT_ANY_PROCESSOR", "-funsigned-char", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error",
)  # fmt: skip
EMULATOR = "qemu-aarch64"
CROSS_COMPILER = "aarch64-linux-gnu-gcc"


def built(folder: Path, name: str, compiler: str, *flags: str) -> Path:
    program = folder / name
    command = (compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", *flags, f"-I{HEADERS}")
    subprocess.run([*command, HERE / "ht_digest.c", "-o", program], check=True, env=os.environ | {"LC_ALL": "C"})
    return program


def digests(*command: str | Path) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run
    return run.stdout


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of portable C, as any processor has it."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    found = digests(built(tmp_path_factory.mktemp("digest"), "elsewhere", "cc", *AS_ELSEWHERE))
    assert len(found.splitlines()) == 7
    return found


def test_every_tier_computes_what_other_processors_do(tmp_path: Path, expected: str) -> None:
    program = built(tmp_path, "here", "cc")
    best = htj2k_encoder.tier()
    for tier in range(best + 1):
        assert digests(program, str(tier)) == expected
    assert subprocess.run([program, str(best + 1)], check=False).returncode == NO_SUCH_TIER


@pytest.mark.skipif(
    shutil.which(CROSS_COMPILER) is None or shutil.which(EMULATOR) is None,
    reason=f"no {CROSS_COMPILER} or {EMULATOR} (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)",
)
def test_arm64_computes_the_same(tmp_path: Path, expected: str) -> None:
    program = built(tmp_path, "arm64", CROSS_COMPILER, "-static", "-O3", "-fno-strict-aliasing")
    assert digests(EMULATOR, program) == expected
