"""AuditService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pemba.model import GLOBAL_STREAM
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.filters import order
from pemba.rpc.validation import Fields
from pemba.service.audit import AuditEvent, AuditFilter, AuditService, Outcome
from pemba.v1 import audit_pb2, types_pb2
from pemba.v1.audit_pb2 import (
    AUDIT_OUTCOME_CHANGED,
    AUDIT_OUTCOME_READ,
    AUDIT_OUTCOME_REFUSED,
    AUDIT_OUTCOME_UNSPECIFIED,
    ExportAuditEventsRequest,
    ExportAuditEventsResponse,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
)

MAX_TEXT_CHARACTERS = 400
_OUTCOMES = {
    Outcome.CHANGED: AUDIT_OUTCOME_CHANGED,
    Outcome.REFUSED: AUDIT_OUTCOME_REFUSED,
    Outcome.READ: AUDIT_OUTCOME_READ,
}
_WANTED: dict[int, Outcome | None] = {
    AUDIT_OUTCOME_UNSPECIFIED: None,
    **{number: outcome for outcome, number in _OUTCOMES.items()},
}


class Audit:
    def __init__(self, service: AuditService) -> None:
        self._service = service

    async def list_audit_events(self, request: ListAuditEventsRequest, call: Call) -> ListAuditEventsResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            wanted = _wanted(fields, request.filter)
            page_size = fields.page_size(request.page_size)
        field, descending = order(request.order_by, ("id",))
        page = await self._service.list_events(
            call.caller,
            tenant_id,
            wanted=wanted,
            newest_first=descending or not field,
            page_size=page_size,
            page_token=request.page_token,
        )
        return ListAuditEventsResponse(
            audit_events=[_event(event) for event in page.records], next_page_token=page.next_page_token
        )

    async def export_audit_events(
        self, request: ExportAuditEventsRequest, call: Call
    ) -> AsyncGenerator[ExportAuditEventsResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            wanted = _wanted(fields, request.filter)
        exported = self._service.export_events(call.caller, tenant_id, wanted=wanted, cursor=request.cursor)
        async with aclosing(exported) as events:
            async for each in events:
                event = None if each.event is None else _event(each.event)
                yield ExportAuditEventsResponse(audit_event=event, cursor=each.cursor)


def _wanted(fields: Fields, given: audit_pb2.AuditFilter) -> AuditFilter:
    if given.outcome not in _WANTED:
        fields.wrong("filter.outcome", "takes AUDIT_OUTCOME_CHANGED, AUDIT_OUTCOME_REFUSED or AUDIT_OUTCOME_READ")
    return AuditFilter(
        object=_named(fields, "filter.object", given.object),
        subject=_named(fields, "filter.subject", given.subject),
        actor=_text(fields, "filter.actor", given.actor),
        method=_text(fields, "filter.method", given.method),
        request_id=_text(fields, "filter.request_id", given.request_id),
        outcome=_WANTED.get(given.outcome),
        since=fields.time("filter.since", given.since) if given.HasField("since") else None,
        until=fields.time("filter.until", given.until) if given.HasField("until") else None,
    )


def _named(fields: Fields, field: str, ref: types_pb2.ObjectRef | types_pb2.SubjectRef) -> str:
    """In text; whether there is such a thing, or was, only the events say."""
    if bool(ref.type) != bool(ref.id):
        fields.wrong(field, "takes both a type and an id")
    return _text(fields, field, f"{ref.type}:{ref.id}") if ref.type else ""


def _text(fields: Fields, field: str, text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS or not text.isprintable():
        fields.wrong(field, f"takes at most {MAX_TEXT_CHARACTERS} printable characters")
    return text


def _event(event: AuditEvent) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(
        id=event.id,
        tenant_id="" if event.tenant_id == GLOBAL_STREAM else event.tenant_id,
        create_time=records.timestamp(event.create_time),
        principal=event.principal,
        acting_user=event.acting_user,
        peer=event.peer,
        request_id=event.request_id,
        method=event.method,
        object=event.object,
        about=event.about,
        outcome=_OUTCOMES[event.outcome],
        reason=event.reason,
        seq=event.seq or 0,
        part=event.part + 1,
        parts=event.parts,
        before=records.json_value(event.before),
        after=records.json_value(event.after),
        records_left_out=event.records_left_out,
        operations=[records.operation(each) for each in event.operations],
    )
