"""A server that is killed at COMMIT: the same request, sent to another one, has one outcome."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.proxy import Proxy, Side
from tests.stack import Processes, calling
from tests.truth import require_no_gap, sql


@pytest.mark.parametrize("side", [Side.ANSWER, Side.REQUEST], ids=["after_it_committed", "before_it_arrived"])
async def test_killed_at_commit(running: Processes, postgres_proxy: Proxy, database_url: str, side: Side) -> None:
    killed, other = await asyncio.gather(running.serve(database_url=postgres_proxy.url(database_url)), running.serve())
    async with (
        calling(killed.settings["PEMBA_GRPC_LISTEN"]) as first,
        calling(other.settings["PEMBA_GRPC_LISTEN"]) as second,
    ):
        root = (await first.tenant("acme")).root_workspace
        commit = postgres_proxy.trap(b"COMMIT\0", side)
        lost = asyncio.create_task(first.grant(root, "bob", request_id="once"))
        await (commit.answered if side is Side.ANSWER else commit.sprung).wait()
        await asyncio.to_thread(killed.kill)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await lost
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        committed = await sql(database_url, "SELECT FROM memberships WHERE user_id = 'bob'")
        assert bool(committed) is (side is Side.ANSWER)
        token = await second.grant(root, "bob", request_id="once")
        assert token
        assert await second.grant(root, "bob", request_id="once") == token
        assert await require_no_gap(database_url, root.tenant_id) == 2


async def test_what_a_killed_server_held_is_free_again_at_once(
    running: Processes, postgres_proxy: Proxy, database_url: str
) -> None:
    """Its transaction had the tenant's head: nobody waits for a lock of the dead."""
    killed, other = await asyncio.gather(running.serve(database_url=postgres_proxy.url(database_url)), running.serve())
    async with (
        calling(killed.settings["PEMBA_GRPC_LISTEN"]) as first,
        calling(other.settings["PEMBA_GRPC_LISTEN"]) as second,
    ):
        root = (await first.tenant("acme")).root_workspace
        commit = postgres_proxy.trap(b"COMMIT\0", Side.REQUEST)
        lost = asyncio.create_task(first.grant(root, "bob"))
        await commit.sprung.wait()
        waiting = asyncio.create_task(second.grant(root, "carol"))
        assert not (await asyncio.wait({waiting}, timeout=0.2))[0]
        await asyncio.to_thread(killed.kill)
        assert await asyncio.wait_for(waiting, 2)
        await asyncio.wait({lost})
        assert isinstance(lost.exception(), grpc.aio.AioRpcError)
        assert await require_no_gap(database_url, root.tenant_id) == 2
