"""Sharing over gRPC on real servers: a role for exactly the roster of the other workspace, and nothing passed on."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import memberships_pb2, permissions_pb2, shares_pb2, types_pb2, workspaces_pb2, workspaces_pb2_grpc
from pemba.v1.shares_pb2 import SHARE_DIRECTION_INCOMING, SHARE_DIRECTION_OUTGOING
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER, ROLE_VIEWER
from tests.truth import eventually

PERMISSIONS = ("own", "administer", "edit", "view")
GIVES = {ROLE_VIEWER: {"view"}, ROLE_MEMBER: {"edit", "view"}, ROLE_ADMIN: {"administer", "edit", "view"}}
USERS = ("owen", "adam", "mel", "vera", "inge", "tess", "zoe")


class Site:
    """A tree: `lab/bench`, `guests/annex`, `third`.

    Guests' roster are owen, adam, mel and vera, with the four roles; inge has one on the root, tess on guests' annex,
    zoe on `third`.
    """

    def __init__(self, api, root, **places) -> None:
        self.api, self.root, self.places = api, root, places

    @classmethod
    async def found(cls, api, slug: str = "acme") -> Site:
        root = (await api.tenant(slug)).root_workspace
        lab, guests, third = [(await api.workspace(root, s)).workspace for s in ("lab", "guests", "third")]
        bench = (await api.workspace(lab, "bench")).workspace
        annex = (await api.workspace(guests, "annex")).workspace
        site = cls(api, root, lab=lab, guests=guests, third=third, bench=bench, annex=annex)
        for user, role in zip(USERS, (ROLE_OWNER, ROLE_ADMIN, ROLE_MEMBER, ROLE_VIEWER), strict=False):
            await site.role(guests, user, role)
        await site.role(root, "inge", ROLE_VIEWER)
        await site.role(annex, "tess", ROLE_OWNER)
        site.token = await site.role(third, "zoe", ROLE_OWNER)
        return site

    async def role(self, on, user: str, role: int) -> str:
        request = memberships_pb2.SetRoleRequest(
            tenant_id=self.root.tenant_id, object=ref(on), subject=subject(user), role=role
        )
        return (await self.api.memberships.SetRole(request, metadata=self.api.metadata())).token

    async def share(self, of: str, with_: str, role: int = ROLE_VIEWER, until: Timestamp | None = None, **metadata):
        request = shares_pb2.CreateShareRequest(
            tenant_id=self.root.tenant_id,
            workspace=ref(self.places[of]),
            with_workspace=ref(self.places[with_]),
            role=role,
            expire_time=until,
        )
        answer = await self.api.shares.CreateShare(request, metadata=self.api.metadata(**metadata))
        self.token = answer.token
        return answer.share

    async def revoke(self, share: shares_pb2.Share) -> None:
        request = shares_pb2.RevokeShareRequest(tenant_id=share.tenant_id, share_id=share.id)
        self.token = (await self.api.shares.RevokeShare(request, metadata=self.api.metadata())).token

    async def change(self, verb: str, place: str, **given) -> None:
        request = getattr(workspaces_pb2, f"{verb}WorkspaceRequest")(
            tenant_id=self.root.tenant_id, workspace_id=self.places[place].id, **given
        )
        stub: workspaces_pb2_grpc.WorkspaceServiceStub = self.api.workspaces
        self.token = (await getattr(stub, f"{verb}Workspace")(request, metadata=self.api.metadata())).token

    async def allowed(self, place: str) -> dict[str, set[str]]:
        """What each user may do there, of those who may anything, at the last change."""
        asked = [(user, permission) for user in USERS for permission in PERMISSIONS]
        request = permissions_pb2.BatchCheckRequest(
            tenant_id=self.root.tenant_id,
            items=[
                permissions_pb2.BatchCheckItem(resource=ref(self.places[place]), permission=p, subject=subject(u))
                for u, p in asked
            ],
            consistency=types_pb2.Consistency(at_least_as_fresh=self.token),
        )
        answer = await self.api.permissions.BatchCheck(request, metadata=self.api.metadata())
        found: dict[str, set[str]] = {}
        for (user, permission), result in zip(asked, answer.results, strict=True):
            if result.decision == permissions_pb2.DECISION_ALLOWED:
                found.setdefault(user, set()).add(permission)
        return found

    async def listed(self, user: str, permission: str = "view") -> set[str]:
        """The slugs of the workspaces on which the user has it, by the records."""
        request = workspaces_pb2.ListWorkspacesRequest(
            tenant_id=self.root.tenant_id, recursive=True, subject=subject(user), permission=permission
        )
        answer = await self.api.workspaces.ListWorkspaces(request, metadata=self.api.metadata())
        return {workspace.slug for workspace in answer.workspaces}

    async def effective(self, place: str) -> dict[str, list[memberships_pb2.Grant]]:
        request = memberships_pb2.ListEffectiveMembersRequest(
            tenant_id=self.root.tenant_id, object=ref(self.places[place])
        )
        answer = await self.api.memberships.ListEffectiveMembers(request, metadata=self.api.metadata())
        return {member.subject.id: list(member.through) for member in answer.effective_members}


def ref(workspace: workspaces_pb2.Workspace) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(type="workspace", id=workspace.id)


def subject(user: str) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=user)


INGE = {"inge": {"view"}}


@pytest.mark.parametrize("role", [ROLE_VIEWER, ROLE_MEMBER, ROLE_ADMIN], ids=["viewer", "member", "admin"])
async def test_a_share_gives_its_role_to_exactly_the_roster_there_and_below(api, role: int) -> None:
    """Whatever the roles of the roster are over there; not to who comes from above, nor from below."""
    site = await Site.found(api)
    await site.share("lab", "guests", role)
    roster = dict.fromkeys(("owen", "adam", "mel", "vera"), GIVES[role])
    for place in ("lab", "bench"):
        assert await site.allowed(place) == roster | INGE
    assert await site.allowed("third") == INGE | {"zoe": set(PERMISSIONS)}, "a share of one is none of another"
    expected = {"lab", "bench", "guests", "annex"}
    assert {user: await site.listed(user) for user in USERS} == {
        **dict.fromkeys(("owen", "adam", "mel", "vera"), expected),
        "inge": {"lab", "bench", "guests", "annex", "third"},
        "tess": {"annex"},
        "zoe": {"third"},
    }
    for permission in GIVES[role]:
        assert {"lab", "bench"} <= await site.listed("vera", permission)


async def test_a_share_is_not_passed_on(api) -> None:
    """Third is shared with lab, lab with guests: guests have nothing on third."""
    site = await Site.found(api)
    await site.share("third", "lab", ROLE_ADMIN)
    await site.share("lab", "guests", ROLE_ADMIN)
    assert await site.allowed("third") == INGE | {"zoe": set(PERMISSIONS)}
    site.token = await site.role(site.places["lab"], "tess", ROLE_VIEWER)
    assert (await site.allowed("third"))["tess"] == GIVES[ROLE_ADMIN]
    assert "third" in await site.listed("tess", "administer")


async def test_two_workspaces_share_with_each_other(api) -> None:
    site = await Site.found(api)
    await site.role(site.places["lab"], "zoe", ROLE_VIEWER)
    await site.share("lab", "guests", ROLE_MEMBER)
    back = await site.share("guests", "lab", ROLE_VIEWER)
    assert (await site.allowed("lab"))["vera"] == {"edit", "view"}
    assert (await site.allowed("guests"))["zoe"] == {"view"}
    await site.revoke(back)
    assert (await site.allowed("lab"))["vera"] == {"edit", "view"}
    assert "zoe" not in await site.allowed("guests")


async def test_after_a_revoke_and_while_either_is_archived_and_once_either_is_gone_nobody_has_anything_by_it(
    api,
) -> None:
    site = await Site.found(api)

    async def vera() -> tuple[bool, bool]:
        return "vera" in await site.allowed("bench"), "bench" in await site.listed("vera")

    share = await site.share("lab", "guests", ROLE_ADMIN)
    assert await vera() == (True, True)
    await site.revoke(share)
    assert await vera() == (False, False)
    share = await site.share("lab", "guests", ROLE_ADMIN)
    for place in ("guests", "lab"):
        await site.change("Archive", place)
        assert await vera() == (False, False)
        await site.change("Unarchive", place)
        assert await vera() == (True, True)
    await site.change("Move", "lab", new_parent_id=site.places["third"].id)
    assert await vera() == (True, True)
    await site.change("Delete", "annex")
    await site.change("Delete", "guests")
    assert await vera() == (False, False)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(api, share)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def get(api, share: shares_pb2.Share) -> shares_pb2.Share:
    request = shares_pb2.GetShareRequest(tenant_id=share.tenant_id, share_id=share.id)
    return (await api.shares.GetShare(request, metadata=api.metadata())).share


async def test_who_has_access_says_by_which_share(api) -> None:
    site = await Site.found(api)
    await site.role(site.places["lab"], "vera", ROLE_ADMIN)
    share = await site.share("lab", "guests", ROLE_MEMBER)
    members = await site.effective("bench")
    by_share = memberships_pb2.Grant(
        object=ref(site.places["lab"]),
        role=ROLE_MEMBER,
        share_id=share.id,
        with_workspace=ref(site.places["guests"]),
    )
    own = memberships_pb2.Grant(object=ref(site.places["lab"]), role=ROLE_ADMIN)
    assert members["owen"] == [by_share]
    assert members["vera"] == [own, by_share]
    assert sorted(members) == ["adam", "alice", "inge", "mel", "owen", "vera"]


async def test_shares_are_got_and_listed_from_both_sides(api) -> None:
    site = await Site.found(api)
    made = [await site.share("lab", other) for other in ("guests", "third")]

    async def listed(place: str, direction: int) -> list[shares_pb2.Share]:
        request = shares_pb2.ListSharesRequest(
            tenant_id=site.root.tenant_id, workspace=ref(site.places[place]), direction=direction, page_size=1
        )
        found: list[shares_pb2.Share] = []
        while True:
            page = await api.shares.ListShares(request, metadata=api.metadata())
            found += page.shares
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    assert [await get(api, share) for share in made] == made
    assert await listed("lab", SHARE_DIRECTION_OUTGOING) == made
    assert await listed("guests", SHARE_DIRECTION_INCOMING) == made[:1]
    assert await listed("lab", SHARE_DIRECTION_INCOMING) == []


async def test_a_share_ends_at_its_time_for_checks_and_lists(api) -> None:
    site = await Site.found(api)
    until = Timestamp(seconds=int(time.time()) + 4)
    share = await site.share("lab", "guests", ROLE_MEMBER, until)
    assert share.expire_time == until
    assert (await site.allowed("lab"))["vera"] == {"edit", "view"}

    async def is_over() -> bool:
        return "vera" not in await site.allowed("lab") and "lab" not in await site.listed("vera")

    await eventually(is_over)
    assert time.time() >= until.seconds - 0.1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(api, share)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_wrong_is_refused_with_its_reason(api, reason) -> None:
    site, other = await Site.found(api), await Site.found(api, "globex")
    await site.share("lab", "guests")
    site.places["elsewhere"] = other.places["lab"]

    async def refusal(*given, **metadata: str) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await site.share(*given, **metadata)
        return refused.value.code(), reason(refused.value)

    invalid = grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"
    missing = grpc.StatusCode.NOT_FOUND, "NOT_FOUND"
    assert await refusal("lab", "guests", ROLE_ADMIN) == (grpc.StatusCode.ALREADY_EXISTS, "SHARE_EXISTS")
    assert await refusal("lab", "lab") == invalid
    assert await refusal("guests", "lab", ROLE_OWNER) == invalid
    assert await refusal("guests", "lab", ROLE_VIEWER, Timestamp(seconds=1)) == invalid
    assert await refusal("lab", "elsewhere") == missing
    assert await refusal("elsewhere", "lab") == missing
    assert await refusal("guests", "third", pemba_on_behalf_of="user:owen") == missing
    assert await refusal("lab", "third", pemba_on_behalf_of="user:owen") == (
        grpc.StatusCode.PERMISSION_DENIED,
        "ROLE_MISSING",
    ), "he sees it, by the share"
    await site.share("guests", "lab", pemba_on_behalf_of="user:owen")
