"""Compiles `ddf.cu` with g++ and runs a plan of `depthup.kernels.cuda` on the CPU, thread by thread."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path

import numpy as np
import torch

from depthup.kernels import cuda

HERE = Path(__file__).parent
COMBINED = ("forward", "grad_x", "grad_spatial", "grad_channel")


def kernel_names(dtype: torch.dtype) -> list[str]:
    """Every kernel that `ddf.cu` has for `dtype`."""
    name = str(dtype).removeprefix("torch.")
    return [f"ddf_{kernel}_{combine}_{name}" for kernel in COMBINED for combine in ("mul", "add")] + [
        f"ddf_sum_slices_{name}"
    ]


class CpuRunner:
    """Runs plans on CPU tensors; keeps one compiled library per dtype and kernel size in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._library = functools.cache(self._compile)

    def run(self, plan: cuda.Plan) -> tuple[torch.Tensor, ...]:
        """Fill and return the plan's outputs."""
        for launch in plan.launches:
            arguments = cuda.pack_arguments(launch.arguments)
            self.launch(plan.dtype, plan.kernel_size, launch.kernel, launch.blocks, cuda.THREADS, arguments)
        return plan.outputs

    def launch(
        self, dtype: torch.dtype, kernel_size: int, kernel: str, blocks: int, threads: int, arguments: tuple
    ) -> None:
        """Run one kernel on packed arguments. Raises TypeError where one is not as wide as the kernel reads."""
        packed = [np.atleast_1d(value) for value in arguments]
        addresses = (ctypes.c_void_p * len(packed))(*(array.ctypes.data for array in packed))
        sizes = (ctypes.c_size_t * len(packed))(*(array.itemsize for array in packed))
        entry = getattr(self._library(dtype, kernel_size), f"run_{kernel}")
        entry.restype = ctypes.c_bool
        if not entry(blocks, threads, addresses, sizes, ctypes.c_size_t(len(packed))):
            raise TypeError(f"{kernel}: the packed arguments do not fit its parameters")

    def _compile(self, dtype: torch.dtype, kernel_size: int) -> ctypes.CDLL:
        stem = f"ddf_{str(dtype).removeprefix('torch.')}_{kernel_size}"
        source, library = self.folder / f"{stem}.cpp", self.folder / f"{stem}.so"
        exports = "\n".join(f"CUDA_ON_CPU_EXPORT({name})" for name in kernel_names(dtype))
        source.write_text(f'#include "cuda_on_cpu.h"\n#include "{cuda.SOURCE}"\n{exports}\n', encoding="utf-8")
        # Hidden, or the libraries would share the __shared__ arrays, whose size depends on the kernel size.
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"]
        command += ["-Wall", "-Werror", "-Wno-unknown-pragmas"]
        command += [*cuda.compile_options(dtype, kernel_size), f"-I{HERE}", "-o", str(library), str(source)]
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return ctypes.CDLL(str(library))
