"""`serve` and `relay` are not ready, and say why, until all is there that this build needs."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pemba import app
from pemba.config import RelaySettings
from pemba.spicedb import schema, schema_apply
from pemba.spicedb.client import SpiceDB
from pemba.storage import migrate
from pemba.storage.schema_versions import SchemaVersions
from tests.truth import sql


def readyz(port: int) -> tuple[int, list[str]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)["reasons"]
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, json.load(answer)["reasons"]


async def eventually(condition) -> None:
    """Within twenty seconds; looks again every 20 ms."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - another process changes, which no event of ours tells
            await asyncio.sleep(0.02)


async def test_without_the_schema_nothing_is_served_or_delivered_and_both_say_why(
    database_url: str, bare_spicedb, make_serve_settings, make_api, reason, until_serving
) -> None:
    settings = {
        "database_url": database_url,
        "spicedb_endpoint": bare_spicedb.endpoint,
        "spicedb_key": bare_spicedb.key,
    }
    stopping = asyncio.Event()
    relaying = asyncio.create_task(app.relay(RelaySettings(**settings), stopping))
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(app.serving(make_serve_settings(settings), stopping))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}"))
        api = make_api(channel)

        async def says_what_is_missing() -> bool:
            status, reasons = await asyncio.to_thread(readyz, running.http_port)
            assert status == 503
            return "pemba schema apply" in reasons[0]

        await eventually(says_what_is_missing)
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.tenant("acme")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(refused.value) == "SCHEMA_MISMATCH"
        assert "workspace" in refused.value.details()

        spicedb = SpiceDB.connect(bare_spicedb.endpoint, bare_spicedb.key)
        async with SchemaVersions.connect(database_url) as ledger:
            await schema_apply.apply(spicedb, ledger, schema.schema_text())
        await spicedb.close()
        assert await until_serving(running.grpc_port)
        created = await api.tenant("acme")
        assert await api.check(created.root_workspace, "alice", "own", created.token)
        assert (await asyncio.to_thread(readyz, running.http_port)) == (200, [])
    stopping.set()
    await relaying


async def test_a_database_that_is_not_migrated_is_waited_for_and_named(postgres, spicedb, make_serve_settings) -> None:
    name = postgres.create_database()
    settings = make_serve_settings(
        {"database_url": postgres.url(name), "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    )
    settings = settings.model_copy(update={"http_listen": f"127.0.0.1:{free_port()}"})
    stopping = asyncio.Event()
    serving = asyncio.create_task(app.serve(settings, stopping))
    port = int(settings.http_listen.rpartition(":")[2])

    async def names_the_migration() -> bool:
        try:
            _, reasons = await asyncio.to_thread(readyz, port)
        except urllib.error.URLError:
            return False
        return bool(reasons) and "pemba db upgrade" in reasons[0]

    async def is_ready() -> bool:
        return await asyncio.to_thread(readyz, port) == (200, [])

    await eventually(names_the_migration)
    await asyncio.to_thread(migrate.upgrade, postgres.url(name))
    await eventually(is_ready)
    stopping.set()
    await serving
    postgres.drop_database(name)


async def test_two_relays_share_the_work(database_url: str, spicedb) -> None:
    settings = RelaySettings(database_url=database_url, spicedb_endpoint=spicedb.endpoint, spicedb_key=spicedb.key)
    stops = [asyncio.Event(), asyncio.Event()]
    relays = [asyncio.create_task(app.relay(settings, stop)) for stop in stops]

    async def halves() -> bool:
        held = await sql(database_url, "SELECT count(*) FROM relay_lease WHERE holder IS NOT NULL GROUP BY holder")
        return [row["count"] for row in held] == [8, 8]

    await eventually(halves)
    for stop in stops:
        stop.set()
    await asyncio.gather(*relays)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
