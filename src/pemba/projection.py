"""Records to tuples: pure, and the only place that knows which tuples a record stands for.

Mutations write the difference between what the records projected to before and after; a repair compares the whole
of it with SpiceDB.  Both use this module, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable

from pemba.model import (
    GLOBAL_TYPES,
    GroupMember,
    Membership,
    ObjectRef,
    Operation,
    Share,
    SubjectRef,
    TenantId,
    Tuple,
    TupleOperation,
    Workspace,
    WorkspaceKind,
    decode_id,
    is_typeid,
    spicedb_id,
)


def object_in_spicedb(tenant_id: TenantId, ref: ObjectRef) -> ObjectRef:
    """An object of the tenant by the id that it has in SpiceDB."""
    return ObjectRef(ref.type, spicedb_id(tenant_id, ref.type, ref.id))


def subject_in_spicedb(tenant_id: TenantId, ref: SubjectRef) -> SubjectRef:
    """A subject by the id that it has in SpiceDB; a group stands for its members."""
    relation = "member" if ref.type == "group" else ref.relation
    return SubjectRef(ref.type, spicedb_id(tenant_id, ref.type, ref.id), relation)


def workspace_tuples(workspace: Workspace) -> frozenset[Tuple]:
    """The place of a workspace in the graph; what is archived has none."""
    if workspace.archive_time is not None:
        return frozenset()
    itself = _workspace(workspace.tenant_id, workspace.id)
    if workspace.kind is WorkspaceKind.ROOT:
        tenant = spicedb_id(workspace.tenant_id, "tenant", workspace.tenant_id)
        return frozenset({Tuple(itself, "tenant", SubjectRef("tenant", tenant))})
    if workspace.parent_id is None:
        return frozenset()
    parent = _workspace(workspace.tenant_id, workspace.parent_id)
    return frozenset({Tuple(itself, "parent", SubjectRef(parent.type, parent.id))})


def membership_tuples(membership: Membership, *, subject_is_active: bool, object_is_archived: bool) -> frozenset[Tuple]:
    """The role of a subject; none of a user who is not active, and none on what is archived."""
    if not subject_is_active or object_is_archived:
        return frozenset()
    subject = subject_in_spicedb(membership.tenant_id, membership.subject)
    return frozenset({Tuple(object_in_spicedb(membership.tenant_id, membership.object), membership.role, subject)})


def share_tuples(share: Share, *, either_is_archived: bool) -> frozenset[Tuple]:
    """The role of a workspace's roster on another; none where either of them is archived.

    Whether it is due is nobody's to say here: the tuple says itself until when it counts.
    """
    if either_is_archived:
        return frozenset()
    roster = SubjectRef("workspace", spicedb_id(share.tenant_id, "workspace", share.with_workspace_id), "roster")
    shared = _workspace(share.tenant_id, share.workspace_id)
    return frozenset({Tuple(shared, f"{SHARED}{share.role}", roster, share.expire_time)})


SHARED = "shared_"
"""Before the role: the relation of a share."""


def group_tuples(member: GroupMember, *, subject_is_active: bool) -> frozenset[Tuple]:
    """The place of a member in a group, and that of its manager; none of a user who is not active."""
    if not subject_is_active:
        return frozenset()
    group = object_in_spicedb(member.tenant_id, ObjectRef("group", member.group_id))
    subject = subject_in_spicedb(member.tenant_id, member.subject)
    relations = ("member", "manager") if member.manager else ("member",)
    return frozenset(Tuple(group, relation, subject) for relation in relations)


def difference(before: Iterable[Tuple], after: Iterable[Tuple]) -> list[TupleOperation]:
    """What turns `before` into `after`: DELETEs first, each tuple once, in a stable order.

    One that differs in its expiration alone is touched, and not deleted first.
    """
    old, new = frozenset(before), frozenset(after)
    gone = {t.plain for t in old} - {t.plain for t in new}
    return [TupleOperation(Operation.DELETE, t) for t in sorted(gone, key=str)] + [
        TupleOperation(Operation.TOUCH, t) for t in sorted(new - old, key=str)
    ]


def _workspace(tenant_id: TenantId, workspace_id: str) -> ObjectRef:
    return ObjectRef("workspace", spicedb_id(tenant_id, "workspace", workspace_id))


TYPES = ("tenant", "workspace", "group")
"""The types on whose objects records stand for tuples: there whatever no record stands for is too much."""


def owner_of(stored: Tuple) -> TenantId | None:
    """The tenant whose stream writes this tuple; None where no tenant's object can have such an id."""
    tenant_id, slash, _ = stored.resource.id.partition("/")
    return TenantId(tenant_id) if slash and is_typeid("ten", tenant_id) else None


def for_callers(tenant_id: TenantId, ref: SubjectRef) -> SubjectRef:
    """The inverse of `subject_in_spicedb`, for objects too.

    What Pemba never encodes (an id that is not printable, another tenant's) stays as SpiceDB has it.
    """
    plain = ref.id if ref.type in GLOBAL_TYPES else ref.id.removeprefix(f"{tenant_id}/")
    try:
        id_ = decode_id(plain)
    except ValueError:
        return ref
    is_ours = id_.isprintable() and spicedb_id(tenant_id, ref.type, id_) == ref.id
    return SubjectRef(ref.type, id_, ref.relation) if is_ours else ref
