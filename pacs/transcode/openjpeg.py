"""JPEG 2000 Part 1 with several quality layers (T.800 B.8).

imagecodecs writes one layer. So the OpenJPEG library that it brings is called through its C interface, which ctypes
does without holding the interpreter. `available` tells whether that interface can be reached and is the one known here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, byref, c_char, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import Any, Final

import numpy as np

from pacs.errors import PixelError
from pacs.transcode.frames import Samples

_PATH: Final = 4096
_LEVELS: Final = 33
_LAYERS: Final = 100
_GRAY, _RGB = 2, 1
_PIECE: Final = 1 << 20


class _Parameters(ctypes.Structure):
    """opj_cparameters_t of OpenJPEG 2.1 and later."""

    _fields_ = (
        ("tile_size_on", c_int), ("cp_tx0", c_int), ("cp_ty0", c_int), ("cp_tdx", c_int), ("cp_tdy", c_int),
        ("cp_disto_alloc", c_int), ("cp_fixed_alloc", c_int), ("cp_fixed_quality", c_int), ("cp_matrice", c_void_p),
        ("cp_comment", c_void_p), ("csty", c_int), ("prog_order", c_int), ("poc", c_uint32 * (37 * 32)),
        ("numpocs", c_uint32), ("tcp_numlayers", c_int), ("tcp_rates", c_float * _LAYERS),
        ("tcp_distoratio", c_float * _LAYERS), ("numresolution", c_int), ("cblockw_init", c_int),
        ("cblockh_init", c_int), ("mode", c_int), ("irreversible", c_int), ("roi_compno", c_int),
        ("roi_shift", c_int), ("res_spec", c_int), ("prcw_init", c_int * _LEVELS), ("prch_init", c_int * _LEVELS),
        ("infile", c_char * _PATH), ("outfile", c_char * _PATH), ("index_on", c_int), ("index", c_char * _PATH),
        ("image_offset_x0", c_int), ("image_offset_y0", c_int), ("subsampling_dx", c_int), ("subsampling_dy", c_int),
        ("decod_format", c_int), ("cod_format", c_int), ("jpwl", c_int * 118), ("cp_cinema", c_int),
        ("max_comp_size", c_int), ("cp_rsiz", c_int), ("tp_on", c_char), ("tp_flag", c_char), ("tcp_mct", c_char),
        ("jpip_on", c_int), ("mct_data", c_void_p), ("max_cs_size", c_int), ("rsiz", ctypes.c_uint16),
    )  # fmt: skip


class _ComponentParameters(ctypes.Structure):
    """opj_image_cmptparm_t"""

    _fields_ = tuple((name, c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd"))


class _Component(ctypes.Structure):
    """opj_image_comp_t"""

    _fields_ = (
        *((name, c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd", "decoded", "factor")),
        ("data", c_void_p),
        ("alpha", ctypes.c_uint16),
    )


class _Image(ctypes.Structure):
    """opj_image_t"""

    _fields_ = (
        ("x0", c_uint32), ("y0", c_uint32), ("x1", c_uint32), ("y1", c_uint32), ("numcomps", c_uint32),
        ("color_space", c_int), ("comps", POINTER(_Component)), ("icc_profile_buf", c_void_p),
        ("icc_profile_len", c_uint32),
    )  # fmt: skip


_Write = CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_Skip = CFUNCTYPE(c_int64, c_int64, c_void_p)
_Seek = CFUNCTYPE(c_int, c_int64, c_void_p)
_Message = CFUNCTYPE(None, c_char_p, c_void_p)


@cache
def _library() -> Any | None:
    """OpenJPEG as loaded for imagecodecs, its functions declared; None where it is not to be had or is another."""
    try:
        from imagecodecs import _jpeg2k

        library = ctypes.CDLL(_jpeg2k.__file__)
        for name, result, arguments in (
            ("set_default_encoder_parameters", None, (c_void_p,)),
            ("create_compress", c_void_p, (c_int,)),
            ("destroy_codec", None, (c_void_p,)),
            ("setup_encoder", c_int, (c_void_p, c_void_p, c_void_p)),
            ("encoder_set_extra_options", c_int, (c_void_p, c_void_p)),
            ("set_error_handler", c_int, (c_void_p, _Message, c_void_p)),
            ("start_compress", c_int, (c_void_p, c_void_p, c_void_p)),
            ("encode", c_int, (c_void_p, c_void_p)),
            ("end_compress", c_int, (c_void_p, c_void_p)),
            ("image_create", POINTER(_Image), (c_uint32, c_void_p, c_int)),
            ("image_destroy", None, (c_void_p,)),
            ("stream_create", c_void_p, (c_size_t, c_int)),
            ("stream_destroy", None, (c_void_p,)),
            ("stream_set_write_function", None, (c_void_p, _Write)),
            ("stream_set_skip_function", None, (c_void_p, _Skip)),
            ("stream_set_seek_function", None, (c_void_p, _Seek)),
            ("stream_set_user_data", None, (c_void_p, c_void_p, c_void_p)),
        ):
            function = getattr(library, f"opj_{name}")
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError, AttributeError):
        return None
    return library if _same_layout(library) else None


def _same_layout(library: Any) -> bool:
    """Whether the parameters have the size and the defaults that OpenJPEG itself gives them.

    It clears the whole structure before it fills in defaults, so the first byte left alone is behind its end.
    """
    size = ctypes.sizeof(_Parameters)
    probe = ctypes.create_string_buffer(b"\xa5" * (size + 64), size + 64)
    library.opj_set_default_encoder_parameters(probe)
    if probe.raw[size:] != b"\xa5" * 64 or probe.raw[size - 4 : size - 2] != b"\0\0":
        return False
    defaults = _Parameters.from_buffer_copy(probe)
    return bool(
        defaults.numresolution == 6
        and (defaults.cblockw_init, defaults.cblockh_init) == (64, 64)
        and (defaults.roi_compno, defaults.subsampling_dx, defaults.cod_format) == (-1, 1, -1)
    )


def available() -> bool:
    """Whether `encode_layers` works here."""
    return _library() is not None


class _Output:
    """Where OpenJPEG writes: it goes back to fill in lengths."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.at = 0
        self.write, self.skip, self.seek = _Write(self._write), _Skip(self._skip), _Seek(self._seek)

    def _write(self, source: int, length: int, _: int) -> int:
        end = self.at + length
        if len(self.data) < end:
            self.data += bytes(end - len(self.data))
        self.data[self.at : end] = ctypes.string_at(source, length)
        self.at = end
        return length

    def _skip(self, length: int, _: int) -> int:
        self.at += length
        return length

    def _seek(self, place: int, _: int) -> int:
        self.at = place
        return 1


