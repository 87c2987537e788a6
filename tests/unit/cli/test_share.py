"""`pemba share`: what it sends, and how it prints what comes back."""

import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import memberships_pb2, shares_pb2, types_pb2, workspaces_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
LAB_ID, GUESTS_ID = "ws_01h455vb4pex5vsknk084sn02s", "ws_01h455vb4pex5vsknk084sn02t"
SHARE_ID = "shr_01h455vb4pex5vsknk084sn02u"
LAB, GUESTS = (types_pb2.ObjectRef(type="workspace", id=id_) for id_ in (LAB_ID, GUESTS_ID))
SHARE = shares_pb2.Share(
    id=SHARE_ID, tenant_id=TENANT_ID, workspace=LAB, with_workspace=GUESTS, role=types_pb2.ROLE_MEMBER
)
IN = ("-t", TENANT_ID)


def sent(api):
    return api.requests[-1]


def test_create_sends_workspaces_by_path_and_the_role(pemba, api):
    api.answer("GetWorkspace", *(workspaces_pb2.GetWorkspaceResponse(workspace={"id": i}) for i in (LAB_ID, GUESTS_ID)))
    api.answer("CreateShare", shares_pb2.CreateShareResponse(share=SHARE, token="t1"))
    done = pemba("share", "create", "eng/lab", "guests", "editor", *IN, "--request-id", "r-1")
    assert [request.path for _, request in api.requests[:2]] == ["eng/lab", "guests"]
    assert sent(api)[1] == shares_pb2.CreateShareRequest(
        tenant_id=TENANT_ID, workspace=LAB, with_workspace=GUESTS, role=types_pb2.ROLE_MEMBER, request_id="r-1"
    )
    assert done.out.split() == [
        *("SHARE", "WORKSPACE", "WITH", "ROLE", "EXPIRES"),
        *(SHARE_ID, f"workspace:{LAB_ID}", f"workspace:{GUESTS_ID}", "member", "never"),
    ]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-02T03:04Z", "2030-01-02T03:04:00Z"),
        ("2030-01-02 05:04:05+02:00", "2030-01-02T03:04:05Z"),
    ],
)
def test_an_expiry_is_a_time_with_its_zone(pemba, api, text, moment):
    api.answer("CreateShare", shares_pb2.CreateShareResponse(share=SHARE))
    done = pemba("share", "create", LAB_ID, GUESTS_ID, "viewer", "--expires", text, *IN)
    assert (done.code, sent(api)[1].expire_time.ToJsonString()) == (0, moment)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("45m", 2700), ("12h", 43200), ("30d", 2592000)])
def test_or_how_long_from_now(pemba, api, text, seconds):
    api.answer("CreateShare", shares_pb2.CreateShareResponse(share=SHARE))
    pemba("share", "create", LAB_ID, GUESTS_ID, "viewer", "--expires", text, *IN)
    assert sent(api)[1].expire_time.seconds == pytest.approx(time.time() + seconds, abs=30)


@pytest.mark.parametrize("text", ["tomorrow", "2030-01-02T03:04", "30", "999999999d"])
def test_any_other_expiry_is_a_usage_error(pemba, api, text):
    done = pemba("share", "create", LAB_ID, GUESTS_ID, "viewer", "--expires", text, *IN)
    assert (done.code, api.requests) == (2, [])
    assert "--expires takes a time with its zone (2026-12-31T18:00Z), or how long from now (90s, 45m" in done.err
    assert f"not {text!r}" in done.err


def test_a_share_makes_no_owners(pemba, api):
    done = pemba("share", "create", LAB_ID, GUESTS_ID, "owner", *IN)
    assert done.code == 2
    assert "ROLE takes viewer, member, editor, admin; not 'owner'" in done.err


def test_revoke_and_show_take_its_id(pemba, api):
    api.answer("RevokeShare", shares_pb2.RevokeShareResponse(share=SHARE, token="t2"))
    assert pemba("share", "revoke", SHARE_ID, *IN, "--etag", "e1", "-o", "token").out.strip() == "t2"
    assert sent(api)[1] == shares_pb2.RevokeShareRequest(tenant_id=TENANT_ID, share_id=SHARE_ID, etag="e1")
    ends = shares_pb2.Share()
    ends.CopyFrom(SHARE)
    ends.expire_time.CopyFrom(Timestamp(seconds=1_700_000_000))
    api.answer("GetShare", shares_pb2.GetShareResponse(share=ends))
    assert pemba("share", "show", SHARE_ID, *IN).out.split()[-2:] == ["2023-11-14", "22:13:20Z"]


@pytest.mark.parametrize(
    ("flags", "direction"),
    [((), shares_pb2.SHARE_DIRECTION_OUTGOING), (("--incoming",), shares_pb2.SHARE_DIRECTION_INCOMING)],
)
def test_list_says_which_side_and_names_workspaces_by_their_paths(pemba, api, flags, direction):
    api.answer("ListShares", shares_pb2.ListSharesResponse(shares=[SHARE]))
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace={"id": "ws_root"}))
    places = [{"id": LAB_ID, "parent_id": "ws_root", "slug": "lab"}, {"id": GUESTS_ID, "slug": "guests"}]
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=places))
    done = pemba("share", "list", LAB_ID, *flags, *IN)
    assert api.requests[0][1].direction == direction
    assert done.out.split()[5:] == [SHARE_ID, "workspace:lab", "workspace:guests", "member", "never"]


def test_who_has_access_says_by_which_share(pemba, api):
    grant = memberships_pb2.Grant(object=LAB, role=types_pb2.ROLE_MEMBER, share_id=SHARE_ID, with_workspace=GUESTS)
    bob = memberships_pb2.EffectiveMember(
        subject=types_pb2.SubjectRef(type="user", id="bob"), permission="edit", through=[grant]
    )
    api.answer("ListEffectiveMembers", memberships_pb2.ListEffectiveMembersResponse(effective_members=[bob]))
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace={"id": "ws_root"}))
    places = [{"id": LAB_ID, "parent_id": "ws_root", "slug": "lab"}, {"id": GUESTS_ID, "slug": "guests"}]
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=places))
    done = pemba("member", "effective", f"workspace:{LAB_ID}", *IN)
    assert done.out.splitlines()[1].split(maxsplit=2)[2] == (
        "member of workspace:lab by its share with workspace:guests"
    )
