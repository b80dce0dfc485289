"""Every file format: what is written is what is read, other libraries agree, and a damaged file is one clear line."""

import importlib
import io
import json
import os
import struct
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

import depthup
from depthup.data import DepthEncoding, InputError, read_confidence, read_depth, read_mask, read_rgb
from depthup.data.exr import _silent_openexr
from depthup.data.extras import load_extra
from depthup.depth_files import DEPTH_OUTPUT_SUFFIXES, write_confidence, write_depth

SOFTWARE = f"depthup {depthup.__version__}"
FLOATS = [suffix for suffix in DEPTH_OUTPUT_SUFFIXES if suffix != ".png"]


def needs(suffix: str) -> None:
    """Skip where the extra of a format is not installed."""
    for endings, module in (((".exr",), "OpenEXR"), ((".heic",), "pillow_heif")):
        if suffix in endings:
            pytest.importorskip(module)


def some_depth(shape=(13, 17)) -> np.ndarray:
    depth = np.random.default_rng(0).uniform(0.3, 60, shape).astype(np.float32)
    if depth.size > 1:
        depth.flat[depth.size // 2] = np.nan
    return depth


def refused(read, path, *words: str) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "expected" in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("suffix", DEPTH_OUTPUT_SUFFIXES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (13, 17), (64, 48)])
def test_round_trip(tmp_path, suffix, shape):
    needs(suffix)
    depth = some_depth(shape)
    path = tmp_path / f"ünï 图{suffix}"
    write_depth(path, depth)
    result = read_depth(path)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, depth, rtol=0, atol=0.5001e-3 if suffix == ".png" else 0)
    write_depth(path, np.asfortranarray(depth[::-1]), overwrite=True)
    np.testing.assert_array_equal(read_depth(path), result[::-1])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", FLOATS)
def test_floats_are_exact_whatever_their_size(tmp_path, suffix):
    needs(suffix)
    depth = np.float32([[1e-38, 1e-4, 1 / 3, np.nan], [65504.5, 1e6, 3e38, 0.1]])
    write_depth(tmp_path / f"d{suffix}", depth)
    np.testing.assert_array_equal(read_depth(tmp_path / f"d{suffix}"), depth)


def test_what_is_recorded(tmp_path):
    depth = some_depth()
    record = {"software": SOFTWARE, "depth_unit": "tum", "depth_scale": "5000", "model": "x4 图.safetensors"}
    metadata = {"model": record["model"]}
    write_depth(tmp_path / "d.png", depth / 10, "tum", metadata=metadata)
    with Image.open(tmp_path / "d.png") as image:
        assert image.info["Software"] == SOFTWARE
        assert json.loads(image.info["Description"]) == record
    record |= {"depth_unit": "m", "depth_scale": "1"}
    write_depth(tmp_path / "d.tiff", depth, "tum", metadata=metadata)
    with tifffile.TiffFile(tmp_path / "d.tiff") as tiff:
        assert tiff.pages[0].software == SOFTWARE
        assert json.loads(tiff.pages[0].description) == record
    write_depth(tmp_path / "d.npz", depth, metadata=metadata)
    with np.load(tmp_path / "d.npz", allow_pickle=False) as arrays:
        assert {name: str(arrays[name]) for name in arrays.files if name != "depth"} == record
        np.testing.assert_array_equal(arrays["depth"], depth)
    write_depth(tmp_path / "e.png", depth, scale=1000.5)
    with Image.open(tmp_path / "e.png") as image:
        assert json.loads(image.info["Description"]) == {"software": SOFTWARE, "depth_scale": "1000.5"}


