"""What the state machine draws: mostly what can succeed, and always some of what cannot.

Hypothesis draws the first of several choices more often than the others, so what is to be usual comes first.  The
strategies read the machine that runs: its `models`, one a tenant, and its `users`.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from pemba.model import SHARE_ROLES, TENANT_ROLES, WORKSPACE_ROLES, ObjectRef, Role, SubjectRef, UserStatus
from pemba.service.role_change import RoleAssignment
from tests.integration.tenant_model import TenantModel, is_group

UNKNOWN_SHARE = "shr_01h455vb4pex5vsknk084sn02q"
SLUGS = [f"place-{n}" for n in range(12)]
TEAMS = [f"team-{n}" for n in range(8)]


class Spot(NamedTuple):
    """Which tenant (its index), which object of it, and who acts: a user, or None for the system key itself."""

    tenant: int
    object: str
    actor: str | None


class StatusDeed(NamedTuple):
    """A call of the service of users about one of them."""

    change: str
    user: str
    given: dict[str, Any]
    actor: str | None


class Deed(NamedTuple):
    """A call of a service: `change` is its method, `named` the ids that come after the tenant's."""

    change: str
    spot: Spot
    named: tuple[str, ...]
    given: dict[str, Any]


machines = st.runner()
users = machines.flatmap(lambda machine: st.sampled_from(machine.users))
perhaps = st.none() | users
rarely = st.integers(0, 9).map(lambda n: n == 9)


def weighted(*choices: tuple[int, list]) -> st.SearchStrategy:
    """One of those lists that are not empty, as often as its weight says; then one of its items."""
    lists = [items for weight, items in choices if items for _ in range(weight)]
    return st.sampled_from(lists).flatmap(st.sampled_from)


@st.composite
def spots(draw, *, archived: int = 1, suspended: int = 1, tenant: int = 0) -> Spot:
    """A workspace; by these weights one that is archived, or a suspended tenant's, or the tenant itself."""
    machine = draw(machines)
    models = machine.models
    active = [i for i, model in enumerate(models) if not model.suspended]
    index = draw(weighted((19, active), (suspended, [i for i in range(len(models)) if i not in active])))
    model = models[index]
    in_use = [at for at, place in model.places.items() if not place.archived_with and at != model.root]
    put_away = [at for at, place in model.places.items() if place.archived_with]
    strangers = model.gone + [other.root for other in models if other is not model]
    object_ = draw(
        weighted((16, in_use), (2, [model.root]), (archived, put_away), (tenant, [model.id]), (1, strangers))
    )
    return Spot(index, object_, draw(weighted((5, insiders(model, object_)), (3, [None]), (1, machine.users))))


def insiders(model: TenantModel, object_: str) -> list[str]:
    """Who has a role on the tenant, on it, or on what it inherits from; of each the latest first."""
    near = [model.id, *(model.line(object_) if object_ in model.places else ())]
    holders = [holder for at in near for holder in reversed(model.roles[at])]
    return [user for holder in holders for user in (model.people_in(holder) if is_group(holder) else [holder])]


# -- workspaces and tenants ------------------------------------------------------------------------------


@st.composite
def creations(draw) -> Deed:
    """Mostly below the spot's workspace, sometimes below the deepest one."""
    spot, slug = draw(spots()), draw(st.sampled_from(SLUGS))
    model = draw(machines).models[spot.tenant]
    spot = spot._replace(object=draw(weighted((3, [spot.object]), (1, [max(model.places, key=model.depth)]))))
    owner = draw(perhaps) if spot.actor is None or draw(rarely) else None
    return Deed("create_workspace", spot, (), {"parent_id": spot.object, "slug": slug, "name": slug, "owner": owner})


@st.composite
def personal_creations(draw) -> Deed:
    """Mostly for the actor themselves."""
    spot = draw(spots())
    user = spot.actor if spot.actor is not None and not draw(rarely) else draw(users)
    return Deed("create_personal_workspace", spot, (), {"user_id": user, "name": "Own"})


@st.composite
def moves(draw) -> Deed:
    spot = draw(spots())
    models = draw(machines).models
    model = models[spot.tenant]
    there = [at for at in model.places if at != spot.object]
    deepest = max(model.places, key=model.depth)
    parent = draw(weighted((7, there), (2, [deepest]), (1, [at for other in models for at in other.places])))
    return Deed("move_workspace", spot, (spot.object,), {"new_parent_id": parent})


def on_places(change: str, **weights: int) -> st.SearchStrategy[Deed]:
    return spots(**weights).map(lambda spot: Deed(change, spot, (spot.object,), {}))


