"""Holds a tenant's records, its stream, SpiceDB and `storage.authority` against the plain model of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pemba.authorizer import Answer, Authorizer, Consistency, Decision, Question
from pemba.errors import Reason, Unavailable
from pemba.model import ObjectRef, Permission, SubjectRef, TenantId, TenantScope, UserId, WorkspaceId
from pemba.service.workspace_search import Search
from pemba.spicedb import lookups
from pemba.spicedb.client import FullyConsistent, SpiceDB
from pemba.storage import authority
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.tenant_model import ADMINISTER, PERMISSIONS, VIEW, TenantModel, encoded, is_group
from tests.truth import as_owner

SECONDS = 20.0
MOST = 5
NAMED = {rank: name for name, rank in PERMISSIONS.items()}


@dataclass
class World:
    """The services, the relay's SpiceDB and the authorizer, on one event loop that runs only while it is asked to."""

    loop: asyncio.AbstractEventLoop
    parts: Parts
    spicedb: SpiceDB
    authorizer: Authorizer
    url: str

    async def make_due(self, shares: Sequence[str]) -> None:
        """As if the time of these had come."""
        past = "UPDATE shares SET expire_time = date_trunc('second', now()) - interval '1 s' WHERE id = ANY ($1)"
        await as_owner(self.url, "shares", past, shares)

    def run(self, doing):
        return self.loop.run_until_complete(asyncio.wait_for(doing, 2 * SECONDS))


async def require_agreement(
    world: World, models: Sequence[TenantModel], users: Sequence[str], tokens: dict[str, str], changed: set[str]
) -> None:
    """`tokens` are each tenant's latest.

    All of it is compared, but for checks and the users of an object: a check goes up the whole tree and costs a
    millisecond, so they are asked about some of what is in `changed` (ids), the deepest of what inherits from that,
    and what is deleted or another tenant's.
    """
    statuses = {r["id"]: r["status"] for r in await world.parts.sql("SELECT id, status FROM users")}
    assert {user: statuses[user] for user in users} == {user: models[0].people.of(user) for user in users}
    for model in models:
        await require_records(world.parts, model)
        await require_stream(world.parts, model)
        near = [at for at in model.places if at in changed][-MOST:]
        near += sorted((at for at in model.places if changed & set(model.line(at))), key=model.depth)[-1:]
        elsewhere = [*model.gone[-2:], *(other.root for other in models if other is not model)]
        await require_answers(world, model, users, tokens[model.id], [model.id, *near, *elsewhere])
        await require_subjects(world.spicedb, model, [*near, *model.gone[-1:]])
        await require_authority(world.parts, model, users)
        await require_lists(world.parts, model, users, [model.id, *near])
        await require_tuples(world.spicedb, model)
    await require_resources(world.spicedb, models, users)


async def require_records(parts: Parts, model: TenantModel) -> None:
    places = await parts.sql(
        "SELECT id, parent_id, slug, creator_id, archived_with, personal_user_id FROM workspaces WHERE tenant_id = $1",
        model.id,
    )
    assert {tuple(r) for r in places} == {
        (id_, p.parent, p.slug, p.creator, p.archived_with, p.personal) for id_, p in model.places.items()
    }
    roles = await parts.sql(
        "SELECT coalesce(workspace_id, tenant_id), subject_id, role FROM memberships WHERE tenant_id = $1", model.id
    )
    assert {tuple(r) for r in roles} == {(at, user, r) for at, held in model.roles.items() for user, r in held.items()}
    shares = await parts.sql(
        "SELECT id, workspace_id, with_workspace_id, role, expire_time IS NOT NULL FROM shares WHERE tenant_id = $1",
        model.id,
    )
    assert {tuple(r) for r in shares} == {(id_, s.of, s.with_, s.role, s.expires) for id_, s in model.shares.items()}
    groups = await parts.sql("SELECT id, slug FROM groups WHERE tenant_id = $1", model.id)
    assert {tuple(r) for r in groups} == {(id_, team.slug) for id_, team in model.groups.items()}
    members = await parts.sql("SELECT group_id, subject_id, manager FROM group_members WHERE tenant_id = $1", model.id)
    assert {tuple(r) for r in members} == {
        (id_, m, x) for id_, team in model.groups.items() for m, x in team.members.items()
    }


async def require_stream(parts: Parts, model: TenantModel) -> None:
    """One number for each mutation, without a gap; and the outbox, carried out from nothing, gives the tuples."""
    rows = await parts.sql("SELECT seq, ops FROM outbox WHERE tenant_id = $1 ORDER BY seq", model.id)
    [head] = await parts.sql("SELECT head_seq FROM tenant_head WHERE tenant_id = $1", model.id)
    assert [row["seq"] for row in rows] == list(range(1, model.head + 1))
    assert head["head_seq"] == model.head
    told: set[str] = set()
    for operation in (o for row in rows for o in row["ops"]):
        (told.add if operation["op"] == "touch" else told.discard)(operation["tuple"].partition("[")[0])
    assert told == model.tuples()


async def require_answers(
    world: World, model: TenantModel, users: Sequence[str], token: str, objects: Sequence[str]
) -> None:
    """With the latest token in hand."""
    asked = [(user, at, rank) for user in users for at in objects for rank in telling(model, user, at)]
    deadline = world.loop.time() + SECONDS
    for start in range(0, len(asked), 1000):
        part = asked[start : start + 1000]
        answers = await ask(world, [(TenantId(model.id), question(model, *a)) for a in part], token, deadline)
        for (user, at, rank), answer in zip(part, answers, strict=True):
            allowed = not model.suspended and model.rank_in_graph(user, at) >= rank
            expected = Decision.ALLOWED if allowed else Decision.DENIED
            told = (answer.decision, answer.reason) if isinstance(answer, Answer) else answer
            assert told == (expected, at_once(model, user)), (user, at, NAMED[rank])