def test_what_is_recorded_in_exr(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    write_depth(tmp_path / "d.exr", some_depth(), metadata={"model": "x4 图"})
    header = exr.File(str(tmp_path / "d.exr")).header()
    assert header["software"] == SOFTWARE
    record = {"software": SOFTWARE, "depth_unit": "m", "depth_scale": "1", "model": "x4 图"}
    assert json.loads(header["comments"]) == record


@pytest.mark.parametrize("unit", ["tum", "kitti", "mm"])
def test_a_recorded_unit_wins_over_the_guess_and_not_over_the_user(tmp_path, unit):
    path, depth = tmp_path / "d.png", some_depth() / 10
    write_depth(path, depth, unit)
    integers = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64)
    integers[integers == 0] = np.nan
    number = {"mm": 1000, "tum": 5000, "kitti": 256}[unit]
    np.testing.assert_array_equal(read_depth(path), (integers / number).astype(np.float32))
    np.testing.assert_array_equal(read_depth(path, "mm"), (integers / 1000).astype(np.float32))
    np.testing.assert_array_equal(read_depth(path, DepthEncoding(scale=300)), (integers / 300).astype(np.float32))


def test_only_our_own_record_counts(tmp_path):
    values = np.uint16([[1000, 2000]])
    for software, expected in (("depthup 9.9", 20), ("another program", 2), ("", 2)):
        np.savez(tmp_path / "d.npz", depth=values, software=software, depth_scale="100")
        assert read_depth(tmp_path / "d.npz")[0, 1] == expected
    for text in ("{", "[1]", '{"software": 3}', "[" * 100000, "depth_scale", '{"depth_scale": "100"}'):
        tifffile.imwrite(tmp_path / "d.tiff", values, description=text, metadata=None)
        assert read_depth(tmp_path / "d.tiff")[0, 1] == 2
    for scale in ("-1", "0", "inf", "much"):
        np.savez(tmp_path / "d.npz", depth=values, software=SOFTWARE, depth_scale=scale)
        refused(read_depth, tmp_path / "d.npz", f"records depth scale '{scale}'")


def test_opencv_and_pil_read_what_we_write(tmp_path):
    depth = some_depth()
    for suffix in (".png", ".tiff"):
        path = tmp_path / f"d{suffix}"
        write_depth(path, depth)
        expected = np.rint(np.nan_to_num(depth) * 1000) if suffix == ".png" else depth
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == (np.uint16 if suffix == ".png" else np.float32)
        np.testing.assert_array_equal(stored, expected)
    write_depth(tmp_path / "d.pfm", depth)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "d.pfm"), cv2.IMREAD_UNCHANGED), depth)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("layout", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}])
def test_tiff_of_others(tmp_path, byteorder, dtype, layout):
    values = np.random.default_rng(0).integers(0, 30000, (33, 35)).astype(dtype)
    tifffile.imwrite(tmp_path / "d.tif", values, byteorder=byteorder, **layout)
    expected = values.astype(np.float32)
    expected[expected == 0] = np.nan
    np.testing.assert_array_equal(read_depth(tmp_path / "d.tif", "m"), expected)


