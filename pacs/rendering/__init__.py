"""Samples to a picture of 8 bits: the grayscale and colour pipelines (PS3.4 N.2, PS3.3 C.11) and the viewport.

Attributes come as the DICOM JSON object of the instance. Look-up tables that the JSON only names are fetched by the
caller's `bulk`. What a header gets wrong (a window of no width, a table that is cut) is left out, as viewers do.
"""

from __future__ import annotations

from pacs.errors import PixelError
from pacs.rendering.attributes import Attributes, Bulk, Picture, Shaded, Values, first_value, of_frame, of_json
from pacs.rendering.colour import colour, palette
from pacs.rendering.grayscale import LINEAR, LINEAR_EXACT, SIGMOID, Window, gray
from pacs.rendering.viewport import MAX_PIXELS, Viewport, fit, pixel_aspect, sufficient_level, whole

__all__ = [
    "LINEAR", "LINEAR_EXACT", "MAX_PIXELS", "SIGMOID", "Viewport", "Window", "of_json", "pixel_aspect", "render",
    "sufficient_level",
]  # fmt: skip


def render(
    samples: Values,
    attributes: Attributes,
    *,
    frame: int = 1,
    window: Window | None = None,
    viewport: Viewport | None = None,
    bulk: Bulk | None = None,
    square_pixels: bool = False,
) -> Picture:
    """`samples` of frame `frame` (from 1) as a picture, (rows, columns) or (rows, columns, 3).

    The samples may be those of a lower resolution level; `viewport` counts in pixels of the full-size image.
    `square_pixels` stretches what has non-square pixels. Raises PixelError for what has no picture.
    """
    photometric = str(first_value(attributes, "00280004", "MONOCHROME2")).strip()
    if samples.ndim == 3:
        shaded = Shaded(colour(samples, photometric, attributes))
    elif samples.ndim != 2:
        raise PixelError(f"no picture of samples of shape {samples.shape}")
    elif photometric == "PALETTE COLOR":
        shaded = Shaded(palette(samples, attributes, bulk))
    else:
        shaded = gray(samples, photometric, of_frame(attributes, frame), window, bulk)
    if viewport is None:
        return whole(shaded)
    return fit(shaded, viewport, attributes, pixel_aspect(attributes) if square_pixels else 1.0)
