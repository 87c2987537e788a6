"""OperationsService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pemba.model import Effect
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import MAX_PAGE_SIZE, Fields
from pemba.service.drift import Finding, Kind
from pemba.service.operations import ListedParked, OperationsService
from pemba.service.outbox_tail import Delivered, TailEvent
from pemba.service.reconciliation import Options, Progress, Summary
from pemba.v1 import types_pb2
from pemba.v1.operations_pb2 import (
    DRIFT_KIND_FOREIGN,
    DRIFT_KIND_MISSING,
    DRIFT_KIND_TOO_MUCH,
    OUTBOX_EVENT_COMMITTED,
    OUTBOX_EVENT_DELIVERED,
    PARKED_EFFECT_GRANTS_LESS,
    PARKED_EFFECT_RESTRICTS,
    PARKED_EFFECT_WITHDRAWN,
    GetRelayStatusRequest,
    GetRelayStatusResponse,
    ListParkedOperationsRequest,
    ListParkedOperationsResponse,
    ParkedOperation,
    ReconcileFinding,
    ReconcileProgress,
    ReconcileRequest,
    ReconcileResponse,
    ReconcileSummary,
    ReencryptSecretsRequest,
    ReencryptSecretsResponse,
    RetryParkedRequest,
    RetryParkedResponse,
    ShardStatus,
    StreamStatus,
    TailOutboxRequest,
    TailOutboxResponse,
)

DEFAULT_STREAMS = 100
_WITHOUT_APPLY = "goes with apply: without it nothing is written"

_EFFECTS = {
    Effect.GRANTS_LESS: PARKED_EFFECT_GRANTS_LESS,
    Effect.WITHDRAWN: PARKED_EFFECT_WITHDRAWN,
    Effect.RESTRICTS: PARKED_EFFECT_RESTRICTS,
}
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
                    parked=s.parked,
                    closed=s.closed,
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

    async def list_parked_operations(
        self, request: ListParkedOperationsRequest, call: Call
    ) -> ListParkedOperationsResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_parked(
            call.caller, tenant_id, page_size=page_size, page_token=request.page_token
        )
        return ListParkedOperationsResponse(
            parked_operations=[_parked(each) for each in page.records], next_page_token=page.next_page_token
        )

    async def retry_parked(self, request: RetryParkedRequest, call: Call) -> RetryParkedResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
        retried = await self._service.retry_parked(call.caller, tenant_id)
        return RetryParkedResponse(retried=retried.count, token=retried.token)

    async def reencrypt_secrets(self, _: ReencryptSecretsRequest, call: Call) -> ReencryptSecretsResponse:
        done = await self._service.reencrypt_secrets(call.caller)
        return ReencryptSecretsResponse(reencrypted=done.count, unreadable=done.unreadable)

    async def tail_outbox(self, request: TailOutboxRequest, call: Call) -> AsyncGenerator[TailOutboxResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            since = fields.time("since", request.since) if request.HasField("since") else None
        async with aclosing(self._service.tail_outbox(call.caller, tenant_id, since)) as events:
            async for event in events:
                yield _tailed(event)


def _parked(listed: ListedParked) -> ParkedOperation:
    parked, refusal = listed.parked, listed.parked.refusal
    return ParkedOperation(
        tenant_id=refusal.tenant_id,
        tenant_slug=listed.tenant_slug,
        seq=refusal.seq,
        since_seq=parked.since,
        operation=records.OPERATIONS[refusal.operation.operation],
        tuple=str(refusal.operation.tuple),
        effect=_EFFECTS[refusal.effect],
        cause=refusal.reason,
        message=refusal.message,
        park_time=records.timestamp(parked.park_time),
    )


def _tailed(event: TailEvent) -> TailOutboxResponse:
    if isinstance(event, Delivered):
        return TailOutboxResponse(event=OUTBOX_EVENT_DELIVERED, tenant_id=event.tenant_id, seq=event.seq)
    row = event.row
    return TailOutboxResponse(
        event=OUTBOX_EVENT_COMMITTED,
        tenant_id=event.tenant_id,
        seq=row.seq,
        create_time=records.timestamp(row.create_time),
        request_id=row.request_id,
        operations=[records.operation(each) for each in row.operations],
    )


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
