"""RGB-D pairs: reading or rendering them, making low-resolution depth out of them, and cutting training crops."""

from depthup.data.camera import Camera
from depthup.data.crops import CachedPairs, CropSampler, prefetch
from depthup.data.depth_encoding import DEPTH_KINDS, DEPTH_UNITS, DepthEncoding
from depthup.data.errors import InputError, UsageError
from depthup.data.files import (
    DEPTH_SUFFIXES,
    RGB_SUFFIXES,
    read_confidence,
    read_depth,
    read_disparity,
    read_mask,
    read_rgb,
)
from depthup.data.low_resolution import PROTOCOLS, crop_to_multiple, make_low_resolution
from depthup.data.motorcycle import Motorcycle, motorcycle
from depthup.data.nyuv2 import NYUv2Mat
from depthup.data.opening import input_files, open_dataset
from depthup.data.pairing import Frame, Recording, pair_folders, with_maps
from depthup.data.pairs import SPLITS, JoinedPairs, Pair, PairDataset, PairFolder, SomePairs, is_validation_scene
from depthup.data.recordings import open_recording
from depthup.data.sensor import STANDARD_SENSOR, Sensor
from depthup.data.synthetic import Synthetic, synthetic_pair

__all__ = [
    "DEPTH_KINDS",
    "DEPTH_SUFFIXES",
    "DEPTH_UNITS",
    "PROTOCOLS",
    "RGB_SUFFIXES",
    "SPLITS",
    "STANDARD_SENSOR",
    "CachedPairs",
    "Camera",
    "CropSampler",
    "DepthEncoding",
    "Frame",
    "InputError",
    "JoinedPairs",
    "Motorcycle",
    "NYUv2Mat",
    "Pair",
    "PairDataset",
    "PairFolder",
    "Recording",
    "Sensor",
    "SomePairs",
    "Synthetic",
    "UsageError",
    "crop_to_multiple",
    "input_files",
    "is_validation_scene",
    "make_low_resolution",
    "motorcycle",
    "open_dataset",
    "open_recording",
    "pair_folders",
    "prefetch",
    "read_confidence",
    "read_depth",
    "read_disparity",
    "read_mask",
    "read_rgb",
    "synthetic_pair",
    "with_maps",
]
