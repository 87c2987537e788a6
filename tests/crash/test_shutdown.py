"""Processes that are asked to end: in time, in order, and with nothing left open, whatever goes on around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

import grpc
import pytest

from pemba.spicedb.client import SpiceDB
from tests.crash.faults.processes import FaultyRelay, FaultyServe
from tests.proxy import Proxy, Side
from tests.stack import Calls, Processes, Refusal, calling
from tests.truth import eventually, is_delivered, require_truth, sql

# `Processes.stop` fails where a process has to be killed, exits with anything but 0, or leaves a traceback, a warning
# or a word of asyncio's in its log.


async def outcome(call: Awaitable[object]) -> object:
    """What it gives, or the refusal."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return Refusal(error)


async def test_calls_under_way_are_answered_and_new_ones_refused(
    running: Processes, postgres_proxy: Proxy, database_url: str
) -> None:
    serve = await running.serve(database_url=postgres_proxy.url(database_url))
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        root = (await calls.tenant("acme")).root_workspace
        commit = postgres_proxy.trap(b"COMMIT\0", Side.REQUEST)
        under_way = asyncio.create_task(calls.grant(root, "bob"))
        await commit.sprung.wait()
        stopping = asyncio.create_task(running.stop(serve))

        async def refuses() -> bool:
            late = await outcome(calls.may_view(root, "alice", timeout=1))
            return isinstance(late, Refusal) and late.code is grpc.StatusCode.UNAVAILABLE

        await eventually(refuses)
        commit.release()
        assert await under_way
        await stopping


async def test_a_stop_under_load_loses_nothing_that_was_acknowledged(
    running: Processes, database_url: str, spicedb
) -> None:
    serve, relay = await asyncio.gather(running.serve(drain_seconds=2), running.relay())
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        root = (await calls.tenant("acme")).root_workspace
        acknowledged: set[str] = set()
        loads = [asyncio.create_task(grant_until_refused(calls, root, worker, acknowledged)) for worker in range(8)]

        async def under_load() -> bool:
            return len(acknowledged) > 100

        await eventually(under_load)
        await asyncio.gather(running.stop(serve), running.stop(relay))
        await asyncio.gather(*loads)
    members = await sql(database_url, "SELECT user_id FROM memberships WHERE workspace_id IS NOT NULL")
    assert acknowledged <= {row["user_id"] for row in members}
    await running.relay()
    await require_truth(database_url, store, root.tenant_id)
    await store.close()


async def grant_until_refused(calls: Calls, root, worker: int, acknowledged: set[str]) -> None:
    turn = 0
    while True:
        user = f"user-{worker}-{turn}"
        if isinstance(await outcome(calls.grant(root, user)), Refusal):
            return
        acknowledged.add(user)
        turn += 1


async def test_checks_that_wait_for_their_tokens_do_not_hold_up_a_stop(running: Processes) -> None:
    serve = await running.serve(drain_seconds=0.2)
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        root = (await calls.tenant("acme")).root_workspace
        token = await calls.grant(root, "bob")
        waiting = [asyncio.create_task(outcome(calls.may_view(root, "bob", token))) for _ in range(20)]
        assert not (await asyncio.wait(waiting, timeout=0.3, return_when=asyncio.FIRST_COMPLETED))[0]
        began = time.monotonic()
        await running.stop(serve)
        assert time.monotonic() - began < 3
        for answer in await asyncio.gather(*waiting):
            assert isinstance(answer, Refusal)


@pytest.mark.parametrize("silent", ["refuse", "freeze"])
async def test_without_postgresql_both_still_end_in_time(
    running: Processes, postgres_proxy: Proxy, database_url: str, silent: str
) -> None:
    url = postgres_proxy.url(database_url)
    serve, relay = await asyncio.gather(
        running.serve(database_url=url, drain_seconds=0.5), running.relay(database_url=url)
    )
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        root = (await calls.tenant("acme")).root_workspace
        await eventually(lambda: is_delivered(database_url, root.tenant_id))
        if silent == "freeze":
            postgres_proxy.freeze()
        else:
            await postgres_proxy.refuse()
        under_way = [asyncio.create_task(outcome(calls.grant(root, f"user-{n}", timeout=2))) for n in range(5)]
        await asyncio.wait(under_way, timeout=0.3)
        await asyncio.gather(running.stop(serve), running.stop(relay))
        for answer in await asyncio.gather(*under_way):
            assert isinstance(answer, Refusal)
    postgres_proxy.thaw()


async def test_without_spicedb_both_still_end_in_time(
    running: Processes, spicedb_proxy: Proxy, database_url: str
) -> None:
    endpoint = spicedb_proxy.endpoint
    serve, relay = await asyncio.gather(
        running.serve(spicedb_endpoint=endpoint, drain_seconds=0.5),
        running.relay(spicedb_endpoint=endpoint, relay_rpc_seconds=2),
    )
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        created = await calls.tenant("acme")
        root = created.root_workspace
        assert await calls.may_view(root, "alice", created.token)
        spicedb_proxy.freeze()
        await calls.grant(root, "bob")
        checking = asyncio.create_task(outcome(calls.may_view(root, "nobody asked about before")))
        await asyncio.wait({checking}, timeout=0.3)
        await asyncio.gather(running.stop(serve), running.stop(relay))
        assert isinstance(await checking, Refusal)
    spicedb_proxy.thaw()


class Unready(FaultyServe):
    """Is not waited for at its start."""

    def is_ready(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["serve", "relay"])
async def test_at_a_start_before_a_silent_postgresql_both_still_end_in_time(
    running: Processes, postgres_proxy: Proxy, database_url: str, name: str
) -> None:
    postgres_proxy.freeze()
    start = partial(running.serve, Unready) if name == "serve" else partial(running.relay, FaultyRelay)
    process = await start(database_url=postgres_proxy.url(database_url))

    async def asks() -> bool:
        return postgres_proxy.seen(b"application_name") + postgres_proxy.seen(b"user") > 0

    await eventually(asks)
    began = time.monotonic()
    await running.stop(process)
    assert time.monotonic() - began < 10
    postgres_proxy.thaw()
