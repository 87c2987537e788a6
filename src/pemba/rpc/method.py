"""The one wrapper around every method: from bytes and metadata to bytes, or to a status with details."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from pemba.errors import Forbidden, PembaError, invalid_field
from pemba.model import GLOBAL_STREAM, Caller, Credential, TenantId, WorkspaceId, is_typeid
from pemba.rpc.about import named_in
from pemba.rpc.audited import AUDITED_READS, ROSTERS
from pemba.rpc.authentication import Authentication
from pemba.rpc.context import (
    TENANT,
    WORKSPACE,
    Call,
    CallMetadata,
    caller_of,
    confined_to,
    require_own_tenant,
)
from pemba.rpc.errors import public_error, to_status
from pemba.rpc.limits import Admission
from pemba.rpc.previews import preview
from pemba.rpc.scopes import SCOPES, require_scope
from pemba.service.refusals import Refusals
from pemba.service.roster_reads import RosterReads
from pemba.telemetry import RPC_SECONDS, Event

DETAILS_KEY = "grpc-status-details-bin"

Handler = Callable[[Any, Call], Awaitable[Message]]
StreamHandler = Callable[[Any, Call], AsyncGenerator[Message]]
Context = grpc.aio.ServicerContext[bytes, bytes]
Readiness = Callable[[], None]
"""Raises Unavailable while the process cannot serve, SCHEMA_MISMATCH for instance.  Must not block."""

LONG_SECONDS = {
    "/pemba.v1.OperationsService/Reconcile": 24 * 3600.0,
    "/pemba.v1.OperationsService/TailOutbox": 24 * 3600.0,
    "/pemba.v1.AuditService/ExportAuditEvents": 24 * 3600.0,
    "/pemba.v1.WatchService/WatchChanges": 24 * 3600.0,
    "/pemba.v1.WatchService/WatchPositions": 24 * 3600.0,
}
"""Methods that take as long as there is to do (a scan can go on for as long as SpiceDB keeps its revision), or as long
as somebody watches."""

RECHECK_SECONDS = 0.5
"""A stream goes on for no longer without another look at its caller's key."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gate:
    """What every call passes before its message is read."""

    authentication: Authentication
    admission: Admission
    readiness: Readiness
    default_deadline_seconds: float
    refusals: Refusals
    roster_reads: RosterReads


