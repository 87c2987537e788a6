"""Clocks that are off, for one process: as of a machine whose clock nobody set, and which was started another day."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace


def set_clocks_off(seconds: float) -> int:
    """From now on the wall clock is that far off, and the machine was started as much earlier; no clock runs faster.

    It is so for every module of Pemba that is there by now, and for no library: gRPC makes its deadlines of the wall
    clock in Python and looks at the real one in C.  How many modules that is.
    """

    def off(which: int) -> float:
        return seconds if which == time.CLOCK_REALTIME else abs(seconds)

    moved = SimpleNamespace(
        **vars(time)
        | {
            "time": lambda: time.time() + seconds,
            "clock_gettime": lambda which: time.clock_gettime(which) + off(which),
            "monotonic": lambda: time.monotonic() + abs(seconds),
        }
    )
    asking = [
        module for module in list(sys.modules.values()) if _is_pembas(module) and vars(module).get("time") is time
    ]
    for module in asking:
        vars(module)["time"] = moved
    return len(asking)


def _is_pembas(module: object) -> bool:
    return isinstance(module, ModuleType) and module.__name__.partition(".")[0] == "pemba"