def at_once(model: TenantModel, user: str) -> Reason | None:
    """Why nothing is asked."""
    if model.suspended:
        return Reason.TENANT_SUSPENDED
    return None if model.people.is_active(user) else Reason.USER_SUSPENDED


def telling(model: TenantModel, user: str, at: str) -> Iterable[int]:
    """The highest permission that the user has there, and the next one up: one must be ALLOWED, the other DENIED."""
    ladder = [VIEW, ADMINISTER] if at == model.id else sorted(NAMED)
    held = model.rank_in_graph(user, at)
    return [r for r in ladder if r <= held][-1:] + [r for r in ladder if r > held][:1]


def question(model: TenantModel, user: str, at: str, rank: int) -> Question:
    type_ = "tenant" if at == model.id else "workspace"
    return Question(ObjectRef(type_, at), NAMED[rank], SubjectRef("user", user))


async def ask(world: World, items: list[tuple[TenantId, Question]], token: str, deadline: float):
    """As a client does: while the token is not visible yet, again."""
    while True:
        try:
            batch = await world.authorizer.batch_check(SYSTEM, items, Consistency(token), deadline)
        except Unavailable as error:
            if error.reason is not Reason.TOKEN_NOT_YET_VISIBLE or world.loop.time() > deadline:
                raise
        else:
            return batch.results


async def require_authority(parts: Parts, model: TenantModel, users: Sequence[str]) -> None:
    """By the records, so what is archived counts too."""
    async with parts.database.begin(TenantScope(TenantId(model.id))) as tx:
        for user in users:
            held = await authority.on_tenant(tx, UserId(user))
            assert rank_of(held) == model.rank_in_graph(user, model.id), user
            for place in model.places:
                held = await authority.on_workspace(tx, UserId(user), WorkspaceId(place))
                assert rank_of(held) == model.rank(user, place), (user, place)
            groups = model.groups_of(user) if model.people.is_active(user) else set()
            assert await authority.groups_of(tx, UserId(user)) == groups, user


async def require_lists(parts: Parts, model: TenantModel, users: Sequence[str], objects: Iterable[str]) -> None:
    """The workspaces on which each user has a permission, and everybody who has it on some objects."""
    for permission in (Permission.VIEW, Permission.EDIT, Permission.OWN):
        for user in users:
            page = await parts.workspaces.list_workspaces(
                SYSTEM,
                TenantId(model.id),
                parent_id=None,
                recursive=True,
                include_archived=False,
                page_size=1000,
                page_token="",
                search=Search(UserId(user), permission),
            )
            assert {w.id for w in page.records} == {
                at for at in model.places if at != model.root and may(model, user, at, permission)
            }, (user, permission)
        for at in objects:
            if at != model.id or permission is Permission.VIEW:
                await require_effective_members(parts, model, users, at, permission)


async def require_effective_members(
    parts: Parts, model: TenantModel, users: Sequence[str], at: str, permission: Permission
) -> None:
    page = await parts.memberships.list_effective_members(
        SYSTEM,
        TenantId(model.id),
        object=ObjectRef("tenant" if at == model.id else "workspace", at),
        permission=permission,
        page_size=1000,
        page_token="",
    )
    assert [(m.subject.id, rank_of(m.permission)) for m in page.records] == [
        (user, model.rank_in_graph(user, at)) for user in sorted(users) if may(model, user, at, permission)
    ], (at, permission)
    for member in page.records:
        through = [(g.object.id, g.role, g.with_workspace and g.with_workspace.id, g.group_id) for g in member.through]
        assert sorted(through, key=str) == sorted(model.grants(member.subject.id, at), key=str), (member.subject, at)


def may(model: TenantModel, user: str, at: str, permission: str) -> bool:
    return not model.suspended and model.rank_in_graph(user, at) >= PERMISSIONS[permission]


def rank_of(held: Permission | None) -> int:
    return PERMISSIONS[held] if held else 0


async def require_tuples(spicedb: SpiceDB, model: TenantModel) -> None:
    stored = {
        str(found.plain)
        for type_ in ("tenant", "workspace", "group")
        async for found in spicedb.read_tuples(type_, FullyConsistent(), SECONDS, id_prefix=f"{model.id}/")
    }
    assert stored == model.tuples()


async def require_resources(spicedb: SpiceDB, models: Sequence[TenantModel], users: Sequence[str]) -> None:
    """Everything that a user may view, and all they own, in every tenant at once."""
    for user in users:
        for permission in ("view", "own"):
            subject = SubjectRef("user", encoded(user))
            found = lookups.resources(spicedb, "workspace", permission, subject, {}, FullyConsistent(), SECONDS)
            expected = {
                f"{m.id}/{at}"
                for m in models
                for at in m.places
                if m.rank_in_graph(user, at) >= PERMISSIONS[permission]
            }
            assert {each.id async for each in found} == expected, (user, permission)


async def require_subjects(spicedb: SpiceDB, model: TenantModel, places: Iterable[str]) -> None:
    for place in places:
        for permission in ("view", "own"):
            object_ = ObjectRef("workspace", f"{model.id}/{place}")
            found = lookups.subjects(spicedb, object_, permission, ("user", ""), {}, FullyConsistent(), SECONDS)
            known = {user for held in model.roles.values() for user in held if not is_group(user)}
            known |= {user for id_ in model.groups for user in model.people_in(id_)}
            expected = {encoded(u) for u in known if model.rank_in_graph(u, place) >= PERMISSIONS[permission]}
            assert {each.id async for each in found} == expected, (place, permission)
