"""DDF and DDF-Up against convolutions, an unfolded PyTorch version and a copy of the same bytes."""

from __future__ import annotations

import torch
from timing import print_table, time_in_turn, write_results

from depthup.kernels import ddf, ddf_up, use_backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DDF_SHAPES = [(1, 64, 240, 320), (4, 256, 28, 28), (2, 256, 100, 150)]
UP_SHAPES = [(1, 16, 240, 320), (1, 32, 120, 160), (1, 64, 60, 80)]
ROUNDS = 15


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE)


def copy_of(floats: int):
    """A copy that reads and writes `floats` values in total."""
    source = random(max(1, floats // 2))
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def measure(operation: str, shape: tuple[int, ...], candidates: dict, floats: int) -> list[dict]:
    times = time_in_turn(candidates | {"copy of the same bytes": copy_of(floats)}, ROUNDS)
    copy = times["copy of the same bytes"]["median_ms"]
    facts = {"operation": operation, "shape": "x".join(map(str, shape)), "megabytes": 4e-6 * floats}
    return [
        facts | {"candidate": name, "fraction of copy": copy / values["median_ms"]} | values
        for name, values in times.items()
    ]


def gradients(result: torch.Tensor, inputs: list[torch.Tensor]):
    grad = torch.randn_like(result)
    return lambda: torch.autograd.grad(result, inputs, grad, retain_graph=True)


def measure_ddf(B: int, C: int, H: int, W: int) -> list[dict]:
    x, channel, spatial = random(B, C, H, W), random(B, C, 3, 3), random(B, 9, H, W)
    full, depthwise = random(C, C, 3, 3), random(C, 1, 3, 3)

    def unfolded():
        with use_backend("reference"):
            return ddf(x, channel, spatial)

    forward = {
        "ddf": lambda: ddf(x, channel, spatial),
        "depth-wise conv2d": lambda: torch.conv2d(x, depthwise, padding=1, groups=C),
        "conv2d": lambda: torch.conv2d(x, full, padding=1),
        "ddf, unfolded": unfolded,
    }
    rows = measure("ddf forward", (B, C, H, W), forward, 2 * x.numel() + spatial.numel())
    inputs = [t.requires_grad_() for t in (x, channel, spatial)]
    depthwise.requires_grad_()
    backward = {
        "ddf": gradients(ddf(*inputs), inputs),
        "depth-wise conv2d": gradients(torch.conv2d(x, depthwise, padding=1, groups=C), [x, depthwise]),
    }
    return rows + measure("ddf backward", (B, C, H, W), backward, 3 * x.numel() + 2 * spatial.numel())


def measure_ddf_up(B: int, C: int, H: int, W: int) -> list[dict]:
    x, channel, spatial = random(B, C, H, W), random(B, 4, C, 3, 3), random(B, 4, 9, H, W)

    def four_ddf():
        branches = [ddf(x, channel[:, n], spatial[:, n]) for n in range(4)]
        return torch.nn.functional.pixel_shuffle(torch.stack(branches, 2).flatten(1, 2), 2)

    def unfolded():
        with use_backend("reference"):
            return ddf_up(x, channel, spatial, 2)

    forward = {
        "ddf_up": lambda: ddf_up(x, channel, spatial, 2),
        "four ddf and pixel shuffle": four_ddf,
        "ddf_up, unfolded": unfolded,
    }
    rows = measure("ddf_up x2 forward", (B, C, H, W), forward, 5 * x.numel() + spatial.numel())
    inputs = [t.requires_grad_() for t in (x, channel, spatial)]
    backward = {"ddf_up": gradients(ddf_up(*inputs, 2), inputs)}
    return rows + measure("ddf_up x2 backward", (B, C, H, W), backward, 6 * x.numel() + 2 * spatial.numel())


def main() -> None:
    torch.manual_seed(0)
    rows = [row for shape in DDF_SHAPES for row in measure_ddf(*shape)]
    rows += [row for shape in UP_SHAPES for row in measure_ddf_up(*shape)]
    columns = ["operation", "shape", "candidate", "median_ms", "min_ms", "max_ms", "fraction of copy"]
    print_table(rows, columns)
    print(f"\n{ROUNDS} rounds, float32, k = 3, in turn; written to {write_results('operation', rows)}")


if __name__ == "__main__":
    main()
