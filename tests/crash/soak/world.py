"""A whole Pemba: three relays and two servers, each with a way of its own to PostgreSQL and to SpiceDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pemba.dev.pemba_process import PembaProcess
from pemba.dev.postgres import Postgres
from pemba.dev.process import Server
from pemba.dev.spicedb import SpiceDB as SpiceDBServer
from pemba.spicedb.client import SpiceDB
from tests.crash.faults.processes import FaultyRelay, FaultyServe, is_really_ready
from tests.crash.faults.recording import Recording, recording
from tests.proxy import Proxy
from tests.stack import Calls, Processes, processes
from tests.truth import eventually

OUTAGE_SECONDS = 3.0
"""So long a server goes on from what it knows while PostgreSQL is away."""

_RELAY = {"relay_lease_seconds": 3, "relay_rpc_seconds": 2, "relay_poll_max_seconds": 0.5, "relay_reconcile_hours": 0}
_SERVE = {"outage_seconds": OUTAGE_SECONDS}
_CLOCKS = (0, 3600, -3600)


@dataclass
class Part:
    """One of Pemba's processes, and the network before it."""

    name: str
    process: PembaProcess
    postgres: Proxy
    spicedb: Proxy

    @property
    def endpoint(self) -> str:
        return self.process.settings["PEMBA_GRPC_LISTEN"]


@dataclass
class World:
    """`url` and `store` reach PostgreSQL and SpiceDB directly; `calls` are the servers, in the order of `serves`."""

    postgres: Postgres
    spicedb: SpiceDBServer
    url: str
    store: SpiceDB
    seen: Recording
    relays: list[Part]
    serves: list[Part]
    calls: list[Calls]

    @property
    def servers(self) -> dict[str, Server]:
        """Every process that can be killed and started again, by name."""
        parts: dict[str, Server] = {part.name: part.process for part in (*self.relays, *self.serves)}
        return parts | {"postgres": self.postgres, "spicedb": self.spicedb}

    async def all_up(self) -> None:
        """Start what is down, and wait until everything is ready."""
        for server in (self.postgres, self.spicedb, *self.servers.values()):
            await asyncio.to_thread(server.start)

        async def are_ready() -> bool:
            parts = [part.process for part in (*self.relays, *self.serves)]
            return all([await asyncio.to_thread(is_really_ready, process) for process in parts])

        await eventually(are_ready, 60, every=0.2)


class Serve(FaultyServe):
    """`start` does not wait here either: what it would wait for may be away."""

    def is_ready(self) -> bool:
        return True


@asynccontextmanager
async def whole_world(folder: Path, postgres: Postgres, spicedb: SpiceDBServer) -> AsyncIterator[World]:
    """`postgres` holds a migrated database `pemba`, `spicedb` the schema; both may be killed and started."""
    url, store = postgres.url("pemba", "pemba"), SpiceDB.connect(spicedb.endpoint, spicedb.key)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        seen = await stack.enter_async_context(recording(url, store))
        networks = [await _network(stack, url, spicedb.endpoint) for _ in range(5)]
        running = await stack.enter_async_context(processes(folder, spicedb_key=spicedb.key))  # ends before these do
        relays = [
            await _part(running, f"relay_{n}", url, networks[n], test_clock_seconds=off)
            for n, off in enumerate(_CLOCKS)
        ]
        serves = [await _part(running, f"serve_{n}", url, networks[3 + n]) for n in range(2)]
        calls = [Calls(part.endpoint) for part in serves]
        for each in calls:
            stack.push_async_callback(each.channel.close)
        world = World(postgres, spicedb, url, store, seen, relays, serves, calls)
        await world.all_up()
        yield world


Network = tuple[Proxy, Proxy]
"""Before PostgreSQL, and before SpiceDB."""


async def _network(stack: AsyncExitStack, url: str, endpoint: str) -> Network:
    proxies = (Proxy.before_postgres(url, remembers=False), Proxy.before_tcp(endpoint, remembers=False))
    for proxy in proxies:
        await proxy.accept()
        stack.push_async_callback(proxy.refuse)
    return proxies


async def _part(running: Processes, name: str, url: str, network: Network, **settings: object) -> Part:
    postgres, spicedb = network
    reached = {"database_url": postgres.url(url), "spicedb_endpoint": spicedb.endpoint, **settings}
    if name.startswith("relay"):
        return Part(name, await running.relay(FaultyRelay, **_RELAY, **reached), postgres, spicedb)
    return Part(name, await running.serve(Serve, **_SERVE, **reached), postgres, spicedb)
