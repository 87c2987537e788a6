"""A whole Pemba of processes, on a PostgreSQL and a SpiceDB that the tests here may take away."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pemba.dev.pemba_process import PembaProcess
from pemba.dev.postgres import Postgres
from pemba.dev.process import Server
from pemba.spicedb.client import SpiceDB
from tests.conftest import Starting, upgrade
from tests.stack import Calls, Processes, calling, family, processes


@dataclass
class Whole:
    """Everything, and who can be called; `url` and `store` reach PostgreSQL and SpiceDB directly."""

    postgres: Postgres
    spicedb: Server
    running: Processes
    serve: PembaProcess
    relay: PembaProcess
    calls: Calls
    url: str
    store: SpiceDB

    def __post_init__(self) -> None:
        self.pids = {self.serve.pid, self.relay.pid}

    def take_away(self, name: str, how: str) -> None:
        """`stop`, `kill` or `freeze` PostgreSQL or SpiceDB; returns once it has come to pass."""
        server = self._named(name)
        if how == "freeze":
            for process in family(server.pid or 0):
                process.suspend()
        else:
            getattr(server, how)()

    def bring_back(self, name: str, how: str) -> None:
        server = self._named(name)
        if how == "freeze":
            for process in family(server.pid or 0):
                process.resume()
        else:
            server.start()

    def require_all_up(self) -> None:
        """The same processes as at the start: none died and came back."""
        assert {process.pid for process in (self.serve, self.relay)} == self.pids

    def _named(self, name: str) -> Server:
        return self.postgres if name == "postgres" else self.spicedb


@pytest.fixture(scope="module")
async def whole(servers: Starting, apply_schema: Callable[[Any], None]) -> AsyncIterator[Whole]:
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="pemba-test-")))
        postgres = Postgres(folder / "postgres", durable=False)
        started.callback(postgres.stop)
        await asyncio.to_thread(postgres.start)
        url = await asyncio.to_thread(postgres.ensure_database, "pemba", "pemba")
        await asyncio.to_thread(upgrade, url)
        spicedb = await asyncio.to_thread(servers.own_spicedb, "spicedb_outages")
        started.callback(spicedb.stop)
        await asyncio.to_thread(apply_schema, spicedb)
        settings = {"database_url": url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
        async with processes(folder, relay_rpc_seconds=2, **settings) as running:
            serve, relay = await running.serve(), await running.relay()
            store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
            async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
                yield Whole(postgres, spicedb, running, serve, relay, calls, url, store)
            await store.close()
