"""Which backend runs the DDF operation: chosen by device, or named by the user."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

BACKENDS = ("reference", "cpu", "cuda")
_log = logging.getLogger("depthup.kernels")


class BackendError(RuntimeError):
    """The named backend cannot run here, or `DEPTHUP_BACKEND` names none that there is; it says why."""


_NO_COMPILER = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
_NAMED_BY_ENVIRONMENT = os.environ.get("DEPTHUP_BACKEND") or None
_named: str | None = _NAMED_BY_ENVIRONMENT
_blocks: list[tuple[object, str]] = []  # of `use_backend` that are entered


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every DDF operation inside the block by the backend `name`: `reference`, `cpu` or `cuda`.

    It holds for the whole process, like torch's own backend switches, of several blocks that which was entered last,
    and goes before the environment variable
    `DEPTHUP_BACKEND`. A named backend that cannot run raises BackendError and says why; it is never replaced.
    """
    global _named
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r}: expected one of {', '.join(BACKENDS)}")
    block = object(), name
    _blocks.append(block)
    _named = name
    try:
        yield
    finally:
        _blocks.remove(block)  # of several threads not always the last
        _named = _blocks[-1][1] if _blocks else _NAMED_BY_ENVIRONMENT


def why_not(backend: str, device: torch.device) -> str | None:
    """One sentence why `backend` cannot work on tensors of `device`, or None if it can."""
    if backend == "reference":
        return None
    if device.type != backend:
        return f"backend {backend!r} works on {backend} tensors, and these are on {device}"
    if backend == "cpu":
        if _NO_COMPILER:
            return "backend 'cpu' needs Numba's compiler, which NUMBA_DISABLE_JIT turns off"
        return None if importlib.util.find_spec("numba") else "backend 'cpu' needs Numba: pip install numba"
    from depthup.kernels import cuda

    return cuda.why_not()


# as `torch.compiler.assume_constant_result` does: older versions of PyTorch trace no `find_spec`
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]


def choose_backend(device: torch.device) -> str:
    """The backend for tensors on `device`: the named one, else the device's own, else `reference`.

    Raises BackendError if the named one is not in `BACKENDS` or cannot run.
    """
    if _named is not None:
        if _named not in BACKENDS:
            raise BackendError(f"DEPTHUP_BACKEND: got {_named!r}, expected one of {', '.join(BACKENDS)}")
        reason = why_not(_named, device)
        if reason:
            raise BackendError(reason)
        return _named
    if device.type not in BACKENDS:
        return "reference"
    reason = why_not(device.type, device)
    if reason:
        _log.debug("the reference backend is taken: %s", reason)
        return "reference"
    return device.type
