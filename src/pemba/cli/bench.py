"""`pemba bench`: how fast Pemba is, beside SpiceDB asked directly."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pemba.cli.failure import ExitCode
from pemba.cli.output import print_table
from pemba.cli.progress import Progress
from pemba.config import DevSettings, load
from pemba.dev.ready import Ready
from pemba.errors import ConfigError

if TYPE_CHECKING:
    from pemba.bench.report import Report

T = TypeVar("T")


def bench(
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=600, help="Length of each load [default: 2, with --quick 0.3].")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=5, help="Turns of each side [default: 2, with --quick 1].")
    ] = None,
    only: Annotated[str, typer.Option(help="Works to measure, separated by commas [default: all].")] = "",
    tenants: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="Tenants to load [default: 100, with --quick 8].")
    ] = None,
    drain_tuples: Annotated[
        int | None, typer.Option(min=100, max=1_000_000, help="Tuples to drain [default: 100,000, with --quick 2,000].")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A try-out of half a minute; its figures say nothing.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table to this file.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="Measure nothing; write where `serve` spends its time to files in this folder.")
    ] = None,
) -> None:
    """Measure Pemba and SpiceDB asked directly, in turns, on servers and data of their own.

    The load comes from ghz (on PATH, or built once); pgbench stands beside mutations.  A sample of each work's requests
    is also sent one by one, before and after its load: every answer of both sides has to be what the records say.  A
    wrong answer, or any status but OK in the load, spoils the row, and the exit code is 3.  Of mutations the statuses
    are looked at, and what checks with their tokens answer.  A goal that is not met is only said.
    """
    try:  # the servers' packages are an extra of their own: other commands go without
        from pemba.bench import profile as profiling
        from pemba.bench.run import FULL, QUICK, WORKS, Choice, run
    except ModuleNotFoundError as missing:
        print(f"pemba bench: {missing}; it needs more packages: pip install 'pemba[dev-stack]'", file=sys.stderr)
        raise typer.Exit(ExitCode.FAILED) from None
    default = QUICK if quick else FULL
    size = replace(
        default,
        seconds=seconds or default.seconds,
        rounds=rounds or default.rounds,
        tenants=tenants or default.tenants,
        drain_tuples=drain_tuples or default.drain_tuples,
    )
    choice = Choice(size, _works(only, list(WORKS)))
    progress = _Progress("pemba bench")
    if profile is not None:
        folder = profile
        for file in _running(progress, lambda settings: profiling.profile(choice, settings, progress, folder)):
            print(file)
        return
    report = _running(progress, lambda settings: run(choice, settings, progress))
    _show(report)
    _write(report, json_file, markdown_file)
    raise typer.Exit(ExitCode.FAILED if report.is_spoilt else ExitCode.OK)


class _Progress(Progress):
    """A Reporter."""

    def ready(self, _: Ready) -> None:
        """Nobody else is to use it."""


def _works(only: str, every: list[str]) -> list[str]:
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := wanted - set(every):
        raise typer.BadParameter(f"--only takes some of {', '.join(every)}; not {', '.join(sorted(unknown))}")
    return [name for name in every if not wanted or name in wanted]


def _running(progress: _Progress, act: Callable[[DevSettings], T]) -> T:
    from pemba.dev.process import StartError

    try:
        return act(load(DevSettings))
    except (ConfigError, StartError) as error:
        progress.end()
        progress.problem(str(error))
        raise typer.Exit(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED) from None
    finally:
        progress.end()


def _show(report: Report) -> None:
    from pemba.bench.report import ABOUT, COLUMNS, table

    print(f"{report.heading}\n{ABOUT}\n")
    print_table(table(report), COLUMNS)
    print()
    for row in report.rows:
        print(f"{row.work}: {row.what}{''.join(f'; {note}' for note in row.notes)}")
    print(f"\nready after {report.start_seconds:.1f} s; all of it took {report.seconds:.0f} s")


def _write(report: Report, json_file: Path | None, markdown_file: Path | None) -> None:
    from pemba.bench.report import as_json, markdown

    if json_file is not None:
        json_file.write_text(json.dumps(as_json(report), indent=2) + "\n")
    if markdown_file is not None:
        markdown_file.write_text(markdown(report))
