"""What a viewer's samples have to be: those of the file, after its rescale."""

from __future__ import annotations

import hashlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset

DIGEST = """async (viewport) => {
  const image = viewport.getCornerstoneImage();
  const samples = Float32Array.from(image.getPixelData());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", samples));
  return [image.rows, image.columns, Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")];
}"""
"""A function of JavaScript, from a Cornerstone3D viewport to what `digest` says of the image that it shows."""


def digest(data: Dataset) -> list[object]:
    """[rows, columns, SHA-256 of the samples as 32-bit floats, in hexadecimal]."""
    truth = pydicom.pixels.pixel_array(data, raw=True).astype(np.float32)
    truth = truth * np.float32(data.get("RescaleSlope", 1)) + np.float32(data.get("RescaleIntercept", 0))
    return [*truth.shape, hashlib.sha256(truth.tobytes()).hexdigest()]
