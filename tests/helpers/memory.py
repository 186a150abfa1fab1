"""The most memory that a call takes, of any library's."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import pytest

_PROCESS = Path("/proc/self")


def growth(call: Callable[[], object]) -> int:
    """Return the bytes by which the process grows at most during the call, what it returns included."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what was freed, and would be used again, is given back
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak is counted anew (proc(5))
    except OSError as error:
        pytest.skip(f"the peak of the process can't be reset: {error}")
    before = _status("VmRSS")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return peak - before


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", (_PROCESS / "status").read_text())
    assert found is not None
    return 1024 * int(found[1])
