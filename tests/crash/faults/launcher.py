"""`python -m tests.crash.faults.launcher COMMAND`: `pemba COMMAND` with faults in it, which the environment names.

PEMBA_TEST_CRASH_AT: a point of `points`, and after a colon the how manieth time it is reached.
PEMBA_TEST_WITHOUT: a guard of `guards` that is switched off.
PEMBA_TEST_CLOCK_SECONDS: how far this process's wall clock, and the time since its machine was started, are off.
"""

from __future__ import annotations

import os
import sys

import pemba.app  # noqa: F401  all of the product is there before it is wrapped
from pemba.cli.main import main as run
from pemba.relay import retention
from tests.crash.faults.clocks import set_clocks_off
from tests.crash.faults.guards import switch_off
from tests.crash.faults.points import Point, arm


def main() -> None:
    if at := os.environ.get("PEMBA_TEST_CRASH_AT"):
        arm(Point.parse(at))
        retention.INTERVAL_SECONDS = 0.2  # a minute otherwise
    if guard := os.environ.get("PEMBA_TEST_WITHOUT"):
        switch_off(guard)
    if seconds := os.environ.get("PEMBA_TEST_CLOCK_SECONDS"):
        assert set_clocks_off(float(seconds)), "nothing asks for the time"
    sys.argv[0] = "pemba"
    run()


if __name__ == "__main__":
    main()
