"""Stores and databases that lost something, before whole processes: noticed, and healed without anybody's doing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc
import pytest
from authzed.api.v1 import DeleteRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.dev.backends import PostgresAccess
from pemba.dev.postgres import Postgres
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import SYSTEM_ROLE
from tests.stack import Calls, Processes, Refusal, calling, processes, run_command
from tests.truth import as_owner, eventually, is_delivered, require_no_gap, require_truth, sql

NOTICED_SECONDS = 2.0
PATIENCE_SECONDS = 30.0


def empty(spicedb) -> None:
    """Everything but the schema."""
    with grpc.insecure_channel(spicedb.endpoint) as channel:
        for type_ in ("fence", "tenant", "workspace"):
            PermissionsServiceStub(channel).DeleteRelationships(
                DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type=type_)),
                metadata=(("authorization", f"Bearer {spicedb.key}"),),
                timeout=10,
            )


@dataclass
class Stack:
    """Two tenants' records, a server, and a relay that heals."""

    url: str
    spicedb: object
    store: SpiceDB
    running: Processes
    calls: Calls
    relay: object
    acme: object
    globex: object
    bobs: str
    """The token of bob's role in acme."""
    epoch: str
    """Of the store, when it was last looked at."""

    async def is_declared(self) -> None:
        """Another life of the store has begun since the last call, or the start."""

        async def another() -> str:
            [row] = await sql(self.url, "SELECT store_epoch FROM installation")
            return "" if str(row["store_epoch"]) == self.epoch else str(row["store_epoch"])

        self.epoch = await eventually(another, PATIENCE_SECONDS)

    async def is_healed(self) -> None:
        """Every tenant stands in the present life of the store."""

        async def filled() -> bool:
            [row] = await sql(
                self.url,
                "SELECT i.store_epoch = i.filled_epoch AND NOT EXISTS (SELECT FROM tenant_delivery d"
                " WHERE d.store_epoch <> i.store_epoch AND d.tenant_id <> '~') AS filled FROM installation i",
            )
            return row["filled"]

        await eventually(filled, PATIENCE_SECONDS)
        for place in (self.acme, self.globex):  # a server looks every 50 ms
            await eventually(lambda place=place: self.is_answered(place), PATIENCE_SECONDS)

    async def is_answered(self, place: object) -> bool:
        try:
            await self.calls.may_view(place, "alice")
        except grpc.aio.AioRpcError:
            return False
        return True

    async def is_true(self) -> None:
        """Every tenant is delivered, and SpiceDB holds what the records say and nothing else."""
        for place in (self.acme, self.globex):
            await eventually(lambda place=place: is_delivered(self.url, place.tenant_id), PATIENCE_SECONDS)
            await require_no_gap(self.url, place.tenant_id)
            await require_truth(self.url, self.store, place.tenant_id)


