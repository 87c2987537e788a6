"""The tenant that an installation begins with is there before a server is ready."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc

from pemba import app
from pemba.v1 import tenants_pb2
from tests.truth import sql


async def test_k2_servers_that_start_at_once_are_ready_with_the_one_tenant_that_settings_name(
    database_url: str, spicedb, make_serve_settings, make_api, until_serving
) -> None:
    settings = make_serve_settings(
        {
            "database_url": database_url,
            "spicedb_endpoint": spicedb.endpoint,
            "spicedb_key": spicedb.key,
            "bootstrap_tenant": "acme",
            "bootstrap_tenant_name": "Acme, Inc.",
            "bootstrap_admin": "alice",
        }
    )
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        servers = await asyncio.gather(*(stack.enter_async_context(app.serving(settings, stopping)) for _ in range(3)))
        for running in servers:
            assert await until_serving(running.grpc_port)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}"))
            api = make_api(channel)
            found = await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(slug="acme"), metadata=api.metadata())
            assert found.tenant.name == "Acme, Inc."
        rows = await sql(database_url, "SELECT (SELECT count(*) FROM tenants), (SELECT count(*) FROM workspaces)")
        assert tuple(rows[0]) == (1, 1)
