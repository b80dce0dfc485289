"""A computation on a GPU, recorded once and then replayed as a whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UPS = 3
"""Calls before the recording: in the first kernels are compiled and algorithms chosen."""


class Captured:
    """A CUDA graph of `compute`: one launch for the thousand of a training step, which take longer than the kernels.

    Args:
        compute: takes tensors by name, returns one, and never looks at a value on the CPU. What it writes elsewhere,
            such as gradients, is written to the same places by every call.
        inputs: tensors of a first call, on a GPU; all later ones have these shapes and types.
    """

    def __init__(self, compute: Callable[[dict[str, Tensor]], Tensor], inputs: dict[str, Tensor]):
        self._inputs = {name: t.clone() for name, t in inputs.items()}
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                compute(self._inputs)
        here.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread alone: another one may be pinning memory meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = compute(self._inputs)

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """The result, in a tensor that the next call overwrites."""
        for name, t in self._inputs.items():
            t.copy_(inputs[name], non_blocking=True)
        self._graph.replay()
        return self._result