def test_tiff_that_cannot_be_taken_as_it_is(tmp_path):
    path = tmp_path / "d.tif"
    values = np.arange(1, 301, dtype=np.uint16).reshape(3, 10, 10)
    tifffile.imwrite(path, values, photometric="minisblack")
    refused(read_depth, path, "holds 3 images, expected one")
    tifffile.imwrite(path, values[0], photometric="miniswhite")
    refused(read_depth, path, "MinIsWhite")
    with tifffile.TiffWriter(path) as tiff:  # an overview before it
        tiff.write(values[0, ::2, ::2], subfiletype=1)
        tiff.write(values[0])
    refused(read_depth, path, "begins with a thumbnail")
    picture = np.zeros((2, 8, 8, 3), np.uint8)
    tifffile.imwrite(path, picture, photometric="rgb")
    refused(read_rgb, path, "holds 2 images, expected one")
    tifffile.imwrite(path, picture[0, ..., 0], photometric="miniswhite")  # OpenCV turns 8 bits round
    assert (read_rgb(path) == 255).all()
    with tifffile.TiffWriter(path) as tiff:  # an overview beside the image
        tiff.write(values[0])
        tiff.write(values[0, ::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read_depth(path, "m"), values[0])


@pytest.mark.parametrize("scale", ["-1", "-1.0", "1.0", "-0.003922", "2e3", "+1"])
@pytest.mark.parametrize("header", ["Pf\n17 13\n{}\n", "Pf 17 13 {} ", "Pf\r\n17 13\r\n{}\r\n"])
def test_pfm_of_both_byte_orders(tmp_path, scale, header):
    depth, path = some_depth(), tmp_path / "d.pfm"
    order = "<f4" if scale.startswith("-") else ">f4"
    path.write_bytes(header.format(scale).encode() + depth[::-1].astype(order).tobytes())
    np.testing.assert_array_equal(read_depth(path), depth)


def test_bad_pfm(tmp_path):
    path, pixels = tmp_path / "d.pfm", np.ones((2, 3), "<f4").tobytes()
    path.write_bytes(b"PF\n1 2\n-1\n" + pixels)
    refused(read_depth, path, "3 channels", "expected one (kind Pf)")
    path.write_bytes(b"Pf\n3 2\n-1\n" + pixels[:-1])
    refused(read_depth, path, "truncated PFM, 23 bytes of pixels, expected 24 for 3x2 pixels")
    path.write_bytes(b"Pf\n3 2\n-1\n" + pixels + b"\n")
    refused(read_depth, path, "damaged PFM, 25 bytes")
    for scale in (b"0", b"-0.0", b"--1", b"e"):
        path.write_bytes(b"Pf\n3 2\n" + scale + b"\n" + pixels)
        refused(read_depth, path, "PFM scale")
    path.write_bytes(b"Pf\nthree 2\n-1\n" + pixels)
    refused(read_depth, path, "damaged PFM header")
    path.write_bytes(b"Pf\n0 2\n-1\n")
    refused(read_depth, path, "shape [2, 0]")


def test_npz(tmp_path):
    path, depth = tmp_path / "d.npz", some_depth()
    for arrays in ({"anything": depth}, {"depth": depth, "rgb": np.zeros((2, 2, 3)), "name": "x"}):
        np.savez_compressed(path, **arrays)
        np.testing.assert_array_equal(read_depth(path), depth)
    np.savez(path, near=depth, far=depth)
    refused(read_depth, path, "holds the arrays near, far, expected one, or one named depth")
    np.savez(path, **{"near\n\x1b": depth, "far": depth})
    refused(read_depth, path, r"holds the arrays 'near\n\x1b', far")
    np.savez(path, depth=1, disparity=1 / depth)
    encoding = DepthEncoding(kind="disparity", focal=10, baseline=0.1)
    np.testing.assert_allclose(read_depth(path, encoding), depth, rtol=1e-6)
    np.savez(path, disparity=1 / depth)
    np.testing.assert_allclose(read_depth(path, encoding), depth, rtol=1e-6)
    refused(read_depth, path, "holds disparity, expected depth, or --depth-kind disparity")
    np.savez(path, depth=np.array([{"a": 1}], object), allow_pickle=True)
    refused(read_depth, path, "holds Python objects, which are never unpickled")
    np.savez(path, depth=np.array(["a"]))
    refused(read_depth, path, "shape [1]")


def write_exr(path, channels, **header):
    exr = pytest.importorskip("OpenEXR")
    exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage, **header}, channels).write(str(path))


