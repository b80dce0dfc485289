"""Text: a mean that is not over all images says so, and columns stand below each other."""

import pytest

from depthup.report import comparison_lines, evaluation_lines, metres, models_lines

RESULT = {
    "data": "rooms",
    "method": "x4",
    "scale": 4,
    "protocol": "dkn",
    "degradation": "bicubic",
    "border": 6,
    "unit": "cm",
    "averaging": "per image",
    "precision": "bf16",
    "images": 5,
    "scenes": 2,
    "rmse": 1.23456,
    "mae": 0.5,
    "rel": 0.01234,
    "off_by_1": 12.345,
    "off_by_5": 5.0,
    "off_by_10": 0.0,
    "rmse_near_edges": 4.0,
    "rmse_elsewhere": 0.25,
    "boundary_f1": None,
    "consistency": 0.125,
    "rmse_interval": [1.0, 2.0],
    "unknown_pixels": 7,
    "undefined_images": {"rmse_near_edges": 2, "boundary_f1": 5},
    "definitions": {"depth edges": "a " * 100},
    "split": "val",
}


def test_evaluation():
    lines = list(evaluation_lines(RESULT))
    facts = {line[:16].strip(): line[17:] for line in lines}
    assert facts["rmse"] == "1.235"
    assert facts["rel"] == "0.0123"
    assert facts["off by 1"] == "12.35"
    assert facts["rmse near edges"] == "4.000 (3 images)"
    assert facts["boundary f1"] == "undefined"
    assert facts["rmse interval"] == "1.000 to 2.000"
    assert (facts["split"], facts["border"], facts["unknown pixels"]) == ("val", "6", "7")
    assert max(map(len, lines)) <= 120


def test_comparison():
    other = RESULT | {"method": "a longer name", "rmse": 100.0, "rmse_interval": None, "undefined_images": {}}
    lines = list(comparison_lines([RESULT, other]))
    assert lines[0] == "data             rooms"
    assert "precision        bf16" in lines
    head, first, second = lines[-3:]
    end = head.index("RMSE") + len("RMSE")
    assert (first[:end].split()[-1], second[:end].split()[-1]) == ("1.235", "100.000")
    assert "4.000 (3 images)" in first
    assert "1.000 to 2.000" in first
    assert second.count("undefined") == 2
    assert second.endswith("7")


@pytest.mark.parametrize(
    ("depth", "text"),
    [(0.0, "0.000"), (1.23456, "1.235"), (70.0, "70.000"), (0.000012345, "1.23e-05"), (123456.0, "1.23e+05")],
)
def test_metres_keep_what_they_say(depth, text):
    assert metres(depth) == text


def test_no_models():
    assert len(list(models_lines({}))) == 2  # what the numbers mean, and what is not in the box
