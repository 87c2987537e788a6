"""Questions and writes, in Pemba's types.  The channel is ours: authzed's own client cannot be closed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

import grpc
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionRequest,
    CheckPermissionResponse,
    Consistency,
    LookupResourcesRequest,
    LookupSubjectsRequest,
    ObjectReference,
    ReadRelationshipsRequest,
    Relationship,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectReference,
    WriteRelationshipsRequest,
    ZedToken,
)
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub
from google.protobuf.struct_pb2 import Struct

from pemba.errors import PembaError, Rejected
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb.errors import read_error, reason_in, translated, translated_write

MAX_BULK = 1000
PAGE = 1000
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# SpiceDB closes connections after 30 seconds of age: what only reads is tried again by gRPC itself (gRFC A6).
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "authzed.api.v1.PermissionsService", "method": method}
                    for method in ("CheckPermission", "CheckBulkPermissions", "LookupResources", "LookupSubjects")
                ],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.02s",
                    "maxBackoff": "0.2s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The default grows to two minutes: too long to notice that an outage is over.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Decision(StrEnum):
    """What a check answers; there is no other value, and a failure is none of them."""

    ALLOWED = "allowed"
    DENIED = "denied"
    CONDITIONAL = "conditional"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least as fresh as this ZedToken."""

    zedtoken: str


@dataclass(frozen=True, slots=True)
class FullyConsistent:
    """At SpiceDB's head."""


@dataclass(frozen=True, slots=True)
class MinimizeLatency:
    """At whatever revision is fastest: some seconds old."""


Freshness = AtLeast | FullyConsistent | MinimizeLatency


@dataclass(frozen=True, slots=True)
class CheckQuestion:
    """A question in SpiceDB's own ids."""

    resource: ObjectRef
    permission: str
    subject: SubjectRef
    context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`checked_at` is the ZedToken of the revision that was asked."""

    decision: Decision
    missing_context: tuple[str, ...]
    checked_at: str


@dataclass(frozen=True, slots=True)
class BulkResult:
    """One result a question, in order."""

    results: list[CheckResult | PembaError]
    checked_at: str


_DECISIONS = {
    CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION: Decision.ALLOWED,
    CheckPermissionResponse.PERMISSIONSHIP_NO_PERMISSION: Decision.DENIED,
    CheckPermissionResponse.PERMISSIONSHIP_CONDITIONAL_PERMISSION: Decision.CONDITIONAL,
}
_FULLY_CONSISTENT = Consistency(fully_consistent=True)
_MINIMIZE_LATENCY = Consistency(minimize_latency=True)
_OPERATIONS = {
    Operation.TOUCH: RelationshipUpdate.OPERATION_TOUCH,
    Operation.DELETE: RelationshipUpdate.OPERATION_DELETE,
}


class SpiceDB:
    """One channel to SpiceDB.  Every `timeout` is in seconds."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {key}"),)
        self._stub: Any = PermissionsServiceStub(channel)

    @classmethod
    def connect(cls, endpoint: str, key: str, *, tls: bool = False) -> SpiceDB:
        """Connects on first use.  Without TLS the key crosses the wire as it is: loopback or a mesh only."""
        if tls:
            channel = grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(), options=_OPTIONS)
        else:
            channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        return cls(channel, key)

    async def close(self) -> None:
        await self.channel.close()

    async def check(self, question: CheckQuestion, freshness: Freshness, timeout: float) -> CheckResult:
        """Raises Unavailable, Timeout, PreconditionFailed (TOO_DEEP), Rejected."""
        request = CheckPermissionRequest(
            consistency=_consistency(freshness),
            resource=_object(question.resource),
            permission=question.permission,
            subject=_subject(question.subject),
            context=_struct(question.context),
        )
        with translated():
            response = await self._stub.CheckPermission(request, timeout=timeout, metadata=self.metadata)
        return _result(response, response.checked_at.token)

    async def check_bulk(self, questions: Sequence[CheckQuestion], freshness: Freshness, timeout: float) -> BulkResult:
        """Up to 1,000 questions at one revision, each with an answer or an error of its own.  Raises as `check`."""
        if not 0 < len(questions) <= MAX_BULK:
            raise ValueError(f"questions takes 1 to {MAX_BULK}")
        items = [_item(question) for question in questions]
        request = CheckBulkPermissionsRequest(consistency=_consistency(freshness), items=items)
        with translated():
            response = await self._stub.CheckBulkPermissions(request, timeout=timeout, metadata=self.metadata)
        if [pair.request for pair in response.pairs] != items:
            raise Rejected("SpiceDB answered other questions than those asked")
        checked_at = response.checked_at.token
        return BulkResult([_pair_result(pair, checked_at) for pair in response.pairs], checked_at)

    async def write(
        self,
        operations: Sequence[TupleOperation],
        *,
        metadata: Mapping[str, str],
        timeout: float,
    ) -> str:
        """All of the operations or none; the ZedToken of the write.  Raises WriteFailed.  Never tried again here."""
        request = WriteRelationshipsRequest(
            updates=[_update(operation) for operation in operations],
            optional_transaction_metadata=_struct(metadata),
        )
        with translated_write():
            response = await self._stub.WriteRelationships(request, timeout=timeout, metadata=self.metadata)
        return str(response.written_at.token)

    async def lookup_resources(
        self, type_: str, permission: str, subject: SubjectRef, freshness: Freshness, timeout: float
    ) -> AsyncIterator[str]:
        """Ids of the objects on which the subject has the permission.  Complete only if it ends without an error."""
        request = LookupResourcesRequest(
            consistency=_consistency(freshness),
            resource_object_type=type_,
            permission=permission,
            subject=_subject(subject),
        )
        with translated():
            async for found in self._stub.LookupResources(request, timeout=timeout, metadata=self.metadata):
                yield str(found.resource_object_id)

    async def lookup_subjects(
        self, resource: ObjectRef, permission: str, subject_type: str, freshness: Freshness, timeout: float
    ) -> AsyncIterator[str]:
        """Ids of the subjects that have the permission on the object.  Complete only if it ends without an error."""
        request = LookupSubjectsRequest(
            consistency=_consistency(freshness),
            resource=_object(resource),
            permission=permission,
            subject_object_type=subject_type,
        )
        with translated():
            async for found in self._stub.LookupSubjects(request, timeout=timeout, metadata=self.metadata):
                yield str(found.subject.subject_object_id)

    async def read_tuples(
        self, type_: str, freshness: Freshness, timeout: float, *, id_prefix: str = ""
    ) -> AsyncIterator[Tuple]:
        """The stored tuples of a type, in pages of 1,000; `timeout` is each page's."""
        cursor = None
        while True:
            request = ReadRelationshipsRequest(
                consistency=_consistency(freshness),
                relationship_filter=RelationshipFilter(resource_type=type_, optional_resource_id_prefix=id_prefix),
                optional_limit=PAGE,
                optional_cursor=cursor,
            )
            count = 0
            with translated():
                async for found in self._stub.ReadRelationships(request, timeout=timeout, metadata=self.metadata):
                    count += 1
                    cursor = found.after_result_cursor
                    yield _tuple(found.relationship)
            if count < PAGE:
                return


