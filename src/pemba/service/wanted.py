"""The tuples that the records stand for: all of them in pages, or those among given ones, now."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from pemba import projection
from pemba.model import GroupId, SubjectRef, SystemScope, TenantId, Tuple, Workspace, WorkspaceId, is_typeid
from pemba.storage import tuple_sources
from pemba.storage.database import Database, SystemTransaction, Transaction
from pemba.storage.tuple_sources import (
    PAGE,
    GroupMemberName,
    MembershipName,
    ProjectedMember,
    ProjectedRole,
    ProjectedShare,
    ShareName,
)

R = TypeVar("R")
Read = Callable[[SystemTransaction, TenantId | None, R | None], Awaitable[list[R]]]


async def pages(database: Database, tenant_id: TenantId | None) -> AsyncGenerator[set[Tuple]]:
    """Every tuple that the records of the tenant, or (None) of all of them, stand for: those of 1,000 records a page.

    Each page is read in a transaction of its own, so it is no snapshot: who compares looks a second time.
    """
    async for places in _records(database, tenant_id, tuple_sources.workspaces_after):
        yield of_workspaces(places)
    async for on_tenants in _records(database, tenant_id, tuple_sources.on_tenants_after):
        yield of_roles(on_tenants)
    async for on_workspaces in _records(database, tenant_id, tuple_sources.on_workspaces_after):
        yield of_roles(on_workspaces)
    async for shared in _records(database, tenant_id, tuple_sources.shares_after):
        yield of_shares(shared)
    async for members in _records(database, tenant_id, tuple_sources.group_members_after):
        yield of_members(members)


async def among(tx: Transaction, tuples: Sequence[Tuple]) -> set[Tuple]:
    """These tuples as the records have them, those that they stand for at all; an expiration may be another.

    What each could come from is read by its key and projected.
    """
    workspaces: set[tuple[TenantId, WorkspaceId]] = set()
    memberships: set[MembershipName] = set()
    shares: set[ShareName] = set()
    members: set[GroupMemberName] = set()
    for stored in tuples:
        tenant_id = projection.owner_of(stored)
        if tenant_id is None:
            continue
        resource = projection.for_callers(tenant_id, SubjectRef(stored.resource.type, stored.resource.id))
        subject = projection.for_callers(tenant_id, stored.subject)
        if resource.type == "workspace" and is_typeid("ws", resource.id):
            workspaces.add((tenant_id, WorkspaceId(resource.id)))
            if subject.type == "workspace":
                shares.add((tenant_id, WorkspaceId(resource.id), WorkspaceId(subject.id)))
            else:
                memberships.add((tenant_id, WorkspaceId(resource.id), subject))
        elif resource == SubjectRef("tenant", tenant_id):
            memberships.add((tenant_id, None, subject))
        elif resource.type == "group" and is_typeid("grp", resource.id):
            members.add((tenant_id, GroupId(resource.id), subject))
    found = of_workspaces(await tuple_sources.workspaces_named(tx, list(workspaces)))
    found |= of_roles(await tuple_sources.memberships_named(tx, list(memberships)))
    found |= of_shares(await tuple_sources.shares_named(tx, list(shares)))
    found |= of_members(await tuple_sources.group_members_named(tx, list(members)))
    named = {t.plain for t in tuples}
    return {t for t in found if t.plain in named}


def of_workspaces(workspaces: Iterable[Workspace]) -> set[Tuple]:
    return {t for workspace in workspaces for t in projection.workspace_tuples(workspace)}


def of_roles(roles: Iterable[ProjectedRole]) -> set[Tuple]:
    return {
        t
        for role in roles
        for t in projection.membership_tuples(
            role.membership, subject_is_active=role.subject_is_active, object_is_archived=role.object_is_archived
        )
    }


def of_shares(shares: Iterable[ProjectedShare]) -> set[Tuple]:
    return {
        t for each in shares for t in projection.share_tuples(each.share, either_is_archived=each.either_is_archived)
    }


def of_members(members: Iterable[ProjectedMember]) -> set[Tuple]:
    return {
        t for each in members for t in projection.group_tuples(each.member, subject_is_active=each.subject_is_active)
    }


async def _records(database: Database, tenant_id: TenantId | None, read: Read[R]) -> AsyncGenerator[list[R]]:
    last: R | None = None
    while True:
        async with database.begin(SystemScope("compare SpiceDB with the records")) as tx:
            page = await read(tx, tenant_id, last)
        if page:
            yield page
        if len(page) < PAGE:
            return
        last = page[-1]
