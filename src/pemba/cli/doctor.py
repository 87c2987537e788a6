"""`pemba doctor`: which settings are in force, and whether what they lead to is well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import ExitCode, reporting
from pemba.cli.options import OutputOption
from pemba.cli.output import Output, print_json, print_table

if TYPE_CHECKING:
    from pemba.cli.diagnosis import Finding
    from pemba.cli.settings_in_force import InForce

_COLUMNS = ("SETTING", "VALUE", "FROM")


def doctor(
    endpoint: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="The API; else PEMBA_ENDPOINT, else a running `pemba dev`."),
    ] = "",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long each part may take.")] = 5.0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether settings, API, PostgreSQL, SpiceDB and relay are well; exit code 1 where something is not."""
    with reporting(output):
        from pemba.cli.diagnosis import Level, examine

        settings, findings = examine(endpoint, timeout)
        well = all(finding.level is not Level.FAILURE for finding in findings)
        if output is Output.JSON:
            print_json(
                {
                    "ok": well,
                    "settings": [each.as_dict() for each in settings],
                    "findings": [each.as_dict() for each in findings],
                }
            )
        else:
            _print(settings, findings)
        if not well:
            raise typer.Exit(ExitCode.NO)


def _print(settings: list[InForce], findings: list[Finding]) -> None:
    print_table([dict(zip(_COLUMNS, (s.variable, s.value, s.source), strict=True)) for s in settings], _COLUMNS)
    print()
    for finding in findings:
        print(f"{finding.level:9}{finding.subject:12}{finding.message}")
        if finding.to_do:
            print(f"{'':9}{'':12}-> {finding.to_do}")