@asynccontextmanager
async def stack(url: str, spicedb, folder: Path) -> AsyncIterator[Stack]:
    settings = {"database_url": url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    applied = await run_command("schema", "apply", **settings)  # so that this database remembers it
    assert applied.code == 0, applied
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    try:
        async with processes(folder, **settings, relay_lease_seconds=2) as running:
            serve, relay = await asyncio.gather(running.serve(), running.relay())
            async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
                acme = (await calls.tenant("acme")).root_workspace
                globex = (await calls.tenant("globex")).root_workspace
                bobs = await calls.grant(acme, "bob")
                assert await calls.may_view(acme, "bob", bobs)
                assert await calls.may_view(globex, "dora", await calls.grant(globex, "dora"))
                [row] = await sql(url, "SELECT store_epoch FROM installation")
                yield Stack(url, spicedb, store, running, calls, relay, acme, globex, bobs, str(row["store_epoch"]))
    finally:
        await store.close()


@pytest.fixture
async def own_stack(own_spicedb: Callable[[], object], database_url: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(database_url, own_spicedb(), tmp_path) as running:
        yield running


async def test_an_emptied_store_is_noticed_and_filled_again_and_its_tokens_still_count(own_stack: Stack) -> None:
    stack = own_stack
    began = time.monotonic()
    empty(stack.spicedb)
    await stack.is_declared()
    assert time.monotonic() - began < NOTICED_SECONDS + 3  # of a busy machine; what is promised is two seconds
    await stack.is_healed()
    assert await stack.calls.may_view(stack.acme, "bob", stack.bobs)
    assert await stack.calls.may_view(stack.globex, "dora")
    [declared] = await sql(stack.url, "SELECT principal, reason FROM audit WHERE method = 'DeclareLoss'")
    assert tuple(declared) == ("pemba:relay", "STORE_LOST")
    assert not await stack.calls.may_view(stack.acme, "bob", await stack.calls.revoke(stack.acme, "bob"))
    await stack.is_true()


async def test_a_store_that_lost_its_schema_too_gets_it_back(own_spicedb, database_url: str, tmp_path: Path) -> None:
    spicedb = own_spicedb()
    async with stack(database_url, spicedb, tmp_path) as running:
        await asyncio.to_thread(spicedb.stop)
        spicedb.postgres.sql(f'DROP DATABASE "{spicedb.database}" WITH (FORCE);')
        await asyncio.to_thread(spicedb.start)
        await running.is_declared()
        await running.is_healed()
        assert await running.calls.may_view(running.acme, "bob", running.bobs)
        await running.is_true()


async def test_a_relay_that_starts_beside_an_emptied_store_heals_it(own_spicedb, database_url: str, tmp_path) -> None:
    spicedb = own_spicedb()
    async with stack(database_url, spicedb, tmp_path) as running:
        await running.running.stop(running.relay)
        await asyncio.to_thread(spicedb.stop)
        spicedb.postgres.sql(f'DROP DATABASE "{spicedb.database}" WITH (FORCE);')
        await asyncio.to_thread(spicedb.start)
        running.relay = await running.running.relay()
        await running.is_declared()
        await running.is_healed()
        assert await running.calls.may_view(running.acme, "bob", running.bobs)
        await running.is_true()


def copy_database(spicedb, of: str, to: str) -> None:
    """Of SpiceDB's, which is stopped."""
    spicedb.postgres.sql(
        f'DROP DATABASE IF EXISTS "{to}" WITH (FORCE); CREATE DATABASE "{to}" TEMPLATE "{of}" OWNER postgres;'
    )


async def back_up_store(spicedb) -> None:
    await asyncio.to_thread(spicedb.stop)
    copy_database(spicedb, spicedb.database, f"{spicedb.database}_backup")
    await asyncio.to_thread(spicedb.start)


async def restore_store(spicedb) -> None:
    await asyncio.to_thread(spicedb.stop)
    copy_database(spicedb, f"{spicedb.database}_backup", spicedb.database)
    await asyncio.to_thread(spicedb.start)


async def test_a_store_restored_to_an_earlier_backup_gives_no_right_back_that_was_revoked(own_stack: Stack) -> None:
    stack = own_stack
    await back_up_store(stack.spicedb)
    before = await landed(stack)
    carols = await stack.calls.grant(stack.acme, "carol")
    assert await stack.calls.may_view(stack.acme, "carol", carols)
    gone = await stack.calls.revoke(stack.acme, "bob")
    assert not await stack.calls.may_view(stack.acme, "bob", gone)
    await eventually(lambda: has_rotated_since(stack, before), PATIENCE_SECONDS)
    await restore_store(stack.spicedb)
    await stack.is_declared()
    await stack.is_healed()
    assert not await stack.calls.may_view(stack.acme, "bob", gone)
    assert not await stack.calls.may_view(stack.acme, "bob")
    assert await stack.calls.may_view(stack.acme, "carol", carols)
    await stack.is_true()


async def test_tenants_are_healed_one_by_one_while_the_others_answer(own_stack: Stack) -> None:
    stack = own_stack
    first, second = sorted((stack.acme, stack.globex), key=lambda place: place.tenant_id)
    asked = {stack.acme.tenant_id: (stack.acme, "bob"), stack.globex.tenant_id: (stack.globex, "dora")}
    held = await asyncpg.connect(stack.url, server_settings={"role": SYSTEM_ROLE})
    try:
        transaction = held.transaction()
        await transaction.start()
        await held.execute("SELECT FROM tenant_head WHERE tenant_id = $1 FOR UPDATE", first.tenant_id)
        empty(stack.spicedb)
        await stack.is_declared()

        async def answers(place: object) -> bool:
            try:
                return await stack.calls.may_view(*asked[place.tenant_id])
            except grpc.aio.AioRpcError as error:
                if "is being restored" not in error.details() or Refusal(error).reason != "SPICEDB_UNAVAILABLE":
                    raise
                return False

        async def is_refused_first() -> bool:
            return not await answers(first)

        await eventually(is_refused_first)  # servers look every 50 ms
        await eventually(lambda: answers(second), PATIENCE_SECONDS)
        assert not await answers(first)
        await transaction.rollback()
    finally:
        await held.close()
    await stack.is_healed()
    assert await stack.calls.may_view(*asked[first.tenant_id])
    await stack.is_true()


async def test_a_store_of_another_installation_is_left_alone(
    own_stack: Stack, postgres: PostgresAccess, template_database: str
) -> None:
    """A relay with a database of its own that is pointed at ours by mistake ends, and nothing of ours is deleted."""
    stack = own_stack
    name = postgres.create_database(template_database)
    try:
        theirs = postgres.url(name)
        await as_owner(theirs, "installation", "UPDATE installation SET installation_id = gen_random_uuid()")
        settings = {"spicedb_endpoint": stack.spicedb.endpoint, "spicedb_key": stack.spicedb.key}
        ended = await run_command("relay", database_url=theirs, **settings)
        assert ended.code != 0
        assert "belongs to another installation" in ended.err
    finally:
        postgres.drop_database(name)
    assert "_lost" not in stack.relay.log.read_text()
    await stack.is_true()


# PostgreSQL, as a whole server.


@asynccontextmanager
async def restorable(own_postgres, own_spicedb, folder: Path) -> AsyncIterator[tuple[Postgres, Stack]]:
    postgres = own_postgres()
    async with stack(postgres.url("pemba", "pemba"), own_spicedb(), folder) as running:
        yield postgres, running


def back_up(postgres: Postgres) -> None:
    """Its whole folder, while it stands still."""
    postgres.stop()
    subprocess.run(["cp", "-a", postgres.data, postgres.data.with_name("backup")], check=True)
    postgres.start()


def restore(postgres: Postgres) -> None:
    postgres.kill()
    shutil.rmtree(postgres.data)
    postgres.data.with_name("backup").rename(postgres.data)
    postgres.start()


async def test_a_database_restored_to_an_earlier_point_heals_and_its_lost_tokens_are_told(
    own_postgres, own_spicedb, tmp_path: Path
) -> None:
    async with restorable(own_postgres, own_spicedb, tmp_path) as (postgres, stack):
        await asyncio.to_thread(back_up, postgres)
        await eventually(lambda: can_grant(stack, "carol"), PATIENCE_SECONDS)
        before = await landed(stack)
        lost = await stack.calls.grant(stack.acme, "erin")
        assert await stack.calls.may_view(stack.acme, "erin", lost)
        await eventually(lambda: has_rotated_since(stack, before), PATIENCE_SECONDS)
        await asyncio.to_thread(restore, postgres)
        await stack.is_declared()
        await stack.is_healed()
        assert not await stack.calls.may_view(stack.acme, "erin")
        assert await stack.calls.may_view(stack.acme, "bob")
        for token in (lost, stack.bobs):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stack.calls.may_view(stack.acme, "bob", token)
            assert Refusal(refused.value).reason == "TOKEN_LOST"
        assert await stack.calls.may_view(stack.acme, "frank", await stack.calls.grant(stack.acme, "frank"))
        await stack.is_true()


async def landed(stack: Stack) -> int:
    [row] = await sql(stack.url, "SELECT sum(landed) AS landed FROM relay_lease")
    return row["landed"]


async def has_rotated_since(stack: Stack, before: int) -> bool:
    """After a write a fence is rotated within a second: from then on a store of before is seen to be one."""
    return await landed(stack) > before


async def can_grant(stack: Stack, user: str) -> bool:
    try:
        return bool(await stack.calls.grant(stack.acme, user))
    except grpc.aio.AioRpcError:
        return False


async def test_both_restored_to_different_points_agree_in_the_end(own_postgres, own_spicedb, tmp_path: Path) -> None:
    async with restorable(own_postgres, own_spicedb, tmp_path) as (postgres, stack):
        await back_up_store(stack.spicedb)
        before = await landed(stack)
        assert await eventually(lambda: can_grant(stack, "carol"), PATIENCE_SECONDS)
        await eventually(lambda: has_rotated_since(stack, before), PATIENCE_SECONDS)
        await asyncio.to_thread(back_up, postgres)
        await eventually(lambda: can_grant(stack, "erin"), PATIENCE_SECONDS)
        await stack.calls.revoke(stack.globex, "dora")
        await eventually(lambda: is_delivered(stack.url, stack.globex.tenant_id), PATIENCE_SECONDS)
        await asyncio.to_thread(restore, postgres)
        await restore_store(stack.spicedb)
        await stack.is_declared()
        await stack.is_healed()
        await stack.is_true()
        assert await stack.calls.may_view(stack.acme, "carol")
        assert not await stack.calls.may_view(stack.acme, "erin")
        assert await stack.calls.may_view(stack.globex, "dora")


async def test_a_token_of_a_lost_commit_that_was_never_delivered_begins_another_life(
    own_postgres, own_spicedb, tmp_path: Path
) -> None:
    async with restorable(own_postgres, own_spicedb, tmp_path) as (postgres, stack):
        await stack.running.stop(stack.relay)
        await asyncio.to_thread(back_up, postgres)
        await eventually(lambda: can_grant(stack, "carol"), PATIENCE_SECONDS)
        lost = await stack.calls.grant(stack.acme, "erin")
        await asyncio.to_thread(restore, postgres)
        await eventually(lambda: is_refused(stack, lost), PATIENCE_SECONDS)
        # Also one whose number is there, of a commit that may be another one now.
        assert await eventually(lambda: is_refused(stack, stack.bobs), PATIENCE_SECONDS)


async def is_refused(stack: Stack, token: str) -> bool:
    try:
        await stack.calls.may_view(stack.acme, "bob", token)
    except grpc.aio.AioRpcError as error:
        return Refusal(error).reason == "TOKEN_LOST"
    return False
