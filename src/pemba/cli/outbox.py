"""`pemba outbox`: how far the relay is, read from PostgreSQL (PEMBA_DATABASE_URL, or a running `pemba dev`'s)."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import reporting
from pemba.cli.options import LimitOption, OutputOption
from pemba.cli.output import Output, Row, print_json, print_table

if TYPE_CHECKING:
    from pemba.storage.outbox import StreamStatus

app = typer.Typer(name="outbox", help="See how far changes are delivered to SpiceDB.", no_args_is_help=True)

_COLUMNS = ("TENANT", "SHARD", "HEAD", "DELIVERED", "UNDELIVERED", "OLDEST", "RELAY")


@app.command("status")
def status(
    every: Annotated[bool, typer.Option("--all", help="Also tenants with nothing undelivered.")] = False,
    limit: LimitOption = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the tenants whose changes are not all delivered, the furthest behind first."""
    with reporting(output):
        streams = asyncio.run(read_streams(_database_url(), every, limit))
        if output is Output.JSON:
            print_json({"streams": [asdict(stream) for stream in streams]})
        elif streams:
            print_table([_row(stream) for stream in streams], _COLUMNS)
        else:
            print("every change is delivered" if not every else "there is no tenant yet")


def _database_url() -> str:
    """PEMBA_DATABASE_URL, else the database of a running `pemba dev`.  Raises ConfigError."""
    from pemba.config import DatabaseSettings, DevSettings, load
    from pemba.dev.ready import read_ready

    settings = load(DevSettings)
    ready = None if settings.database_url else read_ready(settings.data_folder)
    return load(DatabaseSettings, {"database_url": ready.database_url if ready else None}).database_url


async def read_streams(url: str, every: bool, limit: int) -> list[StreamStatus]:
    """Up to `limit` streams of the database at `url`, the furthest behind first; without `every` only those behind."""
    from pemba.model import SystemScope
    from pemba.storage import outbox
    from pemba.storage.database import SYSTEM_ROLE, Database

    database = Database(url, 1, (SYSTEM_ROLE,))
    await database.open()
    try:
        async with database.begin(SystemScope("outbox status")) as tx:
            return await outbox.status(tx, every=every, limit=limit)
    finally:
        await database.close()


def _row(stream: StreamStatus) -> Row:
    age = "" if stream.oldest_seconds is None else f"{stream.oldest_seconds:.1f} s"
    numbers = (stream.shard, stream.head_seq, stream.delivered_seq, stream.undelivered)
    return dict(zip(_COLUMNS, (stream.tenant_id, *map(str, numbers), age, stream.relay), strict=True))
