"""`pemba invitation`: what it sends, and how it prints what comes back."""

from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import invitations_pb2, types_pb2, workspaces_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
LAB_ID = "ws_01h455vb4pex5vsknk084sn02s"
LAB = types_pb2.ObjectRef(type="workspace", id=LAB_ID)
INVITATION = invitations_pb2.Invitation(
    id="inv_01h455vb4pex5vsknk084sn02u",
    tenant_id=TENANT_ID,
    object=LAB,
    email="carol@acme.test",
    role=types_pb2.ROLE_MEMBER,
    status=invitations_pb2.INVITATION_STATUS_PENDING,
    expire_time=Timestamp(seconds=1_700_000_000),
)
IN = ("-t", TENANT_ID)


def sent(api):
    return api.requests[-1][1]


def test_create_prints_the_secret_and_where_to_take_it(pemba, api):
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace={"id": LAB_ID}))
    answer = invitations_pb2.CreateInvitationResponse(invitation=INVITATION, token="s3cret", url="https://app.test/?t")
    api.answer("CreateInvitation", answer)
    done = pemba("invitation", "create", "carol@acme.test", "editor", "--to", "eng/lab", *IN, "--request-id", "r-1")
    assert sent(api) == invitations_pb2.CreateInvitationRequest(
        tenant_id=TENANT_ID, workspace=LAB, email="carol@acme.test", role=types_pb2.ROLE_MEMBER, request_id="r-1"
    )
    assert done.out.split() == [
        *("INVITATION", "EMAIL", "TO", "ROLE", "STATUS", "EXPIRES"),
        *(INVITATION.id, "carol@acme.test", f"workspace:{LAB_ID}", "member", "pending", "2023-11-14", "22:13:20Z"),
        *("s3cret", "https://app.test/?t"),
    ]


def test_without_a_workspace_it_is_to_the_tenant(pemba, api):
    api.answer("CreateInvitation", invitations_pb2.CreateInvitationResponse(invitation=INVITATION, token="s3cret"))
    done = pemba("invitation", "create", "carol@acme.test", "admin", *IN, "-o", "token")
    assert not sent(api).HasField("workspace")
    assert done.out == "s3cret\n"


def test_another_role_is_a_usage_error(pemba, api):
    done = pemba("invitation", "create", "carol@acme.test", "boss", *IN)
    assert (done.code, api.requests) == (2, [])
    assert "ROLE takes viewer, member, editor, admin, owner; not 'boss'" in done.err


def test_accept_and_decline_send_the_secret_and_who_it_is(pemba, api):
    api.answer("AcceptInvitation", invitations_pb2.AcceptInvitationResponse(invitation=INVITATION, token="t1"))
    who = ("--user", "user:carol", "--email", "carol@acme.test", "--name", "Carol")
    assert pemba("invitation", "accept", "s3cret", *who, "-o", "token").out == "t1\n"
    assert sent(api) == invitations_pb2.AcceptInvitationRequest(
        token="s3cret", user_id="carol", email="carol@acme.test", display_name="Carol"
    )
    api.answer("DeclineInvitation", invitations_pb2.DeclineInvitationResponse(invitation=INVITATION))
    assert INVITATION.id in pemba("invitation", "decline", "s3cret", "--email", "carol@acme.test").out
    assert sent(api) == invitations_pb2.DeclineInvitationRequest(token="s3cret", email="carol@acme.test")


def test_revoke_and_show_take_its_id(pemba, api):
    api.answer("RevokeInvitation", invitations_pb2.RevokeInvitationResponse(invitation=INVITATION))
    pemba("invitation", "revoke", INVITATION.id, *IN, "--etag", "e1")
    assert sent(api) == invitations_pb2.RevokeInvitationRequest(
        tenant_id=TENANT_ID, invitation_id=INVITATION.id, etag="e1"
    )
    api.answer("GetInvitation", invitations_pb2.GetInvitationResponse(invitation=INVITATION))
    assert "carol@acme.test" in pemba("invitation", "show", INVITATION.id, *IN).out


def test_list_says_of_what(pemba, api):
    api.answer("ListInvitations", invitations_pb2.ListInvitationsResponse())
    done = pemba("invitation", "list", "--ended", *IN)
    assert done.out.split() == ["INVITATION", "EMAIL", "TO", "ROLE", "STATUS", "EXPIRES"]
    assert (sent(api).HasField("workspace"), sent(api).include_ended) == (False, True)
