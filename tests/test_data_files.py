"""Reading RGB, depth and disparity: values, units, and one clear line for every bad file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from depthup.data import DEPTH_UNITS, InputError, read_depth, read_disparity, read_mask, read_rgb

H, W = 48, 64


@pytest.fixture
def millimetres():
    depth = np.random.default_rng(0).integers(500, 9000, (H, W)).astype(np.uint16)
    depth[3:6, 4:9] = 0
    return depth


@pytest.fixture
def colours():
    return np.random.default_rng(1).integers(0, 256, (H, W, 3)).astype(np.uint8)


def save(path, image):
    """Any image, at a path OpenCV's own writer might not take."""
    ok, content = cv2.imencode(path.suffix, image)
    assert ok
    path.write_bytes(content.tobytes())
    return path


def one_line(read, path, *words, **options):
    """The reader raises InputError: one line that names the file and holds the words."""
    with pytest.raises(InputError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "expected" in message or "pass a" in message
    for word in words:
        assert word in message
    return message


def test_rgb_is_rgb(tmp_path, colours):
    path = save(tmp_path / "ünïcode 图.png", colours[..., ::-1])
    assert np.array_equal(read_rgb(path), colours)
    assert np.array_equal(read_rgb(str(path)), colours)


def test_rgb_drops_alpha_and_replicates_grey(tmp_path, colours):
    alpha = np.dstack([colours[..., ::-1], np.full((H, W), 128, np.uint8)])
    assert np.array_equal(read_rgb(save(tmp_path / "a.png", alpha)), colours)
    grey = read_rgb(save(tmp_path / "g.png", colours[..., 0]))
    assert np.array_equal(grey, np.repeat(colours[..., :1], 3, 2))


def test_rgb_of_16_bits_is_refused(tmp_path, colours):
    path = save(tmp_path / "a.png", colours.astype(np.uint16) * 257)
    one_line(read_rgb, path, "uint16", "8 bits per channel")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".pgm"])