def _consistency(freshness: Freshness) -> Consistency:
    if isinstance(freshness, AtLeast):
        return Consistency(at_least_as_fresh=ZedToken(token=freshness.zedtoken))
    return _FULLY_CONSISTENT if isinstance(freshness, FullyConsistent) else _MINIMIZE_LATENCY


def _object(ref: ObjectRef) -> ObjectReference:
    return ObjectReference(object_type=ref.type, object_id=ref.id)


def _subject(ref: SubjectRef) -> SubjectReference:
    return SubjectReference(
        object=ObjectReference(object_type=ref.type, object_id=ref.id), optional_relation=ref.relation
    )


def _struct(values: Mapping[str, object]) -> Struct | None:
    if not values:
        return None
    struct = Struct()
    struct.update(cast("dict[str, Any]", values))
    return struct


def _item(question: CheckQuestion) -> CheckBulkPermissionsRequestItem:
    return CheckBulkPermissionsRequestItem(
        resource=_object(question.resource),
        permission=question.permission,
        subject=_subject(question.subject),
        context=_struct(question.context),
    )


def _result(answer: Any, checked_at: str) -> CheckResult:
    decision = _DECISIONS.get(answer.permissionship)
    if decision is None:
        raise Rejected("SpiceDB gave no decision")
    return CheckResult(decision, tuple(answer.partial_caveat_info.missing_required_context), checked_at)


def _pair_result(pair: Any, checked_at: str) -> CheckResult | PembaError:
    if pair.HasField("item"):
        return _result(pair.item, checked_at)
    return read_error(_CODES[pair.error.code], reason_in(pair.error), pair.error.message)


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _update(operation: TupleOperation) -> RelationshipUpdate:
    stored = operation.tuple
    return RelationshipUpdate(
        operation=_OPERATIONS[operation.operation],
        relationship=Relationship(
            resource=_object(stored.resource), relation=stored.relation, subject=_subject(stored.subject)
        ),
    )


def _tuple(found: Any) -> Tuple:
    subject = found.subject
    return Tuple(
        ObjectRef(found.resource.object_type, found.resource.object_id),
        found.relation,
        SubjectRef(subject.object.object_type, subject.object.object_id, subject.optional_relation),
    )
