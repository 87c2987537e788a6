"""API keys as holders of roles and members of groups: which may be, and what goes when one ends."""

from __future__ import annotations

from datetime import datetime

from pemba import projection
from pemba.errors import NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import ApiKey, ApiKeyId, Caller, Permission, Seq, SubjectRef, Tuple, WorkspaceId
from pemba.service import rights
from pemba.storage import api_keys, group_members, groups, memberships
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS


async def require_may_hold(tx: TenantTransaction, caller: Caller, id_: ApiKeyId) -> None:
    """Whether the key may get a role or a place in a group; a tenant admin gives it.

    Raises NotFound, PreconditionFailed (API_KEY_ENDED), InvalidRequest (a user's key).
    """
    key = await api_keys.get(tx, tx.tenant_id, id_)
    if await rights.on_tenant(tx, caller) is not Permission.ADMINISTER or key is None:
        raise NotFound(f"API key {id_}")
    if key.user_id is not None:
        raise invalid_field("subject", "takes a key that is no user's: a user's key may do what the user may")
    if has_ended(key, await api_keys.now(tx)):
        raise PreconditionFailed(Reason.API_KEY_ENDED, "the key was revoked, or has expired; make another one")


def has_ended(key: ApiKey, now: datetime) -> bool:
    """Whether it was revoked or has expired."""
    return key.revoke_time is not None or (key.expire_time is not None and key.expire_time <= now)


async def withdraw(tx: TenantTransaction, id_: ApiKeyId, seq: Seq) -> set[Tuple]:
    """Take every role and every place in a group from the key, under the tenant's head: the tuples that go.

    Raises PreconditionFailed (CHANGE_TOO_LARGE).
    """
    limit = MAX_CHANGE_OPERATIONS + 1
    roles = await memberships.of_key(tx, id_, limit)
    seats = await group_members.of_subject(tx, SubjectRef("api_key", id_), limit)
    if len(roles) + len(seats) > MAX_CHANGE_OPERATIONS:
        raise PreconditionFailed(
            Reason.CHANGE_TOO_LARGE,
            f"the key has more than {MAX_CHANGE_OPERATIONS} roles; remove some with RemoveMember first",
        )
    old = {t for seat in seats for t in projection.group_tuples(seat, subject_is_active=True)}
    for role, archived in roles:
        old |= projection.membership_tuples(role, subject_is_active=True, object_is_archived=archived)
    await memberships.delete_of_key(tx, id_)
    await group_members.delete_of_key(tx, id_)
    await groups.touch(tx, [seat.group_id for seat in seats], seq)
    return old


async def delete_of_workspace(
    tx: TenantTransaction, workspace_id: WorkspaceId, seq: Seq
) -> tuple[set[Tuple], list[ApiKeyId]]:
    """Delete the keys that are confined to the workspace: the tuples that go with them, and which keys they were."""
    ids = await api_keys.of_workspace(tx, workspace_id)
    gone: set[Tuple] = set()
    for id_ in ids:
        gone |= await withdraw(tx, id_, seq)
        await api_keys.delete(tx, id_)
    return gone, ids
