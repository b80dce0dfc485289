"""Predict the CUDA kernels' times from the bytes that they must move, and their occupancy from what nvcc says of them.

    python benchmarks/predict_cuda.py

Needs nvcc and no GPU; prints the Markdown tables of docs/kernels-cuda.md. Nothing in them is measured.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from depthup.kernels import cuda

REACHED = 0.8  # of the peak bandwidth


@dataclass(frozen=True)
class Gpu:
    """What the predictions need to know of a GPU: bytes and float32 instructions a second at its peak."""

    name: str
    bytes_per_s: float
    instructions_per_s: float


# Multiprocessors x float32 lanes x boost clock; a fused multiply-add is one instruction.
GPUS = (Gpu("H100 SXM", 3.35e12, 132 * 128 * 1.98e9), Gpu("RTX 2080 Ti", 616e9, 68 * 64 * 1.545e9))


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor; every block of sm_80 and later also takes 1 KiB of shared memory for the system."""

    architecture: str
    threads: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int
    registers: int = 65536


MULTIPROCESSORS = (
    Multiprocessor("sm_75", 1024, 16, 64 * 1024, 0),
    Multiprocessor("sm_80", 2048, 32, 164 * 1024, 1024),
    Multiprocessor("sm_90", 2048, 32, 228 * 1024, 1024),
)

# Scale and [B, C, H, W]: the paper's shapes for ddf, the network's own for ddf_up
SHAPES = [(1, (2, 256, 200, 300))]
SHAPES += [(1, (32, 256, side, side)) for side in (7, 14, 28, 56, 112, 224)]
SHAPES += [(2, (1, 16, 240, 320)), (2, (1, 32, 120, 160)), (2, (1, 64, 60, 80))]


def plans(
    scale: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, kernel_size: int = 3
) -> tuple[cuda.Plan, cuda.Plan]:
    """Forward and backward of contiguous tensors that have no memory."""
    B, C, H, W = shape
    k, N = kernel_size, scale * scale
    sizes = (B, C, H, W), (B, N, C, k, k), (B, N, k * k, H, W), (B, C, scale * H, scale * W)
    *inputs, grad_out = (torch.empty(size, dtype=dtype, device="meta") for size in sizes)
    return cuda.plan_forward(*inputs, 1, 1, scale, "mul"), cuda.plan_backward(grad_out, *inputs, 1, 1, scale, "mul")


def bytes_moved(launch: cuda.Launch) -> int:
    """Every tensor of a kernel once, but for the gradient that a kernel leaves in slices."""
    tensors = [argument for argument in launch.arguments if isinstance(argument, torch.Tensor)]
    if launch.kernel.kind == "grad_filters" and tensors[5].numel() > 0:
        del tensors[4]  # the sums over slices write the gradient
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def instructions(launch: cuda.Launch, outputs: int) -> int:
    """Multiplications and fused multiply-adds: two a tap for `forward` and `grad_x`, three for both filters."""
    taps = dict(launch.kernel.constants).get("KERNEL_SIZE", 0) ** 2
    return outputs * taps * {"forward": 2, "grad_x": 2, "grad_filters": 3, "sum_slices": 0}[launch.kernel.kind]


def print_times(dtype: torch.dtype) -> None:
    """One row a shape, one column a kernel: megabytes, and microseconds on either GPU."""
    kinds = "forward", "grad_x", "grad_filters", "sum_slices"
    print(f"| scale, shape | {' | '.join(f'`{kind}`' for kind in kinds)} | backward / forward | arithmetic |")
    print("|---|" + "---:|" * (len(kinds) + 2))
    for scale, shape in SHAPES:
        launches = [launch for plan in plans(scale, shape, dtype) for launch in plan.launches]
        moved = {kind: sum(bytes_moved(launch) for launch in launches if launch.kernel.kind == kind) for kind in kinds}
        outputs = math.prod(shape) * scale**2
        calculated = sum(instructions(launch, outputs) for launch in launches) / GPUS[0].instructions_per_s
        share = calculated / (sum(moved.values()) / (REACHED * GPUS[0].bytes_per_s))
        cells = [f"x{scale}, {' x '.join(map(str, shape))}"]
        for size in moved.values():
            cells.append(
                f"{size / 1e6:.1f}: " + " / ".join(f"{size / (REACHED * g.bytes_per_s) * 1e6:.1f}" for g in GPUS)
            )
        print(f"| {' | '.join(cells)} | {sum(moved.values()) / moved['forward'] - 1:.1f} | {share:.0%} |")


def compiled(kernel: cuda.Kernel, architecture: str) -> tuple[int, int]:
    """Registers of a thread and bytes of shared memory of a block, as nvcc prints them."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-cubin", "-O3", f"-arch={architecture}", "-Xptxas", "-v", *cuda.compile_options(kernel)]
        command += ["-o", str(Path(folder) / "ddf.cubin"), str(cuda.SOURCE)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", report)
    shared = re.search(r"(\d+) bytes smem", report)
    assert registers is not None, report
    return int(registers[1]), int(shared[1]) if shared else 0


def resident_threads(on: Multiprocessor, threads: int, registers: int, shared_bytes: int) -> int:
    """Threads that a multiprocessor holds at a time; registers are given to warps in steps of 256."""
    warp_registers = -(-registers * 32 // 256) * 256
    by_registers = on.registers // (warp_registers * threads // 32)
    by_shared = on.shared_bytes // (shared_bytes + on.reserved_bytes) if shared_bytes + on.reserved_bytes else on.blocks
    return threads * min(by_registers, by_shared, on.threads // threads, on.blocks)


def print_occupancy() -> None:
    """One row a kernel as it is compiled for large images."""
    names = [on.architecture for on in MULTIPROCESSORS]
    occupancy = " | ".join(f"occupancy {name}" for name in names)
    print(
        f"| kernel | dtype | k | scale | threads | pixels | shared [B] | registers {' / '.join(names)} | {occupancy} |"
    )
    print("|---|---|" + "---:|" * (6 + len(names)))
    for dtype, kernel_size, scale in (
        (torch.float32, 3, 1),
        (torch.float32, 3, 2),
        (torch.float32, 5, 1),
        (torch.bfloat16, 3, 1),
        (torch.bfloat16, 3, 2),
    ):
        launches = [launch for plan in plans(scale, (2, 256, 200, 304), dtype, kernel_size) for launch in plan.launches]
        for launch in launches[:3]:
            kernel = launch.kernel
            constants = dict(kernel.constants)
            reports = [compiled(kernel, on.architecture) for on in MULTIPROCESSORS]
            shares = [
                resident_threads(on, launch.threads, *report) / on.threads
                for on, report in zip(MULTIPROCESSORS, reports, strict=True)
            ]
            cells = [
                f"`{kernel.kind}`",
                str(dtype).removeprefix("torch."),
                *map(str, (kernel_size, scale, launch.threads, constants["PIXELS"], reports[0][1])),
                " / ".join(str(registers) for registers, _ in reports),
                *(f"{share:.0%}" for share in shares),
            ]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Print all tables."""
    names = " / ".join(gpu.name for gpu in GPUS)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"\nPredicted, not measured: k = 3, {str(dtype).removeprefix('torch.')}, MB: µs on {names}\n")
        print_times(dtype)
    print("\nAs compiled by nvcc; occupancy is resident threads by the most that a multiprocessor holds:\n")
    print_occupancy()


if __name__ == "__main__":
    main()
