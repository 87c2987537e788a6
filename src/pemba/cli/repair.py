"""`pemba repair`: what is broken, mended where nobody has to decide anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.call_options import CallOptions
from pemba.cli.failure import ExitCode, reporting
from pemba.cli.options import OutputOption
from pemba.cli.output import Output, print_json, print_table

if TYPE_CHECKING:
    from pemba.cli.repairs import Repair

_COLUMNS = ("STATE", "PART", "ABOUT", "FOUND", "REMEDY")


def repair(
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Repair what takes no decision; else nothing is changed.")
    ] = False,
    tenant: Annotated[
        str, typer.Option("--tenant", "-t", help="Records and tuples of this tenant alone, by slug or id; else of all.")
    ] = "",
    max_deletions: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --apply: if more tuples than this are too much, delete none.", show_default=False
        ),
    ] = None,
    endpoint: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="The API; else PEMBA_ENDPOINT, else a running `pemba dev`."),
    ] = "",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long each part may take.")] = 10.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Repair records, parked operations and drift; exit code 1 where anything is left, which says what to do.

    It takes a system key and PostgreSQL (PEMBA_DATABASE_URL, or a running `pemba dev`'s).
    """
    with reporting(output):
        if max_deletions is not None and not apply:
            raise typer.BadParameter("--max-deletions goes with --apply: without it nothing is changed")
        options = CallOptions(output=output, endpoint=endpoint, timeout=timeout)
        found = _find(options, tenant, apply=apply, max_deletions=max_deletions)
        from pemba.cli.repairs import State

        left = [each for each in found if each.state is not State.REPAIRED]
        if output is Output.JSON:
            print_json({"ok": not left, "applied": apply, "found": [each.as_dict() for each in found]})
        else:
            _print(found, apply=apply)
        if left:
            raise typer.Exit(ExitCode.NO)


def _find(options: CallOptions, tenant: str, *, apply: bool, max_deletions: int | None) -> list[Repair]:
    """Everything that is found, repaired where `apply` says so.  Raises CallFailed, ConfigError, PembaError."""
    from pemba.cli import repairs
    from pemba.cli.connection import connect
    from pemba.cli.progress import Progress
    from pemba.cli.refs import tenant_id as id_of

    progress = Progress("pemba repair")
    try:
        progress.step("looking at settings and servers")
        found, usable = repairs.environment(options.endpoint, options.timeout)
        if not usable:
            return found
        with connect(options) as pemba:
            tenant_id = id_of(pemba, tenant) if tenant else ""
            progress.step("looking at the records")
            found += repairs.records(tenant_id, apply=apply)
            found += repairs.parked(pemba, tenant_id, apply=apply)
            if not any(each.part == "SpiceDB" for each in found):
                progress.step("comparing SpiceDB with the records")
                found += repairs.drift(pemba, tenant_id, progress, apply=apply, max_deletions=max_deletions)
    finally:
        progress.end()
    return found


def _print(found: list[Repair], *, apply: bool) -> None:
    from pemba.cli.repairs import State

    if found:
        rows = [(each.state, each.part, each.about, each.message, each.remedy) for each in found]
        print_table([dict(zip(_COLUMNS, row, strict=True)) for row in rows], _COLUMNS)
    states = [each.state for each in found]
    if State.TO_REPAIR in states:
        print(f"{states.count(State.TO_REPAIR)} to repair; nothing was changed: --apply does")
    if State.REPAIRED in states:
        print(f"{states.count(State.REPAIRED)} repaired")
    if State.PERSON in states:
        print(f"{states.count(State.PERSON)} left for you to decide")
    if not found:
        print("nothing to repair")
