"""PermissionService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from pemba.authorizer import Answer, Authorizer, Consistency, Decision, Part, Question, ResourcesWanted, SubjectsWanted
from pemba.errors import PembaError, invalid_field
from pemba.model import PERMISSIONS, TenantId
from pemba.rpc.context import TENANT, Call, require_own_tenant
from pemba.rpc.errors import to_status
from pemba.rpc.records import REASONS
from pemba.rpc.validation import Fields
from pemba.v1 import types_pb2
from pemba.v1.permissions_pb2 import (
    DECISION_ALLOWED,
    DECISION_CONDITIONAL,
    DECISION_DENIED,
    BatchCheckItem,
    BatchCheckRequest,
    BatchCheckResponse,
    BatchCheckResult,
    CheckAllRequest,
    CheckAllResponse,
    CheckRequest,
    CheckResponse,
    LookupResourcesRequest,
    LookupResourcesResponse,
    LookupSubjectsRequest,
    LookupSubjectsResponse,
    PermissionDecision,
)

MAX_ITEMS = 1000
MAX_CONTEXT_BYTES = 4096

_DECISIONS = {
    Decision.ALLOWED: DECISION_ALLOWED,
    Decision.DENIED: DECISION_DENIED,
    Decision.CONDITIONAL: DECISION_CONDITIONAL,
}
_NO_CONTEXT: Mapping[str, object] = {}


class Permissions:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def check(self, request: CheckRequest, call: Call) -> CheckResponse:
        tenant_id, question = _read(request, request.tenant_id)
        answer = await self._authorizer.check(
            call.caller, tenant_id, question, _consistency(request.consistency), call.deadline
        )
        return CheckResponse(
            decision=_DECISIONS[answer.decision],
            reason=REASONS[answer.reason],
            missing_context=answer.missing_context,
            token=answer.token,
        )

    async def batch_check(self, request: BatchCheckRequest, call: Call) -> BatchCheckResponse:
        if not 0 < len(request.items) <= MAX_ITEMS:
            raise invalid_field("items", f"takes 1 to {MAX_ITEMS}")
        read = [_read_item(item, request.tenant_id, call) for item in request.items]
        questions = [item for item in read if not isinstance(item, PembaError)]
        token = ""
        answers: tuple[Answer | PembaError, ...] = ()
        if questions:
            batch = await self._authorizer.batch_check(
                call.caller, questions, _consistency(request.consistency), call.deadline
            )
            answers, token = batch.results, batch.token
        answered = iter(answers)
        results = [item if isinstance(item, PembaError) else next(answered) for item in read]
        return BatchCheckResponse(
            results=[_result(result, call.caller.request_id, with_token=not token) for result in results], token=token
        )

    async def check_all(self, request: CheckAllRequest, call: Call) -> CheckAllResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            resource = fields.object("resource", request.resource)
            subject = fields.subject("subject", request.subject)
            context = _context(fields, request.context) if request.HasField("context") else _NO_CONTEXT
        questions = [Question(resource, permission, subject, context) for permission in PERMISSIONS[resource.type]]
        answer = await self._authorizer.check_all(
            call.caller, tenant_id, questions, _consistency(request.consistency), call.deadline
        )
        permissions = [_decided(permission, decided) for permission, decided in answer.answers.items()]
        return CheckAllResponse(permissions=permissions, reason=REASONS[answer.reason], token=answer.token)

    async def lookup_resources(
        self, request: LookupResourcesRequest, call: Call
    ) -> AsyncGenerator[LookupResourcesResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            type_ = fields.resource_type("type", request.type)
            permission = fields.permission("permission", type_, request.permission)
            subject = fields.subject("subject", request.subject)
            context, part = _context_and_part(fields, request)
        wanted = ResourcesWanted(type_, permission, subject, context)
        consistency = _consistency(request.consistency)
        lookup = await self._authorizer.lookup_resources(
            call.caller, tenant_id, wanted, consistency, part, call.deadline
        )
        yield LookupResourcesResponse(reason=REASONS[lookup.reason], token=lookup.token)
        for found in lookup.found:
            yield LookupResourcesResponse(
                resource=types_pb2.ObjectRef(type=type_, id=found.id),
                decision=_DECISIONS[found.decision],
                missing_context=found.missing_context,
                cursor=found.cursor,
            )

    async def lookup_subjects(
        self, request: LookupSubjectsRequest, call: Call
    ) -> AsyncGenerator[LookupSubjectsResponse]:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            resource = fields.object("resource", request.resource)
            permission = fields.permission("permission", resource.type, request.permission)
            subject_type = fields.subject_type("subject_type", request.subject_type)
            context, part = _context_and_part(fields, request)
        wanted = SubjectsWanted(resource, permission, subject_type, context)
        consistency = _consistency(request.consistency)
        lookup = await self._authorizer.lookup_subjects(
            call.caller, tenant_id, wanted, consistency, part, call.deadline
        )
        relation = "member" if subject_type == "group" else ""
        yield LookupSubjectsResponse(reason=REASONS[lookup.reason], token=lookup.token)
        for found in lookup.found:
            yield LookupSubjectsResponse(
                subject=types_pb2.SubjectRef(type=subject_type, id=found.id, relation=relation),
                decision=_DECISIONS[found.decision],
                missing_context=found.missing_context,
                cursor=found.cursor,
            )


def _read(item: CheckRequest | BatchCheckItem, tenant_id: str) -> tuple[TenantId, Question]:
    with Fields() as fields:
        tenant = fields.tenant_id("tenant_id", tenant_id)
        resource = fields.object("resource", item.resource)
        permission = fields.permission("permission", resource.type, item.permission)
        subject = fields.subject("subject", item.subject)
        context = _context(fields, item.context) if item.HasField("context") else _NO_CONTEXT
    return tenant, Question(resource, permission, subject, context)


def _read_item(item: BatchCheckItem, tenant_id: str, call: Call) -> tuple[TenantId, Question] | PembaError:
    try:
        require_own_tenant(call.caller, item.tenant_id)
        if item.tenant_id and call.tenant_id not in (None, item.tenant_id):
            raise invalid_field("tenant_id", f"contradicts the metadata {TENANT}")
        return _read(item, item.tenant_id or tenant_id)
    except PembaError as error:
        return error


def _context_and_part(
    fields: Fields, request: LookupResourcesRequest | LookupSubjectsRequest
) -> tuple[Mapping[str, object], Part]:
    context = _context(fields, request.context) if request.HasField("context") else _NO_CONTEXT
    return context, Part(fields.limit("limit", request.limit), request.cursor)


def _context(fields: Fields, context: Struct) -> dict[str, Any]:
    if context.ByteSize() > MAX_CONTEXT_BYTES:
        fields.wrong("context", f"takes at most {MAX_CONTEXT_BYTES} bytes")
        return {}
    try:
        return MessageToDict(context)
    except ValueError:  # infinity and not-a-number are no JSON
        fields.wrong("context", "takes finite numbers only")
        return {}


def _consistency(message: types_pb2.Consistency) -> Consistency:
    return Consistency(message.at_least_as_fresh, message.fully_consistent, message.minimize_latency)


def _decided(permission: str, answer: Answer) -> PermissionDecision:
    return PermissionDecision(
        permission=permission, decision=_DECISIONS[answer.decision], missing_context=answer.missing_context
    )


def _result(result: Answer | PembaError, request_id: str, *, with_token: bool) -> BatchCheckResult:
    if isinstance(result, PembaError):
        return BatchCheckResult(error=to_status(result, request_id))
    return BatchCheckResult(
        decision=_DECISIONS[result.decision],
        reason=REASONS[result.reason],
        missing_context=result.missing_context,
        token=result.token if with_token else "",
    )
