"""Compiles kernels of `ddf.cu` with g++ and runs a plan of `depthup.kernels.cuda` on the CPU, thread by thread."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from depthup.kernels import cuda

HERE = Path(__file__).parent


def source_of(kernels: Iterable[cuda.Kernel]) -> str:
    """One source with all these kernels, each in a namespace of its own."""
    lines = []
    for kernel in kernels:
        lines += [f"#define {name} {value}" for name, value in kernel.defines.items()]
        lines += [f"namespace only_{kernel.name} {{", f'#include "{cuda.SOURCE}"', "}"]
        lines += [f"#undef {name}" for name in (*kernel.defines, "DDF_GEOMETRY", "DDF_GEOMETRY_PARAMETERS")]
    return "\n".join(lines)


class CpuRunner:
    """Runs plans on CPU tensors; keeps what it compiled in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._libraries: dict[cuda.Kernel, ctypes.CDLL] = {}

    def run(self, plan: cuda.Plan) -> tuple[torch.Tensor, ...]:
        """Fill and return the plan's outputs."""
        self.compile(launch.kernel for launch in plan.launches)
        for launch in plan.launches:
            self.launch(launch.kernel, launch.blocks, launch.threads, cuda.pack_arguments(launch.arguments))
        return plan.outputs

    def launch(self, kernel: cuda.Kernel, blocks: int, threads: int, arguments: tuple) -> None:
        """Run one kernel on packed arguments. Raises RuntimeError where they do not fit, or where threads hang."""
        packed = [np.atleast_1d(value) for value in arguments]
        addresses = (ctypes.c_void_p * len(packed))(*(array.ctypes.data for array in packed))
        sizes = (ctypes.c_size_t * len(packed))(*(array.itemsize for array in packed))
        entry = getattr(self._libraries[kernel], f"run_{kernel.name}")
        entry.restype = ctypes.c_char_p
        problem = entry(blocks, threads, addresses, sizes, ctypes.c_size_t(len(packed)))
        if problem:
            raise RuntimeError(f"{kernel.name}: {problem.decode()}")

    def compile(self, kernels: Iterable[cuda.Kernel]) -> None:
        """Compile those kernels that are new, together, since most of g++'s time goes by before it meets the first."""
        new = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self._libraries]
        if not new:
            return
        stem = f"kernels{len(self._libraries)}"
        source, library = self.folder / f"{stem}.cpp", self.folder / f"{stem}.so"
        exports = (f"CUDA_ON_CPU_EXPORT(only_{kernel.name}, {kernel.name})" for kernel in new)
        source.write_text("\n".join(('#include "cuda_on_cpu.h"', source_of(new), *exports, "")), encoding="utf-8")
        command = ["g++", "-O0", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
        command += ["-std=c++20", f"-I{HERE}", "-o", str(library), str(source)]
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        self._libraries |= dict.fromkeys(new, ctypes.CDLL(str(library)))
