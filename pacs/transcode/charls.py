"""JPEG-LS encoding with the precision that is meant (T.87).

imagecodecs always declares 8 or 16 bits, and a precision cannot be patched afterwards: the code depends on it. So the
CharLS library that imagecodecs brings is called through its C interface, which ctypes does without holding the
interpreter. `available` tells whether that interface can be reached.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import Any, Final

import numpy as np

from pacs.errors import PixelError
from pacs.transcode.frames import Samples


class _FrameInfo(ctypes.Structure):
    """charls_frame_info"""

    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("bits_per_sample", c_int32),
        ("component_count", c_int32),
    )


@cache
def _library() -> Any | None:
    """CharLS as loaded for imagecodecs, its functions declared; None where it is not to be had."""
    try:
        from imagecodecs import _jpegls

        library = ctypes.CDLL(_jpegls.__file__)
        library.charls_jpegls_encoder_create.restype = c_void_p
        library.charls_get_error_message.restype = c_char_p
        library.charls_get_error_message.argtypes = (c_int,)
        for name, arguments in {
            "destroy": (c_void_p,),
            "set_frame_info": (c_void_p, c_void_p),
            "set_interleave_mode": (c_void_p, c_int),
            "get_estimated_destination_size": (c_void_p, c_void_p),
            "set_destination_buffer": (c_void_p, c_void_p, c_size_t),
            "encode_from_buffer": (c_void_p, c_void_p, c_size_t, c_uint32),
            "get_bytes_written": (c_void_p, c_void_p),
        }.items():
            getattr(library, f"charls_jpegls_encoder_{name}").argtypes = arguments
        library.charls_jpegls_encoder_destroy.restype = None
    except (ImportError, OSError, AttributeError):
        return None
    return library


def available() -> bool:
    """Whether `encode` works here."""
    return _library() is not None


_BY_SAMPLE = 2
"""Interleave mode: the samples of a pixel together, as they lie. T.87 C.2.3"""


def encode(samples: Samples, bits: int) -> bytes:
    """Unsigned samples, (rows, columns[, 3]), of `bits` bits (2 to 16) as lossless JPEG-LS. Raises PixelError."""
    library = _library()
    if library is None:
        raise RuntimeError("CharLS's interface is not to be had")
    samples = np.ascontiguousarray(samples)
    try:
        return _encoded(library, samples, bits, 1)
    except _TooSmallError:
        return _encoded(library, samples, bits, _MOST_EXPANSION)


_TOO_SMALL: Final = 3
"""charls_jpegls_errc::destination_buffer_too_small"""
_MOST_EXPANSION: Final = 5
"""A code has LIMIT bits at most, four times those of a cell, and a byte of 7 after each FF. T.87 A.2.1, A.5.3, A.1"""


class _TooSmallError(Exception):
    """CharLS estimates the size of the samples and a kilobyte. Noise takes a few percent more."""


def _encoded(library: Any, samples: Samples, bits: int, room: int) -> bytes:
    encoder = c_void_p(library.charls_jpegls_encoder_create())
    if not encoder:
        raise MemoryError("no JPEG-LS encoder")
    try:
        return _encode(library, encoder, samples, bits, room)
    finally:
        library.charls_jpegls_encoder_destroy(encoder)


def _encode(library: Any, encoder: c_void_p, samples: Samples, bits: int, room: int) -> bytes:
    def call(name: str, *arguments: Any) -> None:
        status = getattr(library, f"charls_jpegls_encoder_{name}")(encoder, *arguments)
        if status == _TOO_SMALL and room < _MOST_EXPANSION:
            raise _TooSmallError
        if status:
            message = library.charls_get_error_message(status) or b""
            raise PixelError(f"JPEG-LS cannot encode this frame: {message.decode(errors='replace')}")

    several = samples.ndim == 3
    info = _FrameInfo(samples.shape[1], samples.shape[0], bits, samples.shape[2] if several else 1)
    call("set_frame_info", byref(info))
    if several:
        call("set_interleave_mode", _BY_SAMPLE)
    size = c_size_t()
    call("get_estimated_destination_size", byref(size))
    out = np.empty(room * size.value, np.uint8)
    call("set_destination_buffer", out.ctypes.data, out.nbytes)
    call("encode_from_buffer", samples.ctypes.data, samples.nbytes, 0)
    written = c_size_t()
    call("get_bytes_written", byref(written))
    return out[: written.value].tobytes()
