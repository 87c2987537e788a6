"""What no healthy SpiceDB does, from a server of our own: failures at will, and answers that are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from authzed.api.v1 import (
    CheckBulkPermissionsPair,
    CheckBulkPermissionsResponse,
    CheckBulkPermissionsResponseItem,
    CheckPermissionResponse,
    LookupResourcesResponse,
    ReadRelationshipsResponse,
    Relationship,
    WriteRelationshipsResponse,
)
from authzed.api.v1.permission_service_pb2_grpc import (
    PermissionsServiceServicer,
    add_PermissionsServiceServicer_to_server,
)

from pemba.errors import Rejected, Unavailable
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb import lookups
from pemba.spicedb.client import CheckQuestion, Decision, FullyConsistent, MinimizeLatency, SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure

ALICE, WORKSPACE = SubjectRef("user", "alice"), ObjectRef("workspace", "t/w")
QUESTION = CheckQuestion(WORKSPACE, "view", ALICE)
ALLOWED = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
GRANT = TupleOperation(Operation.TOUCH, Tuple(WORKSPACE, "viewer", ALICE))


class Faulty(PermissionsServiceServicer):
    """Fails the first `failures` calls with UNAVAILABLE; then answers `permissionship`."""

    def __init__(self) -> None:
        self.failures = 0
        self.calls: list[str] = []
        self.keys: set[object] = set()
        self.permissionship: int = ALLOWED
        self.reverse = False

    async def _call(self, name: str, context: Any) -> None:
        self.calls.append(name)
        self.keys.add(dict(context.invocation_metadata()).get("authorization"))
        if len(self.calls) <= self.failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    async def CheckPermission(self, request: Any, context: Any) -> CheckPermissionResponse:  # noqa: N802
        await self._call("check", context)
        return CheckPermissionResponse(permissionship=self.permissionship)

    async def CheckBulkPermissions(self, request: Any, context: Any) -> CheckBulkPermissionsResponse:  # noqa: N802
        await self._call("bulk", context)
        item = CheckBulkPermissionsResponseItem(permissionship=self.permissionship)
        pairs = [CheckBulkPermissionsPair(request=asked, item=item) for asked in request.items]
        return CheckBulkPermissionsResponse(pairs=pairs[::-1] if self.reverse else pairs)

    async def WriteRelationships(self, request: Any, context: Any) -> WriteRelationshipsResponse:  # noqa: N802
        await self._call("write", context)
        return WriteRelationshipsResponse()

    async def LookupResources(self, request: Any, context: Any) -> AsyncIterator[LookupResourcesResponse]:  # noqa: N802
        await self._call("lookup", context)
        yield LookupResourcesResponse(resource_object_id="t/w", permissionship=1)
        if self.reverse:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    async def ReadRelationships(self, request: Any, context: Any) -> AsyncIterator[ReadRelationshipsResponse]:  # noqa: N802
        await self._call("read", context)
        yield ReadRelationshipsResponse(relationship=Relationship(relation="viewer"))


@pytest.fixture
async def faulty() -> AsyncIterator[tuple[Faulty, SpiceDB]]:
    servicer, server = Faulty(), grpc.aio.server()
    add_PermissionsServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = SpiceDB.connect(f"127.0.0.1:{port}", "the key")
    yield servicer, client
    await client.close()
    await server.stop(None)


async def test_what_only_reads_is_tried_again_where_a_connection_goes_away(faulty: tuple[Faulty, SpiceDB]) -> None:
    server, client = faulty

    async def calls() -> list[str]:
        server.calls.clear()
        server.failures = 2
        return server.calls

    for ask in (
        lambda: client.check(QUESTION, FullyConsistent(), 5),
        lambda: client.check_bulk([QUESTION], FullyConsistent(), 5),
        lambda: _all(lookups.resources(client, "workspace", "view", ALICE, {}, FullyConsistent(), 5)),
        lambda: _all(client.read_tuples("workspace", FullyConsistent(), 5)),
    ):
        made = await calls()
        assert await ask()
        assert len(made) == 3
    assert server.keys == {"Bearer the key"}


async def test_tries_end(faulty: tuple[Faulty, SpiceDB]) -> None:
    server, client = faulty
    server.failures = 100
    with pytest.raises(Unavailable):
        await client.check(QUESTION, FullyConsistent(), 5)
    assert len(server.calls) == 3


async def test_a_write_is_sent_once(faulty: tuple[Faulty, SpiceDB]) -> None:
    server, client = faulty
    server.failures = 1
    with pytest.raises(WriteFailed) as failed:
        await client.write([GRANT], metadata={}, timeout=5)
    assert failed.value.kind is WriteFailure.UNCERTAIN
    assert server.calls == ["write"]


@pytest.mark.parametrize("permissionship", [CheckPermissionResponse.PERMISSIONSHIP_UNSPECIFIED, 99])
async def test_an_answer_without_a_decision_is_an_error(faulty: tuple[Faulty, SpiceDB], permissionship: int) -> None:
    server, client = faulty
    server.permissionship = permissionship
    with pytest.raises(Rejected):
        await client.check(QUESTION, MinimizeLatency(), 5)
    with pytest.raises(Rejected):
        await client.check_bulk([QUESTION], MinimizeLatency(), 5)


async def test_answers_to_other_questions_are_an_error(faulty: tuple[Faulty, SpiceDB]) -> None:
    server, client = faulty
    questions = [QUESTION, CheckQuestion(WORKSPACE, "own", ALICE)]
    found = await client.check_bulk(questions, MinimizeLatency(), 5)
    assert [result.decision for result in found.results] == [Decision.ALLOWED] * 2
    server.reverse = True
    with pytest.raises(Rejected, match="other questions"):
        await client.check_bulk(questions, MinimizeLatency(), 5)


async def test_a_stream_that_breaks_off_is_an_error_and_not_an_end(faulty: tuple[Faulty, SpiceDB]) -> None:
    server, client = faulty
    server.reverse = True
    with pytest.raises(Unavailable):
        await _all(lookups.resources(client, "workspace", "view", ALICE, {}, FullyConsistent(), 5))


async def _all(items: AsyncIterator[object]) -> list[object]:
    return [item async for item in items]
