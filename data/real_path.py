"""Where a path leads."""

import os
from pathlib import Path


def real_path(path: str | Path) -> Path:
    """As `Path.resolve`, which raises RuntimeError where links lead in a circle; this leaves those as they are."""
    return Path(os.path.realpath(path))
