"""Clocks that are off, for one process: as of a machine whose clock nobody set, and which was started another day."""

from __future__ import annotations

import time
from typing import Any

_REAL = (time.time, time.time_ns, time.clock_gettime, time.clock_gettime_ns, time.monotonic, time.monotonic_ns)


def set_clocks_off(seconds: float) -> None:
    """Every clock of `time` but that of the processor, from now on; they run as fast as before.

    `datetime` reads the system itself and is not moved: nothing in the relay asks it (tests/unit/relay/test_clocks.py).
    """
    now, now_ns, clock, clock_ns, monotonic, monotonic_ns = _REAL
    off_ns = int(seconds * 1_000_000_000)
    patched: dict[str, Any] = {
        "time": lambda: now() + seconds,
        "time_ns": lambda: now_ns() + off_ns,
        "clock_gettime": lambda which: clock(which) + seconds,
        "clock_gettime_ns": lambda which: clock_ns(which) + off_ns,
        "monotonic": lambda: monotonic() + seconds,
        "monotonic_ns": lambda: monotonic_ns() + off_ns,
    }
    for name, function in patched.items():
        setattr(time, name, function)
