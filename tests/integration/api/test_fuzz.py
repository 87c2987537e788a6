"""Every method is sent what nobody should send: it answers or refuses, never breaks, and writes all or nothing."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from pemba.rpc.server import SERVICES
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import SYSTEM_ROLE
from pemba.v1 import groups_pb2, shares_pb2, tenants_pb2, types_pb2
from tests.integration.api.hostile import Hostile
from tests.truth import eventually, is_delivered, require_no_gap, require_truth

SEED = int(os.environ.get("PEMBA_TEST_SEED", random.SystemRandom().randrange(2**32)))
INPUTS_A_METHOD = 25
MORE_INPUTS_A_METHOD = 1000
SECONDS_A_CALL = 5.0
SECONDS_A_STREAM = 0.5
"""Some have nothing to say, and go on for as long as somebody listens."""

METHODS = [method for service in SERVICES for method in service.methods]
CODES_OF_A_DEFECT = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED,
}
NOT_RECORDS = {"audit", "audit_mention", "relay_lease", "tenant_delivery", "idempotency", "alembic_version", "user_job"}
"""What a refused call may write, or what others write while it runs."""


@dataclass
class World:
    """Some tenants to be hostile to, and what is known of them."""

    api: Any
    connection: asyncpg.Connection
    tenants: list[str]
    known: dict[str, list[str]]
    tables: list[str]
    outcomes: Counter[str] = field(default_factory=Counter)

    async def records(self) -> dict[str, object]:
        """What the records are, as far as a change of any of them changes it."""
        each = ", ".join(
            f"(SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t) AS {table}"
            for table in self.tables
        )
        return dict(await self.connection.fetchrow(f"SELECT {each}"))

    async def is_quiet(self) -> bool:
        """No job of an earlier call is under way that would write while another is refused."""
        return await self.connection.fetchval("SELECT count(*) = 0 FROM user_job")


@pytest.fixture
async def store(spicedb) -> AsyncIterator[SpiceDB]:
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


@pytest.fixture
async def world(api, database_url: str) -> AsyncIterator[World]:
    known: dict[str, list[str]] = {"user_id": ["alice", "bob"], "type": ["user", "workspace", "tenant", "group"]}
    tenants = []
    for slug in ("acme", "globex", "initech"):
        created = await api.tenant(slug)
        tenants.append(created.tenant.id)
        there = [created.root_workspace]
        there += [(await api.workspace(there[0], name)).workspace for name in ("red", "blue", "green")]
        of_group = groups_pb2.CreateGroupRequest(tenant_id=created.tenant.id, slug="team", name="Team")
        group = (await api.groups.CreateGroup(of_group, metadata=api.metadata())).group
        of_share = shares_pb2.CreateShareRequest(
            tenant_id=created.tenant.id,
            workspace=types_pb2.ObjectRef(type="workspace", id=there[1].id),
            with_workspace=types_pb2.ObjectRef(type="workspace", id=there[2].id),
            role=types_pb2.ROLE_VIEWER,
        )
        share = (await api.shares.CreateShare(of_share, metadata=api.metadata())).share
        for name, values in {
            "tenant_id": [created.tenant.id],
            "workspace_id": [each.id for each in there],
            "group_id": [group.id],
            "share_id": [share.id],
            "slug": [slug, "red", "team", f"new-{slug}"],
            "id": [created.tenant.id, *(each.id for each in there), group.id, "alice", "bob"],
        }.items():
            known.setdefault(name, []).extend(values)
    for name in ("parent_id", "new_parent_id"):
        known[name] = known["workspace_id"]
    for name in ("first_admin", "owner", "from_user", "to_user", "transfer_to", "personal_user_id"):
        known[name] = known["user_id"]
    known |= {"permission": ["view", "own"], "relation": ["", "member"], "name": ["Name"], "page_token": [""]}
    known |= {"namespace": ["mail"], "namespaces": ["mail"]}
    known |= {"email": ["alice@acme.test"], "etag": [""], "request_id": ["", "again"], "at_least_as_fresh": [""]}
    connection = await asyncpg.connect(database_url, server_settings={"role": SYSTEM_ROLE})
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    names = [row["tablename"] for row in tables if row["tablename"] not in NOT_RECORDS]
    readable = [name for name in names if await connection.fetchval("SELECT has_table_privilege($1, 'SELECT')", name)]
    yield World(api, connection, tenants, known, readable)
    await connection.close()


async def call(world: World, method: MethodDescriptor, body: bytes) -> grpc.StatusCode:
    """What becomes of one call; of a stream nothing is asked but that it begins or ends well."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel, metadata = world.api.channel, world.api.metadata()
    try:
        if method.server_streaming:
            stream = channel.unary_stream(path)(body, metadata=metadata, timeout=SECONDS_A_STREAM)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(path)(body, metadata=metadata, timeout=SECONDS_A_CALL)
    except grpc.aio.AioRpcError as error:
        return refused(error.code(), error.details() or "")
    return grpc.StatusCode.OK


def refused(code: grpc.StatusCode, details: str) -> grpc.StatusCode:
    assert "Traceback" not in details, details
    assert code not in CODES_OF_A_DEFECT, f"{code}: {details}"
    return code


async def fuzz(world: World, method: MethodDescriptor, chance: random.Random, inputs: int) -> None:
    hostile = Hostile(chance, world.known)
    for number in range(inputs):
        request = hostile.message(method.input_type)
        body = chance.randbytes(100) if number % 25 == 24 else request.SerializeToString()
        before = await world.records()
        try:
            code = await call(world, method, body)
            if code is grpc.StatusCode.OK:
                await eventually(world.is_quiet, 20)
            elif not method.server_streaming:
                assert await world.records() == before, f"{code.name}, and yet something was written"
        except AssertionError as error:
            error.add_note(f"{method.full_name}, PEMBA_TEST_SEED={SEED}: {str(request)[:2000]}")
            raise
        world.outcomes[code.name] += 1


async def every_method(world: World, inputs: int) -> str:
    """What was tried, and what came of it."""
    chance = random.Random(SEED)
    for method in METHODS:
        for tenant in world.tenants:  # whoever a lucky call before has suspended
            activate = tenants_pb2.ActivateTenantRequest(tenant_id=tenant)
            await world.api.tenants.ActivateTenant(activate, metadata=world.api.metadata())
        await fuzz(world, method, chance, inputs)
    return f"{world.outcomes.total()} inputs to {len(METHODS)} methods: {dict(world.outcomes.most_common())}"


async def require_all_is_well(world: World, url: str, store: SpiceDB) -> None:
    for tenant in world.tenants:
        await eventually(lambda tenant=tenant: is_delivered(url, tenant), 30)
        await require_no_gap(url, tenant)
        await require_truth(url, store, tenant)


@pytest.mark.parametrize(
    "inputs", [INPUTS_A_METHOD, pytest.param(MORE_INPUTS_A_METHOD, marks=pytest.mark.long)], ids=["some", "many"]
)
async def test_no_input_breaks_any_method(
    world: World, database_url: str, store: SpiceDB, inputs: int, say: Callable[[str], None]
) -> None:
    tried = await every_method(world, inputs)
    await require_all_is_well(world, database_url, store)
    say(tried)
