"""What is stored, as it is stored: a scan of a type, and which of given tuples there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from authzed.api.v1 import ReadRelationshipsRequest
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.model import Tuple
from pemba.spicedb.client import MAX_BULK, CheckQuestion, CheckResult, Decision, FullyConsistent, SpiceDB
from pemba.spicedb.conversion import from_relationship, to_consistency, to_filter
from pemba.spicedb.errors import translated

PAGE_SECONDS = 30.0
"""A page of a scan, and of a prefix the whole table may have to be read for it."""
_QUESTION_SECONDS = 10.0
_MAX_AT_ONCE = 16


class StoredTuples:
    """Reads of SpiceDB that take no part in any decision: `pemba.service` compares them with the records."""

    def __init__(self, spicedb: SpiceDB) -> None:
        self._spicedb = spicedb
        self._stub: Any = PermissionsServiceStub(spicedb.channel)

    async def scan(self, type_: str, id_prefix: str) -> AsyncGenerator[Tuple]:
        """Every tuple of the type on objects whose ids begin so, at one revision.  Raises as SpiceDB.read_tuples."""
        async for found in self._spicedb.read_tuples(type_, FullyConsistent(), PAGE_SECONDS, id_prefix=id_prefix):
            yield found

    async def holding(self, tuples: Sequence[Tuple]) -> set[Tuple]:
        """Those of these tuples that are stored, at a revision not older than this call.  Raises as SpiceDB.check."""
        maybe = [t for i in range(0, len(tuples), MAX_BULK) for t in await self._not_denied(tuples[i : i + MAX_BULK])]
        at_once = asyncio.Semaphore(_MAX_AT_ONCE)

        async def read(stored: Tuple) -> bool:
            async with at_once:
                return await self._is_stored(stored)

        try:
            async with asyncio.TaskGroup() as reads:
                answers = [(stored, reads.create_task(read(stored))) for stored in maybe]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return {stored for stored, answer in answers if answer.result()}

    async def _not_denied(self, tuples: Sequence[Tuple]) -> list[Tuple]:
        """Asked as permissions, a thousand at a time: whoever does not even have the relation has no tuple of it.

        (One with a caveat could be denied and stored: Pemba's own relations allow none.)
        """
        questions = [CheckQuestion(t.resource, t.relation, t.subject) for t in tuples]
        answers = (await self._spicedb.check_bulk(questions, FullyConsistent(), _QUESTION_SECONDS)).results
        return [
            t
            for t, answer in zip(tuples, answers, strict=True)
            if not (isinstance(answer, CheckResult) and answer.decision is Decision.DENIED)
        ]

    async def _is_stored(self, stored: Tuple) -> bool:
        request = ReadRelationshipsRequest(
            consistency=to_consistency(FullyConsistent()), relationship_filter=to_filter(stored), optional_limit=1
        )
        call = self._stub.ReadRelationships(request, timeout=_QUESTION_SECONDS, metadata=self._spicedb.metadata)
        with translated():
            return any([from_relationship(found.relationship) == stored async for found in call])
