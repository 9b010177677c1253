"""A region decodes to what the whole codestream decodes to, by OpenJPEG and OpenJPH, and carries little else."""

from __future__ import annotations

import numpy as np
import pytest
from imagecodecs import jpeg2k_decode

from pacs import codestream, progression
from pacs.errors import CodestreamError
from pacs.progression import Rectangle
from tests.streams import decoders, encoders, images, kinds

REGIONS = (
    "j2k RPCL", "j2k tiles at offsets", "j2k precincts of one block", "j2k LRCP colour tiles", "j2k PCRL halved chroma",
    "ht LRCP", "ht tiles at offsets", "ht small blocks", "ht CPRL halved chroma",
)  # fmt: skip

IRREVERSIBLE = {
    "j2k irreversible in precincts": (encoders.openjpeg, "-I -n 4 -r 6 -c [16,16]"),
    "ht irreversible in precincts": (encoders.openjph, "-qstep 0.003 -num_decomps 3 -precincts {16,16}"),
}


@pytest.mark.parametrize("name", [*REGIONS, *IRREVERSIBLE])
def test_region_decodes_to_the_same_inside(name: str) -> None:
    if name in IRREVERSIBLE:
        encode, options = IRREVERSIBLE[name]
        encoded = encode([images.plane(90, 110, 8)], 8, options.split())
    else:
        encoded = kinds.stream(name).codestream
    decode = decoders.openjph if name.startswith("ht") else decoders.openjpeg
    noise = np.random.default_rng(len(name))
    parsed = codestream.parse(encoded)
    carried = []
    for dropped in (0, 0, 1, 1):
        rows, columns = parsed.rows >> dropped, parsed.columns >> dropped
        top, left = int(noise.integers(rows)), int(noise.integers(columns))
        rectangle = Rectangle(top, left, int(noise.integers(1, 12)), int(noise.integers(1, 12)))
        try:
            part = progression.region(encoded, rectangle, dropped)
        except CodestreamError as error:
            assert "cannot be divided" in str(error)
            continue
        for number, (found, expected) in enumerate(zip(decode(part), decode(encoded, dropped), strict=True)):
            step = 1 << (number > 0 and "halved" in name)
            area = np.s_[
                top // step : -(-(top + rectangle.rows) // step), left // step : -(-(left + rectangle.columns) // step)
            ]
            assert found.shape == expected.shape
            assert np.array_equal(found[area], expected[area])
        finest = [p for p in progression.index(part).packets if p.resolution == parsed.decompositions - dropped]
        carried.append(sum(p.body_length > 0 for p in finest) / len(finest))
    assert min(carried) < 0.7, "next to nothing is left out"


@pytest.mark.parametrize("options", ["-n 3 -c [8,8]", "-I -n 3 -r 2 -c [8,8]"])
def test_region_of_single_samples(options: str) -> None:
    """Every place relative to precincts, and as many bits as there are: not one coefficient too few is kept."""
    encoded = encoders.openjpeg([images.plane(60, 60, 16)], 16, options.split())
    whole = jpeg2k_decode(encoded)
    for place in range(60):
        part = progression.region(encoded, Rectangle(place, 59 - place, 1, 1))
        assert jpeg2k_decode(part)[place, 59 - place] == whole[place, 59 - place]


def test_region_of_everything_is_everything() -> None:
    encoded = kinds.stream("j2k RPCL").codestream
    assert progression.region(encoded, Rectangle(0, 0, 10_000, 10_000)) == progression.cut(encoded)


@pytest.mark.parametrize("rectangle", [Rectangle(0, 83, 5, 5), Rectangle(61, 0, 5, 5), Rectangle(3, 3, 0, 5)])
def test_region_outside_the_image(rectangle: Rectangle) -> None:
    with pytest.raises(ValueError, match="without a sample"):
        progression.region(kinds.stream("j2k RPCL").codestream, rectangle)
