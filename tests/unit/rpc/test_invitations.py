"""InvitationService: shapes in, records out."""

import pytest

from pemba.model import Role, Scope
from pemba.service.api_keys import Wanted
from pemba.service.invitation_answers import Answer
from pemba.v1 import invitations_pb2
from pemba.v1.invitations_pb2 import (
    AcceptInvitationRequest,
    CreateInvitationRequest,
    DeclineInvitationRequest,
    FirstApiKey,
    GetInvitationRequest,
    ListInvitationsRequest,
    RevokeInvitationRequest,
)
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER, ObjectRef
from tests.unit.rpc.conftest import INVITATION, TENANT_ID, WORKSPACE_ID

LAB = ObjectRef(type="workspace", id=WORKSPACE_ID)
CREATE = {"tenant_id": TENANT_ID, "workspace": LAB, "email": "carol@acme.test", "role": ROLE_MEMBER}


async def test_an_invitation_comes_with_its_secret_and_url(running):
    response = await running.call("CreateInvitation", CreateInvitationRequest(**CREATE))
    [call] = running.invitations.calls
    assert call.arguments[1:] == (TENANT_ID,)
    options = call.options.pop("options")
    assert options.method == "CreateInvitation"
    assert call.options == {"workspace_id": WORKSPACE_ID, "email": "carol@acme.test", "role": Role.MEMBER}
    assert (response.token, response.url) == ("secret", "https://app.test/?token=secret")
    made = response.invitation
    assert (made.id, made.tenant_id, made.object, made.email) == (INVITATION.id, TENANT_ID, LAB, "carol@acme.test")
    assert (made.role, made.status) == (ROLE_MEMBER, invitations_pb2.INVITATION_STATUS_ACCEPTED)
    assert (made.invited_by, made.accepted_by, made.etag) == ("bob", "alice", "e1")
    assert made.HasField("end_time")


async def test_without_a_workspace_it_is_to_the_tenant(running):
    request = CreateInvitationRequest(tenant_id=TENANT_ID, email="carol@acme.test", role=ROLE_ADMIN)
    await running.call("CreateInvitation", request)
    assert running.invitations.calls[0].options["workspace_id"] is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"email": ""}, "email"),
        ({"email": "carol"}, "email"),
        ({"email": "a b@acme.test"}, "email"),
        ({"role": 0}, "role"),
        ({"role": 17}, "role"),
        ({"role": ROLE_OWNER, "workspace": None}, "role"),
        ({"workspace": ObjectRef()}, "workspace.type"),
        ({"workspace": ObjectRef(type="workspace", id="lab")}, "workspace.id"),
        ({"tenant_id": "acme"}, "tenant_id"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused_by_its_field(running, wrong, field):
    refusal = await running.refusal("CreateInvitation", CreateInvitationRequest(**{**CREATE, **wrong}))
    assert list(refusal.violations) == [field]
    assert not running.called()


async def test_accepting_passes_on_who_and_answers_all_that_was_made(running):
    key = FirstApiKey(name="laptop", scopes=["read"])
    request = AcceptInvitationRequest(
        token="s", user_id="carol", email="carol@acme.test", display_name="Carol", first_key=key
    )
    response = await running.call("AcceptInvitation", request)
    [call] = running.invitations.calls
    wanted = Wanted(None, None, None, "laptop", frozenset({Scope.READ}), None)
    assert call.arguments[1:] == ("s", Answer("carol", "carol@acme.test", "Carol", wanted))
    assert call.arguments[0].vouches
    assert response.membership.subject.id == response.user.id == "alice"
    assert (response.secret, response.token) == ("pemba_0123abcd_secret", "t2")
    assert response.api_key.name == "CI"


async def test_who_calls_may_be_who_accepts(running):
    await running.call("AcceptInvitation", AcceptInvitationRequest(token="s"))
    assert running.invitations.calls[0].arguments[2] == Answer(None, "", "")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"user_id": " "}, "user_id"),
        ({"email": "carol"}, "email"),
        ({"first_key": FirstApiKey(scopes=["read"])}, "first_key.name"),
        ({"first_key": FirstApiKey(name="laptop")}, "first_key.scopes"),
        ({"first_key": FirstApiKey(name="laptop", scopes=["act_as"])}, "first_key.scopes"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_an_answer_is_refused_by_its_field(running, wrong, field):
    refusal = await running.refusal("AcceptInvitation", AcceptInvitationRequest(token="s", **wrong))
    assert list(refusal.violations) == [field]


async def test_only_a_system_key_is_believed_what_it_says_of_users(running):
    alices = running.keys.issue(*Scope, user_id="alice")
    tenants = running.keys.issue(*Scope, tenant_id=TENANT_ID)
    for secret in (alices, tenants):
        await running.call("AcceptInvitation", AcceptInvitationRequest(token="s"), authorization=f"Bearer {secret}")
    acting = ("pemba-on-behalf-of", "user:alice")
    await running.call("AcceptInvitation", AcceptInvitationRequest(token="s"), acting)
    assert [call.arguments[0].vouches for call in running.invitations.calls] == [False, False, True]


async def test_the_others_name_theirs(running):
    named = {"tenant_id": TENANT_ID, "invitation_id": INVITATION.id}
    assert (await running.call("RevokeInvitation", RevokeInvitationRequest(**named))).replayed
    assert (await running.call("GetInvitation", GetInvitationRequest(**named))).invitation.id == INVITATION.id
    await running.call("DeclineInvitation", DeclineInvitationRequest(token="s", email="carol@acme.test"))
    page = await running.call("ListInvitations", ListInvitationsRequest(tenant_id=TENANT_ID, workspace=LAB))
    assert ([each.id for each in page.invitations], page.next_page_token) == ([INVITATION.id], "next")
    for method, request in (("RevokeInvitation", RevokeInvitationRequest), ("GetInvitation", GetInvitationRequest)):
        refusal = await running.refusal(method, request(tenant_id=TENANT_ID, invitation_id="shr_1"))
        assert list(refusal.violations) == ["invitation_id"]