@st.composite
def names(draw) -> Deed:
    """The one change of a record that no check can see."""
    spot = draw(spots(tenant=4))
    given = {"name": secrets.token_hex(4)}
    if spot.object == draw(machines).models[spot.tenant].id:
        return Deed("update_tenant", spot, (), given)
    return Deed("update_workspace", spot, (spot.object,), given)


@st.composite
def statuses(draw) -> Deed:
    """Activates a suspended tenant and suspends another; rarely the other way round, which changes nothing."""
    spot = draw(spots(suspended=30))
    activate = draw(machines).models[spot.tenant].suspended is not draw(rarely)
    return Deed("activate_tenant" if activate else "suspend_tenant", spot, (), {})


@st.composite
def user_statuses(draw) -> StatusDeed:
    """Activates a suspended user and suspends another, by force or not; rarely it is for good, or by a user."""
    machine = draw(machines)
    of = machine.people.of
    user = draw(
        weighted(
            (4, [user for user in machine.users if of(user) is UserStatus.ACTIVE]),
            (5, [user for user in machine.users if of(user) is UserStatus.SUSPENDED]),
            (1, [user for user in machine.users if of(user) is UserStatus.DEACTIVATED]),
        )
    )
    usual = "suspend_user" if of(user) is UserStatus.ACTIVE else "activate_user"
    change = draw(weighted((16, [usual]), (1, ["suspend_user", "activate_user"]), (1, ["deactivate_user"])))
    given = {"force": draw(st.booleans())} if change == "suspend_user" else {}
    return StatusDeed(change, user, given, draw(weighted((19, [None]), (1, machine.users))))


# -- memberships -----------------------------------------------------------------------------------------


@st.composite
def members(draw, *, role: Role | None = None, tenant: int = 0) -> tuple[Spot, dict[str, Any], str]:
    """A spot, its object, and a user: mostly one who has a role on it (this one, where it is given), or made it.

    Without a role given it may be a group as well.
    """
    machine = draw(machines)
    spot = draw(spots(tenant=tenant))
    model = machine.models[spot.tenant]
    held = model.roles.get(spot.object, {})
    holders = [user for user in held if role in (None, held[user])]
    creator = [model.places[spot.object].creator] if spot.object in model.places else []
    groups = [] if role else [*model.groups, *(id_ for other in machine.models for id_ in list(other.groups)[:1])]
    user = draw(weighted((3, holders), (4, list(filter(None, creator))), (2, machine.users), (2, groups)))
    return spot, {"object": reference(model, spot.object)}, user


def subject_of(holder: str) -> SubjectRef:
    return SubjectRef("group", holder, "member") if is_group(holder) else SubjectRef("user", holder)


def reference(model: TenantModel, object_: str) -> ObjectRef:
    return ObjectRef("tenant" if object_ == model.id else "workspace", object_)


@st.composite
def assignments(draw, change: str, *, most: int) -> Deed:
    """Roles to give: the first on the spot's object, up to `most` in all."""
    spot, _, user = draw(members(tenant=4))
    model = draw(machines).models[spot.tenant]
    holders = st.sampled_from([*draw(machines).users, *model.groups])
    others = draw(st.lists(st.tuples(st.sampled_from([*model.places, model.id]), holders), max_size=most - 1))
    given = []
    for object_, holder in [(spot.object, user), *others]:
        roles = TENANT_ROLES if object_ == model.id else WORKSPACE_ROLES
        role = draw(st.sampled_from([r for r in roles if r is not Role.OWNER or not is_group(holder)]))
        given.append(RoleAssignment(reference(model, object_), subject_of(holder), role))
    [one, *_] = given
    single = {"object": one.object, "subject": one.subject, "role": one.role}
    return Deed(change, spot, (), single if most == 1 else {"assignments": given})


@st.composite
def transfers(draw) -> Deed:
    spot, object_, user = draw(members(role=Role.OWNER))
    return Deed("transfer_ownership", spot, (), {**object_, "from_user": user, "to_user": draw(users)})


@st.composite
def removals(draw) -> Deed:
    """Of others, and sometimes of oneself."""
    spot, object_, user = draw(members(tenant=6))
    if not is_group(user) and (draw(rarely) or draw(rarely)):
        spot = spot._replace(actor=user)
    given = {"subject": subject_of(user), "allow_missing": draw(rarely), "transfer_to": draw(perhaps)}
    return Deed("remove_member", spot, (), object_ | given)


# -- shares ----------------------------------------------------------------------------------------------


@st.composite
def sharings(draw) -> Deed:
    """Mostly with one that the actor sees, sometimes back to one that shares with it."""
    spot = draw(spots())
    models = draw(machines).models
    model = models[spot.tenant]
    seen = [at for at in model.places if spot.actor is None or model.rank(spot.actor, at)]
    back = [share.of for share in model.shares.values() if share.with_ == spot.object]
    other = draw(weighted((6, seen), (2, back), (2, list(model.places)), (1, [at for m in models for at in m.places])))
    until = draw(st.sampled_from([None, datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)]))
    given = {"workspace_id": spot.object, "with_workspace_id": other, "role": draw(st.sampled_from(SHARE_ROLES))}
    return Deed("create_share", spot, (), {**given, "expire_time": until})


