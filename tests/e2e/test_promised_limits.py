"""Promises that take a server with settings of its own; see docs/promises.md."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import grpc

from tests.e2e.calls import Caller
from tests.stack import KEY, Refusal, processes


async def test_i10_a_noisy_caller_is_told_when_to_come_back_and_slows_nobody_else(
    ready: dict[str, Any], tmp_path: Path
) -> None:
    """A server of its own beside that of `pemba dev`, on the same records."""
    stack = {name: ready[name] for name in ("database_url", "spicedb_endpoint", "spicedb_key")}
    async with processes(tmp_path, caller_calls_per_second=20, **stack) as running:
        serve = await running.serve()
        async with grpc.aio.insecure_channel(serve.settings["PEMBA_GRPC_LISTEN"]) as channel:
            noisy = Caller(channel, KEY)
            slug = f"acme-{secrets.token_hex(4)}"
            tenant = (await noisy("CreateTenant", slug=slug, name="Acme", first_admin="alice"))["tenant"]["id"]
            made = await noisy("CreateApiKey", tenant_id=tenant, name="quiet", scopes=["read"])
            many = [noisy("GetTenant", tenant_id=tenant) for _ in range(100)]
            errors = [
                each for each in await asyncio.gather(*many, return_exceptions=True) if isinstance(each, Exception)
            ]
            assert isinstance(errors[0], grpc.aio.AioRpcError)
            refusal = Refusal(errors[0])
            assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
            assert refusal.retry_seconds
            assert await Caller(channel, made["secret"])("GetTenant", tenant_id=tenant)


async def test_k9_reading_and_changing_have_connections_of_their_own(ready: dict[str, Any], tmp_path: Path) -> None:
    """The server for reading is away, and what is changed and checked does not notice."""
    stack = {name: ready[name] for name in ("database_url", "spicedb_endpoint", "spicedb_key")}
    async with processes(tmp_path, database_read_url="postgresql://nobody@127.0.0.1:1/none", **stack) as running:
        serve = await running.serve()
        async with grpc.aio.insecure_channel(serve.settings["PEMBA_GRPC_LISTEN"]) as channel:
            caller = Caller(channel, KEY)
            slug = f"acme-{secrets.token_hex(4)}"
            made = await caller("CreateTenant", slug=slug, name="Acme", first_admin="alice")
            tenant = made["tenant"]["id"]
            assert await caller.may(tenant, "alice", "own", made["root_workspace"]["id"], made["token"])
            assert await caller.refused("GetTenant", tenant_id=tenant) == ("UNAVAILABLE", "POSTGRES_UNAVAILABLE")
