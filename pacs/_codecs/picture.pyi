import numpy as np
from numpy.typing import NDArray

def paint(
    src: NDArray[np.uint8],
    dst: NDArray[np.uint8],
    levels: NDArray[np.uint8] | None,
    first: int,
    width: int,
    rows: int,
    columns: int,
    planes: int,
    top: float,
    bottom: float,
    high: int,
    left: float,
    right: float,
    wide: int,
) -> None: ...
