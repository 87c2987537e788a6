"""ShareService: shapes in, records out."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.model import Role
from pemba.v1.shares_pb2 import (
    SHARE_DIRECTION_INCOMING,
    SHARE_DIRECTION_OUTGOING,
    CreateShareRequest,
    GetShareRequest,
    ListSharesRequest,
    RevokeShareRequest,
)
from pemba.v1.types_pb2 import ROLE_MEMBER, ROLE_OWNER, ROLE_VIEWER, ObjectRef

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e7"
SHARE_ID = "shr_01kafa7q0ve8x9m1t2b3c4d5e6"
WORKSPACE, OTHER = (ObjectRef(type="workspace", id=id_) for id_ in (WORKSPACE_ID, OTHER_ID))
NAMED = {"tenant_id": TENANT_ID, "workspace": WORKSPACE, "with_workspace": OTHER, "role": ROLE_MEMBER}
UNTIL = Timestamp(seconds=1_800_000_000, nanos=5)


async def test_a_share_is_made_and_told(running):
    response = await running.call("CreateShare", CreateShareRequest(**NAMED, expire_time=UNTIL, request_id="r-1"))
    options = running.shares.calls[0].options
    assert (options["workspace_id"], options["with_workspace_id"], options["role"]) == (
        WORKSPACE_ID,
        OTHER_ID,
        Role.MEMBER,
    )
    assert options["expire_time"] == datetime.fromtimestamp(1_800_000_000, UTC)
    assert options["options"].request_id == "r-1"
    share = response.share
    assert (share.id, share.tenant_id, share.workspace, share.with_workspace) == (SHARE_ID, TENANT_ID, WORKSPACE, OTHER)
    assert (share.role, share.created_by, share.etag, response.token) == (ROLE_VIEWER, "bob", "e1", "t2")
    assert share.expire_time.ToJsonString() == share.create_time.ToJsonString() == "2026-11-21T09:30:00Z"


async def test_without_an_expiry_it_has_none(running):
    await running.call("CreateShare", CreateShareRequest(**NAMED))
    assert running.shares.calls[0].options["expire_time"] is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"role": ROLE_OWNER}, "role"),
        ({"role": 0}, "role"),
        ({"role": 99}, "role"),
        ({"workspace": ObjectRef(type="tenant", id=TENANT_ID)}, "workspace.type"),
        ({"workspace": ObjectRef(type="workspace", id="root")}, "workspace.id"),
        ({"with_workspace": ObjectRef()}, "with_workspace.type"),
        ({"expire_time": Timestamp(seconds=10**12)}, "expire_time"),
        ({"tenant_id": WORKSPACE_ID}, "tenant_id"),
    ],
    ids=str,
)
async def test_a_share_that_cannot_be_is_refused_by_field(running, changes, field):
    refusal = await running.refusal("CreateShare", CreateShareRequest(**NAMED | changes))
    assert list(refusal.violations) == [field]
    assert not running.shares.calls


async def test_a_share_is_revoked_and_got_by_its_id(running):
    request = RevokeShareRequest(tenant_id=TENANT_ID, share_id=SHARE_ID, etag="e1")
    assert (await running.call("RevokeShare", request)).share.id == SHARE_ID
    assert running.shares.calls[0].arguments[1:] == (TENANT_ID, SHARE_ID)
    assert running.shares.calls[0].options["options"].etag == "e1"
    response = await running.call("GetShare", GetShareRequest(tenant_id=TENANT_ID, share_id=SHARE_ID))
    assert (response.share.id, response.token) == (SHARE_ID, "t1")
    for method, kind in (("RevokeShare", RevokeShareRequest), ("GetShare", GetShareRequest)):
        refusal = await running.refusal(method, kind(tenant_id=TENANT_ID, share_id=WORKSPACE_ID))
        assert list(refusal.violations) == ["share_id"]


@pytest.mark.parametrize(
    ("direction", "incoming"), [(SHARE_DIRECTION_OUTGOING, False), (SHARE_DIRECTION_INCOMING, True)]
)
async def test_shares_are_listed_by_side(running, direction, incoming):
    request = ListSharesRequest(tenant_id=TENANT_ID, workspace=WORKSPACE, direction=direction, page_size=7)
    response = await running.call("ListShares", request)
    options = {"workspace_id": WORKSPACE_ID, "incoming": incoming, "page_size": 7, "page_token": ""}
    assert running.shares.calls[0].options == options
    assert ([s.id for s in response.shares], response.next_page_token, response.token) == ([SHARE_ID], "next", "t1")


async def test_a_list_names_a_side(running):
    refusal = await running.refusal("ListShares", ListSharesRequest(tenant_id=TENANT_ID, workspace=WORKSPACE))
    assert list(refusal.violations) == ["direction"]
