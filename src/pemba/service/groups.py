"""Groups: users and other groups under one name, which can hold roles as a user can.

Whatever a group holds, those in it hold, through any number of groups in groups up to 10 levels.  Cycles and depth are
checked under the tenant's head, so of two nestings that would each close a circle one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from pemba.errors import NotFound, invalid_field
from pemba.model import Caller, Group, GroupId, GroupMember, Seq, SubjectRef, TenantId, TenantScope
from pemba.service import group_change, rights
from pemba.service.group_change import GROUP, GroupChange, everybody_in
from pemba.service.ids import new_group_id
from pemba.service.mutation import Draft, MutationOptions, Mutations, cascade, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.workspace_search import TextMatch
from pemba.storage import group_members, groups, outbox
from pemba.storage.database import TenantTransaction

T = TypeVar("T")

_MEMBER = TypeAdapter(GroupMember)
_REMOVED: TypeAdapter[GroupMember | None] = TypeAdapter(GroupMember | None)

MAX_SET_MEMBERS = 10_000
FIELDS = tuple(groups.FIELDS)
"""What a list of groups can be filtered by."""


@dataclass(frozen=True, slots=True)
class GroupSearch:
    """What a list of groups is asked for: those with this direct member, and with these texts in them."""

    member: SubjectRef | None = None
    matches: tuple[TextMatch, ...] = ()


class GroupService:
    """The rules of groups."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_group(
        self, caller: Caller, tenant_id: TenantId, *, slug: str, name: str, external_id: str, options: MutationOptions
    ) -> Changed[Group]:
        """A group without members.  Raises AlreadyExists (SLUG_TAKEN, EXTERNAL_ID_TAKEN)."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Group]:
            await rights.require_tenant_admin(tx, caller, "create a group")
            return _draft(None, await groups.insert(tx, new_group_id(), slug, name, external_id, seq))

        return await self._mutations.run(caller, tenant_id, options, GROUP, body)

    async def get_group(self, caller: Caller, tenant_id: TenantId, *, by: str, value: str) -> Found[Group]:
        """By its `id`, `slug` or `external_id`.  Raises NotFound, also for whom it does not concern."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            group = await groups.get_by(tx, by, value)
            if group is None or not await rights.sees_group(tx, caller, group.id):
                raise NotFound(f"group {value}")
        return Found(group, self._signer.token({tenant_id: head}))

    async def list_groups(
        self, caller: Caller, tenant_id: TenantId, *, search: GroupSearch, page_size: int, page_token: str
    ) -> Page[Group]:
        """The groups that the caller may see, by slug.  Raises NotFound for who has no part of the tenant."""
        arguments = ["ListGroups", tenant_id, astuple(search), caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or [""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await rights.require_belongs(tx, caller)
            found = await groups.list_after(
                tx,
                seen_by=await rights.group_viewer(tx, caller),
                member=search.member,
                has=_texts(search, whole=False),
                equal=_texts(search, whole=True),
                after=position[0],
                limit=page_size + 1,
            )
        shown = tuple(found[:page_size])
        more = self._signer.page_token(arguments, [shown[-1].slug]) if len(found) > page_size else ""
        return Page(shown, more, self._signer.token({tenant_id: head}))

    async def update_group(
        self,
        caller: Caller,
        tenant_id: TenantId,
        group_id: GroupId,
        *,
        name: str | None,
        external_id: str | None,
        options: MutationOptions,
    ) -> Changed[Group]:
        """None leaves a field, an empty external id takes it away.  Raises AlreadyExists (EXTERNAL_ID_TAKEN)."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Group]:
            before = await rights.managed_group(tx, caller, group_id, "update it")
            require_etag(before.etag, options)
            wanted = (
                before.name if name is None else name,
                before.external_id if external_id is None else external_id,
            )
            if wanted == (before.name, before.external_id):
                return _draft(before, before)
            return _draft(before, await groups.update(tx, group_id, *wanted, seq))

        return await self._mutations.run(caller, tenant_id, options, GROUP, body)

    async def delete_group(
        self, caller: Caller, tenant_id: TenantId, group_id: GroupId, *, options: MutationOptions
    ) -> Changed[Group]:
        """With all its roles and its places in other groups.  The record as it was."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Group]:
            before = await rights.managed_group(tx, caller, group_id, "delete it")
            require_etag(before.etag, options)
            operations = await group_change.delete(tx, before, seq)
            was = GROUP.dump_python(before, mode="json")
            events = cascade(tuples=len(operations))
            return Draft(before, operations, f"group:{group_id}", was, events=events)

        return await self._mutations.run(caller, tenant_id, options, GROUP, body)

    async def add_group_member(
        self,
        caller: Caller,
        tenant_id: TenantId,
        group_id: GroupId,
        *,
        subject: SubjectRef,
        manager: bool,
        options: MutationOptions,
    ) -> Changed[GroupMember]:
        """Add a user or a group, or change whether a user manages it.  `options.etag` is the group's.

        Raises NotFound (group), PreconditionFailed (CYCLE, TOO_DEEP, USER_DEACTIVATED).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[GroupMember]:
            group = await rights.managed_group(tx, caller, group_id, "change its members")
            require_etag(group.etag, options)
            held = await group_members.get(tx, group_id, subject)
            change = GroupChange(tx, caller, seq, group_id)
            members = await change.put({subject: manager}, {subject: held} if held else {})
            return await _changed(change, members[subject], group_id)

        return await self._mutations.run(caller, tenant_id, options, _MEMBER, body)

    async def remove_group_member(
        self,
        caller: Caller,
        tenant_id: TenantId,
        group_id: GroupId,
        *,
        subject: SubjectRef,
        allow_missing: bool,
        options: MutationOptions,
    ) -> Changed[GroupMember | None]:
        """Take a direct member out; the record as it was.  Everybody may leave.  `options.etag` is the group's.

        Raises NotFound unless `allow_missing`.
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[GroupMember | None]:
            if subject == SubjectRef("user", caller.acting_user or ""):
                group = (await rights.visible_groups(tx, caller, [group_id]))[group_id]
            else:
                group = await rights.managed_group(tx, caller, group_id, "change its members")
            require_etag(group.etag, options)
            held = await group_members.get(tx, group_id, subject)
            if held is None and not allow_missing:
                raise NotFound(f"{subject} in group:{group_id}")
            change = GroupChange(tx, caller, seq, group_id)
            await change.remove([held] if held else [])
            return await _changed(change, held, group_id)

        return await self._mutations.run(caller, tenant_id, options, _REMOVED, body)

    async def set_group_members(
        self,
        caller: Caller,
        tenant_id: TenantId,
        group_id: GroupId,
        *,
        members: Mapping[SubjectRef, bool],
        options: MutationOptions,
    ) -> Changed[Group]:
        """Make these, each a manager or not, all the direct members, at once; at most 10,000.  The group after it.

        Who stays keeps the time of joining.  Raises as `add_group_member`.
        """
        if len(members) > MAX_SET_MEMBERS:
            raise invalid_field("members", f"takes at most {MAX_SET_MEMBERS}")

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Group]:
            group = await rights.managed_group(tx, caller, group_id, "change its members")
            require_etag(group.etag, options)
            present = {member.subject: member for member in await everybody_in(tx, group_id)}
            change = GroupChange(tx, caller, seq, group_id)
            await change.remove([member for subject, member in present.items() if subject not in members])
            await change.put(members, {s: member for s, member in present.items() if s in members})
            draft = await _changed(change, group, group_id)
            after = await groups.get_by(tx, "id", group_id)
            assert after is not None  # the head is held
            return Draft(after, draft.operations, draft.object_text, draft.before, draft.after, added=draft.added)

        return await self._mutations.run(caller, tenant_id, options, GROUP, body)

    async def list_group_members(
        self, caller: Caller, tenant_id: TenantId, group_id: GroupId, *, page_size: int, page_token: str
    ) -> Page[GroupMember]:
        """The direct members, by subject.  Raises NotFound."""
        arguments = ["ListGroupMembers", tenant_id, group_id, caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or ["", ""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await rights.visible_groups(tx, caller, [group_id])
            found = await group_members.list_after(tx, group_id, (position[0], position[1]), page_size + 1)
        shown = tuple(found[:page_size])
        more = ""
        if len(found) > page_size:
            more = self._signer.page_token(arguments, [shown[-1].subject.type, shown[-1].subject.id])
        return Page(shown, more, self._signer.token({tenant_id: head}))


def _texts(search: GroupSearch, *, whole: bool) -> dict[str, list[str]]:
    return {field: [m.text for m in search.matches if m.field == field and m.whole is whole] for field in FIELDS}


def _draft(before: Group | None, after: Group) -> Draft[Group]:
    """Of what no check can see."""
    old = None if before is None else GROUP.dump_python(before, mode="json")
    return Draft(after, (), f"group:{after.id}", old, GROUP.dump_python(after, mode="json"))


async def _changed(change: GroupChange, record: T, group_id: GroupId) -> Draft[T]:
    """What a change of members comes to, once all of it is done."""
    await change.end()
    before, after = change.audited(change.before), change.audited(change.after)
    return Draft(record, change.operations, f"group:{group_id}", before, after, added=change.added)
