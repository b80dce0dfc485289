"""PLY files, read back byte by byte."""

import errno

import numpy as np
import pytest

from depthup import ply
from depthup.data import InputError
from depthup.ply import write_ply

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(50, 3)).astype(np.float32)
COLOURS = RNG.integers(0, 256, (50, 3), np.uint8)
NORMALS = RNG.normal(size=(50, 3)).astype(np.float32)
FACES = RNG.integers(0, 50, (70, 3), np.int32)

TYPES = {"float": "<f4", "uchar": "u1", "int": "<i4"}


def parse(content: bytes) -> dict[str, np.ndarray]:
    """The elements of a binary PLY file, by the words of its header alone."""
    header, _, rest = content.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    counts: dict[str, int] = {}
    fields: dict[str, list] = {}
    for kind, *words in (line.split() for line in lines[2:]):
        if kind == "element":
            name = words[0]
            counts[name], fields[name] = int(words[1]), []
        elif kind == "property" and words[0] == "list":
            fields[name] += [("count", TYPES[words[1]]), (words[3], TYPES[words[2]], 3)]  # every face is a triangle
        elif kind == "property":
            fields[name].append((words[1], TYPES[words[0]]))
        else:
            assert kind == "comment"
    elements = {}
    for name, count in counts.items():
        dtype = np.dtype(fields[name])
        elements[name] = np.frombuffer(rest[: count * dtype.itemsize], dtype)
        rest = rest[count * dtype.itemsize :]
    assert rest == b""
    return elements


def columns(element: np.ndarray, *names: str) -> np.ndarray:
    return np.stack([element[name] for name in names], axis=-1)


@pytest.mark.parametrize("chunk", [1 << 20, 50, 7])
def test_everything_is_read_back(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(ply, "_CHUNK", chunk)
    normals = NORMALS.copy()
    normals[3] = np.nan
    write_ply(tmp_path / "mesh.ply", POINTS, COLOURS, normals, FACES)
    elements = parse((tmp_path / "mesh.ply").read_bytes())
    vertex, face = elements["vertex"], elements["face"]
    assert vertex.dtype.names == ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue")
    np.testing.assert_array_equal(columns(vertex, "x", "y", "z"), POINTS)
    np.testing.assert_array_equal(columns(vertex, "red", "green", "blue"), COLOURS)
    normals[3] = 0
    np.testing.assert_array_equal(columns(vertex, "nx", "ny", "nz"), normals)
    assert (face["count"] == 3).all()
    np.testing.assert_array_equal(face["vertex_indices"], FACES)


def test_a_cloud_has_points_and_colours_alone(tmp_path):
    write_ply(tmp_path / "cloud.ply", POINTS.astype(np.float64), COLOURS)
    elements = parse((tmp_path / "cloud.ply").read_bytes())
    assert list(elements) == ["vertex"]
    assert elements["vertex"].dtype.names == ("x", "y", "z", "red", "green", "blue")
    np.testing.assert_array_equal(columns(elements["vertex"], "x", "y", "z"), POINTS)


def test_nothing_is_a_file_too(tmp_path):
    write_ply(tmp_path / "cloud.ply", POINTS[:0], COLOURS[:0], faces=FACES[:0])
    elements = parse((tmp_path / "cloud.ply").read_bytes())
    assert [len(element) for element in elements.values()] == [0, 0]


def test_a_file_is_replaced_only_if_asked(tmp_path):
    path = tmp_path / "cloud.ply"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_ply(path, POINTS, COLOURS)
    assert path.read_text() == "mine"
    write_ply(path, POINTS, COLOURS, overwrite=True)
    assert path.read_bytes().startswith(b"ply\n")


@pytest.mark.parametrize("name", ["cloud.obj", "cloud", "missing/cloud.ply"])
def test_a_bad_name(tmp_path, name):
    with pytest.raises(InputError) as caught:
        write_ply(tmp_path / name, POINTS, COLOURS)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ply, "_write_faces", fail)
    with pytest.raises(InputError, match=r"cloud\.ply: cannot be written \(No space left on device\)"):
        write_ply(tmp_path / "cloud.ply", POINTS, COLOURS, faces=FACES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": POINTS[:, :2]}, "points is"),
        ({"colours": COLOURS[:49]}, "colours is"),
        ({"colours": COLOURS / 255}, "colours are float64"),
        ({"normals": NORMALS[:49]}, "normals is"),
        ({"faces": FACES.astype(float)}, "faces are float64"),
        ({"faces": FACES[:, :2]}, "faces are"),
        ({"faces": FACES + 1}, "expected 0 to 49"),
        ({"faces": FACES - 1}, "expected 0 to 49"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_ply(tmp_path / "cloud.ply", **({"points": POINTS, "colours": COLOURS} | change))
    assert list(tmp_path.iterdir()) == []
