"""Promise 9: connection lost at COMMIT, retried with the same request_id: one row, the same token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import asyncpg
import grpc
import pytest

from pemba.storage import journal, outbox
from pemba.v1 import types_pb2, workspaces_pb2
from tests.integration.relay.conftest import Serving
from tests.promises.conftest import is_broken
from tests.proxy import Proxy, Side
from tests.stack import Calls, Refusal
from tests.truth import eventually, require_no_gap, sql


@pytest.fixture
async def calls(serving: Serving, postgres_proxy: Proxy, database_url: str) -> AsyncIterator[Calls]:
    """A server that reaches PostgreSQL by way of the proxy."""
    async with serving(database_url=postgres_proxy.url(database_url)) as calls:
        yield calls


@pytest.fixture
async def root(calls: Calls) -> workspaces_pb2.Workspace:
    return (await calls.tenant("acme")).root_workspace


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return Refusal(error.value)


async def committed(url: str, user: str) -> bool:
    return bool(await sql(url, "SELECT FROM memberships WHERE user_id = $1", user))


async def test_the_answer_to_commit_is_lost_and_the_retry_gets_the_first_outcome(
    calls: Calls, root: workspaces_pb2.Workspace, postgres_proxy: Proxy, database_url: str
) -> None:
    answer = postgres_proxy.trap(b"COMMIT\0")
    first = asyncio.create_task(calls.grant(root, "bob", request_id="once"))
    await answer.answered.wait()
    assert await committed(database_url, "bob")
    await postgres_proxy.cut()
    refusal = await refused(first)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "POSTGRES_UNAVAILABLE")
    assert refusal.retry_seconds
    token = await calls.grant(root, "bob", request_id="once")
    assert token
    assert token == await calls.grant(root, "bob", request_id="once")
    assert await require_no_gap(database_url, root.tenant_id) == 2
    assert await calls.grant(root, "bob", types_pb2.ROLE_MEMBER, request_id="another") != token
    assert await require_no_gap(database_url, root.tenant_id) == 3


async def test_a_commit_that_never_arrived_is_carried_out_by_the_retry(
    calls: Calls, root: workspaces_pb2.Workspace, postgres_proxy: Proxy, database_url: str
) -> None:
    request = postgres_proxy.trap(b"COMMIT\0", Side.REQUEST)
    first = asyncio.create_task(calls.grant(root, "bob", request_id="once"))
    await request.sprung.wait()
    await postgres_proxy.cut()
    assert (await refused(first)).reason == "POSTGRES_UNAVAILABLE"
    assert not await committed(database_url, "bob")
    assert await calls.grant(root, "bob", request_id="once")
    assert await require_no_gap(database_url, root.tenant_id) == 2


async def test_a_retry_that_overtakes_the_commit_waits_for_it(
    calls: Calls, root: workspaces_pb2.Workspace, postgres_proxy: Proxy, database_url: str
) -> None:
    request = postgres_proxy.trap(b"COMMIT\0", Side.REQUEST)
    first = asyncio.create_task(calls.grant(root, "bob", request_id="once"))
    await request.sprung.wait()
    second = asyncio.create_task(calls.grant(root, "bob", request_id="once"))
    await eventually(lambda: waits_for_a_lock(database_url))
    request.release()
    assert await first == await second
    assert await require_no_gap(database_url, root.tenant_id) == 2


async def test_the_answer_to_the_commit_of_a_new_tenant_is_lost_and_the_retry_finds_that_tenant(
    calls: Calls, postgres_proxy: Proxy, database_url: str
) -> None:
    answer = postgres_proxy.trap(b"COMMIT\0")
    first = asyncio.create_task(calls.tenant("acme", request_id="once"))
    await answer.answered.wait()
    [made] = await sql(database_url, "SELECT id FROM tenants")
    await postgres_proxy.cut()
    refusal = await refused(first)
    assert refusal.reason == "POSTGRES_UNAVAILABLE"
    assert refusal.retry_seconds
    again = await calls.tenant("acme", request_id="once")
    assert again.tenant.id == made["id"]
    assert again.token == (await calls.tenant("acme", request_id="once")).token
    assert await require_no_gap(database_url, made["id"]) == 1
    assert len(await sql(database_url, "SELECT FROM tenants")) == 1


async def test_a_retry_of_a_new_tenant_that_overtakes_the_commit_waits_for_it(
    calls: Calls, postgres_proxy: Proxy, database_url: str
) -> None:
    request = postgres_proxy.trap(b"COMMIT\0", Side.REQUEST)
    first = asyncio.create_task(calls.tenant("acme", request_id="once"))
    await request.sprung.wait()
    second = asyncio.create_task(calls.tenant("acme", request_id="once"))
    await eventually(lambda: waits_for_a_lock(database_url))
    request.release()
    made, again = await first, await second
    assert (made.tenant, made.root_workspace, made.token) == (again.tenant, again.root_workspace, again.token)


async def waits_for_a_lock(url: str) -> bool:
    """Asked by the login, which sees what the sessions of its roles wait for."""
    connection = await asyncpg.connect(url)
    waiting = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    await connection.close()
    return bool(waiting)


async def test_it_is_broken_where_no_request_is_remembered(
    calls: Calls,
    root: workspaces_pb2.Workspace,
    postgres_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(*_: object) -> None:
        """Neither looks nor writes."""

    monkeypatch.setattr(journal, "recall", nothing)
    monkeypatch.setattr(journal, "remember", nothing)
    with is_broken():
        await test_the_answer_to_commit_is_lost_and_the_retry_gets_the_first_outcome(
            calls, root, postgres_proxy, database_url
        )
    rows = await sql(database_url, "SELECT seq FROM outbox WHERE tenant_id = $1", root.tenant_id)
    assert len(rows) > 2, "it was carried out twice"


async def test_it_is_broken_where_the_request_is_looked_up_before_the_head_is_held(
    calls: Calls,
    root: workspaces_pb2.Workspace,
    postgres_proxy: Proxy,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit in doubt is missed then, and the retry is no answer."""
    advance, recall = outbox.advance, journal.recall
    known: dict[object, set[str]] = {}

    async def advance_after_a_look(tx, by: int = 1):
        found = await tx.connection.fetch("SELECT request_id FROM idempotency")
        known[tx] = {row["request_id"] for row in found}
        return await advance(tx, by)

    async def recall_as_of_the_look(tx, key):
        return await recall(tx, key) if key.request_id in known[tx] else None

    monkeypatch.setattr(outbox, "advance", advance_after_a_look)
    monkeypatch.setattr(journal, "recall", recall_as_of_the_look)
    with pytest.raises(grpc.aio.AioRpcError):
        await test_a_retry_that_overtakes_the_commit_waits_for_it(calls, root, postgres_proxy, database_url)
