"""DDF and DDF-Up against convolutions, an unfolded PyTorch version, a CARAFE-like reassembly and a plain copy.

python benchmarks/operation.py [ROUNDS [float32|bfloat16]]

On a GPU, ratios are of the GPU's time alone (`gpu_ms`), and `median_ms` has the launches from Python in it.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from timing import peak_and_now, prepare_gpu, print_table, restart_peak, time_in_turn, time_on_gpu, write_results
from torch import Tensor

from depthup.kernels import ddf, ddf_up, use_backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = getattr(torch, sys.argv[2]) if len(sys.argv) > 2 else torch.float32
# the network's own, then the paper's: one 2 x 256 x 200 x 300, and 256 channels at 7 to 224 pixels
DDF_SHAPES = [(1, 64, 240, 320), (4, 256, 28, 28), (2, 256, 200, 300), (32, 256, 7, 7), (32, 256, 14, 14)]
DDF_SHAPES += [(32, 256, size, size) for size in ((28,) if DEVICE == "cpu" else (28, 56, 112, 224))]
UP_SHAPES = [(1, 16, 240, 320), (1, 32, 120, 160), (1, 64, 60, 80)]
UNFOLDED_AT_MOST = 20_000_000  # numbers in x, for what makes a copy 9 times as large
COPY = "copy of the same bytes"


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


def copy_of(floats: int):
    """A copy that reads and writes `floats` values in total."""
    source = random(max(1, floats // 2))
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def measure(operation: str, shape: tuple[int, ...], candidates: dict, floats: int, rounds: int) -> list[dict]:
    candidates = candidates | {COPY: copy_of(floats)}
    times = time_in_turn(candidates, rounds)
    if DEVICE == "cuda":
        on_gpu = time_on_gpu(candidates, rounds)
        times = {name: t | on_gpu[name] for name, t in times.items()}
    compared = "gpu_ms" if DEVICE == "cuda" else "median_ms"
    copy, first = times[COPY][compared], next(iter(times.values()))[compared]
    facts = {"operation": operation, "shape": "x".join(map(str, shape)), "megabytes": DTYPE.itemsize * 1e-6 * floats}
    return [
        facts | {"candidate": name, "times the first": t[compared] / first, "fraction of copy": copy / t[compared]} | t
        for name, t in times.items()
    ]


def gradients(result: Tensor, inputs: list[Tensor]):
    grad = torch.randn_like(result)
    return lambda: torch.autograd.grad(result, inputs, grad, retain_graph=True)


def channels_last(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().to(memory_format=torch.channels_last) for t in tensors]


def measure_ddf(B: int, C: int, H: int, W: int, rounds: int) -> list[dict]:
    x, channel, spatial = random(B, C, H, W), random(B, C, 3, 3), random(B, 9, H, W)
    full, depthwise = random(C, C, 3, 3), random(C, 1, 3, 3)
    x_last, spatial_last = channels_last(x, spatial)

    def unfolded():
        with use_backend("reference"):
            return ddf(x, channel, spatial)

    forward = {
        "ddf": lambda: ddf(x, channel, spatial),
        "ddf, channels-last": lambda: ddf(x_last, channel, spatial_last),
        "depth-wise conv2d": lambda: torch.conv2d(x, depthwise, padding=1, groups=C),
        "depth-wise conv2d, channels-last": lambda: torch.conv2d(x_last, depthwise, padding=1, groups=C),
    }
    if x.numel() <= UNFOLDED_AT_MOST:
        forward |= {"conv2d": lambda: torch.conv2d(x, full, padding=1), "ddf, unfolded": unfolded}
    rows = measure("ddf forward", (B, C, H, W), forward, 2 * x.numel() + spatial.numel(), rounds)
    inputs, inputs_last = (
        [t.requires_grad_() for t in (x, channel, spatial)],
        [t.requires_grad_() for t in (x_last, channel, spatial_last)],
    )
    depthwise.requires_grad_()
    backward = {
        "ddf": gradients(ddf(*inputs), inputs),
        "ddf, channels-last": gradients(ddf(*inputs_last), inputs_last),
        "depth-wise conv2d": gradients(torch.conv2d(x, depthwise, padding=1, groups=C), [x, depthwise]),
    }
    return rows + measure("ddf backward", (B, C, H, W), backward, 3 * x.numel() + 2 * spatial.numel(), rounds)


def carafe_like(x: Tensor, logits: Tensor) -> Tensor:
    """Reassembly by one softmax kernel per sub-pixel, shared by all channels, in plain PyTorch."""
    B, C, H, W = x.shape
    patches = F.unfold(x, 3, padding=1).view(B, C, 1, 9, H, W)
    return F.pixel_shuffle((patches * logits.softmax(2).unsqueeze(1)).sum(3).flatten(1, 2), 2)


def measure_ddf_up(B: int, C: int, H: int, W: int, rounds: int) -> list[dict]:
    x, channel, spatial = random(B, C, H, W), random(B, 4, C, 3, 3), random(B, 4, 9, H, W)
    (x_last,) = channels_last(x)
    spatial_last = channels_last(spatial.flatten(1, 2))[0].unflatten(1, (4, 9))

    def four_ddf():
        branches = [ddf(x, channel[:, n], spatial[:, n]) for n in range(4)]
        return F.pixel_shuffle(torch.stack(branches, 2).flatten(1, 2), 2)

    def unfolded():
        with use_backend("reference"):
            return ddf_up(x, channel, spatial, 2)

    forward = {
        "ddf_up": lambda: ddf_up(x, channel, spatial, 2),
        "ddf_up, channels-last": lambda: ddf_up(x_last, channel, spatial_last, 2),
        "four ddf and pixel shuffle": four_ddf,
        "ddf_up, unfolded": unfolded,
        "CARAFE-like reassembly": lambda: carafe_like(x, spatial),
    }
    inputs = [t.requires_grad_() for t in (x, channel, spatial)]
    inputs_last = [t.requires_grad_() for t in (x_last, channel, spatial_last)]
    backward = {
        "ddf_up": gradients(ddf_up(*inputs, 2), inputs),
        "ddf_up, channels-last": gradients(ddf_up(*inputs_last, 2), inputs_last),
    }
    forward = {name: torch.no_grad()(call) for name, call in forward.items()}
    both = {f"forward, {name}": call for name, call in forward.items()}
    both |= {f"backward, {name}": call for name, call in backward.items()}
    # in one turn, for their ratio
    return measure("ddf_up x2", (B, C, H, W), both, 5 * x.numel() + spatial.numel(), rounds)


def measure_memory(operation: str, x: Tensor, filters: list[Tensor], call) -> list[dict]:
    """Peak memory beside inputs and outputs, as a part of them; on the CPU."""
    inputs = [t.requires_grad_() for t in (x, *filters)]
    rows, result = [], call(*inputs)
    for name, run in (("forward", torch.no_grad()(lambda: call(*inputs))), ("backward", gradients(result, inputs))):
        run()
        restart_peak()
        _, before = peak_and_now()
        made = run()
        peak, _ = peak_and_now()
        outputs = sum(t.nbytes for t in (made if isinstance(made, tuple) else (made,))) / 2**20
        moved = sum(t.nbytes for t in inputs) / 2**20 + outputs + (result.nbytes / 2**20 if name == "backward" else 0)
        extra = max(0.0, peak - before - outputs)
        rows.append(
            {
                "operation": f"{operation} {name}",
                "inputs and outputs [MiB]": moved,
                "peak beside them [%]": 100 * extra / moved,
            }
        )
    return rows


def main() -> None:
    torch.manual_seed(0)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    rows = []
    prepare_gpu()
    for shape in DDF_SHAPES:
        rows += measure_ddf(*shape, rounds=rounds)
    for shape in UP_SHAPES:
        rows += measure_ddf_up(*shape, rounds=rounds)
    columns = ["operation", "shape", "candidate", "median_ms", "min_ms", "max_ms"]
    columns += ["gpu_ms", "gpu_min_ms", "gpu_max_ms"] if DEVICE == "cuda" else []
    columns += ["times the first", "fraction of copy"]
    print_table(rows, columns)
    dtype = str(DTYPE).removeprefix("torch.")
    place = write_results("operation" if dtype == "float32" else f"operation-{dtype}", rows)
    print(f"\n{rounds} rounds, {dtype}, k = 3, in turn; written to {place}")
    if (DEVICE, dtype) == ("cpu", "float32"):
        memory = measure_memory("ddf", random(1, 64, 240, 320), [random(1, 64, 3, 3), random(1, 9, 240, 320)], ddf)
        up = [random(1, 4, 16, 3, 3), random(1, 4, 9, 240, 320)]
        memory += measure_memory("ddf_up x2", random(1, 16, 240, 320), up, lambda *t: ddf_up(*t, 2))
        print()
        print_table(memory, list(memory[0]))
        write_results("operation-memory", memory)


if __name__ == "__main__":
    main()
