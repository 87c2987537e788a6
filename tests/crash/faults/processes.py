"""Pemba's processes with faults in them."""

from __future__ import annotations

import sys
from pathlib import Path

from pemba.dev.pemba_process import PembaProcess, Relay, Serve

_ROOT = Path(__file__).parents[3]
_LAUNCH = [sys.executable, "-m", "tests.crash.faults.launcher"]


class FaultyRelay(Relay):
    """`start` does not wait until it is ready: it may be gone before."""

    folder = _ROOT

    def command(self) -> list[str]:
        return [*_LAUNCH, self.name]

    def is_ready(self) -> bool:
        return True


class FaultyServe(Serve):
    """`start` waits until it is ready."""

    folder = _ROOT

    def command(self) -> list[str]:
        return [*_LAUNCH, self.name]


def is_really_ready(process: PembaProcess) -> bool:
    """Whatever its kind makes of it at its start."""
    return Relay.is_ready(process) if isinstance(process, Relay) else Serve.is_ready(process)  # type: ignore[arg-type]
