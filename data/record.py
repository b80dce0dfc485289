"""What depthup notes in the depth files that it writes, so that reading them needs no unit."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from depthup.data.depth_encoding import DEPTH_UNITS
from depthup.data.errors import InputError

RECORDED = ("software", "depth_unit", "depth_scale")
"""What is read of the record in a .npz file."""

Record = dict[str, str]
"""Names and texts: software, depth_scale, depth_unit, and whatever else the writer was given."""


def record_text(record: Mapping[str, str]) -> str:
    """ASCII JSON of a record, for a PNG's Description, a TIFF's ImageDescription and an EXR's comments."""
    return json.dumps(dict(record))


def parse_record(text: object) -> Record:
    """The record that `record_text` wrote, or an empty one where the text is anything else."""
    if not isinstance(text, str):
        return {}
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
        return {}
    return record


def recorded_scale(path: Path, record: Mapping[str, str]) -> float | None:
    """File value / metres as depthup recorded it, or as a `depth_unit` says; None where nothing is said.

    Raises:
        InputError: what is recorded is no number > 0, or no known unit.
    """
    # other programs' depth_scale may mean the reciprocal
    if not record.get("software", "").startswith("depthup ") or "depth_scale" not in record:
        unit = record.get("depth_unit")
        if unit is not None and unit not in DEPTH_UNITS:
            raise InputError(f"{path}: records depth unit {unit!r}, expected one of {', '.join(DEPTH_UNITS)}")
        return None if unit is None else DEPTH_UNITS[unit]
    try:
        scale = float(record["depth_scale"])
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise InputError(f"{path}: records depth scale {record['depth_scale']!r}, expected a number > 0")
    return scale
