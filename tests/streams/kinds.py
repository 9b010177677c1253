"""The kinds of codestream that encoders make, by name. Each is built once a session and is a few kilobytes large."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np

from tests.streams import encoders
from tests.streams.encoders import Samples
from tests.streams.images import plane, planes

PROGRESSIONS = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")


@dataclass(frozen=True, eq=False)
class Stream:
    """One codestream and what went into it."""

    name: str
    codestream: bytes
    components: tuple[Samples, ...]
    """The samples encoded, one (rows, columns) array a component, sizes after subsampling."""
    precision: int
    lossless: bool
    ht: bool
    """Part 15: HTJ2K."""
    boxed: bool = False
    """In a JP2 file."""


Builder = Callable[[], tuple[bytes, list[Samples], int]]

_BUILDERS: dict[str, Builder] = {}


def _part1(
    name: str,
    options: str = "",
    components: list[Samples] | None = None,
    precision: int = 8,
    sampling: list[tuple[int, int]] | None = None,
    boxed: bool = False,
) -> None:
    def build() -> tuple[bytes, list[Samples], int]:
        samples = components or [plane(61, 83, precision)]
        encoded = encoders.openjpeg(samples, precision, options.split(), sampling=sampling, boxed=boxed)
        return encoded, samples, precision

    _BUILDERS[name] = build


def _ht(
    name: str,
    options: str = "",
    components: list[Samples] | None = None,
    precision: int = 8,
    sampling: list[tuple[int, int]] | None = None,
) -> None:
    def build() -> tuple[bytes, list[Samples], int]:
        samples = components or [plane(61, 83, precision)]
        return encoders.openjph(samples, precision, options.split(), sampling=sampling), samples, precision

    _BUILDERS[name] = build


def _openjph(name: str, components: list[Samples], precision: int, **options: Any) -> None:
    """HTJ2K by the OpenJPH of imagecodecs, which writes TLM and tile-parts: RPCL, whole bytes of precision."""

    def build() -> tuple[bytes, list[Samples], int]:
        samples = components[0] if len(components) == 1 else np.stack(components)
        planar = None if len(components) == 1 else True
        if options.get("rgb"):
            samples, planar = np.stack(components, axis=-1), None
        return bytes(imagecodecs.htj2k_encode(samples, planar=planar, **options)), components, precision

    _BUILDERS[name] = build


_RGB = planes(3, 50, 70, 8)
_HALVED = [plane(50, 70, 8), plane(25, 35, 8, seed=2), plane(25, 35, 8, seed=3)]
_ROWS_KEPT = [plane(50, 70, 8), plane(50, 35, 8, seed=2), plane(50, 35, 8, seed=3)]

_420 = [(1, 1), (2, 2), (2, 2)]
for _order in PROGRESSIONS:
    _part1(f"j2k {_order}", f"-p {_order} -n 4 -r 40,10,1 -c [32,32],[16,16]")
    _part1(f"j2k {_order} colour tiles", f"-p {_order} -n 3 -r 20,1 -t 40,40 -c [32,32],[8,8]", _RGB)
    _part1(f"j2k {_order} halved chroma", f"-p {_order} -n 3 -r 20,1 -c [16,16] -mct 0", _HALVED, 8, _420)
    _lossless = f"-reversible true -prog_order {_order}"
    _ht(f"ht {_order}", f"{_lossless} -num_decomps 3 -precincts {{16,16}},{{32,32}}", precision=12)
    _options = "-num_decomps 3 -tile_size {40,40} -block_size {32,32} -colour_trans true"
    _ht(f"ht {_order} colour tiles", f"{_lossless} {_options}", _RGB)
    _ht(f"ht {_order} halved chroma", f"{_lossless} -num_decomps 2 -precincts {{16,16}}", _HALVED, 8, _420)

# Transfer Syntaxes and plain forms
_part1("j2k plain", "", [plane(130, 150, 12)], 12)
_part1("j2k irreversible", "-I -r 20,5 -n 5", precision=12)
_part1("j2k irreversible colour", "-I -r 30,8 -n 4", _RGB)
_part1("j2k boxed", "-n 4", boxed=True)
_part1("j2k boxed colour", "-n 4 -p RPCL", _RGB, boxed=True)
_part1("j2k no decomposition", "-n 1")
_part1("j2k thirty layers", "-n 4 -r " + ",".join(str(90 - 3 * i) for i in range(30)), [plane(96, 96, 8)])
_part1("j2k six layers ending lossless", "-n 6 -p RPCL -r 100,60,30,15,6,1", [plane(128, 128, 12, signed=True)], 12)
_ht("ht plain", "-reversible true", [plane(130, 150, 12)], 12)
_ht("ht irreversible", "-qstep 0.002", precision=12)
_ht("ht irreversible colour", "-qstep 0.01 -colour_trans true", _RGB)
_ht("ht no decomposition", "-reversible true -num_decomps 0")
_openjph("ht signed", [plane(64, 64, 16, signed=True)], 16, reversible=True, resolutions=4)
_openjph("ht 201 signed bytes", [plane(50, 40, 8, signed=True)], 8, reversible=True, resolutions=3)
_openjph("ht 202", [plane(150, 130, 16)], 16, reversible=True, tlm=True, tilepart=1)
_openjph("ht 202 colour", _RGB, 8, reversible=True, rgb=True, resolutions=3, tlm=True, tilepart=1)
_openjph("ht 203 irreversible", [plane(150, 130, 16)], 16, level=0.001, reversible=False, tlm=True, tilepart=1)
_openjph("ht tile-parts by component", _RGB, 8, reversible=True, resolutions=3, tlm=True, tilepart=2)
_openjph("ht four components", planes(4, 40, 30, 8), 8, reversible=True, resolutions=2)

# Precision and sign
for _bits in (1, 2, 7, 8, 9, 12, 15, 16):
    _part1(f"j2k {_bits} bits", "-n 3", [plane(33, 47, _bits)], _bits)
    if _bits > 2:  # fewer are more than ojph_compress takes from a raw file
        _ht(f"ht {_bits} bits", "-reversible true -num_decomps 2", [plane(33, 47, _bits)], _bits)
for _bits in (8, 12, 16):
    _part1(f"j2k {_bits} bits signed", "-n 3", [plane(33, 47, _bits, signed=True)], _bits)
_part1("j2k four components", "-n 3 -mct 0 -r 10,1", planes(4, 40, 30, 8))
_part1("j2k halved chroma rows kept", "-n 3 -mct 0 -p PCRL -c [16,16]", _ROWS_KEPT, 8, [(1, 1), (2, 1), (2, 1)])

# Geometry
_part1("j2k offsets", "-n 3 -d 5,11 -p RPCL -c [16,16]")
_part1("j2k tiles at offsets", "-n 3 -d 13,7 -T 4,5 -t 33,29 -r 20,1 -p PCRL -c [16,8]")
_part1("j2k one column", "-n 1", [plane(40, 1, 8)])
_part1("j2k one row", "-n 1", [plane(1, 40, 8)])
_part1("j2k one sample", "-n 1", [plane(1, 1, 8) + 77])
_part1("j2k small blocks", "-n 4 -b 4,8 -r 8,1")
_part1("j2k precincts of one block", "-n 4 -b 16,16 -c [32,32],[16,16],[8,8],[4,4] -p CPRL")
_part1("j2k many tiles", "-n 2 -t 16,16", [plane(80, 90, 8)])
_ht("ht tiles at offsets", "-reversible true -num_decomps 2 -image_offset {13,7} -tile_offset {4,5} -tile_size {33,29}")
_ht("ht small blocks", "-reversible true -num_decomps 3 -block_size {8,4} -precincts {16,8},{32,16}")

# Markers and tile-parts
_part1("j2k SOP EPH", "-n 3 -SOP -EPH -r 10,1 -c [32,32]")
_part1("j2k SOP", "-n 3 -SOP")
_part1("j2k EPH", "-n 3 -EPH")
_part1("j2k PLT TLM", "-n 4 -PLT -TLM -r 10,1 -c [32,32]")
_part1("j2k everything", "-n 3 -SOP -EPH -PLT -TLM -r 20,5,1 -t 40,40 -c [16,16] -p RLCP -TP R", _RGB)
for _split, _order in (
    ("R", "RPCL"), ("R", "RLCP"), ("R", "LRCP"), ("L", "LRCP"), ("L", "RLCP"), ("C", "CPRL"), ("C", "PCRL"),
):  # fmt: skip
    _part1(f"j2k tile-parts {_split} {_order}", f"-n 3 -TP {_split} -TLM -p {_order} -r 20,1 -t 48,48", _RGB)

# Code-block styles: T.800 Table A.19
for _style, _name in (
    (1, "bypass"), (2, "reset"), (4, "termall"), (8, "vertically causal"), (16, "predictable"), (32, "symbols"),
    (5, "bypass termall"), (17, "bypass predictable"), (63, "all styles"), (58, "all but bypass and termall"),
):  # fmt: skip
    _part1(f"j2k {_name}", f"-n 3 -M {_style} -r 20,5,1 -b 32,32", [plane(61, 83, 12)], 12)

# Region of interest: Maxshift of a component (RGN)
_part1("j2k region of interest", "-n 3 -ROI c=0,U=7 -r 10,1")
_part1("j2k region of interest in one component", "-n 3 -ROI c=1,U=5 -mct 0", _RGB)

# Progression order changes
_part1("j2k POC by resolution", "-n 4 -r 20,5,1 -POC T0=0,0,3,2,1,RLCP/T0=2,0,3,4,1,LRCP")
_part1("j2k POC by layer", "-n 3 -r 20,5,1 -POC T0=0,0,1,3,3,LRCP/T0=0,0,3,3,3,CPRL", _RGB)
_part1(
    "j2k POC of two tiles",
    "-n 3 -r 20,1 -t 48,64 -c [16,16] -POC T0=0,0,2,1,3,RPCL/T0=1,0,2,3,3,PCRL/T1=0,0,1,3,3,LRCP/T1=0,0,2,3,3,RLCP",
    _RGB,
)

NAMES = tuple(_BUILDERS)
LOSSY = tuple(name for name in NAMES if "irreversible" in name or name == "j2k thirty layers")


@functools.cache
def stream(name: str) -> Stream:
    """The codestream called so."""
    codestream, components, precision = _BUILDERS[name]()
    return Stream(
        name,
        codestream,
        tuple(components),
        precision,
        lossless=name not in LOSSY,
        ht=name.startswith("ht "),
        boxed="boxed" in name,
    )
