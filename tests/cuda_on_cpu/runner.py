"""Compiles kernels of `ddf.cu` with g++ and runs a plan of `depthup.kernels.cuda` on the CPU, thread by thread."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from pathlib import Path

import numpy as np
import torch

from depthup.kernels import cuda

HERE = Path(__file__).parent


class CpuRunner:
    """Runs plans on CPU tensors; keeps one compiled library per kernel in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._library = functools.cache(self._compile)

    def run(self, plan: cuda.Plan) -> tuple[torch.Tensor, ...]:
        """Fill and return the plan's outputs."""
        for launch in plan.launches:
            self.launch(launch.kernel, launch.blocks, launch.threads, cuda.pack_arguments(launch.arguments))
        return plan.outputs

    def launch(self, kernel: cuda.Kernel, blocks: int, threads: int, arguments: tuple) -> None:
        """Run one kernel on packed arguments. Raises RuntimeError where they do not fit, or where threads hang."""
        packed = [np.atleast_1d(value) for value in arguments]
        addresses = (ctypes.c_void_p * len(packed))(*(array.ctypes.data for array in packed))
        sizes = (ctypes.c_size_t * len(packed))(*(array.itemsize for array in packed))
        entry = getattr(self._library(kernel), f"run_{kernel.name}")
        entry.restype = ctypes.c_char_p
        problem = entry(blocks, threads, addresses, sizes, ctypes.c_size_t(len(packed)))
        if problem:
            raise RuntimeError(f"{kernel.name}: {problem.decode()}")

    def _compile(self, kernel: cuda.Kernel) -> ctypes.CDLL:
        source, library = self.folder / f"{kernel.name}.cpp", self.folder / f"{kernel.name}.so"
        source.write_text(
            f'#include "cuda_on_cpu.h"\n#include "{cuda.SOURCE}"\nCUDA_ON_CPU_EXPORT({kernel.name})\n', encoding="utf-8"
        )
        # Hidden, or the libraries would share the __shared__ arrays, whose size depends on the kernel.
        command = ["g++", "-O0", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
        command += [*cuda.compile_options(kernel), "-std=c++20", f"-I{HERE}", "-o", str(library), str(source)]
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return ctypes.CDLL(str(library))
