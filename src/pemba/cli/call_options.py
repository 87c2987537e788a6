"""The options of every command that calls Pemba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pemba.cli.output import Output

_PANEL = "Options of every call"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What a command says about its calls besides their own arguments."""

    output: Annotated[
        Output, typer.Option("--output", "-o", help="How the answer is printed.", rich_help_panel=_PANEL)
    ] = Output.TABLE
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The API; else PEMBA_ENDPOINT, else a running `pemba dev`.",
            rich_help_panel=_PANEL,
        ),
    ] = ""
    on_behalf_of: Annotated[
        str, typer.Option(metavar="user:ID", help="The user to act for.", rich_help_panel=_PANEL)
    ] = ""
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Deadline of each call.", rich_help_panel=_PANEL)
    ] = 10.0
    request_id: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Idempotency key: the same change sent again under it happens once.",
            rich_help_panel=_PANEL,
        ),
    ] = ""
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Say what would happen, change nothing.", rich_help_panel=_PANEL)
    ] = False
