"""What an apply leaves in the ledger when the write itself fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from authzed.api.v1.schema_service_pb2 import DiffSchemaResponse
from authzed.api.v1.schema_service_pb2_grpc import SchemaServiceServicer, add_SchemaServiceServicer_to_server

from pemba.errors import PembaError
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.schema_apply import apply


class Refusing(SchemaServiceServicer):
    """Has the schema already, and answers every write with `code`."""

    code = grpc.StatusCode.UNAVAILABLE
    writes = 0

    async def DiffSchema(self, request: Any, context: Any) -> DiffSchemaResponse:  # noqa: N802
        return DiffSchemaResponse()

    async def WriteSchema(self, request: Any, context: Any) -> None:  # noqa: N802
        self.writes += 1
        await context.abort(self.code, "no")


class Ledger:
    """In memory."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        yield

    async def begin(self, digest: str, text: str) -> int:
        self.steps.append("begin")
        return 1

    async def finish(self, number: int, zedtoken: str) -> None:
        self.steps.append("finish")

    async def abandon(self, number: int, why: str) -> None:
        self.steps.append("abandon")

    async def applied(self) -> None:
        return None


@pytest.fixture
async def refusing() -> AsyncIterator[tuple[Refusing, SpiceDB]]:
    servicer, server = Refusing(), grpc.aio.server()
    add_SchemaServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = SpiceDB.connect(f"127.0.0.1:{port}", "the key")
    yield servicer, client
    await client.close()
    await server.stop(None)


@pytest.mark.parametrize(
    ("code", "steps"),
    [
        (grpc.StatusCode.UNAVAILABLE, ["begin"]),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ["begin"]),
        (grpc.StatusCode.INVALID_ARGUMENT, ["begin", "abandon"]),
        (grpc.StatusCode.PERMISSION_DENIED, ["begin", "abandon"]),
    ],
)
async def test_only_a_write_that_may_have_landed_stays_under_way_and_none_is_sent_twice(
    refusing: tuple[Refusing, SpiceDB], code: grpc.StatusCode, steps: list[str]
) -> None:
    server, client = refusing
    server.code = code
    ledger = Ledger()
    with pytest.raises(PembaError):
        await apply(client, ledger, "definition user {}")
    assert ledger.steps == steps
    assert server.writes == 1
