"""Questions and writes, in Pemba's types.  The channel is ours: authzed's own client cannot be closed."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import grpc
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckPermissionRequest,
    ReadRelationshipsRequest,
    RelationshipFilter,
    WriteRelationshipsRequest,
)
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.errors import Rejected
from pemba.model import ObjectRef, Tuple, TupleOperation
from pemba.spicedb.conversion import (
    from_answer,
    from_pair,
    from_relationship,
    to_absence,
    to_consistency,
    to_item,
    to_object,
    to_precondition,
    to_struct,
    to_subject,
    to_update,
)
from pemba.spicedb.errors import translated, translated_write
from pemba.spicedb.questions import (
    AtLeast,
    BulkResult,
    CheckQuestion,
    CheckResult,
    Decision,
    Freshness,
    FullyConsistent,
    MinimizeLatency,
)

__all__ = [
    "AtLeast",
    "BulkResult",
    "CheckQuestion",
    "CheckResult",
    "Decision",
    "Freshness",
    "FullyConsistent",
    "MinimizeLatency",
    "SpiceDB",
]

MAX_BULK = 1000
PAGE = 1000
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_READS = {
    "authzed.api.v1.PermissionsService": (
        "CheckPermission",
        "CheckBulkPermissions",
        "LookupResources",
        "LookupSubjects",
        "ReadRelationships",
    ),
    "authzed.api.v1.SchemaService": ("DiffSchema",),
}
# SpiceDB closes connections after 30 seconds of age: what only reads is tried again by gRPC itself (gRFC A6), a stream
# as long as nothing of it has arrived.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": service, "method": method} for service, methods in _READS.items() for method in methods
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
    # What gRPC's core goes by when a ping is not answered; it waits a minute where only the other one is set.
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Also between calls: the relay's are short and its pauses long, so a connection that fell silent would live on.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The default grows to two minutes: too long to notice that an outage is over.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class SpiceDB:
    """One channel to SpiceDB.  Every `timeout` is in seconds."""

    def __init__(self, channel: grpc.aio.Channel, key: str, *, one_write_at_a_time: bool = False) -> None:
        """`one_write_at_a_time`: a write waits for the one before it; its `timeout` begins with its turn."""
        self.channel = channel
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if one_write_at_a_time else nullcontext()
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.written = -math.inf
        """When it last acknowledged a write, by the monotonic clock."""
        self._stub: Any = PermissionsServiceStub(channel)

    @classmethod
    def connect(cls, endpoint: str, key: str, *, tls: bool = False, one_write_at_a_time: bool = False) -> SpiceDB:
        """Connects on first use.  Without TLS the key crosses the wire as it is: loopback or a mesh only."""
        if tls:
            channel = grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(), options=_OPTIONS)
        else:
            channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        return cls(channel, key, one_write_at_a_time=one_write_at_a_time)

    async def close(self) -> None:
        await self.channel.close()

    async def reach_head(self, timeout: float) -> None:
        """Whoever asks fully consistent after this sees all that was acknowledged before it.

        SpiceDB (1.56, its singleflight proxy) looks up its head once for all who ask at the same time, so who joins
        late is told of a head from before the question, and may miss a write that was acknowledged meanwhile.  A look
        that begins after another has ended is no older than that one's question.  Raises as `check`.
        """
        request = ReadRelationshipsRequest(
            consistency=to_consistency(FullyConsistent()),
            relationship_filter=RelationshipFilter(resource_type="fence"),
            optional_limit=1,
        )
        async with self._stream(self._stub.ReadRelationships, request, timeout) as stream:
            async for _ in stream:
                pass

    async def check(self, question: CheckQuestion, freshness: Freshness, timeout: float) -> CheckResult:
        """Raises Unavailable, Timeout, PreconditionFailed (TOO_DEEP), Rejected."""
        request = CheckPermissionRequest(
            consistency=to_consistency(freshness),
            resource=to_object(question.resource),
            permission=question.permission,
            subject=to_subject(question.subject),
            context=to_struct(question.context),
        )
        with translated():
            response = await self._stub.CheckPermission(request, timeout=timeout, metadata=self.metadata)
        return from_answer(response, response.checked_at.token)

    async def check_bulk(self, questions: Sequence[CheckQuestion], freshness: Freshness, timeout: float) -> BulkResult:
        """Up to 1,000 questions at one revision, each with an answer or an error of its own.  Raises as `check`."""
        if not 0 < len(questions) <= MAX_BULK:
            raise ValueError(f"questions takes 1 to {MAX_BULK}")
        items = [to_item(question) for question in questions]
        request = CheckBulkPermissionsRequest(consistency=to_consistency(freshness), items=items)
        with translated():
            response = await self._stub.CheckBulkPermissions(request, timeout=timeout, metadata=self.metadata)
        if [pair.request for pair in response.pairs] != items:
            raise Rejected("SpiceDB answered other questions than those asked")
        checked_at = response.checked_at.token
        return BulkResult([from_pair(pair, checked_at) for pair in response.pairs], checked_at)

    async def write(
        self,
        operations: Sequence[TupleOperation],
        *,
        metadata: Mapping[str, str],
        timeout: float,
        must_match: Sequence[Tuple] = (),
        must_be_empty: Sequence[tuple[ObjectRef, str]] = (),
    ) -> str:
        """All of the operations or none; the ZedToken of the write.

        `must_match` are tuples that have to be stored for it, `must_be_empty` relations of objects in which none may
        be: both are looked at in the write's own transaction.
        Raises WriteFailed.  Never tried again here.
        """
        request = WriteRelationshipsRequest(
            updates=[to_update(operation) for operation in operations],
            optional_preconditions=[
                *map(to_precondition, must_match),
                *(to_absence(resource, relation) for resource, relation in must_be_empty),
            ],
            optional_transaction_metadata=to_struct(metadata),
        )
        async with self._turn:
            with translated_write():
                response = await self._stub.WriteRelationships(request, timeout=timeout, metadata=self.metadata)
        self.written = time.monotonic()
        return str(response.written_at.token)

    async def read_tuples(
        self, type_: str, freshness: Freshness, timeout: float, *, id_prefix: str = "", relation: str = ""
    ) -> AsyncIterator[Tuple]:
        """The stored tuples of a type at one revision (the first page's), in pages of 1,000; `timeout` is each page's.

        An `id_prefix` and a `relation` narrow them down.

        Complete only if it ends without an error.  Raises as `check`; it may take as long as SpiceDB keeps revisions.
        """
        cursor = None
        while True:
            request = ReadRelationshipsRequest(
                consistency=to_consistency(freshness),
                relationship_filter=RelationshipFilter(
                    resource_type=type_, optional_resource_id_prefix=id_prefix, optional_relation=relation
                ),
                optional_limit=PAGE,
                optional_cursor=cursor,
            )
            count = 0
            async with self._stream(self._stub.ReadRelationships, request, timeout) as stream:
                async for found in stream:
                    count += 1
                    cursor = found.after_result_cursor
                    yield from_relationship(found.relationship)
            if count < PAGE:
                return

    @asynccontextmanager
    async def _stream(self, method: Any, request: Any, timeout: float) -> AsyncIterator[AsyncIterator[Any]]:
        """A server stream that is called off where the one who reads it stops early."""
        call = method(request, timeout=timeout, metadata=self.metadata)
        try:
            with translated():
                yield call
        finally:
            call.cancel()