class _Method:
    """One method as gRPC's core calls it; how its answer is sent is the kind's own."""

    def __init__(self, descriptor: MethodDescriptor, handler: Any, gate: Gate) -> None:
        self._name = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self._scope = SCOPES[self._name]
        self._handle = handler
        self._gate = gate
        self._longest_seconds = LONG_SECONDS.get(self._name, gate.default_deadline_seconds)
        self._request_type: type[Message] = GetMessageClass(descriptor.input_type)
        fields = descriptor.input_type.fields_by_name
        self._is_roster = self._name in ROSTERS
        self._names_tenant = "tenant_id" in fields
        self._names_workspace = "workspace_id" in fields
        self._names_objects = [name for name in ("object", "resource") if name in fields]
        self._batch = next((f.name for f in descriptor.input_type.fields if f.is_repeated and f.message_type), "")
        # Where the tenant is one of several ways to name it, an empty id was not forgotten.
        self._fills_tenant = self._names_tenant and fields["tenant_id"].containing_oneof is None
        self._fills_workspace = self._names_workspace and fields["workspace_id"].containing_oneof is None
        self._seconds = {code: RPC_SECONDS.labels(descriptor.full_name, code.name) for code in grpc.StatusCode}

    async def serve(self, body: bytes, context: Context) -> bytes | None:
        """Answer one call.  Its log context lives in the task that gRPC makes for each call, and ends with it."""
        started = asyncio.get_running_loop().time()
        metadata = CallMetadata(context.invocation_metadata() or ())
        request_id = metadata.request_id()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, method=self._name)
        code = grpc.StatusCode.CANCELLED
        try:
            answer = await self._answer(body, metadata, request_id, started, context)
            code = grpc.StatusCode.OK
            return answer
        except Exception as error:  # noqa: BLE001 - the boundary: what is not ours becomes an internal error, logged
            status = to_status(_public(error), request_id)
            code = _CODES[status.code]
            with suppress(grpc.aio.InternalError):  # the client went away with a message on its way to it
                await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
            return None
        finally:
            seconds = asyncio.get_running_loop().time() - started
            self._seconds[code].observe(seconds)
            log.debug(Event.RPC, code=code.name, seconds=round(seconds, 6))

    async def _answer(
        self, body: bytes, metadata: CallMetadata, request_id: str, started: float, context: Context
    ) -> bytes | None:
        deadline = started + self._seconds_left(context)
        async with asyncio.timeout_at(deadline):
            authorization = metadata.authorization()
            credential = await self._gate.authentication.authenticate(authorization, context.peer())
            caller = await self._caller(credential, metadata, request_id, context.peer(), body)
            self._gate.readiness()
            call = Call(
                caller=caller,
                method=self._name,
                deadline=deadline,
                tenant_id=confined_to(caller, metadata.tenant_id()),
                workspace_id=metadata.workspace_id(),
            )
            with self._gate.admission.one_of(caller.principal):
                request = self._parse(body)
                self._confine(request, call)
                self._gate.admission.take(caller.principal, self._tenant_of(request), self._cost_of(request))
                try:
                    return await self._respond(request, call, context, authorization)
                except Forbidden as refusal:
                    if self._name in AUDITED_READS:
                        await self._record(refusal, caller, body)
                    raise

    async def _caller(
        self, credential: Credential, metadata: CallMetadata, request_id: str, peer: str, body: bytes
    ) -> Caller:
        """Who is calling, for whom.  Raises Forbidden, which is audited, where the credential is not good for that."""
        try:
            require_scope(credential.scopes, self._scope)
            return caller_of(credential, metadata, request_id, peer)
        except Forbidden as refusal:
            its_own = Caller(
                principal=credential.principal,
                scopes=credential.scopes,
                acting_user=credential.user_id,
                tenant_id=credential.tenant_id,
                request_id=request_id,
                peer=peer,
                workspace_id=credential.workspace_id,
            )
            await self._record(refusal, its_own, body)
            raise

    async def _respond(self, request: Any, call: Call, context: Context, authorization: str) -> bytes | None:
        raise NotImplementedError

    def _tenant_of(self, request: Any) -> str:
        return request.tenant_id if self._names_tenant else ""

    def _cost_of(self, request: Any) -> int:
        """A batch costs as much as what it holds."""
        return max(len(getattr(request, self._batch)), 1) if self._batch else 1

    async def _record(self, refusal: Forbidden, caller: Caller, body: bytes) -> None:
        """Audit what was refused before, or without, a mutation: the message may be any, or none."""
        try:
            request = self._parse(body)
        except PembaError:
            request = self._request_type()
        await self._gate.refusals.record(
            caller,
            caller.tenant_id or _tenant_named(request) or GLOBAL_STREAM,
            self._name.rpartition("/")[2],
            refusal,
            named_in(request),
        )

    def _note(self, request: Message, call: Call) -> None:
        """Audit that a roster is told."""
        if self._is_roster:
            self._gate.roster_reads.note(
                call.caller,
                call.caller.tenant_id or _tenant_named(request),
                self._name.rpartition("/")[2],
                named_in(request),
            )

    def _seconds_left(self, context: Context) -> float:
        remaining: float | None = context.time_remaining()  # None where the caller set no deadline
        return self._longest_seconds if remaining is None else min(remaining, self._longest_seconds)

    def _parse(self, body: bytes) -> Any:
        try:
            return self._request_type.FromString(body)
        except DecodeError as error:
            raise invalid_field("request", f"is not a {self._request_type.DESCRIPTOR.full_name}") from error

    def _confine(self, request: Any, call: Call) -> None:
        """Fill in the tenant that the metadata names, and refuse a message that names another one."""
        if self._names_tenant and call.tenant_id is not None:
            require_own_tenant(call.caller, request.tenant_id)
            if self._fills_tenant and not request.tenant_id:
                request.tenant_id = call.tenant_id
            _require_same("tenant_id", request.tenant_id, call.tenant_id, TENANT)
        if call.workspace_id is not None:
            self._confine_to_workspace(request, call.workspace_id)

    def _confine_to_workspace(self, request: Any, workspace_id: WorkspaceId) -> None:
        if self._names_workspace:
            if self._fills_workspace and not request.workspace_id:
                request.workspace_id = workspace_id
            _require_same("workspace_id", request.workspace_id, workspace_id, WORKSPACE)
        for name in self._names_objects:
            named = getattr(request, name)
            if named.type == "workspace":
                _require_same(f"{name}.id", named.id, workspace_id, WORKSPACE)


