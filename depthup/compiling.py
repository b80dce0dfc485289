"""Numba, also where what it compiled cannot be kept on disk, or was damaged there."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


class _ForgivingCache(FunctionCache):
    """Numba's own, where a failure costs time and nothing else: a file that is cut off, a disk that is full."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling what is damaged raises anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            with suppress(Exception):
                self.flush()  # an index that is damaged, or names a file of older source


def compiler(**options: Any) -> Callable[[Callable], Any]:
    """A decorator like `numba.njit(**options)`; what it compiles is kept on disk where Numba finds a folder for it.

    A read-only installation and a home that cannot be written leave it none; there it compiles anew in every process.
    """

    def compile_function(function: Callable) -> Any:
        compiled = numba.njit(**options)(function)
        with suppress(RuntimeError):  # "no locator available"
            compiled._cache = _ForgivingCache(function)
        return compiled

    return compile_function
