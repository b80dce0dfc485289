"""Freed memory is kept: a block as large as the last one costs no new pages."""

import platform
import subprocess
import sys

import pytest

PAGES_OF_NEW_BLOCK = """
import resource
import numpy as np
from depthup.memory import keep_freed_memory
{}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24).sum()  # 128 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(first: str) -> int:
    command = [sys.executable, "-c", PAGES_OF_NEW_BLOCK.format(first)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_block_that_was_freed_is_used_again():
    assert pages("keep_freed_memory()") < pages("") / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_what_was_freed_and_kept_counts():
    code = "import numpy as np; from depthup.memory import keep_freed_memory, kept_memory; keep_freed_memory();"
    code += "a = kept_memory(); b = np.ones(2**25); c = kept_memory(); del b; print(c - a, kept_memory() - a)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    held, freed = said.split()
    assert abs(int(held)) < 2**24 and int(freed) >= 2**27  # of 256 MB


def test_elsewhere_nothing_is_done(monkeypatch):
    from depthup.memory import ctypes, keep_freed_memory, kept_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked for the C library"))
    keep_freed_memory()
    assert kept_memory() == 0