class UnaryMethod(_Method):
    """One request, one answer."""

    _handle: Handler

    async def _respond(self, request: Any, call: Call, context: Context, authorization: str) -> bytes:
        answer: Any = await self._handle(request, call)
        self._note(request, call)
        if call.preview.records:
            answer.preview.CopyFrom(preview(call.preview))
        return answer.SerializeToString()  # type: ignore[no-any-return]  # any message's


class StreamMethod(_Method):
    """One request, a stream of answers, sent as fast as the client takes them; only status OK says it is complete."""

    _handle: StreamHandler

    async def _respond(self, request: Any, call: Call, context: Context, authorization: str) -> None:
        """Who is not let in any more is told nothing more: streams outlive revocations."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        is_first = True
        async with self._let_in(authorization, context.peer()), aclosing(self._handle(request, call)) as messages:
            async for message in messages:
                if loop.time() - looked > RECHECK_SECONDS:
                    await self._gate.authentication.authenticate(authorization, context.peer())
                    looked = loop.time()
                if is_first:
                    self._note(request, call)
                    is_first = False
                await context.write(message.SerializeToString())

    @asynccontextmanager
    async def _let_in(self, authorization: str, peer: str) -> AsyncIterator[None]:
        """End what is inside once the key is not let in any more, though there be nothing to tell.

        Raises what its authentication does then.
        """
        inside = asyncio.current_task()
        assert inside is not None
        refusals: list[PembaError] = []

        async def look() -> None:
            try:
                while True:
                    await asyncio.sleep(RECHECK_SECONDS)
                    await self._gate.authentication.authenticate(authorization, peer)
            except PembaError as refusal:
                refusals.append(refusal)
                inside.cancel()

        looking = asyncio.create_task(look())
        try:
            yield
        except asyncio.CancelledError:
            if not refusals:
                raise
            inside.uncancel()
            raise refusals[0] from None
        finally:
            looking.cancel()


def method_handler(descriptor: MethodDescriptor, handler: Any, gate: Gate) -> grpc.RpcMethodHandler[Any, Any]:
    """The method behind the gate: `handler` is a coroutine function, or for a stream an async generator function."""
    if descriptor.client_streaming:
        raise NotImplementedError(f"{descriptor.full_name}: nothing here takes a stream of requests")
    if descriptor.server_streaming:
        return grpc.unary_stream_rpc_method_handler(StreamMethod(descriptor, handler, gate).serve)
    return grpc.unary_unary_rpc_method_handler(UnaryMethod(descriptor, handler, gate).serve)


def _tenant_named(request: Message) -> TenantId | None:
    """None where it names none, or what can be none."""
    tenant_id: str = getattr(request, "tenant_id", "")
    return TenantId(tenant_id) if is_typeid("ten", tenant_id) else None


def _require_same(field: str, value: str, confined_to: str, key: str) -> None:
    if value not in ("", confined_to):
        raise invalid_field(field, f"contradicts the metadata {key}")


def _public(error: Exception) -> PembaError:
    public = public_error(error)
    if not isinstance(error, (PembaError, TimeoutError)):
        log.exception(Event.RPC_FAILED)
    return public