@st.composite
def revocations(draw) -> Deed:
    machine = draw(machines)
    spot = draw(spots())
    model = machine.models[spot.tenant]
    share = draw(
        weighted((9, list(model.shares)), (1, [UNKNOWN_SHARE, *(s for m in machine.models for s in m.shares)]))
    )
    if share in model.shares and not draw(rarely):
        actors = insiders(model, model.shares[share].of)
        spot = spot._replace(actor=draw(weighted((5, actors), (3, [None]), (1, machine.users))))
    return Deed("revoke_share", spot, (share,), {})


# -- groups ----------------------------------------------------------------------------------------------


@st.composite
def teams(draw) -> Spot:
    """A group; the actor mostly manages it, or administers the tenant."""
    machine = draw(machines)
    index = draw(st.sampled_from([i for i, model in enumerate(machine.models) if not model.suspended] or [0]))
    model = machine.models[index]
    strangers = [id_ for other in machine.models if other is not model for id_ in other.groups]
    group = draw(weighted((16, list(model.groups)), (1, strangers), (1, [f"grp_{model.root.partition('_')[2]}"])))
    managers = [m for m, manager in model.groups[group].members.items() if manager] if group in model.groups else []
    admins = insiders(model, model.id)
    return Spot(index, group, draw(weighted((4, managers), (2, admins), (3, [None]), (1, machine.users))))


@st.composite
def team_members(draw, *, present: int) -> tuple[Spot, str]:
    """A group and a user or a group: as often as its weight says one who is in it."""
    machine, spot = draw(machines), draw(teams())
    model = machine.models[spot.tenant]
    members = list(model.groups[spot.object].members) if spot.object in model.groups else []
    strangers = [id_ for other in machine.models if other is not model for id_ in list(other.groups)[:1]]
    member = draw(weighted((present, members), (5, machine.users), (5, list(model.groups)), (1, strangers)))
    return spot, member


@st.composite
def team_creations(draw) -> Deed:
    spot = draw(teams())
    spot = spot._replace(
        actor=draw(weighted((3, [None]), (2, insiders(draw(machines).models[spot.tenant], spot.object))))
    )
    return Deed("create_group", spot, (), {"slug": draw(st.sampled_from(TEAMS)), "name": "Team", "external_id": ""})


@st.composite
def team_additions(draw) -> Deed:
    spot, member = draw(team_members(present=2))
    manager = not is_group(member) and draw(st.booleans())
    return Deed("add_group_member", spot, (spot.object,), {"subject": subject_of(member), "manager": manager})


@st.composite
def team_removals(draw) -> Deed:
    """Of others, and sometimes of oneself."""
    spot, member = draw(team_members(present=20))
    if not is_group(member) and draw(rarely):
        spot = spot._replace(actor=member)
    given = {"subject": subject_of(member), "allow_missing": draw(rarely)}
    return Deed("remove_group_member", spot, (spot.object,), given)


@st.composite
def team_lists(draw) -> Deed:
    """Some of those who are in it, and others."""
    spot = draw(teams())
    machine = draw(machines)
    model = machine.models[spot.tenant]
    members = list(model.groups[spot.object].members) if spot.object in model.groups else []
    candidates = st.sampled_from([*members, *machine.users, *model.groups])
    wanted = draw(st.lists(candidates, max_size=6, unique=True))
    given = {subject_of(each): not is_group(each) and draw(st.booleans()) for each in wanted}
    return Deed("set_group_members", spot, (spot.object,), {"members": given})


def on_teams(change: str, given: dict[str, Any]) -> st.SearchStrategy[Deed]:
    return teams().map(lambda spot: Deed(change, spot, (spot.object,), given))


deeds = st.one_of(
    user_statuses(),
    user_statuses(),
    creations(),
    creations(),
    personal_creations(),
    moves(),
    moves(),
    on_places("archive_workspace"),
    on_places("unarchive_workspace", archived=60),
    on_places("delete_workspace", archived=6),
    names(),
    statuses(),
    assignments("set_role", most=1),
    assignments("set_role", most=1),
    assignments("set_roles", most=4),
    transfers(),
    removals(),
    removals(),
    sharings(),
    sharings(),
    revocations(),
    team_creations(),
    team_additions(),
    team_additions(),
    team_additions(),
    team_removals(),
    team_lists(),
    on_teams("update_group", {"name": "Other", "external_id": None}),
    on_teams("delete_group", {}),
)
