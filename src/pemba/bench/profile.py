"""`serve` under pyinstrument while one work's load is on it: a text file a work."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import uvloop

from pemba.bench.dataset import Question
from pemba.bench.figures import Figures
from pemba.bench.run import Choice
from pemba.bench.stage import Bench, Stage, loaded, running
from pemba.config import DevSettings
from pemba.dev.pemba_process import Serve
from pemba.dev.process import StartError
from pemba.dev.stack import Reporter
from pemba.model import Permission

_CONCURRENCY = 16


class ProfiledServe(Serve):
    """`pemba serve` whose time goes to `output` when it stops."""

    def __init__(self, serve: Serve, output: Path) -> None:
        super().__init__(serve.name, serve.settings, serve.log)
        self.output = output

    def command(self) -> list[str]:
        profiler = ["-m", "pyinstrument", "--renderer", "text", "--outfile", str(self.output), "--interval", "0.0005"]
        return [sys.executable, *profiler, *super().command()[1:]]


def profile(choice: Choice, settings: DevSettings, reporter: Reporter, folder: Path) -> list[Path]:
    """Write `hot.txt`, `hot-16.txt` and `mutations.txt` to `folder`.  Raises StartError.

    Times are those of a process that is watched: what counts is their shares.
    """
    if find_spec("pyinstrument") is None:
        raise StartError("--profile: pyinstrument is missing; install pemba[bench]")
    folder.mkdir(parents=True, exist_ok=True)
    with running(settings, reporter) as stage:
        return uvloop.run(_profile(stage, choice, reporter, folder.absolute()))


async def _profile(stage: Stage, choice: Choice, reporter: Reporter, folder: Path) -> list[Path]:
    async with loaded(stage, choice.size, reporter) as bench:
        loads: dict[str, Callable[[], Awaitable[Figures]]] = {
            "hot": lambda: _hot(bench, 1),
            "hot-16": lambda: _hot(bench, _CONCURRENCY),
            "mutations": lambda: bench.many.run(bench.seconds),
        }
        return [await _one(stage, folder / f"{name}.txt", load, reporter) for name, load in loads.items()]


async def _hot(bench: Bench, concurrency: int) -> Figures:
    side, tenant = bench.sides.check, bench.loaded.dataset.tenants[0]
    request = side.request([Question(0, tenant.workspaces - 1, Permission.VIEW, tenant.users[0])])
    return await bench.ghz.run(side.target, [request], seconds=bench.seconds, concurrency=concurrency)


async def _one(stage: Stage, output: Path, load: Callable[[], Awaitable[Figures]], reporter: Reporter) -> Path:
    reporter.step(f"profiling {output.stem}")
    stage.parts.serve.stop()
    profiled = ProfiledServe(stage.parts.serve, output)
    try:
        profiled.start()
        await load()
    finally:
        profiled.stop()
    if not output.exists():  # noqa: ASYNC240  nothing else runs here
        raise StartError(f"--profile: nothing was written to {output}: {profiled.last_words()}")
    return output
