"""Any bytes whatever are decoded by our HTJ2K decoder or refused, by the instructions of every tier alike.

    tests/fuzz/build.sh build/fuzz htj2k_decoder
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_htj2k.py --seed build/corpus-htj2k
    tests/fuzz/run.sh build/fuzz tests/fuzz/fuzz_htj2k.py -max_total_time=60 -max_len=8192 build/corpus-htj2k
"""

import sys
from pathlib import Path

import atheris
import numpy as np

from pacs._codecs import htj2k_decoder

SIZES = [(1, 1), (3, 70), (64, 64), (65, 33), (130, 20), (20, 130), (100, 100)]
BEST = htj2k_decoder.tier()


def check(data: bytes) -> None:
    """The first byte chooses size, precision, sign, components and levels dropped; the rest is the codestream."""
    if not data:
        return
    choice = data[0]
    rows, columns = SIZES[choice % 7]
    components, width, signed = 1 + 2 * (choice >> 3 & 1), 1 + (choice >> 4 & 1), bool(choice >> 5 & 1)
    dropped, bits = choice >> 6 & 1, 8 * width
    shape = (-(-rows >> dropped), -(-columns >> dropped), components, width)
    outcomes = []
    for tier in range(BEST + 1):
        htj2k_decoder.tier(tier)
        out = np.zeros(shape, np.uint8)
        done = htj2k_decoder.decode(
            data[1:], out.reshape(-1).data, rows, columns, components, width, signed, bits, dropped
        )
        outcomes.append(out.tobytes() if done else None)
    assert all(outcome == outcomes[0] for outcome in outcomes), [outcome is None for outcome in outcomes]


def seed(folder: Path) -> None:
    """Codestreams of every size and type that `check` knows, as a corpus."""
    from pacs._codecs import htj2k_encoder

    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(1)
    for choice in range(256):
        rows, columns = SIZES[choice % 7]
        components, width, signed = 1 + 2 * (choice >> 3 & 1), 1 + (choice >> 4 & 1), bool(choice >> 5 & 1)
        samples = np.cumsum(chance.integers(-3, 4, (rows, columns, components)), axis=1).astype(f"int{8 * width}")
        encoded, _ = htj2k_encoder.encode(
            samples.reshape(-1).view(np.uint8).data, rows, columns, components, width, signed, 8 * width, 2,
            components == 3 and choice & 1 == 0,
        )  # fmt: skip
        (folder / f"{choice:03}").write_bytes(bytes((choice,)) + encoded)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seed"]:
        seed(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