@pytest.mark.parametrize("name", ["Z", "depth", "Depth", "V", "Y", "R", "distance", "View.Depth.Z"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
def test_exr_of_one_channel(tmp_path, name, dtype):
    values = np.linspace(1, 900, 13 * 17).reshape(13, 17).astype(dtype)
    write_exr(tmp_path / "d.exr", {name: values})
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr", "m"), values.astype(np.float32))


def test_exr_of_several_channels(tmp_path):
    path, depth = tmp_path / "d.exr", some_depth()
    other = depth + 1
    for channels in (
        {"R": other, "G": other, "B": depth, "Z": depth},
        {"V": depth, "A": other},
        {"R": depth, "G": depth, "B": depth, "A": other},
        {"View.Combined.R": other, "View.Depth.Z": depth},
    ):
        write_exr(path, channels)
        np.testing.assert_array_equal(read_depth(path), depth)
    write_exr(path, {"R": depth, "G": other, "B": depth})
    refused(read_depth, path, "(a colour picture)", "named Z, depth, V, Y, R")
    write_exr(path, {"near": depth, "far": other})
    refused(read_depth, path, "holds the channels", "near", "far", "named Z, depth, V, Y, R")
    write_exr(path, {"left.Z": depth, "right.Z": other})
    refused(read_depth, path, "left.Z", "right.Z")


def test_what_others_print_while_an_exr_file_is_decoded(tmp_path, capfd, monkeypatch):
    exr = pytest.importorskip("OpenEXR")
    good, damaged = tmp_path / "good.exr", tmp_path / "damaged.exr"
    write_exr(good, {"Z": some_depth()})
    damaged.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    decode = exr.File

    def decode_and_print(*arguments, **options):
        print("on stdout")
        os.write(2, b"on stderr\n")
        return decode(*arguments, **options)

    monkeypatch.setattr(exr, "File", decode_and_print)
    read_depth(good)
    refused(read_depth, damaged, "damaged.exr")
    assert capfd.readouterr() == ("on stdout\n" * 2, "on stderr\n" * 2)


def test_exr_without_a_place_for_temporary_files(tmp_path, monkeypatch):
    def nowhere():
        raise FileNotFoundError

    write_exr(tmp_path / "d.exr", {"Z": some_depth()})
    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr"), some_depth())


def test_what_is_printed_between_two_threads_that_decode_exr(capsys, monkeypatch):
    """The second waits for the first, and takes its place."""
    inside, leave, decoded = threading.Event(), threading.Event(), threading.Event()

    def first():
        with _silent_openexr():
            inside.set()
            leave.wait(10)

    def second():
        with _silent_openexr():
            inside.set()
            decoded.wait(10)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        inside.wait(10)
        inside.clear()
        other = pool.submit(second)
        time.sleep(0.1)
        leave.set()
        one.result()
        inside.wait(10)
        print("while the second decodes")
        decoded.set()
        other.result()
    assert capsys.readouterr().out == "while the second decodes\n"


def test_exr_that_cannot_be_taken_as_it_is(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    path, depth = tmp_path / "d.exr", some_depth()
    box = np.array([0, 0], np.int32), np.array([99, 99], np.int32)
    write_exr(path, {"Z": depth}, displayWindow=box)
    refused(read_depth, path, "data window [[0, 0], [16, 12]] in display window [[0, 0], [99, 99]]")
    parts = [exr.Part({"type": exr.scanlineimage}, {"Z": depth}, name) for name in ("left", "right")]
    exr.File(parts).write(str(path))
    refused(read_depth, path, "holds 2 parts, expected one")


@pytest.mark.parametrize(("suffix", "module", "extra"), [(".exr", "OpenEXR", "exr"), (".heic", "pillow_heif", "heic")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, suffix, module, extra):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"v/1\x01\x02\0\0\0" if suffix == ".exr" else b"\0\0\0\x1cftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as caught:
        (read_depth if suffix == ".exr" else read_rgb)(path)
    message = f'{path}: needs the package {module}, which is not installed; run: pip install "depthup[{extra}]"'
    assert str(caught.value) == message


def test_an_extra_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("raise ImportError('libImath.so.29: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"which cannot be imported \(libImath.so.29: cannot open shared object"):
        load_extra("a.exr", "broken", "exr")


# stored so that the orientation of EXIF makes it upright
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def four_colours() -> np.ndarray:
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:32, :48], rgb[:32, 48:], rgb[32:, :48], rgb[32:, 48:] = 255, (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return rgb


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    needs(suffix)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 98, "subsampling": 0}, ".webp": {"lossless": True}, ".heic": {"quality": -1}}
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](four_colours())))
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        # writes the rotation into the container and leaves it in EXIF too, as phones do
        importlib.import_module("pillow_heif").register_heif_opener()
    if suffix == ".tif":
        image.save(path, tiffinfo={0x0112: orientation})
    else:
        image.save(path, exif=exif.tobytes(), **options.get(suffix, {}))
    rgb = read_rgb(path)
    assert rgb.shape == (64, 96, 3) and rgb.dtype == np.uint8
    np.testing.assert_allclose(rgb[8::16, 8::16].astype(int), four_colours()[8::16, 8::16], atol=8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("orientation", STORED)
def test_depth_mask_and_confidence_are_not_turned(tmp_path, orientation, bigtiff, byteorder):
    def write(values: np.ndarray) -> Path:
        path = tmp_path / f"{values.dtype}.tif"
        tags = [(274, "H", 1, orientation, True)]
        values = values.astype(values.dtype.newbyteorder(byteorder))
        tifffile.imwrite(path, values, bigtiff=bigtiff, byteorder=byteorder, extratags=tags)
        with tifffile.TiffFile(path) as tiff:
            assert tiff.pages[0].tags["Orientation"].value == orientation
        return path

    values = np.arange(1, 16).reshape(3, 5)
    for dtype in (np.uint16, np.float32):
        path = write(values.astype(dtype))
        np.testing.assert_array_equal(read_depth(path, "m"), values.astype(np.float32))
    np.testing.assert_array_equal(read_confidence(write((values % 3).astype(np.uint8)), (3, 5)), values % 3)
    np.testing.assert_array_equal(read_mask(write((values % 2).astype(np.uint8)), (3, 5)), values % 2 == 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_an_orientation_of_depth_is_told(tmp_path, caplog, suffix):
    path, image = tmp_path / f"d{suffix}", Image.fromarray(np.full((3, 5), 1500, np.uint16))
    for orientation in (0, 1, 3, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif.tobytes())
        assert read_depth(path).shape == (3, 5)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: depth is taken as stored, not turned by its orientation (3)"
    ]


def test_damaged_exif_of_a_png_is_none(tmp_path):
    image = Image.fromarray(np.full((3, 5), 1500, np.uint16))
    for exif in (b"", b"MM", b"II*\0\xff\xff\xff\xff", bytes(range(256))):
        image.save(tmp_path / "d.png", exif=exif)
        assert (read_depth(tmp_path / "d.png") == 1.5).all()


def test_heic_grey_alpha_and_depth_of_colour(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    rgb, path = four_colours(), tmp_path / "a.jpg"  # the content counts, not the ending
    grey = rgb[..., 0]
    for mode, values in (("L", grey), ("RGBA", np.dstack([rgb, np.full_like(grey, 255)]))):
        file = io.BytesIO()
        heif.encode(mode, (96, 64), values.tobytes(), file, quality=-1)
        path.write_bytes(file.getvalue())
        expected = np.repeat(grey[..., None], 3, 2) if mode == "L" else rgb
        np.testing.assert_allclose(read_rgb(path).astype(int), expected, atol=8)
    heif.encode("RGB;16", (96, 64), (rgb.astype(np.uint16) * 257).tobytes(), path)
    refused(read_rgb, path, "uint16", "8 bits per channel")


def test_mask(tmp_path):
    mask = np.random.default_rng(0).random((13, 17)) > 0.5
    shape = mask.shape
    for name, values in (("m.png", mask * np.uint8(255)), ("m.tif", mask.astype(np.uint8)), ("m.bmp", mask * 9)):
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, shape), mask)
    Image.fromarray(mask).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png", shape), mask)
    for values in (mask, mask.astype(np.uint8)):
        np.save(tmp_path / "m.npy", values)
        result = read_mask(tmp_path / "m.npy", shape)
        assert result.dtype == np.bool_
        np.testing.assert_array_equal(result, mask)
    refused(lambda path: read_mask(path, (17, 13)), tmp_path / "m.npy", "mask is 17x13 pixels, expected 13x17")
    np.save(tmp_path / "m.npy", mask.astype(np.float32))
    refused(lambda path: read_mask(path, shape), tmp_path / "m.npy", "float32", "8 bits or booleans")
    Image.fromarray(four_colours()).save(tmp_path / "m.png")
    refused(lambda path: read_mask(path, (64, 96)), tmp_path / "m.png", "3 channels")
    refused(lambda path: read_mask(path, shape), tmp_path / "none.png", "no such file")


def test_confidence(tmp_path):
    confidence = np.random.default_rng(0).integers(0, 3, (13, 17)).astype(np.uint8)
    shape = confidence.shape
    Image.fromarray(confidence).save(tmp_path / "c.png")
    np.save(tmp_path / "c.npy", confidence)
    (tmp_path / "c.bin").write_bytes(confidence.tobytes())
    for name in ("c.png", "c.npy", "c.bin"):
        result = read_confidence(tmp_path / name, shape)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, confidence)
        refused(lambda path: read_confidence(path, (13, 16)), tmp_path / name, "expected", "16x13")
    np.save(tmp_path / "c.npy", confidence * 127)
    refused(lambda path: read_confidence(path, shape), tmp_path / "c.npy", "holds 254, expected 0 low")
    np.save(tmp_path / "c.npy", confidence.astype(np.int64))
    refused(lambda path: read_confidence(path, shape), tmp_path / "c.npy", "int64")
    (tmp_path / "c.bin").write_bytes(b"")
    refused(lambda path: read_confidence(path, shape), tmp_path / "c.bin", "is empty")


