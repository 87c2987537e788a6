"""The table and the JSON of a run: pure, but for asking programs for their versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pemba.bench.figures import Figures, Goal, Row, spread, summary
from pemba.bench.stage import Size, Stage
from pemba.dev.postgres import binary

COLUMNS = ("WORK", "PEMBA", "BESIDE", "RATIO", "GOAL", "MET")
ABOUT = (
    "SpiceDB is asked directly with at_least_as_fresh of all that was loaded, which is what Pemba gives; its cache"
    " empties every five seconds. The data set has no groups."
)


@dataclass(frozen=True, slots=True)
class Report:
    """`start_seconds` is from nothing to ready, `seconds` all of the run."""

    size: Size
    rows: Sequence[Row]
    versions: Mapping[str, str]
    start_seconds: float
    seconds: float

    @property
    def is_spoilt(self) -> bool:
        return any(row.problems for row in self.rows)

    @property
    def heading(self) -> str:
        size, versions = self.size, ", ".join(f"{name} {said}" for name, said in self.versions.items())
        return (
            f"{size.tenants} tenants of {size.workspaces} workspaces and {size.users} users;"
            f" {size.rounds} x {size.seconds:g} s a side, in turns; {os.cpu_count()} cores; {versions}"
        )


def table(report: Report) -> list[dict[str, str]]:
    """A line for every goal, the figures in the first of a row; COLUMNS to text."""
    return [line for row in report.rows for line in _lines(row)]


def markdown(report: Report) -> str:
    """The table for a document."""
    lines = [f"| {' | '.join(name.lower() for name in COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(line[name] for name in COLUMNS)} |" for line in table(report)]
    return "\n".join([report.heading + ".", "", *lines, ""])


def as_json(report: Report) -> dict[str, Any]:
    """Everything that was measured, every round of it."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": dict(report.versions),
        "about": ABOUT,
        "size": asdict(report.size),
        "start_seconds": report.start_seconds,
        "seconds": report.seconds,
        "rows": [_row_as_json(row) for row in report.rows],
    }


def versions(stage: Stage) -> dict[str, str]:
    """Of the programs that really ran."""
    parts = stage.parts
    programs: dict[str, list[str | Path]] = {"spicedb": [parts.spicedb.program, "version"] if parts.spicedb else [],
                "ghz": [stage.ghz, "--version"], "postgres": [binary("postgres"), "--version"]}  # fmt: skip
    said = {name: _said(command) for name, command in programs.items() if command}
    return {"pemba": version("pemba"), "python": platform.python_version(), "grpcio": version("grpcio"), **said}


def _said(command: Sequence[str | Path]) -> str:
    """The first that looks like a version: `postgres (PostgreSQL) 18.6`, `spicedb v1.56.0`."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  our programs
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _lines(row: Row) -> list[dict[str, str]]:
    pemba, *others = list(row.sides.items()) or [("", ())]
    goals = [(_number(goal.value), goal.text, _met(goal, row)) for goal in row.goals]
    beside = [f"{name}: {_figures(rounds)}" for name, rounds in others]
    named = [row.work], [_figures(pemba[1])], beside, *(zip(*goals, strict=True) if goals else ((), (), ()))
    lines = [dict(zip(COLUMNS, cells, strict=True)) for cells in zip_longest(*named, fillvalue="")]
    return lines + [{**dict.fromkeys(COLUMNS, ""), "PEMBA": "SPOILT", "BESIDE": problem} for problem in row.problems]


def _figures(rounds: Sequence[Figures]) -> str:
    if not rounds:
        return ""
    middle = summary(rounds)
    off = f" ±{spread(rounds) / 2:.0%}" if len(rounds) > 1 else ""
    times = f", p50 {_ms(middle.p50)} p99 {_ms(middle.p99)} ms" if middle.p50 else ""
    return f"{middle.rate:,.0f}/s{off}{times}" if middle.rate >= 10 else f"{middle.rate:.1f}/s{off}{times}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _met(goal: Goal, row: Row) -> str:
    if row.problems:
        return "spoilt"
    return "yes" if goal.is_met else "no"


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "work": row.work,
        "what": row.what,
        "sides": {
            name: {"median": asdict(summary(rounds)), "rounds": [asdict(each) for each in rounds]}
            for name, rounds in row.sides.items()
        },
        "goals": [{**asdict(goal), "is_met": goal.is_met and not row.problems} for goal in row.goals],
        "notes": list(row.notes),
        "problems": list(row.problems),
    }
