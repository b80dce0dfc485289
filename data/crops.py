"""Training crops: pairs decoded once into compact memory, and batches that depend on seed and step alone."""

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from depthup.data.errors import InputError
from depthup.data.low_resolution import check_protocol, crop_to_multiple, make_low_resolution
from depthup.data.pairs import Pair, PairDataset, check_pair
from depthup.data.sensor import check_metres, random_plane, random_sensor

BLOCK = 16
"""Side of the blocks over which the bicubic error of an image is summed, in pixels."""

HARDEST_PROBABILITY = 0.75
"""How often the candidate position with the largest bicubic error is taken."""

LEAST_HARD_SCALE = 4
"""Bicubic up-sampling by less errs too little to tell crops apart, by 1 not at all."""

RIM = 8
"""One crop in about ten lies at each rim of the image, white frame and all, which is scored too: one of RIM + 2."""

SUPPORT_CELLS = 2
"""Low-resolution cells around a crop that its bicubic cells see: a = -0.5 reaches 1.5 cells beyond its own."""

SMALLEST_FACTOR = 0.5
"""By how much a crop is reduced at most for scale augmentation."""

AUGMENTATIONS = ("standard", "strong", "merged")
"""How much crops are varied."""

MERGE_PROBABILITY = 0.5
"""How often `merged` puts a part of another image before a crop."""

LARGEST_RESIZE = 2.5
"""By how much the depth of that part is multiplied or divided at most, to lie among that of the crop."""

PLANE_PROBABILITY = 0.05
"""How often the depth under a crop for sensor training is a plane that has nothing to do with the RGB image."""

_MM = np.float32(1000)


