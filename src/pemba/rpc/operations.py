"""OperationsService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import MAX_PAGE_SIZE, Fields
from pemba.service.drift import Finding, Kind
from pemba.service.operations import OperationsService
from pemba.service.reconciliation import Options, Progress, Summary
from pemba.v1 import types_pb2
from pemba.v1.operations_pb2 import (
    DRIFT_KIND_FOREIGN,
    DRIFT_KIND_MISSING,
    DRIFT_KIND_TOO_MUCH,
    GetRelayStatusRequest,
    GetRelayStatusResponse,
    ReconcileFinding,
    ReconcileProgress,
    ReconcileRequest,
    ReconcileResponse,
    ReconcileSummary,
    ShardStatus,
    StreamStatus,
)

DEFAULT_STREAMS = 100
_WITHOUT_APPLY = "goes with apply: without it nothing is written"

_KINDS = {
    Kind.MISSING: DRIFT_KIND_MISSING,
    Kind.TOO_MUCH: DRIFT_KIND_TOO_MUCH,
    Kind.FOREIGN: DRIFT_KIND_FOREIGN,
}


class Operations:
    def __init__(self, service: OperationsService) -> None:
        self._service = service

    async def get_relay_status(self, request: GetRelayStatusRequest, call: Call) -> GetRelayStatusResponse:
        with Fields() as fields:
            limit = min(fields.limit("limit", request.limit), MAX_PAGE_SIZE) or DEFAULT_STREAMS
        status = await self._service.get_relay_status(call.caller, limit=limit)
        return GetRelayStatusResponse(
            shards=[
                ShardStatus(
                    shard=s.shard,
                    streams=s.streams,
                    streams_behind=s.streams_behind,
                    undelivered=s.undelivered,
                    oldest_seconds=s.oldest_seconds,
                )
                for s in status.shards
            ],
            streams=[
                StreamStatus(
                    tenant_id=s.tenant_id,
                    shard=s.shard,
                    head_seq=s.head_seq,
                    delivered_seq=s.delivered_seq,
                    oldest_seconds=s.oldest_seconds or 0,
                )
                for s in status.streams
            ],
            reconcile_time=None if status.reconcile_time is None else records.timestamp(status.reconcile_time),
        )

    async def reconcile(self, request: ReconcileRequest, call: Call) -> AsyncGenerator[ReconcileResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            if request.max_deletions < 0:
                fields.wrong("max_deletions", "takes 0 (delete nothing) or more")
            if request.HasField("max_deletions") and not request.apply:
                fields.wrong("max_deletions", _WITHOUT_APPLY)
            if request.wait and not request.apply:
                fields.wrong("wait", _WITHOUT_APPLY)
        options = Options(
            tenant_id=tenant_id,
            apply=request.apply,
            max_deletions=request.max_deletions if request.HasField("max_deletions") else None,
            wait=request.wait,
        )
        async with aclosing(self._service.reconcile(call.caller, options)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield ReconcileResponse(
                        progress=ReconcileProgress(step=event.step, done=event.done, total=event.total)
                    )
                elif isinstance(event, Finding):
                    yield ReconcileResponse(finding=_finding(event))
                else:
                    yield ReconcileResponse(summary=_summary(event), token=self._service.token(event))


def _finding(finding: Finding) -> ReconcileFinding:
    drift = finding.drift
    return ReconcileFinding(
        kind=_KINDS[drift.kind],
        tuple=str(drift.tuple),
        tenant_id=drift.tenant_id or "",
        tenant_slug=finding.tenant_slug,
        object=types_pb2.ObjectRef(type=finding.object.type, id=finding.object.id),
        object_name=finding.object_name,
        relation=drift.tuple.relation,
        subject=types_pb2.SubjectRef(
            type=finding.subject.type, id=finding.subject.id, relation=finding.subject.relation
        ),
        subject_name=finding.subject_name,
    )


def _summary(summary: Summary) -> ReconcileSummary:
    return ReconcileSummary(
        stored=summary.stored,
        projected=summary.projected,
        missing=summary.missing,
        too_much=summary.too_much,
        foreign=summary.foreign,
        undelivered=summary.undelivered,
        repaired=summary.repaired,
        deletions_withheld=summary.deletions_withheld,
        max_deletions=summary.max_deletions,
    )
