"""Invitations: for one email, once, for a while, and only while the inviter may give the role."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from pemba.errors import PembaError, Reason
from pemba.model import (
    Caller,
    InvitationStatus,
    ObjectRef,
    Role,
    Scope,
    SubjectRef,
    Tenant,
    TenantId,
    UserId,
    Workspace,
)
from pemba.service.api_keys import Wanted
from pemba.service.invitation_answers import Answer
from pemba.service.invitations import InvitationService, Invited
from pemba.storage import invitations
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.instruments import Gate, one_behind_the_other

EMAIL = "Carol@acme.test"


@pytest.fixture
async def acme(parts: Parts) -> tuple[Tenant, Workspace]:
    return await parts.tenant()


@pytest.fixture
async def lab(parts: Parts, acme: tuple[Tenant, Workspace]) -> Workspace:
    return await parts.workspace(acme[1], "lab", owner="olga")


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as caught:
        await call
    return caught.value.reason


async def give(parts: Parts, workspace: Workspace, user: str, role: Role) -> None:
    await parts.memberships.set_role(
        SYSTEM,
        workspace.tenant_id,
        object=ObjectRef("workspace", workspace.id),
        subject=SubjectRef("user", user),
        role=role,
        options=parts.options(),
    )


async def invite(
    parts: Parts,
    to: Workspace | TenantId,
    role: Role = Role.MEMBER,
    caller: Caller = SYSTEM,
    *,
    email: str = EMAIL,
    service: InvitationService | None = None,
    **options: object,
) -> Invited:
    tenant_id, workspace_id = (to, None) if isinstance(to, str) else (to.tenant_id, to.id)
    return await (service or parts.invitations).create_invitation(
        caller,
        tenant_id,
        workspace_id=workspace_id,
        email=email,
        role=role,
        options=parts.options("CreateInvitation", **options),
    )


def user_with(email: str, user: str = "carol", **changed: object) -> Caller:
    """Who comes with a credential of their own that shows this email."""
    return replace(SYSTEM, acting_user=UserId(user), verified_email=email, vouches=False, **changed)


async def accept(parts: Parts, secret: str, caller: Caller | None = None, service=None, **given: object):
    answer = Answer(**{"user_id": None, "email": "", "display_name": "", **given})
    options = parts.options("AcceptInvitation")
    return await (service or parts.invitations).accept_invitation(
        caller or user_with("carol@ACME.test"), secret, answer, options=options
    )


# -- accepting --------------------------------------------------------------------------------------------


async def test_accepting_gives_the_role_by_the_inviter_and_makes_the_record(parts: Parts, lab: Workspace) -> None:
    made = await invite(parts, lab, caller=parts.acting("olga"))
    assert made.changed.record.status is InvitationStatus.PENDING
    assert made.changed.record.expire_time - made.changed.record.create_time == timedelta(days=7)
    assert made.url == f"https://app.acme.test/join?from=mail&token={made.secret}"
    accepted = await accept(parts, made.secret, display_name="Carol")
    taken = accepted.changed.record
    assert (taken.membership.subject.id, taken.membership.role) == ("carol", Role.MEMBER)
    assert taken.membership.invited_by == "olga"
    assert (taken.user.id, taken.user.email, taken.user.display_name) == ("carol", "carol@ACME.test", "Carol")
    assert (taken.invitation.status, taken.invitation.accepted_by) == (InvitationStatus.ACCEPTED, "carol")
    assert accepted.changed.token
    tenant = (await parts.tenants.get_tenant(SYSTEM, tenant_id=lab.tenant_id, slug=None)).record
    assert (await parts.operations(tenant))[-1] == ["+member@user:carol"]
    [told] = await parts.sql("SELECT object, after, about FROM audit WHERE method = 'AcceptInvitation' AND ops <> '[]'")
    records = json.loads(told["after"]) if isinstance(told["after"], str) else told["after"]
    assert [record.get("subject", {}).get("id") for record in records] == [None, "carol"]
    assert f"workspace:{lab.id}" in told["about"], "who watches the workspace is told of the new member"


async def test_to_the_tenant_itself(parts: Parts, acme: tuple[Tenant, Workspace]) -> None:
    made = await invite(parts, acme[0].id, Role.ADMIN, parts.acting("alice"))
    taken = (await accept(parts, made.secret)).changed.record
    assert (taken.membership.workspace_id, taken.membership.role) == (None, Role.ADMIN)


async def test_a_system_key_says_whom_it_has_seen(parts: Parts, lab: Workspace) -> None:
    system = replace(SYSTEM, vouches=True)
    secret = (await invite(parts, lab)).secret
    assert await refusal(accept(parts, secret, system, email=EMAIL)) is Reason.INVALID_FIELD
    mismatch = accept(parts, secret, system, user_id=UserId("carol"), email="eve@acme.test")
    assert await refusal(mismatch) is Reason.INVITATION_EMAIL_MISMATCH
    taken = (await accept(parts, secret, system, user_id=UserId("carol"), email=EMAIL)).changed.record
    assert taken.membership.subject.id == "carol"
    again = (await invite(parts, lab, email="dan@acme.test")).secret
    for_dan = replace(system, acting_user=UserId("dan"))
    assert (await accept(parts, again, for_dan, email="dan@acme.test")).changed.record.user.id == "dan"


async def test_who_shows_no_email_or_another_has_no_use_for_it(parts: Parts, lab: Workspace) -> None:
    secret = (await invite(parts, lab)).secret
    for caller in (user_with(""), user_with("eve@acme.test"), user_with("carol@acme.test.evil")):
        assert await refusal(accept(parts, secret, caller)) is Reason.INVITATION_EMAIL_MISMATCH
    # What a user's own key or a tenant's key says is not believed.
    assert await refusal(accept(parts, secret, user_with(""), email=EMAIL)) is Reason.INVITATION_EMAIL_MISMATCH
    other = accept(parts, secret, user_with("carol@acme.test"), user_id=UserId("olga"))
    assert await refusal(other) is Reason.ROLE_MISSING
    tenants = replace(SYSTEM, tenant_id=lab.tenant_id)
    assert await refusal(accept(parts, secret, tenants, user_id=UserId("carol"), email=EMAIL)) is Reason.ROLE_MISSING
    elsewhere = user_with("carol@acme.test", tenant_id=TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e6"))
    assert await refusal(accept(parts, secret, elsewhere)) is Reason.NOT_FOUND
    confined = user_with("carol@acme.test", tenant_id=lab.tenant_id, workspace_id=lab.id)
    assert await refusal(accept(parts, secret, confined)) is Reason.NOT_FOUND
    assert await accept(parts, secret), "and it is still good"


async def test_it_is_used_once_and_makes_no_second_membership(parts: Parts, lab: Workspace) -> None:
    first, second = await invite(parts, lab), await invite(parts, lab, Role.OWNER)
    await accept(parts, first.secret)
    assert await refusal(accept(parts, first.secret)) is Reason.INVITATION_USED
    assert await refusal(accept(parts, first.secret, user_with(EMAIL, "dan"))) is Reason.INVITATION_USED
    assert await refusal(accept(parts, second.secret)) is Reason.ALREADY_MEMBER
    held = await parts.memberships.get_membership(
        SYSTEM, lab.tenant_id, object=ObjectRef("workspace", lab.id), subject=SubjectRef("user", "carol")
    )
    assert held.record.role is Role.MEMBER
    assert await refusal(invite(parts, lab, email="CAROL@acme.test")) is Reason.ALREADY_MEMBER


@pytest.mark.race
async def test_of_two_who_accept_at_once_one_has_it(parts: Parts, lab: Workspace, monkeypatch) -> None:
    secret = (await invite(parts, lab)).secret
    gate = Gate(monkeypatch, invitations, "get")
    done = await one_behind_the_other(
        parts, gate, accept(parts, secret), lambda: accept(parts, secret, user_with(EMAIL, "dan"))
    )
    assert not isinstance(done[0], Exception)
    assert isinstance(done[1], PembaError)
    assert done[1].reason is Reason.INVITATION_USED
    assert len(await parts.sql("SELECT FROM memberships WHERE subject_id IN ('carol', 'dan')")) == 1


async def test_it_expires(parts: Parts, lab: Workspace) -> None:
    made = await invite(parts, lab, service=parts.inviting(good_for=timedelta(microseconds=1)))
    assert await refusal(accept(parts, made.secret)) is Reason.INVITATION_EXPIRED
    found = await parts.invitations.get_invitation(SYSTEM, lab.tenant_id, made.changed.record.id)
    assert found.record.status is InvitationStatus.EXPIRED


async def test_an_inviter_who_lost_the_right_has_given_nothing(parts: Parts, lab: Workspace) -> None:
    await give(parts, lab, "bob", Role.ADMIN)
    made = await invite(parts, lab, Role.ADMIN, parts.acting("bob"))
    await give(parts, lab, "bob", Role.VIEWER)
    assert await refusal(accept(parts, made.secret)) is Reason.INVITER_ROLE_MISSING
    assert not await parts.sql("SELECT FROM memberships WHERE subject_id = 'carol'")
    assert not await parts.sql("SELECT FROM users WHERE id = 'carol'")
    await give(parts, lab, "bob", Role.ADMIN)
    assert await accept(parts, made.secret)


async def test_a_suspended_or_deactivated_user_accepts_nothing(parts: Parts, lab: Workspace) -> None:
    secret = (await invite(parts, lab)).secret
    await parts.users.create_user(
        SYSTEM, UserId("carol"), email="", display_name="", first_workspace=None, options=parts.options()
    )
    await parts.users.suspend_user(SYSTEM, UserId("carol"), force=False, options=parts.options())
    assert await refusal(accept(parts, secret)) is Reason.USER_SUSPENDED
    await parts.users.deactivate_user(SYSTEM, UserId("carol"), options=parts.options())
    assert await refusal(accept(parts, secret)) is Reason.USER_DEACTIVATED


async def test_the_first_key_is_the_users_and_no_more_than_the_caller_has(parts: Parts, lab: Workspace) -> None:
    secret = (await invite(parts, lab)).secret
    wanted = Wanted(None, None, None, "laptop", frozenset({Scope.READ}), None)
    without = user_with(EMAIL, scopes=frozenset({Scope.WRITE, Scope.READ}))
    assert await refusal(accept(parts, secret, without, first_key=wanted)) is Reason.SCOPE_MISSING
    more = replace(wanted, scopes=frozenset({Scope.CHECK}))
    narrow = user_with(EMAIL, scopes=frozenset({Scope.WRITE, Scope.ADMIN}))
    assert await refusal(accept(parts, secret, narrow, first_key=more)) is Reason.SCOPE_MISSING
    assert not await parts.sql("SELECT FROM api_keys")
    accepted = await accept(parts, secret, first_key=wanted)
    key = accepted.changed.record.api_key
    assert key is not None
    assert (key.user_id, key.tenant_id, key.scopes) == ("carol", lab.tenant_id, (Scope.READ,))
    assert accepted.secret.startswith(f"{key.prefix}_")


# -- secrets ----------------------------------------------------------------------------------------------


async def test_the_first_root_secret_signs_and_all_verify(parts: Parts, lab: Workspace) -> None:
    old, new = "o" * 32, "n" * 32
    secret = (await invite(parts, lab, service=parts.inviting(old))).secret
    assert await refusal(accept(parts, secret, service=parts.inviting(new))) is Reason.TOKEN_INVALID
    both = parts.inviting(new, old)
    assert await accept(parts, secret, service=both)
    later = (await invite(parts, lab, email="dan@acme.test", service=both)).secret
    assert await accept(parts, later, user_with("dan@acme.test", "dan"), service=parts.inviting(new))


async def test_what_was_not_signed_here_is_no_secret(parts: Parts, lab: Workspace) -> None:
    made = await invite(parts, lab)
    good = made.secret
    wrong = ["", "!", "AQ", good[:-1], good + "A", good[:-4] + "AAAA", good[:30] + "A" + good[31:], "A" * 500, "é"]
    for secret in (*wrong, made.changed.record.id, parts.signer.token({lab.tenant_id: 1})):
        assert await refusal(accept(parts, secret)) is Reason.TOKEN_INVALID


async def test_no_secret_is_stored_or_audited_or_replayed(parts: Parts, lab: Workspace) -> None:
    wanted = Wanted(None, None, None, "laptop", frozenset({Scope.READ}), None)
    made = await invite(parts, lab, request_id="r-1", body_digest=b"d" * 32)
    again = await invite(parts, lab, request_id="r-1", body_digest=b"d" * 32)
    assert (again.changed.replayed, again.secret, again.url) == (True, "", "")
    assert again.changed.record == made.changed.record
    dry = await invite(parts, lab, email="dan@acme.test", validate_only=True)
    assert (dry.secret, dry.url) == ("", "")
    accepted = await accept(parts, made.secret, first_key=wanted)
    assert made.secret not in repr(made)
    assert accepted.secret not in repr(accepted)
    for table in ("audit", "idempotency", "outbox", "invitations", "api_keys"):
        stored = json.dumps([dict(row) for row in await parts.sql(f"SELECT * FROM {table}")], default=str)
        assert made.secret not in stored
        assert accepted.secret not in stored


# -- who may invite ---------------------------------------------------------------------------------------


async def test_it_takes_what_giving_the_role_takes(
    parts: Parts, acme: tuple[Tenant, Workspace], lab: Workspace
) -> None:
    tenant, root = acme
    await give(parts, lab, "adam", Role.ADMIN)
    await give(parts, lab, "eve", Role.MEMBER)
    adam, eve, olga = (parts.acting(user) for user in ("adam", "eve", "olga"))
    assert await invite(parts, lab, Role.ADMIN, adam)
    assert await refusal(invite(parts, lab, Role.OWNER, adam)) is Reason.ONLY_OWNER_MAKES_OWNERS
    assert await invite(parts, lab, Role.OWNER, olga)
    assert await refusal(invite(parts, lab, Role.VIEWER, eve)) is Reason.ROLE_MISSING
    assert await refusal(invite(parts, lab, caller=parts.acting("nobody"))) is Reason.NOT_FOUND
    assert await refusal(invite(parts, root, caller=olga)) is Reason.NOT_FOUND
    assert await refusal(invite(parts, tenant.id, caller=olga)) is Reason.NOT_FOUND
    keys = replace(SYSTEM, tenant_id=tenant.id)
    assert await invite(parts, tenant.id, caller=keys)
    of_lab = replace(keys, workspace_id=lab.id)
    assert await invite(parts, lab, caller=of_lab)
    assert await refusal(invite(parts, lab, Role.OWNER, of_lab)) is Reason.ONLY_OWNER_MAKES_OWNERS
    assert await refusal(invite(parts, tenant.id, caller=of_lab)) is Reason.NOT_FOUND
    assert await refusal(invite(parts, root, caller=of_lab)) is Reason.NOT_FOUND


async def test_not_to_what_is_archived_or_personal(parts: Parts, lab: Workspace) -> None:
    made = await invite(parts, lab)
    await parts.workspaces.archive_workspace(SYSTEM, lab.tenant_id, lab.id, options=parts.options())
    assert await refusal(invite(parts, lab)) is Reason.WORKSPACE_ARCHIVED
    assert await refusal(accept(parts, made.secret)) is Reason.WORKSPACE_ARCHIVED
    ensured, _ = await parts.workspaces.ensure_personal_workspace(
        SYSTEM, lab.tenant_id, user_id=UserId("olga"), options=parts.options()
    )
    personal = ensured.record
    assert await refusal(invite(parts, personal, caller=parts.acting("olga"))) is Reason.PERSONAL_MEMBERSHIP_FIXED


async def test_a_suspended_tenants_invitations_wait(parts: Parts, lab: Workspace) -> None:
    secret = (await invite(parts, lab)).secret
    await parts.tenants.suspend_tenant(SYSTEM, lab.tenant_id, options=parts.options())
    assert await refusal(accept(parts, secret)) is Reason.TENANT_SUSPENDED


# -- declining, revoking, reading -------------------------------------------------------------------------


async def test_declined_or_revoked_it_is_good_for_nothing(parts: Parts, lab: Workspace) -> None:
    declined, revoked = await invite(parts, lab), await invite(parts, lab)
    options = parts.options()
    eve = user_with("eve@acme.test")
    no = parts.invitations.decline_invitation(eve, declined.secret, email="", options=options)
    assert await refusal(no) is Reason.INVITATION_EMAIL_MISMATCH
    done = await parts.invitations.decline_invitation(user_with(EMAIL), declined.secret, email="", options=options)
    assert done.record.status is InvitationStatus.DECLINED
    assert not await parts.sql("SELECT FROM users WHERE id = 'carol'")
    id_ = revoked.changed.record.id
    for _ in range(2):
        gone = await parts.invitations.revoke_invitation(SYSTEM, lab.tenant_id, id_, options=options)
        assert gone.record.status is InvitationStatus.REVOKED
    for made in (declined, revoked):
        assert await refusal(accept(parts, made.secret)) is Reason.INVITATION_USED
    late = parts.invitations.revoke_invitation(SYSTEM, lab.tenant_id, declined.changed.record.id, options=options)
    assert await refusal(late) is Reason.INVITATION_USED


async def test_who_may_invite_sees_and_revokes(parts: Parts, lab: Workspace) -> None:
    await give(parts, lab, "adam", Role.ADMIN)
    await give(parts, lab, "eve", Role.MEMBER)
    made = (await invite(parts, lab, Role.OWNER)).changed.record
    adam, eve, nobody = (parts.acting(user) for user in ("adam", "eve", "nobody"))
    service, tenant_id = parts.invitations, lab.tenant_id
    assert (await service.get_invitation(adam, tenant_id, made.id)).record == made
    assert await refusal(service.get_invitation(eve, tenant_id, made.id)) is Reason.ROLE_MISSING
    assert await refusal(service.get_invitation(nobody, tenant_id, made.id)) is Reason.NOT_FOUND
    for caller, reason in (
        (nobody, Reason.NOT_FOUND),
        (eve, Reason.ROLE_MISSING),
        (adam, Reason.ONLY_OWNER_MAKES_OWNERS),
    ):
        revoking = service.revoke_invitation(caller, tenant_id, made.id, options=parts.options())
        assert await refusal(revoking) is reason
    wrong = service.revoke_invitation(SYSTEM, tenant_id, made.id, options=parts.options(etag="0"))
    assert await refusal(wrong) is Reason.ETAG_MISMATCH


async def test_lists_are_of_one_place_and_of_what_is_open(parts: Parts, acme, lab: Workspace) -> None:
    made = [(await invite(parts, lab, email=f"{name}@acme.test")).changed.record for name in ("a", "b", "c")]
    await invite(parts, acme[0].id)
    await parts.invitations.revoke_invitation(SYSTEM, lab.tenant_id, made[1].id, options=parts.options())

    async def listed(caller: Caller = SYSTEM, **given: object) -> list[str]:
        found, token = [], ""
        wanted = {"workspace_id": lab.id, "include_ended": False, "page_size": 1, **given}
        while not found or token:
            page = await parts.invitations.list_invitations(caller, lab.tenant_id, page_token=token, **wanted)
            found, token = [*found, *(each.id for each in page.records)], page.next_page_token
        return found

    assert await listed() == [made[0].id, made[2].id]
    assert await listed(include_ended=True) == [each.id for each in made]
    assert len(await listed(workspace_id=None)) == 1
    assert await refusal(listed(parts.acting("nobody"))) is Reason.NOT_FOUND


async def test_it_goes_with_its_workspace(parts: Parts, lab: Workspace) -> None:
    secret = (await invite(parts, lab)).secret
    await parts.workspaces.delete_workspace(SYSTEM, lab.tenant_id, lab.id, options=parts.options())
    assert not await parts.sql("SELECT FROM invitations")
    assert await refusal(accept(parts, secret)) is Reason.NOT_FOUND