def whole_file(tmp_path, suffix: str):
    """A reader, a path and an intact file of a format."""
    needs(suffix)
    path = tmp_path / f"d{suffix}"
    rows, columns = np.mgrid[:40, :50].astype(np.float32)
    depth = 1 + rows / 40 + columns / 25
    if suffix in DEPTH_OUTPUT_SUFFIXES:
        write_depth(path, depth)
        return read_depth, path
    if suffix == ".jp2":
        path.write_bytes(cv2.imencode(".jp2", (depth * 1000).astype(np.uint16))[1].tobytes())
        return read_depth, path
    if suffix == ".heic":
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.fromarray(np.stack([rows * 6, columns * 5, rows + columns], -1).astype(np.uint8)).save(path)
    return read_rgb, path


@pytest.mark.parametrize("suffix", [*DEPTH_OUTPUT_SUFFIXES, ".jp2", ".jpg", ".webp", ".bmp", ".heic"])
def test_truncated_files(tmp_path, suffix, capfd):
    read, path = whole_file(tmp_path, suffix)
    content, intact = path.read_bytes(), read(path)
    near_end = [len(content) - n for n in (1, 2, 3, 4, 8, 12, 20)]
    for length in {*np.linspace(0, len(content) - 1, 60).astype(int), *range(1, 40), *near_end}:
        path.write_bytes(content[:length])
        try:
            result = read(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            # padding or a checksum was cut off, and no pixel
            np.testing.assert_array_equal(result, intact)
            assert length >= len(content) - 12
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [*DEPTH_OUTPUT_SUFFIXES, ".jp2", ".jpg", ".webp", ".bmp", ".heic"])
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_flipped_bits_of_the_header(tmp_path, suffix, capfd):
    read, path = whole_file(tmp_path, suffix)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, min(len(content), 400), 150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.integers(0, 8)
        path.write_bytes(damaged)
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)
    # libjpeg warns by itself of damage that it gets over
    assert suffix == ".jpg" or capfd.readouterr() == ("", "")


