"""A SpiceDB that was emptied: the relay stops, and an operator begins anew with it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from authzed.api.v1 import DeleteRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.spicedb.client import SpiceDB
from tests.stack import KEY, calling, processes, run_command
from tests.truth import eventually, is_delivered, require_truth


def empty(spicedb) -> None:
    with grpc.insecure_channel(spicedb.endpoint) as channel:
        for type_ in ("fence", "tenant", "workspace"):
            PermissionsServiceStub(channel).DeleteRelationships(
                DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type=type_)),
                metadata=(("authorization", f"Bearer {spicedb.key}"),),
                timeout=10,
            )


@pytest.fixture
def own_store(bare_spicedb, apply_schema):
    apply_schema(bare_spicedb)
    return bare_spicedb


async def test_after_the_store_was_emptied_all_is_as_before_once_it_is_forgotten_and_filled_again(
    own_store, database_url: str, tmp_path
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": own_store.endpoint, "spicedb_key": own_store.key}
    store = SpiceDB.connect(own_store.endpoint, own_store.key)
    async with processes(tmp_path, **settings) as running:
        serve, relay = await asyncio.gather(running.serve(), running.relay())
        endpoint = serve.settings["PEMBA_GRPC_LISTEN"]
        async with calling(endpoint) as calls:
            root = (await calls.tenant("acme")).root_workspace
            assert await calls.may_view(root, "bob", await calls.grant(root, "bob"))
            refused = await run_command("db", "forget-store", "--yes", **settings)
            assert (refused.code, "not empty" in refused.err) == (3, True), refused

            empty(own_store)

            async def is_noticed() -> bool:
                return "store_lost" in relay.log.read_text()

            await eventually(is_noticed)
            token = await calls.grant(root, "carol")
            possible = await run_command("db", "forget-store", **settings)
            assert (possible.code, "holds nothing" in possible.out) == (0, True), possible
            assert not await is_delivered(database_url, root.tenant_id)
            forgotten = await run_command("db", "forget-store", "--yes", **settings)
            assert forgotten.code == 0, forgotten
            assert await eventually(lambda: is_delivered(database_url, root.tenant_id), 20)
            assert await calls.may_view(root, "carol", token)
            # Nothing of before is there yet, and what was kept is not given either.
            assert not await calls.may_view(root, "bob")
            filled = await run_command("reconcile", "--apply", endpoint=endpoint, key=KEY)
            assert filled.code == 0, filled
            assert await calls.may_view(root, "bob")
            await require_truth(database_url, store, root.tenant_id)
            assert not await calls.may_view(root, "bob", await calls.revoke(root, "bob"))
    await store.close()