@pytest.mark.parametrize("unit", DEPTH_UNITS)
def test_depth_of_16_bits(tmp_path, millimetres, suffix, unit):
    path = tmp_path / f"d{suffix}"
    ok, content = cv2.imencode(suffix, millimetres, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert ok
    path.write_bytes(content.tobytes())
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    depth = read_depth(path, unit)
    assert depth.dtype == np.float32
    assert np.array_equal(np.isnan(depth), stored == 0)
    np.testing.assert_array_equal(depth[stored > 0], stored[stored > 0].astype(np.float32) / DEPTH_UNITS[unit])


def test_depth_is_millimetres_unless_said(tmp_path, millimetres):
    assert np.array_equal(
        read_depth(save(tmp_path / "d.png", millimetres)), read_depth(tmp_path / "d.png", "mm"), equal_nan=True
    )


def test_float_depth(tmp_path):
    metres = np.linspace(0.5, 9, H * W, dtype=np.float32).reshape(H, W)
    metres[0, :3] = np.nan, np.inf, 0
    for path in (save(tmp_path / "d.tiff", metres), tmp_path / "d.npy"):
        np.save(tmp_path / "d.npy", metres.astype(np.float64))
        depth = read_depth(path, "m")
        assert depth.dtype == np.float32
        assert np.isnan(depth[0, :3]).all()
        np.testing.assert_array_equal(depth.ravel()[3:], metres.ravel()[3:])


def test_integer_array(tmp_path, millimetres):
    np.save(tmp_path / "d.npy", millimetres)
    depth = read_depth(tmp_path / "d.npy")
    np.testing.assert_array_equal(np.nan_to_num(depth, nan=0), millimetres.astype(np.float32) / 1000)


def test_unknown_unit(tmp_path):
    with pytest.raises(ValueError, match="'cm' is unknown, expected auto or one of mm, m, tum, kitti"):
        read_depth(tmp_path / "d.png", "cm")


def test_depth_of_8_bits_is_refused(tmp_path, colours):
    one_line(read_depth, save(tmp_path / "d.png", colours[..., 0]), "8-bit depth holds 256 levels", "16-bit")
    np.save(tmp_path / "d.npy", colours[..., 0])
    one_line(read_depth, tmp_path / "d.npy", "8-bit depth holds 256 levels")


def test_coloured_depth_is_refused(tmp_path, colours):
    one_line(read_depth, save(tmp_path / "d.png", colours), "3 channels, expected one")
    one_line(read_disparity, save(tmp_path / "e.png", colours), "3 channels, expected one")


def test_negative_depth_is_refused(tmp_path):
    metres = np.ones((H, W), np.float32)
    metres[2, 2:5] = -1
    one_line(read_depth, save(tmp_path / "d.tiff", metres), "negative at 3 pixels", unit="m")
    np.save(tmp_path / "d.npy", metres.astype(np.int16))
    one_line(read_depth, tmp_path / "d.npy", "negative at 3 pixels")


def test_bad_arrays_are_refused(tmp_path, millimetres):
    path = tmp_path / "d.npy"
    one_line(read_depth, path, "no such file")
    np.save(path, millimetres[0])
    one_line(read_depth, path, "shape [64]", "[height, width]")
    np.save(path, millimetres > 0)
    one_line(read_depth, path, "bool")
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    one_line(read_depth, path, "holds Python objects, which are never unpickled")
    np.save(path, millimetres)
    path.write_bytes(path.read_bytes()[:300])
    one_line(read_depth, path, "cannot be read as a .npy array")


def test_disparity(tmp_path, colours):
    disparity = colours[..., 0].copy()
    disparity[0, 0] = 0
    for image in (disparity, disparity.astype(np.uint16)):
        values = read_disparity(save(tmp_path / "d.png", image))
        assert values.dtype == np.float32
        assert np.array_equal(np.isnan(values), disparity == 0)
        np.testing.assert_array_equal(values[disparity > 0], disparity[disparity > 0])


@pytest.mark.parametrize("read", [read_rgb, read_depth, read_disparity])
def test_files_that_are_no_image(tmp_path, read):
    one_line(read, tmp_path / "none.png", "no such file")
    (tmp_path / "folder.png").mkdir()
    one_line(read, tmp_path / "folder.png", "is a folder")
    (tmp_path / "empty.png").write_bytes(b"")
    one_line(read, tmp_path / "empty.png", "is empty")
    (tmp_path / "text.png").write_text("this is no image")
    one_line(read, tmp_path / "text.png", "cannot be decoded")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jp2", ".tif", ".bmp", ".webp"])
def test_truncated_rgb(tmp_path, colours, suffix, capfd):
    path = save(tmp_path / f"a{suffix}", colours)
    content = path.read_bytes()
    assert read_rgb(path).shape == (H, W, 3)
    for length in (10, len(content) // 3, len(content) * 3 // 4, len(content) - 8):
        path.write_bytes(content[:length])
        one_line(read_rgb, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jp2", ".tif", ".pgm"])
def test_truncated_depth(tmp_path, millimetres, suffix, capfd):
    path = save(tmp_path / f"d{suffix}", millimetres)
    content = path.read_bytes()
    for length in (10, len(content) // 3, len(content) * 3 // 4, len(content) - 8):
        path.write_bytes(content[:length])
        one_line(read_depth, path)
    assert capfd.readouterr().err == ""


def test_truncation_is_named(tmp_path, colours):
    for suffix, name in ((".png", "truncated PNG"), (".jpg", "truncated JPEG"), (".jp2", "truncated JPEG 2000")):
        path = save(tmp_path / f"a{suffix}", colours)
        path.write_bytes(path.read_bytes()[:-20])
        one_line(read_rgb, path, name)


def test_damaged_png(tmp_path, colours):
    path = save(tmp_path / "a.png", colours)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    one_line(read_rgb, path, "damaged PNG", "IDAT")


def test_log_level_is_given_back(tmp_path, colours):
    log = getattr(cv2.utils, "logging", cv2)  # from OpenCV 4.13 on, and before
    before = log.getLogLevel()
    read_rgb(save(tmp_path / "a.png", colours))
    assert log.getLogLevel() == before


def test_half_precision_tiff_is_named(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "half.tif", np.ones((4, 5), np.float16))
    one_line(read_depth, tmp_path / "half.tif", "holds float16, expected float32 or 16-bit integers")


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="no such device here")
@pytest.mark.parametrize("read", [read_rgb, read_depth])
def test_a_device_without_an_end_is_refused(read):
    one_line(read, Path("/dev/zero"), "is a device, expected an image file")


def test_alpha_of_a_tiff_is_dropped(tmp_path, colours):
    alpha = np.random.default_rng(2).integers(0, 256, (H, W, 1)).astype(np.uint8)
    for kind in ("unassalpha", "assocalpha", "unspecified"):
        for order in "<>":
            path = tmp_path / f"{kind}.tif"
            image = np.dstack([colours, alpha])
            tifffile.imwrite(path, image, photometric="rgb", extrasamples=[kind], byteorder=order)
            assert np.array_equal(read_rgb(path), colours)
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "pil.tif", compression="tiff_lzw")
    assert np.array_equal(read_rgb(tmp_path / "pil.tif"), colours)


def test_bands_of_a_tiff(tmp_path, colours, millimetres):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colours, photometric="minisblack", planarconfig="contig")
    one_line(read_rgb, path, "has 3 bands that are not RGB")
    for planes in ("contig", "separate"):
        bands = np.stack([millimetres] * 3, -1 if planes == "contig" else 0)
        tifffile.imwrite(path, bands, photometric="minisblack", planarconfig=planes)
        one_line(read_depth, path, "depth has 3 channels, expected one")
    tifffile.imwrite(path, np.stack([millimetres] * 2, -1), photometric="minisblack", planarconfig="contig")
    one_line(read_disparity, path, "disparity has 2 channels, expected one")
    one_line(read_rgb, path, "RGB holds uint16 values, expected 8 bits per channel")


def test_files_that_alter_values_are_no_masks(tmp_path, millimetres):
    grey = np.where(millimetres > 4000, 255, 0).astype(np.uint8)
    assert read_mask(save(tmp_path / "a.png", grey), (H, W)).sum() == (grey > 0).sum()
    one_line(read_disparity, save(tmp_path / "a.jpg", grey), "is a JPEG or WebP file, which alters values")
    with pytest.raises(InputError, match="is a JPEG or WebP file, which alters values; expected mask in PNG"):
        read_mask(tmp_path / "a.jpg", (H, W))


def test_webp_with_damaged_exif(tmp_path, colours):
    for exif in (b"garbage garbage garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12"):
        Image.fromarray(colours).save(tmp_path / "a.webp", lossless=True, exif=exif)
        found = read_rgb(tmp_path / "a.webp")
        assert np.array_equal(found, colours) and found.flags.writeable


def test_a_mask_of_a_tiff_may_have_alpha(tmp_path):
    grey = np.random.default_rng(0).integers(0, 2, (H, W)).astype(np.uint8) * 255
    Image.fromarray(np.dstack([grey, np.full((H, W), 128, np.uint8)]), "LA").save(tmp_path / "a.tif")
    assert np.array_equal(read_mask(tmp_path / "a.tif", (H, W)), grey > 0)
