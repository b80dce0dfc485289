"""The Motorcycle pair of Middlebury 2014 (Scharstein et al., GCPR 2014), which scikit-image carries in its wheel."""

import numpy as np

from depthup.data.errors import InputError, UsageError
from depthup.data.pairs import Pair, check_split

FOCAL_PX = 994.978
BASELINE_M = 0.193001
DOFFS_PX = 31.086


def motorcycle() -> Pair:
    """The left image of Motorcycle with its metric depth, 741x500 pixels, about 2 to 5 m; needs no network.

    Depth is focal length x baseline / (disparity + doffs), with the calibration given for the down-sampled images in
    `skimage.data.stereo_motorcycle`; about 7 % of the pixels have none.

    Returns:
        The pair `motorcycle`, in metres, NaN where there is no measurement.

    Raises:
        InputError: the installed scikit-image does not carry the files.
    """
    from skimage.data import stereo_motorcycle  # here: takes a while, and only this pair needs it

    try:
        rgb, _, disparity = stereo_motorcycle()
    except (ImportError, OSError) as error:
        raise InputError(
            f"motorcycle: the installed scikit-image cannot give it ({type(error).__name__}), expected skimage/data/"
            "motorcycle_left.png and motorcycle_disp.npz; install scikit-image from its wheel"
        ) from None
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.full(disparity.shape, np.nan, np.float32)
    depth[known] = FOCAL_PX * BASELINE_M / (disparity[known].astype(np.float64) + DOFFS_PX)
    return Pair("motorcycle", "motorcycle", np.ascontiguousarray(rgb), depth, "m")


class Motorcycle:
    """The Motorcycle pair as a data set of one, for checking only.

    Args:
        split: `all` or `test`.

    Raises:
        UsageError: another split.
    """

    title = "Middlebury 2014 Motorcycle"
    unit = "m"
    border = 0

    def __init__(self, split: str = "all") -> None:
        check_split(split)
        self.names, self.scenes = ["motorcycle"], ["motorcycle"]
        if split not in ("all", "test"):
            raise UsageError(f"motorcycle: is one pair for checking only: no split {split}, expected all or test")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Pair:
        if index not in (0, -1):
            raise IndexError(index)
        return motorcycle()