def test_checksums_are_checked(tmp_path):
    for suffix in (".png", ".npz"):
        read, path = whole_file(tmp_path, suffix)
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        refused(read, path)


def test_a_header_that_promises_too_much(tmp_path):
    path = tmp_path / "d.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"1234")
    refused(read_depth, path, "cannot be read as a .npy array")
    np.save(path, some_depth())
    path.write_bytes(path.read_bytes() + b"more")
    refused(read_depth, path, "goes on for 4 bytes after its array")


@pytest.mark.parametrize("ending", ["png", "tiff"])  # a .npz names its array confidence
def test_a_confidence_map_is_no_depth(tmp_path, ending):
    path = tmp_path / f"confidence.{ending}"
    write_confidence(path, np.full((3, 4), 0.5, np.float32))
    with pytest.raises(InputError, match="is a confidence map that depthup wrote, expected depth"):
        read_depth(path)


def test_the_unit_in_somebodys_npz(tmp_path):
    path = tmp_path / "depth.npz"
    np.savez(path, depth=np.full((3, 4), 10000, np.uint16), depth_unit="tum")
    assert (read_depth(path) == 2).all()
    assert (read_depth(path, "mm") == 10).all()
    np.savez(path, depth=np.full((3, 4), 10000, np.uint16), depth_unit="inch")
    with pytest.raises(InputError, match="records depth unit 'inch', expected one of mm, m"):
        read_depth(path)
