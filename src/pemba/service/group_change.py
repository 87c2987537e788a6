"""What one mutation does to the members of a group: guards, records, and the tuples before and after."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import PreconditionFailed, Reason
from pemba.model import (
    MAX_GROUP_DEPTH,
    ApiKeyId,
    Caller,
    Group,
    GroupId,
    GroupMember,
    Seq,
    SubjectRef,
    Tuple,
    TupleOperation,
    User,
    UserId,
)
from pemba.service import guards, key_roles, rights
from pemba.service.role_change import HELD
from pemba.storage import group_members, groups, memberships, users
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS

GROUP = TypeAdapter(Group)


class GroupChange:
    """Changes the members of one group, under the tenant's head; `operations` is what that comes to."""

    def __init__(self, tx: TenantTransaction, caller: Caller, seq: Seq, group_id: GroupId) -> None:
        self._tx = tx
        self._caller = caller
        self._seq = seq
        self._group_id = group_id
        self._old: set[Tuple] = set()
        self._new: set[Tuple] = set()
        self.added: list[UserId] = []
        """Who is in the group now and was not."""
        self.before: list[GroupMember] = []
        self.after: list[GroupMember] = []

    async def put(
        self, wanted: Mapping[SubjectRef, bool], present: Mapping[SubjectRef, GroupMember]
    ) -> dict[SubjectRef, GroupMember]:
        """Add these, each a manager or not, or change whether they are; `present` has those of them that are in it.

        Raises NotFound (group), PreconditionFailed (CYCLE, TOO_DEEP, USER_DEACTIVATED).
        """
        changing = {s: manager for s, manager in wanted.items() if s not in present or present[s].manager != manager}
        if not changing:
            return dict(present)
        await self._require_place([GroupId(s.id) for s in changing if s.type == "group"])
        for subject in changing:
            if subject.type == "api_key":
                await key_roles.require_may_hold(self._tx, self._caller, ApiKeyId(subject.id))
        found = await users.ensure_locked(self._tx, [UserId(s.id) for s in changing if s.type == "user"])
        for user in found.values():
            guards.require_may_hold(user)
        put = await group_members.put(self._tx, self._group_id, changing, self._caller.acting_user)
        for member in put:
            self._note(present.get(member.subject), member, found)
        return {**present, **{member.subject: member for member in put}}

    async def remove(self, members: Sequence[GroupMember]) -> None:
        """Take these out."""
        if members:
            await group_members.delete(self._tx, self._group_id, [member.subject for member in members])
        for member in members:
            self.before.append(member)
            self._old |= _tuples(member)

    async def end(self) -> None:
        """Where anything changed the group has another etag."""
        if self.before or self.after:
            await groups.touch(self._tx, [self._group_id], self._seq)

    @property
    def operations(self) -> list[TupleOperation]:
        return projection.difference(self._old, self._new)

    def audited(self, members: Sequence[GroupMember]) -> object:
        return HELD.dump_python(tuple(members), mode="json")

    def _note(self, before: GroupMember | None, after: GroupMember, found: Mapping[UserId, User]) -> None:
        old, new = _tuples(before) if before else frozenset(), _tuples(after)
        self._old |= old
        # Of a user whose tuples are withdrawn none comes, and none that may still be there goes but by this change.
        projects = after.subject.type != "user" or found[UserId(after.subject.id)].has_tuples
        self._new |= new if projects else new & old
        self.after.append(after)
        if before is not None:
            self.before.append(before)
        elif after.subject.type == "user":
            self.added.append(UserId(after.subject.id))

    async def _require_place(self, ids: Collection[GroupId]) -> None:
        """Raises NotFound where the caller may not see one, PreconditionFailed (CYCLE, TOO_DEEP)."""
        if not ids:
            return
        await rights.visible_groups(self._tx, self._caller, ids)
        height, comes_back = await group_members.height(self._tx, list(ids), self._group_id)
        if comes_back:
            raise PreconditionFailed(
                Reason.CYCLE, "subject: the new member is the group itself, or has the group in it"
            )
        depth = await group_members.depth(self._tx, self._group_id) + height
        if depth > MAX_GROUP_DEPTH:
            raise PreconditionFailed(
                Reason.TOO_DEEP,
                f"the groups would be {depth} levels deep; they may be {MAX_GROUP_DEPTH}",
                {"max_depth": str(MAX_GROUP_DEPTH)},
            )


async def delete(tx: TenantTransaction, group: Group, seq: Seq) -> list[TupleOperation]:
    """Delete the group with its members, its roles, and its places in other groups: the tuples that go.

    Those of users who are not active too: what is taken out must be all that may be in.
    Raises PreconditionFailed (CHANGE_TOO_LARGE).
    """
    limit = MAX_CHANGE_OPERATIONS + 1
    places = await group_members.of_subject(tx, SubjectRef("group", group.id), limit)
    members = await everybody_in(tx, group.id)
    roles = await memberships.of_group(tx, group.id, limit)
    old = {t for member in (*places, *members) for t in _tuples(member)}
    for role, archived in roles:
        old |= projection.membership_tuples(role, subject_is_active=True, object_is_archived=archived)
    if len(old) > MAX_CHANGE_OPERATIONS:
        raise _too_large()
    await memberships.delete_of_group(tx, group.id)
    await group_members.delete_of_group(tx, group.id)
    await groups.touch(tx, [place.group_id for place in places], seq)
    await groups.delete(tx, group.id)
    return projection.difference(old, ())


async def everybody_in(tx: TenantTransaction, group_id: GroupId) -> list[GroupMember]:
    """Every direct member.  Raises PreconditionFailed (CHANGE_TOO_LARGE) beyond what one change can take."""
    found = await group_members.list_after(tx, group_id, ("", ""), MAX_CHANGE_OPERATIONS + 1)
    if len(found) > MAX_CHANGE_OPERATIONS:
        raise _too_large()
    return found


def _tuples(member: GroupMember) -> frozenset[Tuple]:
    return projection.group_tuples(member, subject_is_active=True)


def _too_large() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.CHANGE_TOO_LARGE,
        f"the group has more than {MAX_CHANGE_OPERATIONS} members and roles; remove some with RemoveGroupMember first",
    )
