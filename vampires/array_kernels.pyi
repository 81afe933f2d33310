from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

class FrameStatistics(NamedTuple):
    minimum: float
    maximum: float
    mean: float
    std: float
    finite: int

def bin_frame(
    frame: npt.ArrayLike, factor_y: int, factor_x: int, *, mean: bool = False
) -> npt.NDArray[Any]: ...
def statistics(frame: npt.ArrayLike) -> FrameStatistics: ...
def percentile_limits(
    frame: npt.ArrayLike, low: float = 0.5, high: float = 99.5
) -> tuple[float, float]: ...
def scale_for_display(
    frame: npt.ArrayLike,
    low: float,
    high: float,
    *,
    stretch: Literal["linear", "sqrt", "log"] = "linear",
) -> npt.NDArray[np.uint8]: ...
