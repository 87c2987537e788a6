"""What SpiceDB says was written, write by write, in the order in which it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from authzed.api.v1 import (
    ReadSchemaRequest,
    RelationshipFilter,
    RelationshipUpdate,
    WatchRequest,
)
from authzed.api.v1.schema_service_pb2_grpc import SchemaServiceStub
from authzed.api.v1.watch_service_pb2_grpc import WatchServiceStub
from google.protobuf.json_format import MessageToDict

from pemba.model import ObjectRef, SubjectRef, Tuple
from pemba.spicedb.client import SpiceDB


@dataclass(frozen=True)
class Write:
    """One write, as far as it changed anything; `request_id` is that of the last outbox row in it."""

    touched: frozenset[Tuple]
    deleted: frozenset[Tuple]
    request_id: str

    def applied_to(self, before: frozenset[Tuple]) -> frozenset[Tuple]:
        return before - self.deleted | self.touched


class Watching:
    """The writes since the watch began, to objects whose id begins with a prefix."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self._news = asyncio.Event()

    async def until(self, relation_of: str, seconds: float = 20.0) -> list[Write]:
        """All writes up to the first that touches a tuple of that user."""
        async with asyncio.timeout(seconds):
            while True:
                for number, write in enumerate(self.writes):
                    if any(touched.subject.id == relation_of for touched in write.touched):
                        return self.writes[: number + 1]
                self._news.clear()
                await self._news.wait()

    def add(self, response: Any) -> None:
        by_kind: dict[int, set[Tuple]] = {}
        for update in response.updates:
            by_kind.setdefault(update.operation, set()).add(tuple_of(update.relationship))
        metadata = MessageToDict(response.optional_transaction_metadata)
        self.writes.append(
            Write(
                frozenset(by_kind.get(RelationshipUpdate.OPERATION_TOUCH, ())),
                frozenset(by_kind.get(RelationshipUpdate.OPERATION_DELETE, ())),
                str(metadata.get("request_id", "")),
            )
        )
        self._news.set()


@asynccontextmanager
async def watching(spicedb: SpiceDB, prefix: str) -> AsyncIterator[Watching]:
    """Every write to tenants and workspaces from this moment on."""
    now = await SchemaServiceStub(spicedb.channel).ReadSchema(ReadSchemaRequest(), metadata=spicedb.metadata, timeout=5)
    request = WatchRequest(
        optional_start_cursor=now.read_at,
        optional_relationship_filters=[
            RelationshipFilter(resource_type=type_, optional_resource_id_prefix=prefix)
            for type_ in ("tenant", "workspace")
        ],
    )
    seen = Watching()

    async def follow() -> None:
        async for response in WatchServiceStub(spicedb.channel).Watch(request, metadata=spicedb.metadata):
            seen.add(response)

    following = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        following.cancel()
        await asyncio.wait({following})


def tuple_of(found: Any) -> Tuple:
    """A relationship of SpiceDB, without caveat and expiry."""
    subject = found.subject
    return Tuple(
        ObjectRef(found.resource.object_type, found.resource.object_id),
        found.relation,
        SubjectRef(subject.object.object_type, subject.object.object_id, subject.optional_relation),
    )
