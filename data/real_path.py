"""Where a path leads."""

import os
from pathlib import Path


def real_path(path: str | Path) -> Path:
    """As `Path.resolve`, which before Python 3.13 raises RuntimeError where links lead in a circle."""
    return Path(os.path.realpath(path))
