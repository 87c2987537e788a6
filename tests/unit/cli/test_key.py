"""`pemba key`: what it sends, and to whom it tells a secret."""

import json
import time

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import api_keys_pb2, workspaces_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
LAB_ID = "ws_01h455vb4pex5vsknk084sn02s"
KEY_ID = "key_01h455vb4pex5vsknk084sn02u"
SECRET = "pemba_0123abcd_" + "x" * 43
KEY = api_keys_pb2.ApiKey(id=KEY_ID, tenant_id=TENANT_ID, name="CI", prefix="pemba_0123abcd", scopes=["check", "read"])
IN = ("-t", TENANT_ID)


def sent(api):
    return api.requests[-1][1]


def row(**changes):
    key = api_keys_pb2.ApiKey()
    key.CopyFrom(KEY)
    key.MergeFrom(api_keys_pb2.ApiKey(**changes))
    return key


def test_create_sends_what_the_key_is_to_be_and_prints_its_secret_last_and_once(pemba, api):
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace={"id": LAB_ID}))
    api.answer("CreateApiKey", api_keys_pb2.CreateApiKeyResponse(api_key=KEY, secret=SECRET))
    done = pemba(
        *("key", "create", "CI", "-s", "read", "--scope", "check", "--user", "user:alice", "--workspace", "lab"),
        *("--expires", "2030-01-02T03:04Z", *IN, "--request-id", "r-1"),
    )
    assert sent(api) == api_keys_pb2.CreateApiKeyRequest(
        tenant_id=TENANT_ID,
        user_id="alice",
        workspace_id=LAB_ID,
        name="CI",
        scopes=["read", "check"],
        expire_time=Timestamp(seconds=1893553440),
        request_id="r-1",
    )
    assert done.out.splitlines()[-1] == SECRET
    assert (done.out + done.err).count(SECRET) == 1
    assert done.out.splitlines()[1].split() == [
        *(KEY_ID, "CI", "pemba_0123abcd", "tenant", "check,read", "never", "never"),
    ]


def test_as_json_the_secret_is_in_the_answer(pemba, api):
    api.answer("CreateApiKey", api_keys_pb2.CreateApiKeyResponse(api_key=KEY, secret=SECRET))
    done = pemba("key", "create", "CI", "-s", "read", *IN, "-o", "json")
    assert json.loads(done.out)["secret"] == SECRET


@pytest.mark.parametrize("command", [("create", "CI", "-s", "read"), ("rotate", KEY_ID)])
def test_a_secret_is_not_made_where_it_would_be_lost(pemba, api, command):
    done = pemba("key", *command, *IN, "-o", "token")
    assert (done.code, api.requests) == (2, [])
    assert "--output takes table or json here" in done.err


def test_a_repeated_call_says_that_the_secret_was_told_before(pemba, api):
    api.answer("CreateApiKey", api_keys_pb2.CreateApiKeyResponse(api_key=KEY, replayed=True))
    done = pemba("key", "create", "CI", "-s", "read", *IN)
    assert "`pemba key rotate` gives another" in done.err


def test_a_key_takes_a_scope(pemba, api):
    done = pemba("key", "create", "CI", *IN)
    assert (done.code, api.requests) == (2, [])
    assert "--scope is missing" in done.err


def test_keys_without_a_tenant_are_named_by_a_flag(pemba, api, monkeypatch):
    monkeypatch.setenv("PEMBA_TENANT", TENANT_ID)
    of_system = row(expire_time=Timestamp(seconds=1_700_000_000))
    of_system.tenant_id = ""
    api.answer("CreateApiKey", api_keys_pb2.CreateApiKeyResponse(api_key=of_system, secret=SECRET))
    done = pemba("key", "create", "ops", "-s", "admin", "--no-tenant")
    assert sent(api).tenant_id == ""
    assert done.out.splitlines()[1].split()[3:7] == ["system", "check,read", "2023-11-14", "22:13:20Z"]
    done = pemba("key", "list", "--no-tenant", *IN)
    assert done.code == 2
    assert "--no-tenant does not go with --tenant" in done.err


def test_list_says_as_whom_keys_act_and_which_were_revoked(pemba, api):
    keys = [row(user_id="bob", revoke_time=Timestamp(seconds=1_700_000_000)), row(workspace_id=LAB_ID)]
    api.answer("ListApiKeys", api_keys_pb2.ListApiKeysResponse(api_keys=keys))
    done = pemba("key", "list", *IN, "--user", "user:bob", "--revoked")
    assert (sent(api).tenant_id, sent(api).user_id, sent(api).include_revoked) == (TENANT_ID, "bob", True)
    first, second = (line.split() for line in done.out.splitlines()[1:])
    assert (first[3], first[5]) == ("user:bob", "revoked")
    assert second[3] == f"workspace:{LAB_ID}"


def test_show_and_revoke_take_its_id(pemba, api):
    api.answer("GetApiKey", api_keys_pb2.GetApiKeyResponse(api_key=row(last_used_time=Timestamp(seconds=1))))
    assert pemba("key", "show", KEY_ID, *IN).out.split()[-2:] == ["1970-01-01", "00:00:01Z"]
    assert sent(api) == api_keys_pb2.GetApiKeyRequest(tenant_id=TENANT_ID, api_key_id=KEY_ID)
    api.answer("RevokeApiKey", api_keys_pb2.RevokeApiKeyResponse(api_key=KEY, token="t2"))
    assert pemba("key", "revoke", KEY_ID, *IN, "--etag", "e1", "-o", "token").out.strip() == "t2"
    assert sent(api) == api_keys_pb2.RevokeApiKeyRequest(tenant_id=TENANT_ID, api_key_id=KEY_ID, etag="e1")


@pytest.mark.parametrize(("flags", "seconds"), [((), 0), (("--overlap", "90s"), 90), (("--overlap", "7d"), 604800)])
def test_rotate_says_how_long_the_secret_of_now_stays_good(pemba, api, flags, seconds):
    api.answer("RotateApiKey", api_keys_pb2.RotateApiKeyResponse(api_key=KEY, secret=SECRET))
    done = pemba("key", "rotate", KEY_ID, *flags, *IN)
    assert sent(api).overlap == Duration(seconds=seconds)
    assert done.out.splitlines()[-1] == SECRET


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("rotate", KEY_ID, "--overlap", "soon"), "--overlap takes how long (90s, 45m, 12h, 30d), not 'soon'"),
        (("create", "CI", "-s", "read", "--expires", "soon"), "--expires takes a time with its zone"),
        (("create", "CI", "-s", "read", "--user", "bob"), "--user takes user:ID"),
    ],
)
def test_a_bad_argument_is_named_with_what_it_takes(pemba, api, command, named):
    done = pemba("key", *command, *IN)
    assert (done.code, api.requests) == (2, [])
    assert named in done.err


def test_an_expiry_can_be_how_long_from_now(pemba, api):
    api.answer("CreateApiKey", api_keys_pb2.CreateApiKeyResponse(api_key=KEY, secret=SECRET))
    pemba("key", "create", "CI", "-s", "read", "--expires", "30d", *IN)
    assert sent(api).expire_time.seconds == pytest.approx(time.time() + 30 * 86400, abs=30)
