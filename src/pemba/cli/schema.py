"""`pemba schema`: the permission schema of this build, and the SpiceDB that PEMBA_SPICEDB_ENDPOINT names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pemba.cli.failure import ExitCode, reporting
from pemba.cli.options import OutputOption
from pemba.cli.output import Output, print_json

if TYPE_CHECKING:
    from pemba.config import SchemaSettings, SpiceDBSettings
    from pemba.spicedb.client import SpiceDB
    from pemba.spicedb.schema import SchemaChange
    from pemba.spicedb.schema_apply import Applied

app = typer.Typer(name="schema", help="Apply the permission schema to SpiceDB.", no_args_is_help=True)


@app.command("apply")
def apply(output: OutputOption = Output.TABLE) -> None:
    """Make this build's schema SpiceDB's; doing so again changes nothing.  Deploy jobs run it before `serve`."""
    with reporting(output):
        from pemba.config import SchemaSettings, load
        from pemba.telemetry import set_up_logging

        settings = load(SchemaSettings)
        set_up_logging(settings.log_level, settings.log_format)
        applied = asyncio.run(_apply(settings))
        if output is Output.JSON:
            changes = [asdict(change) for change in applied.changes]
            print_json({"written": applied.written, "digest": applied.digest, "changes": changes})
        else:
            _print_changes(applied.changes)
            print(f"{'applied' if applied.written else 'applied already'}: {applied.digest}")


@app.command("check")
def check(output: OutputOption = Output.TABLE) -> None:
    """Say what SpiceDB lacks of this build's schema; exit code 1 where that is anything."""
    with reporting(output):
        from pemba.config import SpiceDBSettings, load

        missing = asyncio.run(missing_in(load(SpiceDBSettings)))
        if output is Output.JSON:
            print_json({"missing": [asdict(change) for change in missing]})
        else:
            _print_changes(missing)
            print("run `pemba schema apply`" if missing else "SpiceDB has all of this build's schema")
        if missing:
            raise typer.Exit(ExitCode.NO)


def _print_changes(changes: Sequence[SchemaChange]) -> None:
    for change in changes:
        print(change)


async def _apply(settings: SchemaSettings) -> Applied:
    from pemba.spicedb import schema, schema_apply
    from pemba.storage.schema_versions import SchemaVersions

    async with _connected(settings) as spicedb, SchemaVersions.connect(settings.database_url) as ledger:
        return await schema_apply.apply(spicedb, ledger, schema.schema_text())


async def missing_in(settings: SpiceDBSettings) -> list[SchemaChange]:
    """What that SpiceDB lacks of this build's schema."""
    from pemba.spicedb import schema

    async with _connected(settings) as spicedb:
        return await schema.missing(spicedb)


@asynccontextmanager
async def _connected(settings: SpiceDBSettings) -> AsyncIterator[SpiceDB]:
    from pemba.spicedb.client import SpiceDB

    spicedb = SpiceDB.connect(settings.spicedb_endpoint, settings.spicedb_key, tls=settings.spicedb_tls)
    try:
        yield spicedb
    finally:
        await spicedb.close()
