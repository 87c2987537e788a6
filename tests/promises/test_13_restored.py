"""Promise 13: SpiceDB restored to an earlier backup, and PostgreSQL restored to an earlier point: noticed while the
relay runs."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from pemba.dev.pemba_process import PembaProcess
from pemba.dev.postgres import Postgres
from pemba.dev.spicedb import SpiceDB
from pemba.storage.outbox import shard_of
from pemba.v1 import workspaces_pb2
from tests.conftest import AnySpiceDB
from tests.crash.faults.copies import Copy
from tests.crash.faults.processes import FaultyRelay, is_really_ready
from tests.promises.conftest import is_broken
from tests.stack import Calls, Processes, calling, processes
from tests.truth import eventually, is_delivered, sql

SECONDS = 15.0
"""After what was restored is up again: two, and the pause after the last failure while it was away."""


@dataclass
class Restorable:
    """Both databases on servers of their own."""

    pemba: Postgres
    spicedb_postgres: Postgres
    spicedb: SpiceDB
    running: Processes

    def restore(self, copy: Copy) -> None:
        """SpiceDB is started anew where its database is: else it goes on by what it has in its caches."""
        if copy.postgres is self.spicedb_postgres:
            self.spicedb.kill()
        copy.restore()
        self.spicedb.start()


@pytest.fixture
async def restorable(
    own_postgres: Callable[[], Postgres],
    spicedb_program: Path,
    apply_schema: Callable[[AnySpiceDB], None],
    tmp_path: Path,
) -> AsyncIterator[Restorable]:
    with ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="pemba-test-")))
        spicedb_postgres = Postgres(folder / "postgres", durable=False)
        spicedb = SpiceDB(spicedb_program, spicedb_postgres, secrets.token_urlsafe(32), log=folder / "spicedb.log")
        for server in (spicedb_postgres, spicedb):
            started.callback(server.stop)
            await asyncio.to_thread(server.start)
        await asyncio.to_thread(apply_schema, spicedb)
        pemba = await asyncio.to_thread(own_postgres)
        settings = {"spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
        async with processes(tmp_path, database_url=pemba.url("pemba", "pemba"), **settings) as running:
            yield Restorable(pemba, spicedb_postgres, spicedb, running)


async def restored(made: Restorable, what: str, seconds: float, **relay_settings: object) -> None:
    """What was granted after the copy is in one of the two only."""
    serve = await made.running.serve()
    relay = await made.running.relay(FaultyRelay, **relay_settings)
    await eventually(lambda: asyncio.to_thread(is_really_ready, relay), 20)
    url = made.pemba.url("pemba", "pemba")
    async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
        root = (await calls.tenant("acme")).root_workspace
        await eventually(lambda: is_delivered(url, root.tenant_id))
        server = made.spicedb_postgres if what == "store" else made.pemba
        copy = await asyncio.to_thread(Copy.of, server)
        at_copy = await fence_number(url, root.tenant_id)
        await change_until_fence(at_copy + 2, calls, root, url)
        await asyncio.to_thread(made.restore, copy)
        await eventually(lambda: says(relay, f"{what}_lost"), seconds)


async def fence_number(url: str, tenant_id: str) -> int:
    return (await sql(url, "SELECT n FROM relay_lease WHERE shard = $1", shard_of(tenant_id)))[0]["n"]


async def change_until_fence(number: int, calls: Calls, root: workspaces_pb2.Workspace, url: str) -> None:
    """The number rises within a second after something was delivered, and no more than that."""
    users = (f"user-{n}" for n in itertools.count())

    async def is_there() -> bool:
        with suppress(grpc.aio.AioRpcError):  # the server is only just back
            await calls.grant(root, next(users))
        return await fence_number(url, root.tenant_id) >= number

    await eventually(is_there, 40, every=0.2)
    await eventually(lambda: is_delivered(url, root.tenant_id), 20)


async def says(process: PembaProcess, event: str) -> bool:
    return f'"{event}"' in process.log.read_text()


@pytest.mark.parametrize("what", ["store", "database"])
async def test_what_was_restored_to_an_earlier_state_is_noticed(restorable: Restorable, what: str) -> None:
    await restored(restorable, what, SECONDS)


@pytest.mark.long
@pytest.mark.parametrize("what", ["store", "database"])
async def test_it_is_broken_where_a_fence_says_nothing(restorable: Restorable, what: str) -> None:
    with is_broken("still gives False after 5.0 s"):
        await restored(restorable, what, 5.0, test_without="verdicts")
