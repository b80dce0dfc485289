"""Numba, also where it finds no folder for what it compiled."""

from collections.abc import Callable
from typing import Any

import numba


def compiler(**options: Any) -> Callable[[Callable], Any]:
    """A decorator like `numba.njit(**options)`; what it compiles is kept on disk where Numba finds a folder for it.

    A read-only installation and a home that cannot be written leave it none; there it compiles anew in every process.
    """

    def compile_function(function: Callable) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "no locator available"
            return numba.njit(**options)(function)

    return compile_function
