"""The works in their order, on one stage."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import psutil
import uvloop

from pemba.bench import checks, drain, in_force
from pemba.bench.figures import Goal, Row
from pemba.bench.loading import delivered
from pemba.bench.mutations import mutations
from pemba.bench.report import Report, versions
from pemba.bench.stage import Bench, Size, Stage, loaded, running
from pemba.config import DevSettings
from pemba.dev.stack import Reporter

Work = Callable[[Bench], Awaitable[Row]]

FULL = Size(tenants=100, workspaces=40, users=20, seconds=2.0, rounds=2, drain_tuples=100_000)
QUICK = Size(tenants=8, workspaces=13, users=10, seconds=0.3, rounds=1, drain_tuples=2_000)

_MUTATIONS_BESIDE_CHECKS = 20
_MUTATIONS_BESIDE_FORCE = 200
_MEGABYTE = 1_000_000


async def _memory(bench: Bench) -> Row:
    """Of `serve`, after all that came before."""
    pid = bench.parts.serve.pid
    megabytes = psutil.Process(pid).memory_info().rss / _MEGABYTE if pid else 0.0
    return Row(
        work="memory", what="resident memory of serve after the run", sides={}, goals=[Goal("MB", megabytes, 150)]
    )


WORKS: dict[str, Work] = {
    "hot": checks.hot,
    "cold-1": lambda bench: checks.cold(bench, 1),
    "cold-16": lambda bench: checks.cold(bench, 16),
    "zipf-1": lambda bench: checks.zipf(bench, 1),
    "zipf-16": lambda bench: checks.zipf(bench, 16),
    "zipf-64": lambda bench: checks.zipf(bench, 64),
    "zipf-16-writes": lambda bench: checks.zipf_while_writing(bench, 16, _MUTATIONS_BESIDE_CHECKS),
    "page": checks.page,
    "mutations-many": lambda bench: mutations(bench, bench.many, "many", 0.3),
    "mutations-one": lambda bench: mutations(bench, bench.one, "one", 0.5),
    "in-force": in_force.idle,
    "in-force-busy": lambda bench: in_force.busy(bench, _MUTATIONS_BESIDE_FORCE),
    "drain": drain.drain,
    "memory": _memory,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run: names of WORKS in their order."""

    size: Size
    works: Sequence[str]


def run(choice: Choice, settings: DevSettings, reporter: Reporter) -> Report:
    """Start, load, measure, stop.  Raises StartError; what spoils a row is in the row."""
    start = time.monotonic()
    with running(settings, reporter) as stage:
        rows = uvloop.run(_measure(stage, choice, reporter))
        return Report(choice.size, rows, versions(stage), stage.start_seconds, time.monotonic() - start)


async def _measure(stage: Stage, choice: Choice, reporter: Reporter) -> list[Row]:
    async with loaded(stage, choice.size, reporter) as bench:
        return [row async for row in _rows(bench, choice, reporter)]


async def _rows(bench: Bench, choice: Choice, reporter: Reporter) -> AsyncIterator[Row]:
    for name in choice.works:
        reporter.step(f"measuring {name}")
        yield await WORKS[name](bench)
        await delivered(bench.database)
