"""`pemba import`: data of other systems, from files into one tenant, and back out of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import ExitCode
from pemba.cli.output import Output, print_json, print_table

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.importing.stages import Order, Report
    from pemba.cli.progress import Progress

_COLUMNS = ("KIND", "LINES", "MAKE", "CHANGE", "LEAVE", "BEFORE", "AFTER")
_UNDO_COLUMNS = ("KIND", "LINES", "COMES TO", "BEFORE", "AFTER")


def import_(
    pemba: Connection,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            exists=True,
            dir_okay=False,
            readable=True,
            help="JSON Lines, or CSV of object, subject and role (*.csv): docs/importing.md.",
        ),
    ],
    tenant: Annotated[
        str, typer.Option("--tenant", "-t", help="The tenant, by slug or id; else the files' own, or PEMBA_TENANT.")
    ] = "",
    create: Annotated[bool, typer.Option("--create", help="Make the tenant: there must be none of that slug.")] = False,
    first_admin: Annotated[
        str, typer.Option(metavar="user:ID", help="With --create: the tenant's first admin, unless the files say.")
    ] = "",
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Import it (undo it); else say what that would do.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an import that was cut off.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last import of these files back.")] = False,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What an import notes down, for --resume and --undo; else FILE.import."),
    ] = None,
    max_errors: Annotated[int, typer.Option(min=1, help="How many of the errors that are found are shown.")] = 100,
) -> None:
    """Import users, workspaces, groups, roles and shares from files into one tenant, or undo that.

    Exit code 1 where the files, or later changes, are in the way: then nothing was changed.
    """
    from pemba.cli import refs
    from pemba.cli.importing import stages
    from pemba.cli.progress import Progress

    if (resume and undo) or ((resume or undo) and (create or tenant or first_admin)):
        raise typer.BadParameter("--resume and --undo go alone: the journal knows the tenant")
    if first_admin and not create:
        raise typer.BadParameter("--first-admin goes with --create")
    order = stages.Order(
        files=files,
        tenant=tenant,
        create=create,
        first_admin=refs.user_id(first_admin, "--first-admin") if first_admin else "",
        journal=journal or files[0].with_name(f"{files[0].name}.import"),
        max_errors=max_errors,
    )
    progress = Progress("pemba import")
    try:
        report = _carry_out(pemba, order, progress, apply=apply, resume=resume, undo=undo)
    finally:
        progress.end()
    _print(pemba.output, report, order)
    if report.complaint_count:
        raise typer.Exit(ExitCode.NO)


def _carry_out(pemba: Connection, order: Order, progress: Progress, *, apply: bool, resume: bool, undo: bool) -> Report:
    from pemba.cli.importing import stages

    if undo:
        return stages.undo(pemba, order, progress, carry_out=apply)
    if resume:
        return stages.resume(pemba, order, progress)
    return (stages.apply if apply else stages.dry_run)(pemba, order, progress)


def _print(output: Output, report: Report, order: Order) -> None:
    if output is Output.JSON:
        print_json(_as_dict(report, order))
    elif output is Output.TOKEN:
        print(report.token)
    else:
        for complaint in sorted(report.complaints, key=lambda each: (each.file, each.line)):
            print(complaint)
        if report.complaint_count > len(report.complaints):
            print(f"... and {report.complaint_count - len(report.complaints)} more; --max-errors N shows N of them")
        (_print_undo if "und" in report.stage else _print_counts)(report)
        print(_verdict(report, order))


def _print_counts(report: Report) -> None:
    rows = []
    for kind in report.before:
        actions = report.actions.get(kind, {"make": 0, "change": 0, "leave": 0})
        after = str(report.after[kind]) if report.after else ""
        cells = (kind, sum(actions.values()), *actions.values(), report.before[kind], after)
        rows.append(dict(zip(_COLUMNS, map(str, cells), strict=True)))
    print_table(rows, _COLUMNS)


def _print_undo(report: Report) -> None:
    rows = []
    for kind, actions in report.actions.items():
        for how, count in actions.items():
            after = str(report.after[kind]) if report.after else ""
            cells = (kind, str(count), how, str(report.before[kind]), after)
            rows.append(dict(zip(_UNDO_COLUMNS, cells, strict=True)))
    print_table(rows, _UNDO_COLUMNS)


def _verdict(report: Report, order: Order) -> str:
    if report.complaint_count:
        return {
            "dry run": f"errors: {report.complaint_count}; nothing was changed",
            "undo: dry run": f"in the way: {report.complaint_count}; nothing was changed",
        }.get(report.stage, f"imported into {report.tenant}, but it is not as the files say: {report.complaint_count}")
    return {
        "dry run": "nothing was changed; --apply imports it",
        "nothing to do": f"all of it is in {report.tenant} already: nothing was changed",
        "applied": f"imported into {report.tenant}, read back and asked; {order.journal} is what --undo takes",
        "undo: dry run": "nothing was changed; --undo --apply takes it back",
        "undone": f"taken back from {report.tenant}",
    }[report.stage]


def _as_dict(report: Report, order: Order) -> dict[str, object]:
    return {
        "tenant": report.tenant,
        "stage": report.stage.replace(": ", "_").replace(" ", "_"),
        "kinds": report.actions,
        "before": report.before,
        "after": report.after,
        "errors": [
            {"file": each.file, "line": each.line, "field": each.field, "message": each.message}
            for each in sorted(report.complaints, key=lambda each: (each.file, each.line))
        ],
        "error_count": report.complaint_count,
        "journal": str(order.journal),
        "token": report.token,
    }
