"""`pemba repair` against a running `pemba dev`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import pytest
from authzed.api.v1 import DeleteRelationshipsRequest, PermissionsServiceStub, RelationshipFilter

from pemba.service.ids import new_workspace_id
from tests.breaking import breaking, personal_workspace
from tests.e2e.calls import Caller, ref, user_ref

Repair = Callable[..., tuple[int, Any]]


@pytest.fixture
def repair(running_dev: Mapping[str, str]) -> Repair:
    """Run the command: (exit code, what it found)."""

    def run(*arguments: str) -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "pemba", "repair", "-o", "json", *arguments],
            env=dict(running_dev),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout, done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] == (done.returncode == 0)
        return done.returncode, [(each["state"], each["part"], each["about"]) for each in answer["found"]]

    return run


async def test_p6_what_breaks_the_rules_of_personal_workspaces_is_repaired_once(
    repair: Repair, acme: dict[str, str], system: Caller, ready: dict[str, Any]
):
    tenant, slug = acme["tenant"], acme["slug"]
    for user in ("bob", "eve"):
        await system("SetRole", tenant_id=tenant, object=ref(tenant), subject=user_ref(user), role="ROLE_MEMBER")
    own = new_workspace_id()
    async with breaking(ready["database_url"]) as broken:
        await personal_workspace(broken, tenant, own, "bob", ("eve", "admin"))

    to_repair = [("to repair", "records", f"workspace:{own}")] * 2
    code, found = repair("--tenant", slug)
    assert (code, found[:2]) == (1, to_repair)
    assert repair("--tenant", slug)[1] == found, "nothing is changed by a look"

    code, found = repair("--tenant", slug, "--apply")
    assert {state for state, _, _ in found} == {"repaired"}
    assert code == 0
    assert repair("--tenant", slug, "--apply") == (0, [])
    assert await system.may(tenant, "bob", "own", own)
    assert not await system.may(tenant, "eve", "view", own)


async def test_what_a_person_must_decide_is_left_and_the_rest_is_repaired(
    repair: Repair, acme: dict[str, str], system: Caller, ready: dict[str, Any]
):
    tenant, slug = acme["tenant"], acme["slug"]
    given = {"object": ref(acme["eng"]), "subject": user_ref("bob"), "role": "ROLE_VIEWER"}
    token = (await system("SetRole", tenant_id=tenant, **given))["token"]
    assert await system.may(tenant, "bob", "view", acme["eng"], token)
    async with grpc.aio.insecure_channel(ready["spicedb_endpoint"]) as channel:
        matching = RelationshipFilter(
            resource_type="workspace", optional_resource_id=f"{tenant}/{acme['eng']}", optional_relation="viewer"
        )
        request = DeleteRelationshipsRequest(relationship_filter=matching)
        key = (("authorization", f"Bearer {ready['spicedb_key']}"),)
        await PermissionsServiceStub(channel).DeleteRelationships(request, metadata=key)
    async with breaking(ready["database_url"]) as broken:
        await broken.execute(
            "UPDATE workspaces SET archive_time = now(), archived_with = id WHERE id = $1 AND tenant_id = $2",
            *(acme["backend"], tenant),
        )
        below = new_workspace_id()
        await broken.execute(
            "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)"
            " VALUES ($1, $2, $3, 'below', 'Below', 'shared', 1)",
            *(tenant, below, acme["backend"]),
        )
    assert not await system.may(tenant, "bob", "view", acme["eng"])

    left = ("decide", "records", f"workspace:{below}")
    assert repair("--tenant", slug) == (1, [left, ("to repair", "drift", "")])
    assert repair("--tenant", slug, "--apply") == (1, [left, ("repaired", "drift", "")])
    assert await system.may(tenant, "bob", "view", acme["eng"])
    assert repair("--tenant", slug, "--apply") == (1, [left])
    await system("UnarchiveWorkspace", tenant_id=tenant, workspace_id=acme["backend"])
    assert repair("--tenant", slug) == (0, [])
