"""How long synthetic rooms take to render, and the picture of eight of them in docs/synthetic.md.

python benchmarks/synthetic.py writes docs/images/synthetic.jpg.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from depthup.data import synthetic_pair
from depthup.visualize import colourise

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "synthetic.jpg"
SHOWN = (203, 305, 403, 200, 20, 4, 22, 107)
"""Numbers of the scenes in the picture."""


def main() -> None:
    began = time.process_time()
    pairs = [synthetic_pair(SHOWN[0])]
    print(f"first scene, with what is compiled or loaded: {time.process_time() - began:.2f} s of one core")
    seconds = []
    for number in SHOWN[1:]:
        began = time.process_time()
        pairs.append(synthetic_pair(number))
        seconds.append(time.process_time() - began)
    times = f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
    print(f"640x480: median {times} s of one core, of {len(seconds)} scenes")
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(synthetic_pair, range(24)))
    print(f"24 scenes on two threads: {time.perf_counter() - began:.1f} s by the clock")

    images = [np.vstack([pair.rgb, colourise(pair.depth)]) for pair in pairs]
    grid = np.vstack([np.hstack(images[:4]), np.hstack(images[4:])])
    small = cv2.resize(grid, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(PICTURE), small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    print(f"written to {PICTURE}")


if __name__ == "__main__":
    main()
