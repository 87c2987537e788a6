"""Follows everything that SpiceDB writes and PostgreSQL records, for the checker to look at in the end."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import grpc
from authzed.api.v1 import ReadSchemaRequest, RelationshipFilter, RelationshipUpdate, WatchRequest
from authzed.api.v1.schema_service_pb2_grpc import SchemaServiceStub
from authzed.api.v1.watch_service_pb2_grpc import WatchServiceStub

from pemba import projection
from pemba.model import GLOBAL_STREAM, ObjectRef, Operation, SubjectRef, TenantId, Tuple, TupleOperation
from pemba.projection import TYPES
from pemba.spicedb.client import SpiceDB
from pemba.storage import outbox
from tests.crash.faults.checker import Delivery, Resurrection, Row, Write, resurrections
from tests.crash.faults.revisions import revision_of
from tests.truth import eventually, sql
from tests.watching import tuple_of

# The table of deliveries keeps the last state of each tenant only: here is every one that was committed.
_LOG_DELIVERIES = """
    CREATE TABLE delivery_log (
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        tenant_id text NOT NULL, delivered_seq bigint NOT NULL, zedtoken text
    );
    CREATE FUNCTION log_delivery() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        INSERT INTO delivery_log (tenant_id, delivered_seq, zedtoken)
        VALUES (NEW.tenant_id, NEW.delivered_seq, NEW.zedtoken);
        RETURN NULL;
    END $$;
    CREATE TRIGGER log_delivery AFTER INSERT OR UPDATE ON tenant_delivery
        FOR EACH ROW EXECUTE FUNCTION log_delivery();
    GRANT SELECT ON delivery_log TO pemba_system;
"""


class Recording:
    """What Watch told so far; survives restarts of SpiceDB, from where it was."""

    def __init__(self, spicedb: SpiceDB, cursor: Any) -> None:
        self.writes: list[Write] = []
        self._spicedb = spicedb
        self._cursor = cursor

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(grpc.aio.AioRpcError):
                await self._follow()
            await asyncio.sleep(0.1)  # SpiceDB is away

    async def catch_up(self) -> None:
        """Returns when Watch has told all that was written before; it leaves nothing in the store."""
        mark = Tuple(ObjectRef("workspace", f"watched/{secrets.token_hex(8)}"), "viewer", SubjectRef("user", "nobody"))
        for operation in (Operation.TOUCH, Operation.DELETE):
            await self._spicedb.write([TupleOperation(operation, mark)], metadata={}, timeout=5)

        async def is_told() -> bool:
            return any(mark in write.deleted for write in self.writes[-100:])

        await eventually(is_told, 20)

    async def _follow(self) -> None:
        request = WatchRequest(
            optional_start_cursor=self._cursor,
            optional_relationship_filters=[RelationshipFilter(resource_type=type_) for type_ in TYPES],
        )
        watch = WatchServiceStub(self._spicedb.channel).Watch(request, metadata=self._spicedb.metadata)
        async for response in watch:
            self._take(response)

    def _take(self, response: Any) -> None:
        by_kind: dict[int, set] = {}
        for update in response.updates:
            by_kind.setdefault(update.operation, set()).add(tuple_of(update.relationship))
        self.writes.append(
            Write(
                revision_of(response.changes_through.token),
                frozenset(by_kind.get(RelationshipUpdate.OPERATION_TOUCH, ())),
                frozenset(by_kind.get(RelationshipUpdate.OPERATION_DELETE, ())),
                time.time(),
            )
        )
        self._cursor = response.changes_through


async def rows_of(url: str) -> list[Row]:
    """The record: every number of every tenant."""
    records = await sql(
        url,
        "SELECT tenant_id, seq, ops, extract(epoch FROM create_time) AS begun_at FROM audit"
        " WHERE seq IS NOT NULL AND tenant_id <> $1 ORDER BY tenant_id, seq",
        GLOBAL_STREAM,
    )
    return [
        Row(TenantId(r["tenant_id"]), r["seq"], outbox.from_json(json.loads(r["ops"])), float(r["begun_at"]))
        for r in records
    ]


async def deliveries_of(url: str) -> list[Delivery]:
    """Those with a write behind them."""
    records = await sql(url, "SELECT tenant_id, delivered_seq, zedtoken FROM delivery_log WHERE zedtoken IS NOT NULL")
    return [Delivery(TenantId(r["tenant_id"]), r["delivered_seq"], revision_of(r["zedtoken"])) for r in records]


async def resurrected(recording: Recording, url: str) -> list[Resurrection]:
    """What the checker finds, in all that was written and recorded until now."""
    deliveries = await deliveries_of(url)
    await recording.catch_up()
    rows = await rows_of(url)
    ours = {row.tenant_id for row in rows}
    found = resurrections(rows, deliveries, recording.writes)
    return [each for each in found if projection.owner_of(each.tuple) in ours]


@asynccontextmanager
async def recording(url: str, spicedb: SpiceDB) -> AsyncIterator[Recording]:
    """From before the first tenant on; `url` is a migrated database of the login that owns its tables."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_LOG_DELIVERIES)
    finally:
        await connection.close()
    now = await SchemaServiceStub(spicedb.channel).ReadSchema(ReadSchemaRequest(), metadata=spicedb.metadata, timeout=5)
    recording = Recording(spicedb, now.read_at)
    following = asyncio.create_task(recording.follow())
    try:
        yield recording
    finally:
        following.cancel()
        await asyncio.wait({following})