def encode_layers(
    samples: Samples, bits: int, *, decompositions: int, transform: bool, qualities: Sequence[float]
) -> bytes:
    """A reversible codestream, LRCP, a tile-part for each layer: of about `qualities`, rising, then lossless.

    A quality is PSNR in dB whose peak is the range of `bits`; OpenJPEG estimates it within 0.5 dB or so. `samples` are
    (rows, columns[, 3]) of `bits` bits, signed when their type is. `transform`: through the reversible colour
    transform. TLM and PLT are written. Raises PixelError; RuntimeError when not `available`.
    """
    library = _library()
    if library is None:
        raise RuntimeError("OpenJPEG's interface is not to be had")
    parameters = _Parameters()
    library.opj_set_default_encoder_parameters(byref(parameters))
    parameters.numresolution = decompositions + 1
    parameters.tcp_mct = bytes((transform,))
    parameters.cp_fixed_quality = 1
    parameters.tcp_numlayers = len(qualities) + 1
    parameters.tcp_distoratio[: len(qualities) + 1] = [*qualities, 0.0]
    parameters.tp_on, parameters.tp_flag = b"\1", b"L"
    image = _image(library, samples, bits)
    output = _Output()
    errors: list[str] = []
    said = _Message(lambda text, _: errors.append((text or b"").decode(errors="replace").strip()))
    codec, stream = library.opj_create_compress(0), library.opj_stream_create(_PIECE, 0)
    try:
        library.opj_set_error_handler(codec, said, None)
        library.opj_stream_set_user_data(stream, None, None)
        library.opj_stream_set_write_function(stream, output.write)
        library.opj_stream_set_skip_function(stream, output.skip)
        library.opj_stream_set_seek_function(stream, output.seek)
        options = (c_char_p * 3)(b"TLM=YES", b"PLT=YES", None)
        if not (
            library.opj_setup_encoder(codec, byref(parameters), image)
            and library.opj_encoder_set_extra_options(codec, options)
            and library.opj_start_compress(codec, image, stream)
            and library.opj_encode(codec, stream)
            and library.opj_end_compress(codec, stream)
        ):
            raise PixelError(f"OpenJPEG cannot encode this frame: {'; '.join(errors)[:200]}")
    finally:
        library.opj_stream_destroy(stream)
        library.opj_destroy_codec(codec)
        library.opj_image_destroy(image)
    return bytes(output.data)


def _image(library: Any, samples: Samples, bits: int) -> Any:
    """An opj_image_t with the samples, to be destroyed by the caller."""
    planes = np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples[None]
    count, rows, columns = planes.shape
    one = _ComponentParameters(1, 1, columns, rows, 0, 0, bits, bits, int(samples.dtype.kind == "i"))
    described = (_ComponentParameters * count)(*[one] * count)
    image = library.opj_image_create(count, described, _RGB if count == 3 else _GRAY)
    if not image:
        raise MemoryError("OpenJPEG has no memory for the image")
    image.contents.x1, image.contents.y1 = columns, rows
    for index in range(count):
        place = (ctypes.c_int32 * (rows * columns)).from_address(image.contents.comps[index].data)
        np.frombuffer(place, np.int32).reshape(rows, columns)[...] = planes[index]
    return image
