"""The official NYUv2 file, written here in its layout."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from depthup.data import CachedPairs, InputError, NYUv2Mat, is_validation_scene, open_dataset

H, W, COUNT = 12, 20, 30


def frames(count=COUNT):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (count, H, W, 3)).astype(np.uint8)
    depth = rng.uniform(0.7, 9.9, (count, H, W)).astype(np.float32)
    return rgb, depth


def write(path, count=COUNT, scenes=True, indices=None):
    """A file as MATLAB writes it: width before height, scenes as references to columns of character codes."""
    rgb, depth = frames(count)
    with h5py.File(path, "w") as file:
        file["images"] = rgb.transpose(0, 3, 2, 1)
        file["depths"] = depth.transpose(0, 2, 1)
        if scenes:
            references = np.empty((1, count), h5py.ref_dtype)
            for number in range(count):
                codes = np.frombuffer(f"küche_{number // 3:04d}".encode("utf-16-le"), "<u2")
                file[f"#refs#/{number}"] = codes[:, None]
                references[0, number] = file[f"#refs#/{number}"].ref
            file["scenes"] = references
        if indices is not None:
            file["indices"] = indices
    return path


def refused(path, *words, split="all"):
    with pytest.raises(InputError) as caught:
        NYUv2Mat(path, split)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "expected" in message
    for word in words:
        assert word in message


def test_axes_are_turned(tmp_path):
    pairs = NYUv2Mat(write(tmp_path / "nyu.mat"))
    rgb, depth = frames()
    assert len(pairs) == COUNT
    assert (pairs.unit, pairs.border, pairs.title) == ("m", 6, "NYU Depth v2, split all")
    for number in (0, 7, COUNT - 1):
        pair = pairs[number]
        assert (pair.name, pair.scene, pair.unit) == (f"{number:04d}", f"küche_{number // 3:04d}", "m")
        assert pair.depth.dtype == np.float32
        np.testing.assert_array_equal(pair.rgb, rgb[number])
        np.testing.assert_array_equal(pair.depth, depth[number])


def test_train_and_val_share_no_scene(tmp_path):
    path = write(tmp_path / "nyu.mat", 90)
    train, val = NYUv2Mat(path, "train"), open_dataset(str(path), "val")
    assert len(train) + len(val) == 90
    assert not set(train.scenes) & set(val.scenes)
    assert all(is_validation_scene(scene) for scene in val.scenes)


def test_test_part_by_official_index(tmp_path):
    indices = np.arange(0, 1200, 40, dtype=np.int32)
    pairs = NYUv2Mat(write(tmp_path / "nyu.mat", indices=indices), "test")
    assert pairs.names == ["1000", "1040", "1080", "1120", "1160"]
    np.testing.assert_array_equal(pairs[0].depth, frames()[1][25])


def test_no_test_part(tmp_path):
    refused(write(tmp_path / "nyu.mat"), "all 30 pairs are of the training part", "use --split val", split="test")


def test_blocks_stand_in_for_scenes(tmp_path):
    path = write(tmp_path / "nyu.mat", 60, scenes=False, indices=np.arange(0, 240, 4, dtype=np.int32))
    pairs = NYUv2Mat(path)
    assert pairs.scenes[:6] == ["frames 0000-0019"] * 5 + ["frames 0020-0039"]
    assert len(set(pairs.scenes)) == 12
    train, val = (NYUv2Mat(path, split) for split in ("train", "val"))
    assert len(train) + len(val) == 60
    assert not set(train.scenes) & set(val.scenes)


def test_holes_and_negative_depth(tmp_path):
    path = write(tmp_path / "nyu.mat")
    with h5py.File(path, "a") as file:
        file["depths"][0, 0, :3] = 0, np.nan, np.inf
        file["depths"][1, 0, 0] = -1
    pairs = NYUv2Mat(path)
    assert np.isnan(pairs[0].depth[:3, 0]).all()
    assert np.isnan(pairs[0].depth).sum() == 3
    with pytest.raises(InputError, match="depth of frame 1 is negative"):
        pairs[1]


def test_damaged_frame(tmp_path):
    path = tmp_path / "nyu.mat"
    rgb, depth = frames(2)
    with h5py.File(path, "w") as file:
        file["images"] = rgb.transpose(0, 3, 2, 1)
        chunked = {"chunks": (1, W, H), "compression": "gzip", "fletcher32": True}
        place = file.create_dataset("depths", data=depth.transpose(0, 2, 1), **chunked).id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 30 : place.byte_offset + 60] = bytes(30)
    path.write_bytes(bytes(content))
    pairs = NYUv2Mat(path)
    np.testing.assert_array_equal(pairs[0].depth, depth[0])
    with pytest.raises(InputError, match="frame 1 cannot be read, expected an intact file"):
        pairs[1]


class Depths(Dataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return torch.from_numpy(self.pairs[index].depth)


def test_workers_of_a_data_loader(tmp_path):
    pairs = NYUv2Mat(write(tmp_path / "nyu.mat"))
    np.testing.assert_array_equal(pairs[3].depth, frames()[1][3])
    loader = DataLoader(Depths(pairs), batch_size=4, num_workers=2, multiprocessing_context="fork")
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), frames()[1])
    np.testing.assert_array_equal(pairs[4].depth, frames()[1][4])


def test_pickled_after_use(tmp_path):
    pairs = NYUv2Mat(write(tmp_path / "nyu.mat"))
    first = pairs[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pairs))[0].depth, first.depth)


def test_cached_by_threads(tmp_path):
    cached = CachedPairs(NYUv2Mat(write(tmp_path / "nyu.mat")), workers=3)
    np.testing.assert_array_equal(np.stack([cached[number].depth for number in range(COUNT)]), frames()[1])


def test_files_that_are_not_the_set(tmp_path):
    path = tmp_path / "nyu.mat"
    refused(path, "no such file")
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    refused(path, "not an HDF5 file")
    (tmp_path / "folder.mat").mkdir()
    refused(tmp_path / "folder.mat", "is a folder")
    content = write(tmp_path / "nyu.mat").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "cannot be opened (truncated?)")


def test_wrong_layout(tmp_path):
    path = tmp_path / "nyu.mat"
    rgb, depth = frames(2)
    images, depths = rgb.transpose(0, 3, 2, 1), depth.transpose(0, 2, 1)
    for content, words in (
        ({"images": images}, ["no data set depths"]),
        ({"depths": depths}, ["no data set images"]),
        ({"other": depths}, ["no data set images and no depths"]),
        ({"images": rgb, "depths": depths}, ["images uint8 [2, 12, 20, 3]"]),
        ({"images": images, "depths": depth}, ["depths float32 [2, 12, 20]"]),
        ({"images": images, "depths": depths[:1]}, ["depths float32 [1, 20, 12]"]),
        ({"images": images.astype(np.float32), "depths": depths}, ["images float32"]),
        ({"images": images, "depths": depths.astype(np.uint16)}, ["depths uint16"]),
        ({"images": images, "depths": depths, "indices": np.arange(3)}, ["indices is int64 [3]", "2 integers"]),
        ({"images": images, "depths": depths, "indices": np.array([0, -1])}, ["indices"]),
        ({"images": images, "depths": depths, "scenes": np.arange(2)}, ["scenes holds 2 entries of int64"]),
    ):
        with h5py.File(path, "w") as file:
            for name, values in content.items():
                file[name] = values
        refused(path, *words)
    write(path, 3)
    with h5py.File(path, "a") as file:
        references = file["scenes"][:, :2]
        del file["scenes"]
        file.create_dataset("scenes", data=references, dtype=h5py.ref_dtype)
    refused(path, "a reference for each of 3 frames")


def test_depth_in_another_unit_is_doubted_once(tmp_path, caplog):
    path = write(tmp_path / "nyu.mat")
    list(NYUv2Mat(path))
    assert not caplog.messages
    with h5py.File(path, "a") as file:
        file["depths"][...] = file["depths"][()] * 1000
    list(NYUv2Mat(path))
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(f"{path}: its median is 4.88e+03 m")
    assert caplog.messages[0].endswith("m; frame 0; expected metres")
