"""ApiKeyService: shapes in, records out, and secrets where they belong."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.model import Scope
from pemba.v1.api_keys_pb2 import (
    CreateApiKeyRequest,
    GetApiKeyRequest,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
    RotateApiKeyRequest,
)
from tests.unit.rpc.conftest import API_KEY, TENANT_ID, WORKSPACE_ID

NEW = {"tenant_id": TENANT_ID, "name": "CI", "scopes": ["read", "check"]}
NAMED = {"tenant_id": TENANT_ID, "api_key_id": API_KEY.id}
UNTIL = Timestamp(seconds=1_800_000_000)


async def test_a_key_is_made_and_its_secret_told(running):
    request = CreateApiKeyRequest(**NEW, user_id="alice", workspace_id=WORKSPACE_ID, expire_time=UNTIL, request_id="r")
    response = await running.call("CreateApiKey", request)
    [call] = running.api_keys.calls
    wanted = call.arguments[1]
    assert (wanted.tenant_id, wanted.user_id, wanted.workspace_id, wanted.name) == (
        *(TENANT_ID, "alice", WORKSPACE_ID, "CI"),
    )
    assert (wanted.scopes, wanted.expire_time) == (
        {Scope.READ, Scope.CHECK},
        datetime.fromtimestamp(1_800_000_000, UTC),
    )
    assert call.options["options"].request_id == "r"
    assert (response.secret, response.replayed) == ("pemba_0123abcd_secret", False)
    key = response.api_key
    assert (key.id, key.tenant_id, key.user_id, key.workspace_id) == (API_KEY.id, TENANT_ID, "alice", WORKSPACE_ID)
    assert (key.prefix, key.scopes, key.created_by, key.etag) == ("pemba_0123abcd", ["check", "read"], "bob", "e1")
    assert key.expire_time.ToJsonString() == key.last_used_time.ToJsonString() == "2026-11-21T09:30:00Z"
    assert not key.HasField("revoke_time")


async def test_without_a_tenant_it_is_confined_to_none(running):
    await running.call("CreateApiKey", CreateApiKeyRequest(name="ops", scopes=["admin"]))
    wanted = running.api_keys.calls[0].arguments[1]
    assert (wanted.tenant_id, wanted.user_id, wanted.workspace_id, wanted.expire_time) == (None, None, None, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["read", "read"]}, "scopes"),
        ({"scopes": ["read", "everything"]}, "scopes"),
        ({"user_id": "alice", "scopes": ["read", "act_as"]}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"user_id": " "}, "user_id"),
        ({"tenant_id": "acme"}, "tenant_id"),
        ({"workspace_id": "eng"}, "workspace_id"),
        ({"tenant_id": "", "workspace_id": WORKSPACE_ID}, "workspace_id"),
        ({"expire_time": Timestamp(seconds=10**12)}, "expire_time"),
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_is_refused_by_field(running, changes, field):
    refusal = await running.refusal("CreateApiKey", CreateApiKeyRequest(**NEW | changes))
    assert list(refusal.violations) == [field]
    assert not running.called()


async def test_a_key_is_got_and_revoked_by_its_id(running):
    response = await running.call("GetApiKey", GetApiKeyRequest(**NAMED))
    assert (response.api_key.id, response.token) == (API_KEY.id, "t1")
    response = await running.call("RevokeApiKey", RevokeApiKeyRequest(**NAMED, etag="e1"))
    assert (response.api_key.id, response.token) == (API_KEY.id, "t2")
    assert [call.arguments[1:] for call in running.api_keys.calls] == [(TENANT_ID, API_KEY.id)] * 2
    for method, kind in (
        ("GetApiKey", GetApiKeyRequest),
        ("RevokeApiKey", RevokeApiKeyRequest),
        ("RotateApiKey", RotateApiKeyRequest),
    ):
        refusal = await running.refusal(method, kind(tenant_id=TENANT_ID, api_key_id=WORKSPACE_ID))
        assert list(refusal.violations) == ["api_key_id"]


async def test_a_replayed_rotation_says_so_and_has_no_secret(running):
    request = RotateApiKeyRequest(**NAMED, overlap=Duration(seconds=90), request_id="r")
    response = await running.call("RotateApiKey", request)
    assert running.api_keys.calls[0].options["overlap"] == timedelta(seconds=90)
    assert (response.secret, response.replayed) == ("", True)


@pytest.mark.parametrize("overlap", [Duration(seconds=604_801), Duration(seconds=-1), Duration(seconds=10**18)])
async def test_an_overlap_is_of_seven_days_at_most(running, overlap):
    request = RotateApiKeyRequest(**NAMED, overlap=overlap)
    assert list((await running.refusal("RotateApiKey", request)).violations) == ["overlap"]


async def test_keys_are_listed_by_user_with_or_without_those_that_were_revoked(running):
    request = ListApiKeysRequest(tenant_id=TENANT_ID, user_id="alice", include_revoked=True, page_size=7)
    response = await running.call("ListApiKeys", request)
    await running.call("ListApiKeys", ListApiKeysRequest())
    first, second = running.api_keys.calls
    assert first.arguments[1] == TENANT_ID
    assert first.options == {"user_id": "alice", "include_revoked": True, "page_size": 7, "page_token": ""}
    assert (second.arguments[1], second.options["user_id"]) == (None, None)
    assert ([key.id for key in response.api_keys], response.next_page_token) == ([API_KEY.id], "next")
