"""WatchService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from pemba.authorizer.ground import Position, Snapshot
from pemba.model import TenantId
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.records import REASONS
from pemba.rpc.validation import Fields
from pemba.service.watch import Watched, WatchService
from pemba.service.watched import About, JsonRecord
from pemba.v1 import watch_pb2
from pemba.v1.watch_pb2 import (
    WatchChangesRequest,
    WatchChangesResponse,
    WatchPositionsRequest,
    WatchPositionsResponse,
)

MAX_TENANTS = 100


class Watch:
    def __init__(self, service: WatchService) -> None:
        self._service = service

    async def watch_changes(self, request: WatchChangesRequest, call: Call) -> AsyncGenerator[WatchChangesResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            asked = request.WhichOneof("about")
            about = About(
                tenant_id,
                fields.workspace_id("workspace_id", request.workspace_id) if asked == "workspace_id" else None,
                fields.user_id("user_id", request.user_id) if asked == "user_id" else None,
            )
        async with aclosing(self._service.changes(call.caller, about, request.cursor)) as changes:
            async for watched in changes:
                yield WatchChangesResponse(
                    cursor=watched.cursor, change=_change(watched, about), held_back=REASONS[watched.held_back]
                )

    async def watch_positions(
        self, request: WatchPositionsRequest, call: Call
    ) -> AsyncGenerator[WatchPositionsResponse]:
        with Fields() as fields:
            tenant_ids = [fields.tenant_id(f"tenant_ids[{i}]", id_) for i, id_ in enumerate(request.tenant_ids)]
            if not 0 < len(tenant_ids) <= MAX_TENANTS:
                fields.wrong("tenant_ids", f"takes 1 to {MAX_TENANTS}")
        async with aclosing(self._service.positions(call.caller, tenant_ids)) as positions:
            async for told in positions:
                yield WatchPositionsResponse(
                    database_epoch=str(told.snapshot.database_epoch),
                    store_epoch=str(told.snapshot.store_epoch),
                    statuses_seq=told.snapshot.statuses_seq,
                    positions=[self._position(told.snapshot, id_, its) for id_, its in told.moved.items()],
                )

    def _position(self, snapshot: Snapshot, tenant_id: TenantId, position: Position) -> watch_pb2.TenantPosition:
        return watch_pb2.TenantPosition(
            tenant_id=tenant_id,
            delivered_seq=position.delivered_seq,
            token=self._service.token(snapshot, tenant_id),
            serial=position.serial if position.in_store and not position.closed else 0,
        )


def _change(watched: Watched, about: About) -> watch_pb2.Change | None:
    row = watched.row
    if row is None:
        return None
    return watch_pb2.Change(
        method=row.method,
        create_time=records.timestamp(row.create_time),
        acting_user=row.acting_user,
        token=watched.token,
        part=row.part + 1,
        parts=row.parts,
        records=[
            watch_pb2.RecordChange(type=each.kind, before=_struct(each.before), after=_struct(each.after))
            for each in about.records(row)
        ],
        records_left_out=row.records_left_out,
        operations=[records.operation(each) for each in about.operations(row)],
    )


def _struct(record: JsonRecord | None) -> Struct | None:
    return None if record is None else ParseDict(dict(record), Struct())