class CachedPairs:
    """Every pair of a data set, decoded once and kept in memory (about 1.5 MB for 640x480); itself a data set.

    Depth in metres that is a whole number of millimetres is kept as uint16, all else as float32: nothing is lost.

    Args:
        dataset: where the pairs come from.
        progress: called in this thread with (pairs decoded, pairs in all) after each pair.
        workers: decoding threads; without it some more than there are cores.

    Raises:
        InputError: a file of the data set is bad.
    """

    def __init__(
        self, dataset: PairDataset, progress: Callable[[int, int], None] | None = None, workers: int | None = None
    ) -> None:
        self.names, self.scenes = list(dataset.names), list(dataset.scenes)
        self.unit, self.title, self.border = dataset.unit, dataset.title, dataset.border
        self._rgb: list[np.ndarray] = []
        self._depth: list[np.ndarray] = []

        def decode(index: int) -> tuple[np.ndarray, np.ndarray]:
            pair = dataset[index]
            check_pair(pair, dataset)
            return pair.rgb, _compact(pair.depth) if pair.unit == "m" else pair.depth

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(decode, index) for index in range(len(dataset))]
            try:
                for done, future in enumerate(futures, 1):
                    rgb, depth = future.result()
                    self._rgb.append(rgb)
                    self._depth.append(depth)
                    if progress:
                        progress(done, len(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def __len__(self) -> int:
        return len(self._rgb)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.names[index], self.scenes[index], self._rgb[index], self.depth(index), self.unit)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a pair in pixels."""
        height, width = self._depth[index].shape
        return height, width

    def rgb(self, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """uint8 [h, w, 3], RGB, a view of part of an image."""
        return self._rgb[index][rows, columns]

    def depth(self, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """float32 [h, w] in the unit of the data set, NaN = no measurement, a copy of part of a depth map."""
        part = self._depth[index][rows, columns]
        if part.dtype != np.uint16:
            return part.copy()
        values = part.astype(np.float32)
        values /= _MM
        values[part == 0] = np.nan
        return values


def _compact(depth: np.ndarray) -> np.ndarray:
    """uint16 millimetres (0 = no measurement) if that loses nothing, else the float32 metres given."""
    known = ~np.isnan(depth)
    millimetres = np.rint(np.where(known, depth, 0) * _MM)
    exact = (millimetres / _MM == depth) & (millimetres > 0) & (millimetres <= 65535)
    return millimetres.astype(np.uint16) if np.all(exact | ~known) else depth


@dataclass(frozen=True)
class _ImageFacts:
    """What is computed once about an image."""

    error: np.ndarray  # float32 [H/16+1, W/16+1], integral of the absolute bicubic error
    low_range: np.ndarray  # float32 [2, 2, 2], (vertical flip, horizontal flip) -> minimum and maximum of the low depth


def check_crop_size(name: str, size: tuple[int, int], crop_size: int, scale: int) -> None:
    """Raise InputError where an image of this height and width, without what is beyond whole cells, holds no crop."""
    height, width = size
    if min(height, width) // scale * scale < crop_size:
        raise InputError(
            f"{name}: is {width}x{height} pixels, expected at least {crop_size}x{crop_size} for crops of"
            f" {crop_size} (--crop-size)"
        )


def check_augmentation(augmentation: str, rescale: float) -> None:
    """Raise ValueError for what is not one of `AUGMENTATIONS`, or no probability of a reduced crop."""
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation: got {augmentation!r}, expected one of {', '.join(AUGMENTATIONS)}")
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: got {rescale}, expected a probability from 0 to 1")


class CropSampler:
    """Batches of random crops for training, each crop a pure function of seed, step and its place in the batch.

    So resuming is exact, and processes that train together make the crops of one batch, each its own.

    Every pair is drawn once per epoch, in an order that depends on seed and epoch. Of `candidates` random positions on
    the grid of low-resolution cells the one where bicubic up-sampling errs most is taken three times out of four. Crops
    are flipped, and the RGB image's brightness, contrast, gamma and saturation vary. The low-resolution depth of a crop
    is that of the whole flipped image, cut: the cells at the rim see beyond the crop.

    Args:
        pairs: where crops come from.
        crop_size: side of a crop in pixels, a multiple of `scale`.
        scale: up-sampling factor s.
        protocol: how low-resolution depth is made, one of `PROTOCOLS`.
        batch_size: crops in a batch, B.
        seed: >= 0.
        candidates: positions drawn for a crop; 1 = uniform.
        sensor: whether low-resolution depth is what a random `Sensor` measures, holes and all, instead of the
            protocol's; RGB is then sometimes softened too, and depth sometimes a plane.
        rescale: how often, 0..1, a crop is a larger part of the image, reduced by 0.5 to 1: scale augmentation.
        augmentation: one of `AUGMENTATIONS`; with `strong` every other crop is transposed, and colours vary more, in
            hue and white balance too; with `merged`, besides, every other crop shows two images at once: a part of
            another stands before it wherever it is nearer, in RGB and depth. That makes new depth edges whose colours
            and whose misalignment of the two are real.
        places: those in a batch whose crops this sampler makes; without it all.

    Raises:
        ValueError: `crop_size` is not a multiple of `scale`, the protocol is unknown, or `sensor` for data that are not
            in metres.
        InputError: an image is too small for a crop, or has no measurement at all.
    """

    def __init__(
        self,
        pairs: CachedPairs,
        crop_size: int,
        scale: int,
        protocol: str,
        batch_size: int,
        seed: int,
        candidates: int = 4,
        sensor: bool = False,
        rescale: float = 0.0,
        augmentation: str = "standard",
        places: range | None = None,
    ) -> None:
        if sensor:
            check_metres(pairs)
        if crop_size < 1 or crop_size % scale:
            raise ValueError(f"crop size {crop_size} is not a multiple of scale {scale}")
        check_protocol(protocol)
        check_augmentation(augmentation, rescale)
        if batch_size < 1 or candidates < 1 or seed < 0 or not len(pairs):
            raise ValueError("batch_size and candidates must be >= 1, seed >= 0, and there must be pairs")
        self.pairs, self.crop_size, self.scale, self.protocol = pairs, crop_size, scale, protocol
        self.batch_size, self.seed, self.candidates, self.sensor = batch_size, seed, candidates, sensor
        self.rescale, self.strong, self.merged = rescale, augmentation != "standard", augmentation == "merged"
        self.places = range(batch_size) if places is None else places
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        with ThreadPoolExecutor() as pool:
            self._facts = list(pool.map(self._measure, range(len(pairs))))

    def _size(self, index: int) -> tuple[int, int]:
        """Height and width of a pair without what is beyond a multiple of the scale."""
        height, width = self.pairs.size(index)
        return height // self.scale * self.scale, width // self.scale * self.scale

    def _measure(self, index: int) -> _ImageFacts:
        name = f"{self.pairs.title}: {self.pairs.names[index]}"
        check_crop_size(name, self.pairs.size(index), self.crop_size, self.scale)
        depth = crop_to_multiple(self.pairs.depth(index), self.scale)
        low = make_low_resolution(depth, self.scale, self.protocol)
        if np.isnan(low).all():
            raise InputError(f"{name}: depth has no measurement to train on, expected some")
        ranges = self._low_ranges(depth, low)
        if self.scale < LEAST_HARD_SCALE:
            depth = crop_to_multiple(depth, LEAST_HARD_SCALE)
            low = make_low_resolution(depth, LEAST_HARD_SCALE, self.protocol)
        return _ImageFacts(_error_integral(depth, low), ranges)

    def _low_ranges(self, depth: np.ndarray, low: np.ndarray) -> np.ndarray:
        ranges = np.empty((2, 2, 2), np.float32)
        ranges[:] = np.nanmin(low), np.nanmax(low)
        if self.protocol == "pac":
            # Off-centre samples of a flipped image are other samples.
            for vertical, horizontal in ((0, 1), (1, 0), (1, 1)):
                flipped = depth[:: -1 if vertical else 1, :: -1 if horizontal else 1]
                low = make_low_resolution(flipped, self.scale, "pac")
                if not np.isnan(low).all():
                    ranges[vertical, horizontal] = np.nanmin(low), np.nanmax(low)
        return ranges

    def _index(self, position: int) -> int:
        """The pair at a position of the endless sequence of epochs."""
        epoch, place = divmod(position, len(self.pairs))
        known, order = self._order
        if known != epoch:
            sequence = np.random.SeedSequence([self.seed, epoch], spawn_key=(1,))
            order = np.random.default_rng(sequence).permutation(len(self.pairs))
            self._order = (epoch, order)
        return int(order[place])

    def _position(self, index: int, side: int, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a square window, on the grid of low-resolution cells."""
        height, width = self._size(index)
        free = np.array([height, width]) - side
        last = free // self.scale
        beyond = last // RIM
        places = rng.integers(-beyond, last + beyond + 1, (self.candidates, 2)).clip(0, last) * self.scale
        chosen = 0
        if rng.random() < HARDEST_PROBABILITY:
            chosen = int(np.argmax(_window_sums(self._facts[index].error, places, side)))
        return int(places[chosen, 0]), int(places[chosen, 1])

    def _part(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
        """RGB of a crop [S, S, 3]; its depth and how much of that lies above, below, left and right of the crop."""
        height, width = self._size(index)
        beyond, size = SUPPORT_CELLS * self.scale, self.crop_size
        if self.rescale and rng.random() < self.rescale:
            whole = size + 2 * beyond
            side = min(round(whole / rng.uniform(SMALLEST_FACTOR, 1)), min(height, width))
            if side > whole:
                top, left = self._position(index, side, rng)
                window = slice(top, top + side), slice(left, left + side)
                colours = cv2.resize(self.pairs.rgb(index, *window), (whole, whole), interpolation=cv2.INTER_AREA)
                # Linear: at most one pixel at an edge mixes two surfaces.
                depth = cv2.resize(self.pairs.depth(index, *window), (whole, whole), interpolation=cv2.INTER_LINEAR)
                return colours[beyond:-beyond, beyond:-beyond], depth, (beyond, beyond, beyond, beyond)
        top, left = self._position(index, size, rng)
        up, before = min(beyond, top), min(beyond, left)
        down, after = min(beyond, height - top - size), min(beyond, width - left - size)
        depth = self.pairs.depth(index, slice(top - up, top + size + down), slice(left - before, left + size + after))
        colours = self.pairs.rgb(index, slice(top, top + size), slice(left, left + size))
        return colours, depth, (up, down, before, after)

    def _merge(
        self, colours: np.ndarray, depth: np.ndarray, around: tuple[int, int, int, int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """RGB and depth of a part as `_part` gives them, behind what is nearer in a part of another image."""
        size, (up, _, before, _) = self.crop_size, around
        other = int(rng.integers(len(self.pairs)))
        room = np.array(self.pairs.size(other)) - depth.shape
        if room.min() < 0:
            return colours, depth
        top, left = rng.integers(room + 1)
        before_it = self.pairs.depth(other, slice(top, top + depth.shape[0]), slice(left, left + depth.shape[1]))
        row, column = top + up, left + before
        seen = self.pairs.rgb(other, slice(row, row + size), slice(column, column + size))
        own, its = _some_depth(depth, rng), _some_depth(before_it, rng)
        factor = own / its if its > 0 else np.nan
        before_it *= np.float32(np.clip(factor, 1 / LARGEST_RESIZE, LARGEST_RESIZE))
        nearer = before_it < depth if self.pairs.unit == "m" else before_it > depth
        inner = nearer[up : up + size, before : before + size, None]
        return np.where(inner, seen, colours), np.where(nearer, before_it, depth)

    def _cut(
        self,
        depth: np.ndarray,
        around: tuple[int, int, int, int],
        flips: tuple[bool, bool],
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth [S, S] and low-resolution depth [S/s, S/s] of a flipped crop, from depth that reaches beyond it."""
        up, down, before, after = around
        if flips[0]:
            depth, up = depth[::-1], down
        if flips[1]:
            depth, before = depth[:, ::-1], after
        if self.sensor:
            if rng.random() < PLANE_PROBABILITY:
                depth = random_plane(depth.shape, rng)
            low = random_sensor(rng, self.scale).measure(depth, self.scale, rng)
        else:
            low = make_low_resolution(depth, self.scale, self.protocol)
        size = self.crop_size
        row, column, cells = up // self.scale, before // self.scale, size // self.scale
        return depth[up : up + size, before : before + size], low[row : row + cells, column : column + cells]

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of a step, or what this sampler makes of it.

        Args:
            step: >= 0.

        Returns:
            float32 tensors of B places: `rgb` [B, 3, S, S] in 0..1; `depth` [B, 1, S, S] in the unit of the data set,
            NaN where unknown; `low` [B, 1, S/s, S/s], likewise; `low_range` [B, 2], minimum and maximum of the *whole*
            image's low-resolution depth (for a sensor, what may stand for them).
        """
        B, S = len(self.places), self.crop_size
        rgb = np.empty((B, 3, S, S), np.float32)
        depth = np.empty((B, 1, S, S), np.float32)
        low = np.empty((B, 1, S // self.scale, S // self.scale), np.float32)
        low_range = np.empty((B, 2), np.float32)
        for n, place in enumerate(self.places):
            index = self._index(step * self.batch_size + place)
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, step, place]))
            colours, wide, around = self._part(index, rng)
            if self.merged and rng.random() < MERGE_PROBABILITY:
                colours, wide = self._merge(colours, wide, around, rng)
            flips = bool(rng.random() < 0.25), bool(rng.random() < 0.5)
            depth[n, 0], low[n, 0] = self._cut(wide, around, flips, rng)
            if self.sensor:
                colours = _soften(colours, rng)
            colours = colours[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
            rgb[n] = _jitter_strongly(colours, rng) if self.strong else _jitter(colours, rng)
            if self.strong and rng.random() < 0.5:
                for image in (rgb[n], depth[n], low[n]):
                    image[:] = image.swapaxes(1, 2).copy()
            low_range[n] = self._facts[index].low_range[int(flips[0]), int(flips[1])]
            if self.merged or self.sensor:
                low_range[n] = _with_own(low_range[n], low[n])
            if self.sensor:
                low_range[n] = _widened(low_range[n], rng)
        arrays = {"rgb": rgb, "depth": depth, "low": low, "low_range": low_range}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _error_integral(depth: np.ndarray, low: np.ndarray) -> np.ndarray:
    """float32 [H/16+1, W/16+1]: sum over all blocks above and left of the absolute error of bicubic up-sampling."""
    filled = torch.from_numpy(np.where(np.isnan(low), np.float32(np.nanmean(low)), low))
    up = F.interpolate(filled[None, None], size=depth.shape, mode="bicubic", align_corners=False)[0, 0].numpy()
    error = np.nan_to_num(np.abs(up - depth), nan=0.0)
    rows, columns = -(-depth.shape[0] // BLOCK), -(-depth.shape[1] // BLOCK)
    error = np.pad(error, ((0, rows * BLOCK - error.shape[0]), (0, columns * BLOCK - error.shape[1])))
    blocks = error.reshape(rows, BLOCK, columns, BLOCK).sum((1, 3), dtype=np.float64)
    return np.pad(blocks.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.float32)


def _window_sums(integral: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Error in the blocks nearest to the window at each place (top, left): equally many blocks for every place."""
    count = max(1, round(size / BLOCK))
    first = np.minimum((places + BLOCK // 2) // BLOCK, np.array(integral.shape) - 1 - count)
    first = np.maximum(first, 0)
    last = np.minimum(first + count, np.array(integral.shape) - 1)
    top, left, bottom, right = first[:, 0], first[:, 1], last[:, 0], last[:, 1]
    return integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]


def _soften(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h, w, 3], one time in four as if enlarged from a smaller image: RGB on an odd grid is resampled."""
    if rng.random() >= 0.25:
        return colours
    height, width = colours.shape[:2]
    factor = rng.uniform(0.5, 0.9)
    small = cv2.resize(colours, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _some_depth(part: np.ndarray, rng: np.random.Generator) -> float:
    """A depth between the tenths at either end of a part's, NaN where nothing is known."""
    known = part[::8, ::8]
    known = known[~np.isnan(known)]
    return float(np.quantile(known, rng.uniform(0.1, 0.9))) if known.size else np.nan


def _with_own(low_range: np.ndarray, low: np.ndarray) -> np.ndarray:
    """A range [2] that holds the crop's own samples, too."""
    own = low[~np.isnan(low)]
    return np.array([min(low_range[0], own.min()), max(low_range[1], own.max())]) if own.size else low_range


def _widened(low_range: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A range [2] that is up to a tenth wider: noise widens that of a whole image."""
    below, above = rng.uniform(0, 0.1, 2) * (low_range[1] - low_range[0])
    return np.array([low_range[0] - below, low_range[1] + above])


_IDENTITY = np.arange(256, dtype=np.float32) / np.float32(255)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])


def _tones(gamma: float, contrast: float, brightness: float) -> np.ndarray:
    """float32 [256]: what every 8-bit value becomes, 0..1."""
    return np.clip((_IDENTITY**gamma - 0.5) * contrast + 0.5 + brightness, 0, 1).astype(np.float32)


def _jitter(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [3, h, w] in 0..1 of uint8 [h, w, 3]: every other time with another exposure, contrast and saturation."""
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1))
    if rng.random() >= 0.5:
        return _IDENTITY[planes]
    gamma, contrast, saturation = np.exp(rng.uniform(-0.25, 0.25, 3))
    brightness = rng.uniform(-0.1, 0.1)
    values = _tones(gamma, contrast, brightness)[planes]
    grey = np.tensordot(_LUMA, values, 1)
    return np.clip(grey + (values - grey) * np.float32(saturation), 0, 1)


def _jitter_strongly(colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 [3, h, w] in 0..1 of uint8 [h, w, 3]: four times in five with other tones, saturation, hue and white."""
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1))
    if rng.random() >= 0.8:
        return _IDENTITY[planes]
    gamma, contrast = np.exp(rng.uniform(-0.4, 0.4, 2))
    saturation, angle = rng.uniform(0, 1.5), rng.uniform(-1, 1)
    brightness = rng.uniform(-0.15, 0.15)
    turned = np.cos(angle) * (np.eye(3) - 1 / 3) + np.sin(angle) / np.sqrt(3) * _CROSS  # about the axis of greys
    mixed = (np.exp(rng.uniform(-0.15, 0.15, 3))[:, None] * (saturation * turned + 1 / 3)).astype(np.float32)
    values = _tones(gamma, contrast, brightness)[planes]
    return np.clip(mixed @ values.reshape(3, -1), 0, 1).reshape(values.shape)


def prefetch(
    sampler: CropSampler, start: int, stop: int, workers: int = 1, processes: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of steps start..stop-1 in order, made ahead in the background; the same for any number of workers.

    Args:
        sampler: what makes a batch.
        start: first step.
        stop: step after the last.
        workers: threads; each is at most two batches ahead.
        processes: so many forked processes instead of threads, which share one interpreter and cannot feed a GPU; their
            batches are in pinned memory where there is one.

    Yields:
        What `CropSampler.batch` returns.
    """
    return _by_processes(sampler, start, stop, processes) if processes else _by_threads(sampler, start, stop, workers)


class _Batches(Dataset):
    def __init__(self, sampler: CropSampler):
        self.sampler = sampler

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return self.sampler.batch(step)


def _begin(worker: int) -> None:
    """In a new process: Ctrl-C is for its parent, and the other cores are for its siblings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _by_processes(sampler: CropSampler, start: int, stop: int, processes: int) -> Iterator[dict[str, torch.Tensor]]:
    yield from DataLoader(
        _Batches(sampler),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin,
        multiprocessing_context="fork",
    )


def _by_threads(sampler: CropSampler, start: int, stop: int, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    pending: queue.SimpleQueue = queue.SimpleQueue()
    closed = threading.Event()

    def make(step: int) -> dict[str, torch.Tensor] | None:
        return None if closed.is_set() else sampler.batch(step)

    with ThreadPoolExecutor(workers, thread_name_prefix="depthup-crops") as pool:
        try:
            ahead = start
            for _ in range(start, stop):
                while ahead < stop and pending.qsize() < 2 * workers:
                    pending.put(pool.submit(make, ahead))
                    ahead += 1
                yield pending.get().result()
        finally:
            closed.set()
