"""Samples to codestreams and back, and what a stored frame can become: third-party image codecs are known here alone.

Frames are stored as HTJ2K lossless RPCL (PS3.5 10.18). `table` plans renditions, `decoders` and `encoders` make them.
"""

from pacs.pixels import decode_native
from pacs.transcode.decoders import decode_frame, decode_reduced, droppable_levels
from pacs.transcode.encoders import encode, encode_jpeg, encode_png
from pacs.transcode.frames import LARGEST_DECODED, MEMORY, Buffer, Samples
from pacs.transcode.htj2k import EncodedFrame, as_rpcl, declared_precision, encode_frame
from pacs.transcode.rungs import LayeredFrame, irreversible, layered
from pacs.transcode.table import Rendition, decoded_geometry, plan, renditions

__all__ = [
    "LARGEST_DECODED",
    "MEMORY",
    "Buffer",
    "EncodedFrame",
    "LayeredFrame",
    "Rendition",
    "Samples",
    "as_rpcl",
    "declared_precision",
    "decode_frame",
    "decode_native",
    "decode_reduced",
    "decoded_geometry",
    "droppable_levels",
    "encode",
    "encode_frame",
    "encode_jpeg",
    "encode_png",
    "irreversible",
    "layered",
    "plan",
    "renditions",
]
