"""A SpiceDB that was emptied: the relay stops, and an operator begins anew with it."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc
import pytest
from authzed.api.v1 import DeleteRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.spicedb.client import SpiceDB
from tests.stack import KEY, calling, processes
from tests.truth import eventually, is_delivered, require_truth


async def pemba(*arguments: str, **settings: object) -> tuple[int, str]:
    """Run `pemba ARGUMENTS`: the exit code, and all that it said."""
    environment = {f"PEMBA_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pemba", *arguments),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


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
            code, said = await pemba("db", "forget-store", "--yes", **settings)
            assert (code, "not empty" in said) == (3, True), said

            empty(own_store)

            async def is_noticed() -> bool:
                return "store_lost" in relay.log.read_text()

            await eventually(is_noticed)
            token = await calls.grant(root, "carol")
            code, said = await pemba("db", "forget-store", **settings)
            assert (code, "holds nothing" in said) == (0, True), said
            assert not await is_delivered(database_url, root.tenant_id)
            code, said = await pemba("db", "forget-store", "--yes", **settings)
            assert code == 0, said
            assert await eventually(lambda: is_delivered(database_url, root.tenant_id), 20)
            assert await calls.may_view(root, "carol", token)
            # Nothing of before is there yet, and what was kept is not given either.
            assert not await calls.may_view(root, "bob")
            code, said = await pemba("reconcile", "--apply", endpoint=endpoint, key=KEY)
            assert code == 0, said
            assert await calls.may_view(root, "bob")
            await require_truth(database_url, store, root.tenant_id)
            assert not await calls.may_view(root, "bob", await calls.revoke(root, "bob"))
    await store.close()
