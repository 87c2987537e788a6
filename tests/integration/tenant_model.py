"""One tenant in plain Python, as the API describes it: who holds what, who may do what, and what is refused.

It shares no code with the services: sets and dicts instead of SQL, walks instead of recursive queries.  What several
rules would refuse is refused by the first of: arguments that contradict each other, a tenant of which the caller has no
part, its suspension, what they may not see, what they may not change, the archive, then the guards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pemba.errors import Reason
from pemba.model import ObjectRef, Role, SubjectRef, UserStatus
from pemba.service.role_change import RoleAssignment
from tests.integration.people_model import People

VIEW, EDIT, ADMINISTER, OWN = 1, 2, 3, 4
PERMISSIONS = {"view": VIEW, "edit": EDIT, "administer": ADMINISTER, "own": OWN}
GIVES = {Role.VIEWER: VIEW, Role.MEMBER: EDIT, Role.ADMIN: ADMINISTER, Role.OWNER: OWN}
MAX_DEPTH = 20
MAX_GROUP_DEPTH = 10
PLAIN = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class Refused(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def refuse(where: bool, reason: Reason) -> None:
    if where:
        raise Refused(reason)


@dataclass
class Place:
    """A workspace; `archived_with` is the one whose archiving took it along, `personal` the user whose own it is."""

    parent: str | None
    slug: str
    creator: str | None = None
    archived_with: str | None = None
    personal: str | None = None


@dataclass
class Shared:
    """A share: of which workspace, with which, as what; `expires` tells whether it ever does."""

    of: str
    with_: str
    role: Role
    expires: bool


@dataclass
class Team:
    """A group; `members` are ids of users and of groups, and whether they manage it."""

    slug: str
    members: dict[str, bool] = field(default_factory=dict)


def is_group(holder: str) -> bool:
    """Ids of users never begin so here."""
    return holder.startswith("grp_")


@dataclass
class TenantModel:
    """Its mutations have the names and arguments of the services'.  An `actor` of None is a system key.

    `roles` are by object, the tenant's own id or a workspace's, then by holder, a user or a group; `head` counts
    mutations; `next_id` is what the next workspace or group will be called.
    """

    id: str
    root: str
    suspended: bool = False
    head: int = 1
    next_id: str = ""
    places: dict[str, Place] = field(default_factory=dict)
    roles: dict[str, dict[str, Role]] = field(default_factory=dict)
    shares: dict[str, Shared] = field(default_factory=dict)
    groups: dict[str, Team] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    people: People = field(default_factory=People)

    @classmethod
    def created(cls, id_: str, root: str, first_admin: str, people: People) -> TenantModel:
        roles: dict[str, dict[str, Role]] = {id_: {first_admin: Role.ADMIN}, root: {}}
        return cls(id_, root, places={root: Place(None, "root")}, roles=roles, people=people)

    # -- what is so ---------------------------------------------------------------------------------------

    def line(self, place: str) -> Iterator[str]:
        """The workspace and its ancestors, the root last."""
        at: str | None = place
        while at is not None:
            yield at
            at = self.places[at].parent

    def below(self, place: str) -> list[str]:
        """The workspace and all below it."""
        return [other for other in self.places if place in self.line(other)]

    def depth(self, place: str) -> int:
        return len(list(self.line(place)))

    def rank(self, user: str, place: str) -> int:
        """The highest permission on the workspace by the records, archived or not; 0 for none, or not active."""
        if not self.people.is_active(user):
            return 0
        if self.is_admin(user) and not self.places[place].personal:
            return OWN
        own = [GIVES[role] for at in self.line(place) for role in self.roles_of(user, at)]
        return max([*own, *(GIVES[share.role] for share in self.reaching(user, place))], default=0)

    def reaching(self, user: str, place: str) -> Iterator[Shared]:
        """The shares by which the user gets a role there: of it or of what it inherits from, with what is in use."""
        line = set(self.line(place))
        for share in self.shares.values():
            if share.of in line and self.roles_of(user, share.with_) and not self.places[share.with_].archived_with:
                yield share

    def grants(self, user: str, object_: str) -> Iterator[tuple[str, Role, str | None, str | None]]:
        """(object, role there, by a share with which workspace, of which group): all that gives the user access."""
        for at in [self.id] if object_ == self.id else self.line(object_):
            yield from ((at, role, None, group) for group, role in self._held(user, at))
            for share in self.shares.values():
                if share.of == at and not self.places[share.with_].archived_with:
                    yield from ((at, share.role, share.with_, group) for group, _ in self._held(user, share.with_))
        if object_ != self.id and not self.places[object_].personal:
            yield from ((self.id, role, None, group) for group, role in self._held(user, self.id) if role is Role.ADMIN)

    def _held(self, user: str, at: str) -> list[tuple[str | None, Role]]:
        """Their own role there (None) and those of every group that they are in."""
        held = self.roles[at].items()
        holders = {user, *self.groups_of(user)}
        return [(holder if is_group(holder) else None, role) for holder, role in held if holder in holders]

    def roles_of(self, user: str, at: str) -> list[Role]:
        """Their own and those of every group that they are in."""
        return [role for _, role in self._held(user, at)]

    def groups_of(self, holder: str) -> set[str]:
        """Those that a user or a group is in, themselves or through others."""
        found: set[str] = set()
        ahead = [holder]
        while ahead:
            inside = ahead.pop()
            ahead += (new := {id_ for id_, team in self.groups.items() if inside in team.members} - found)
            found |= new
        return found

    def people_in(self, group: str) -> list[str]:
        """Those who are in it, themselves or through others."""
        return [member for id_ in self.inside(group) for member in self.groups[id_].members if not is_group(member)]

    def inside(self, group: str) -> list[str]:
        """The group and all in it."""
        return [id_ for id_ in self.groups if id_ == group or group in self.groups_of(id_)]

    def levels_above(self, group: str) -> int:
        """1 for one that is in no other."""
        return 1 + max(
            (self.levels_above(id_) for id_, team in self.groups.items() if group in team.members), default=0
        )

    def levels_below(self, group: str) -> int:
        """1 for one without groups in it."""
        return 1 + max((self.levels_below(id_) for id_ in self.groups[group].members if is_group(id_)), default=0)

    def about(self, object_: str) -> tuple[object, ...]:
        """What is said of it; of who has come to it by a share as well."""
        of = [share for share in self.shares.values() if share.of == object_]
        return (
            self.places.get(object_),
            self.roles.get(object_),
            self.groups.get(object_),
            of,
            [(self.roles[share.with_], self.places[share.with_]) for share in of],
        )

    def is_admin(self, user: str) -> bool:
        return self.people.is_active(user) and Role.ADMIN in self.roles_of(user, self.id)

    def held(self, user: str) -> list[str]:
        """What the user has a role on, the tenant's own id or a workspace's, and which groups they are directly in."""
        groups = [id_ for id_, team in self.groups.items() if user in team.members]
        return [at for at, held in self.roles.items() if user in held] + groups

    def touched_by(self, holder: str) -> set[str]:
        """That on which a user or a group, or a group that they are in, has a role, and what is shared with it."""
        holders = {holder, *self.groups_of(holder)}
        touched = {at for at, held in self.roles.items() if holders & held.keys()}
        return touched | {share.of for share in self.shares.values() if share.with_ in touched}

    def is_in_graph(self, object_: str) -> bool:
        return object_ not in self.places or not self.places[object_].archived_with

    def rank_in_graph(self, user: str, object_: str) -> int:
        """As SpiceDB is to hold it: nothing on what is archived or gone, and nothing on what is another tenant's."""
        if not self.people.is_active(user):
            return 0
        if object_ == self.id:
            return ADMINISTER if self.is_admin(user) else VIEW if self.roles_of(user, self.id) else 0
        if object_ not in self.places or self.places[object_].archived_with:
            return 0
        return self.rank(user, object_)

    def tuples(self, *, whoever: bool = False) -> set[str]:
        """The relationships that the records stand for, in SpiceDB's text form; `whoever`: as if all were active."""
        live = {id_: place for id_, place in self.places.items() if not place.archived_with}
        found = {f"workspace:{self.id}/{self.root}#tenant@tenant:{self.id}/{self.id}"}
        found |= {f"workspace:{self.id}/{i}#parent@workspace:{self.id}/{p.parent}" for i, p in live.items() if p.parent}
        for id_ in [self.id, *live]:
            type_ = "tenant" if id_ == self.id else "workspace"
            found |= {
                f"{type_}:{self.id}/{id_}#{r}@{self._subject(u)}"
                for u, r in self.roles[id_].items()
                if whoever or self.people.is_active(u)
            }
        for id_, team in self.groups.items():
            for member, manager in team.members.items():
                if whoever or self.people.is_active(member):
                    relations = ["member", "manager"] if manager else ["member"]
                    found |= {f"group:{self.id}/{id_}#{r}@{self._subject(member)}" for r in relations}
        return found | {
            f"workspace:{self.id}/{s.of}#shared_{s.role}@workspace:{self.id}/{s.with_}#roster"
            for s in self.shares.values()
            if s.of in live and s.with_ in live
        }

    def _subject(self, holder: str) -> str:
        return f"group:{self.id}/{holder}#member" if is_group(holder) else f"user:{encoded(holder)}"

    # -- tenants and workspaces ---------------------------------------------------------------------------

    def suspend_tenant(self, actor: str | None) -> None:
        self._belongs(actor)
        refuse(actor is not None, Reason.ROLE_MISSING)
        self.suspended = True

    def activate_tenant(self, actor: str | None) -> None:
        self._belongs(actor)
        refuse(actor is not None, Reason.ROLE_MISSING)
        self.suspended = False

    def update_tenant(self, actor: str | None, *, name: str) -> None:
        self._may_change_tenant(actor)

    def create_workspace(self, actor: str | None, *, parent_id: str, slug: str, name: str, owner: str | None) -> None:
        refuse(actor is not None and owner not in (None, actor), Reason.INVALID_FIELD)
        self._may(actor, parent_id, ADMINISTER)
        self._in_use(parent_id)
        refuse(bool(self.places[parent_id].personal), Reason.PERSONAL_KIND_FROZEN)
        refuse(self.depth(parent_id) == MAX_DEPTH, Reason.TOO_DEEP)
        self._may_hold(owner)
        self._slug_is_free(parent_id, slug)
        self.places[self.next_id] = Place(parent_id, slug, creator=actor)
        first = actor or owner
        self.roles[self.next_id] = {first: Role.OWNER} if first else {}

    def create_personal_workspace(self, actor: str | None, *, user_id: str, name: str) -> None:
        self._enter(actor)
        refuse(actor not in (None, user_id), Reason.ROLE_MISSING)
        self._may_hold(user_id)
        refuse(any(place.personal == user_id for place in self.places.values()), Reason.PERSONAL_EXISTS)
        self.places[self.next_id] = Place(None, "personal", creator=user_id, personal=user_id)
        self.roles[self.next_id] = {user_id: Role.OWNER}

    def update_workspace(self, actor: str | None, place: str, *, name: str) -> None:
        self._may(actor, place, ADMINISTER, root_is_the_tenants=True)
        self._in_use(place)

    def move_workspace(self, actor: str | None, place: str, *, new_parent_id: str) -> None:
        self._may(actor, place, OWN)
        self._in_use(place)
        refuse(place == self.root, Reason.ROOT_WORKSPACE)
        refuse(bool(self.places[place].personal), Reason.PERSONAL_KIND_FROZEN)
        self._may(actor, new_parent_id, ADMINISTER)
        self._in_use(new_parent_id)
        refuse(bool(self.places[new_parent_id].personal), Reason.PERSONAL_KIND_FROZEN)
        refuse(place in self.line(new_parent_id), Reason.CYCLE)
        height = max(self.depth(other) for other in self.below(place)) - self.depth(place) + 1
        refuse(self.depth(new_parent_id) + height > MAX_DEPTH, Reason.TOO_DEEP)
        if new_parent_id != self.places[place].parent:
            self._slug_is_free(new_parent_id, self.places[place].slug)
            self.places[place].parent = new_parent_id

    def archive_workspace(self, actor: str | None, place: str) -> None:
        """With all below it that is not archived yet."""
        self._may(actor, place, OWN)
        refuse(place == self.root, Reason.ROOT_WORKSPACE)
        if not self.places[place].archived_with:
            for other in self.below(place):
                self.places[other].archived_with = self.places[other].archived_with or place

    def unarchive_workspace(self, actor: str | None, place: str) -> None:
        """With what went along."""
        self._may(actor, place, OWN)
        with_ = self.places[place].archived_with
        if with_:
            if parent := self.places[place].parent:
                self._in_use(parent)
            for other in self.below(place):
                if self.places[other].archived_with == with_:
                    self.places[other].archived_with = None

    def delete_workspace(self, actor: str | None, place: str) -> None:
        self._may(actor, place, OWN)
        refuse(place == self.root, Reason.ROOT_WORKSPACE)
        refuse(len(self.below(place)) > 1, Reason.HAS_CHILDREN)
        self.forget(place)

    def forget(self, place: str) -> None:
        """With every role on it, and every share of it or with it."""
        del self.places[place], self.roles[place]
        self.shares = {id_: share for id_, share in self.shares.items() if place not in (share.of, share.with_)}
        self.gone.append(place)

    # -- memberships --------------------------------------------------------------------------------------

    def set_role(self, actor: str | None, *, object: ObjectRef, subject: SubjectRef, role: Role) -> None:  # noqa: A002
        self._may_set_roles(actor, object.id)
        refuse(actor == subject.id, Reason.OWN_ROLE)
        if is_group(subject.id) and subject.id not in self.roles[object.id]:
            self._sees_group(actor, subject.id)
        self._put(actor, object.id, subject.id, role)

    def set_roles(self, actor: str | None, *, assignments: Sequence[RoleAssignment]) -> None:
        for given in assignments:
            self.set_role(actor, object=given.object, subject=given.subject, role=given.role)

    def transfer_ownership(self, actor: str | None, *, object: ObjectRef, from_user: str, to_user: str) -> None:  # noqa: A002
        place = object.id
        refuse(from_user == to_user, Reason.INVALID_FIELD)
        self._may(actor, place, OWN, Reason.ONLY_OWNER_MAKES_OWNERS, root_is_the_tenants=True)
        self._in_use(place)
        self._members_change(place)
        refuse(self.roles[place].get(from_user) is not Role.OWNER, Reason.NOT_FOUND)
        refuse(actor == to_user, Reason.OWN_ROLE)
        self._put(actor, place, to_user, Role.OWNER)
        self._put(actor, place, from_user, Role.ADMIN)

    def remove_member(
        self,
        actor: str | None,
        *,
        object: ObjectRef,  # noqa: A002
        subject: SubjectRef,
        allow_missing: bool,
        transfer_to: str | None,
    ) -> None:
        """From the tenant: with every role of a user in it, what is archived included, out of its groups, and with what
        is theirs alone."""
        user = subject.id
        self._may_remove(actor, object.id, user)
        refuse(user not in self.roles[object.id] and not allow_missing, Reason.NOT_FOUND)
        leaves = object.id == self.id and not is_group(user)
        everywhere = [self.id, *sorted(self.places)] if leaves else [object.id]
        held = [at for at in everywhere if user in self.roles[at]]
        refuse(bool(held) and transfer_to == user, Reason.INVALID_FIELD)
        personal = [at for at in held if at in self.places and self.places[at].personal]
        for at in held:  # by the rights that the actor has now, and not by what is left of them halfway
            if at not in personal:
                self._let_go(actor, at, user, transfer_to)
        for at in held:
            del self.roles[at][user]
        for at in personal:
            self.forget(at)
        if leaves:
            for team in self.groups.values():
                team.members.pop(user, None)

    def _let_go(self, actor: str | None, at: str, user: str, heir: str | None) -> None:
        role = self.roles[at][user]
        if role is Role.OWNER and actor != user:
            self._makes_owners(actor, at)
        self._creator_stays(actor, at, user)
        if self.is_last(at, user):
            refuse(heir is None, self.stays_held(at))
            refuse(heir == actor, Reason.OWN_ROLE)
            self._makes_owners(actor, at)
            self._may_hold(heir)
            refuse(not self.people.is_active(heir or ""), Reason.USER_SUSPENDED)
            self.roles[at][heir or ""] = role

    def _put(self, actor: str | None, at: str, user: str, role: Role) -> None:
        before = self.roles[at].get(user)
        if Role.OWNER in (role, before):
            self._makes_owners(actor, at)
        if before is not role:
            self._may_hold(user)
        if before not in (None, role):
            self._creator_stays(actor, at, user)
            refuse(self.is_last(at, user), self.stays_held(at))
        self.roles[at][user] = role

    # -- shares -------------------------------------------------------------------------------------------

    def create_share(
        self, actor: str | None, *, workspace_id: str, with_workspace_id: str, role: Role, expire_time: object
    ) -> None:
        refuse(workspace_id == with_workspace_id, Reason.INVALID_FIELD)
        self._may(actor, workspace_id, OWN, root_is_the_tenants=True)
        self._in_use(workspace_id)
        self._may(actor, with_workspace_id, VIEW)
        self._in_use(with_workspace_id)
        self._members_change(workspace_id)
        self._members_change(with_workspace_id)
        there = any((share.of, share.with_) == (workspace_id, with_workspace_id) for share in self.shares.values())
        refuse(there, Reason.SHARE_EXISTS)
        self.shares[self.next_id] = Shared(workspace_id, with_workspace_id, role, expire_time is not None)

    def revoke_share(self, actor: str | None, share_id: str) -> None:
        self._enter(actor)
        share = self.shares.get(share_id)
        sees = [at for at in (share.of, share.with_) if actor is None or self.rank(actor, at)] if share else []
        if share is None or not sees:
            raise Refused(Reason.NOT_FOUND)
        self._may(actor, share.of, OWN, root_is_the_tenants=True)
        self._in_use(share.of)
        del self.shares[share_id]

    def expire(self, share_ids: Sequence[str]) -> None:
        """One change for all of a tenant's that are due."""
        for share_id in share_ids:
            del self.shares[share_id]
        self.head += 1

    # -- groups -------------------------------------------------------------------------------------------

    def create_group(self, actor: str | None, *, slug: str, name: str, external_id: str) -> None:
        self._may_change_tenant(actor)
        refuse(any(team.slug == slug for team in self.groups.values()), Reason.SLUG_TAKEN)
        self.groups[self.next_id] = Team(slug)

    def update_group(self, actor: str | None, group: str, *, name: str | None, external_id: str | None) -> None:
        self._manages(actor, group)

    def delete_group(self, actor: str | None, group: str) -> None:
        self._manages(actor, group)
        del self.groups[group]
        for held in (*self.roles.values(), *(team.members for team in self.groups.values())):
            held.pop(group, None)

    def add_group_member(self, actor: str | None, group: str, *, subject: SubjectRef, manager: bool) -> None:
        self._manages(actor, group)
        self._admit(actor, group, {subject.id: manager})

    def remove_group_member(self, actor: str | None, group: str, *, subject: SubjectRef, allow_missing: bool) -> None:
        """Leaving takes nothing but to see what one leaves."""
        if actor == subject.id:
            self._enter(actor)
            self._sees_group(actor, group)
        else:
            self._manages(actor, group)
        refuse(subject.id not in self.groups[group].members and not allow_missing, Reason.NOT_FOUND)
        self.groups[group].members.pop(subject.id, None)

    def set_group_members(self, actor: str | None, group: str, *, members: dict[SubjectRef, bool]) -> None:
        self._manages(actor, group)
        wanted = {subject.id: manager for subject, manager in members.items()}
        self._admit(actor, group, wanted)
        self.groups[group].members = {id_: m for id_, m in self.groups[group].members.items() if id_ in wanted}

    def _admit(self, actor: str | None, group: str, wanted: dict[str, bool]) -> None:
        members = self.groups[group].members
        changing = {id_: manager for id_, manager in wanted.items() if members.get(id_) is not manager}
        new_groups = [id_ for id_ in changing if is_group(id_)]
        for id_ in new_groups:
            self._sees_group(actor, id_)
        refuse(any(group in self.inside(id_) for id_ in new_groups), Reason.CYCLE)
        height = max(map(self.levels_below, new_groups), default=0)
        refuse(self.levels_above(group) + height > MAX_GROUP_DEPTH, Reason.TOO_DEEP)
        for id_ in changing:
            self._may_hold(id_)
        members |= changing

    def _sees_group(self, actor: str | None, group: str) -> None:
        refuse(group not in self.groups, Reason.NOT_FOUND)
        if actor is not None and not self.is_admin(actor):
            refuse(group not in self.groups_of(actor), Reason.NOT_FOUND)

    def _manages(self, actor: str | None, group: str) -> None:
        self._enter(actor)
        self._sees_group(actor, group)
        if actor is not None and not self.is_admin(actor):
            refuse(not self.groups[group].members.get(actor), Reason.ROLE_MISSING)

    # -- rights and guards --------------------------------------------------------------------------------

    def _belongs(self, actor: str | None) -> None:
        if actor is not None:
            refuse(not self.people.is_active(actor) or not self.held(actor), Reason.NOT_FOUND)

    def _enter(self, actor: str | None) -> None:
        self._belongs(actor)
        refuse(self.suspended, Reason.TENANT_SUSPENDED)

    def _may(
        self,
        actor: str | None,
        place: str,
        needed: int,
        why_not: Reason = Reason.ROLE_MISSING,
        *,
        root_is_the_tenants: bool = False,
    ) -> None:
        self._enter(actor)
        refuse(place not in self.places, Reason.NOT_FOUND)
        if actor is None:
            return
        refuse(self.rank(actor, place) == 0, Reason.NOT_FOUND)
        if root_is_the_tenants and place == self.root:
            refuse(not self.is_admin(actor), Reason.ROLE_MISSING)
        refuse(self.rank(actor, place) < needed, why_not)

    def _may_change_tenant(self, actor: str | None) -> None:
        self._enter(actor)
        if actor is not None:
            refuse(not self.roles_of(actor, self.id), Reason.NOT_FOUND)
            refuse(not self.is_admin(actor), Reason.ROLE_MISSING)

    def _may_set_roles(self, actor: str | None, object_: str) -> None:
        if object_ == self.id:
            self._may_change_tenant(actor)
        else:
            self._may(actor, object_, ADMINISTER, root_is_the_tenants=True)
            self._in_use(object_)
            self._members_change(object_)

    def _may_remove(self, actor: str | None, object_: str, user: str) -> None:
        """Leaving takes nothing but to see what one leaves."""
        if actor != user:
            self._may_set_roles(actor, object_)
        elif object_ == self.id:
            self._enter(actor)
        else:
            self._may(actor, object_, VIEW)
            self._in_use(object_)
            self._members_change(object_)

    def _makes_owners(self, actor: str | None, object_: str) -> None:
        if actor is not None and not self.is_admin(actor):
            refuse(object_ in (self.id, self.root), Reason.ROLE_MISSING)
            refuse(self.rank(actor, object_) < OWN, Reason.ONLY_OWNER_MAKES_OWNERS)

    def _in_use(self, place: str) -> None:
        refuse(self.places[place].archived_with is not None, Reason.WORKSPACE_ARCHIVED)

    def _members_change(self, place: str) -> None:
        refuse(bool(self.places[place].personal), Reason.PERSONAL_MEMBERSHIP_FIXED)

    def _slug_is_free(self, parent: str, slug: str) -> None:
        taken = any(place.parent == parent and place.slug == slug for place in self.places.values())
        refuse(taken, Reason.SLUG_TAKEN)

    def _creator_stays(self, actor: str | None, object_: str, user: str) -> None:
        made_by = self.places[object_].creator if object_ in self.places else None
        owns = self.roles[object_][user] is Role.OWNER
        refuse(owns and user == made_by and actor not in (None, user), Reason.CREATOR_STAYS)

    def _may_hold(self, user: str | None) -> None:
        refuse(self.people.of(user) is UserStatus.DEACTIVATED, Reason.USER_DEACTIVATED)

    def is_last(self, object_: str, user: str) -> bool:
        """Whether the user, of those who are active by themselves alone, holds what the object must not be without."""
        guarded = Role.ADMIN if object_ == self.id else Role.OWNER
        held = self.roles[object_].items()
        return [u for u, role in held if role is guarded and self.people.is_active(u) and not is_group(u)] == [user]

    def stays_held(self, object_: str) -> Reason:
        return Reason.LAST_ADMIN if object_ == self.id else Reason.LAST_OWNER


def encoded(id_: str) -> str:
    """An id in SpiceDB's alphabet: every other byte of its UTF-8 as =XX."""
    return "".join(c if c in PLAIN else "".join(f"={byte:02X}" for byte in c.encode()) for c in id_)
