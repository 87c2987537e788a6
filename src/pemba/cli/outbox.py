"""`pemba outbox`: how far the relay is, what SpiceDB refused of it, and what happens to rows at this moment.

`status` reads PostgreSQL (PEMBA_DATABASE_URL, or a running `pemba dev`'s), so it tells also while nothing serves.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import reporting
from pemba.cli.options import LimitOption, OutputOption, with_call_options
from pemba.cli.output import Output, Row, as_dict, moment, print_json, print_table, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.storage.outbox import StreamStatus
    from pemba.v1 import operations_pb2

app = typer.Typer(
    name="outbox", help="See how far changes are delivered to SpiceDB, and what it refuses.", no_args_is_help=True
)

_COLUMNS = ("TENANT", "SHARD", "HEAD", "DELIVERED", "UNDELIVERED", "OLDEST", "PARKED", "CHECKS", "RELAY")
_PARKED_COLUMNS = ("TENANT", "ROW", "OPERATION", "TUPLE", "CHECKS", "CAUSE", "REFUSED")

TenantArgument = Annotated[str, typer.Argument(help="Only this tenant, by slug or id.")]


@app.command("status")
def status(
    every: Annotated[bool, typer.Option("--all", help="Also tenants with nothing undelivered.")] = False,
    limit: LimitOption = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the tenants with changes that are not delivered or that SpiceDB refused, the furthest behind first."""
    with reporting(output):
        streams = asyncio.run(read_streams(database_url(), every, limit))
        if output is Output.JSON:
            print_json({"streams": [asdict(stream) for stream in streams]})
        elif streams:
            print_table([_row(stream) for stream in streams], _COLUMNS)
        else:
            print("every change is delivered" if not every else "there is no tenant yet")


def parked(pemba: Connection, tenant: TenantArgument = "", limit: LimitOption = 100) -> None:
    """List what SpiceDB refused and delivery left out; where it closes the tenant's checks, CHECKS says so."""
    from pemba.v1 import operations_pb2

    request = operations_pb2.ListParkedOperationsRequest(tenant_id=_tenant_id(pemba, tenant))
    answer = pemba.list(pemba.operations.ListParkedOperations, request, "parked_operations", limit)
    show(pemba.output, answer, [_parked_row(each) for each in answer.parked_operations], _PARKED_COLUMNS)


def retry(pemba: Connection, tenant: TenantArgument = "") -> None:
    """Repair what is parked, as ordinary changes; what SpiceDB refuses again is parked again.

    For when SpiceDB takes it now.  After a schema apply the relay does this by itself.
    """
    from pemba.v1 import operations_pb2

    request = operations_pb2.RetryParkedRequest(tenant_id=_tenant_id(pemba, tenant))
    answer = pemba.read(pemba.operations.RetryParked, request)
    if pemba.output is not Output.TABLE:
        show(pemba.output, answer, [])
    elif answer.retried:
        print(f"{answer.retried} parked operations are repaired as the relay delivers it; `pemba outbox parked` lists")
        print("what SpiceDB refuses again.")
    else:
        print("nothing is parked")


def tail(
    pemba: Connection,
    tenant: TenantArgument = "",
    since: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"],
            help="Begin with the changes made since this time (UTC), as far as they are kept; else with those of now.",
        ),
    ] = None,
) -> None:
    """Follow changes as they are committed and delivered, until Ctrl-C.  With --output json: a line for each."""
    from pemba.v1 import operations_pb2

    request = operations_pb2.TailOutboxRequest(tenant_id=_tenant_id(pemba, tenant))
    if since is not None:
        request.since.FromDatetime(since)
    for event in pemba.follow(pemba.operations.TailOutbox, request):
        print(json.dumps(as_dict(event)) if pemba.output is Output.JSON else "\n".join(_tailed(event)), flush=True)


app.command("parked")(with_call_options(parked, ("output", "endpoint", "timeout")))
app.command("retry")(with_call_options(retry, ("output", "endpoint", "timeout")))
app.command("tail")(with_call_options(tail, ("output", "endpoint")))


def _tenant_id(pemba: Connection, tenant: str) -> str:
    """Empty for every tenant: a command of those who run Pemba does not go by PEMBA_TENANT."""
    from pemba.cli.refs import tenant_id

    return tenant_id(pemba, tenant) if tenant else ""


def _parked_row(each: operations_pb2.ParkedOperation) -> Row:
    from pemba.v1 import operations_pb2

    closes = each.effect == operations_pb2.PARKED_EFFECT_RESTRICTS
    cells = (
        each.tenant_slug or each.tenant_id,
        str(each.seq),
        _operation(each.operation),
        each.tuple,
        "closed" if closes else "open",
        each.cause,
        moment(each.park_time),
    )
    return dict(zip(_PARKED_COLUMNS, cells, strict=True))


def _tailed(event: operations_pb2.TailOutboxResponse) -> list[str]:
    from pemba.v1 import operations_pb2

    if event.event == operations_pb2.OUTBOX_EVENT_DELIVERED:
        return [f"delivered {event.tenant_id} {event.seq}"]
    heading = f"committed {event.tenant_id} {event.seq} {moment(event.create_time)} request {event.request_id or '-'}"
    return [heading, *(f"    {_operation(each.operation)} {each.tuple}" for each in event.operations)]


def _operation(operation: operations_pb2.TupleOperation.ValueType) -> str:
    from pemba.v1 import operations_pb2

    return operations_pb2.TupleOperation.Name(operation).removeprefix("TUPLE_OPERATION_").lower()


def database_url() -> str:
    """PEMBA_DATABASE_URL, else the database of a running `pemba dev`.  Raises ConfigError."""
    from pemba.config import DatabaseSettings, DevSettings, load
    from pemba.dev.ready import read_ready

    settings = load(DevSettings)
    ready = None if settings.database_url else read_ready(settings.data_folder)
    return load(DatabaseSettings, {"database_url": ready.database_url if ready else None}).database_url


async def read_streams(url: str, every: bool, limit: int) -> list[StreamStatus]:
    """Up to `limit` streams of the database at `url`, the furthest behind first.

    Without `every` only those that are behind or have parked operations.
    """
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
    checks = "closed" if stream.closed else "open"
    cells = (stream.tenant_id, *map(str, numbers), age, str(stream.parked), checks, stream.relay)
    return dict(zip(_COLUMNS, cells, strict=True))
