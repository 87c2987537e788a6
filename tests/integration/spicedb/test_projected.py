"""Whatever a record can stand for, schema.zed has a relation for it, and no relation stands for nothing."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from itertools import product

from pemba import projection
from pemba.model import (
    SHARE_ROLES,
    TENANT_ROLES,
    WORKSPACE_ROLES,
    GroupId,
    GroupMember,
    Membership,
    Operation,
    Role,
    Share,
    ShareId,
    SubjectRef,
    TenantId,
    Tuple,
    TupleOperation,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.spicedb import schema
from pemba.spicedb.client import SpiceDB

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS = (SubjectRef("user", "alice"), SubjectRef("api_key", "key_1"), SubjectRef("group", "grp_1", "member"))

Shape = tuple[str, str, str, bool]
"""Type and relation, type of the subject with its relation, and whether it expires."""


def everything(tenant_id: TenantId) -> list[Tuple]:
    """The tuples of each record that the tables' constraints let in."""
    workspace, other = WorkspaceId("ws_1"), WorkspaceId("ws_2")
    found: set[Tuple] = set()
    for kind in WorkspaceKind:
        parent = other if kind is WorkspaceKind.SHARED else None
        made = Workspace(tenant_id, workspace, parent, "x", "X", kind, None, None, None, NOW, NOW, "1")
        found |= projection.workspace_tuples(made)
    places = [(None, role) for role in TENANT_ROLES] + [(workspace, role) for role in WORKSPACE_ROLES]
    for (place, role), subject in product(places, SUBJECTS):
        if role is Role.OWNER and subject.type != "user":
            continue
        held = Membership(tenant_id, place, subject, role, NOW, NOW, None, "1")
        found |= projection.membership_tuples(held, subject_is_active=True, object_is_archived=False)
    for subject, manager in product(SUBJECTS, (False, True)):
        if manager and subject.type != "user":
            continue
        member = GroupMember(tenant_id, GroupId("grp_2"), subject, manager, NOW, None)
        found |= projection.group_tuples(member, subject_is_active=True)
    soon = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    for role, until in product(SHARE_ROLES, (None, soon)):
        shared = Share(tenant_id, ShareId("shr_1"), workspace, other, role, until, None, NOW, "1")
        found |= projection.share_tuples(shared, either_is_archived=False)
    return sorted(found, key=str)


def projected(tuples: list[Tuple]) -> set[Shape]:
    return {
        (
            each.resource.type,
            each.relation,
            f"{each.subject.type}#{each.subject.relation}".rstrip("#"),
            each.expiration is not None,
        )
        for each in tuples
    }


def declared(text: str) -> set[Shape]:
    """By every definition but that of the fences, which stand for no record."""
    found: set[Shape] = set()
    for name, body in re.findall(r"^definition (\w+) \{([^}]*)\}", text, re.MULTILINE):
        for relation, subjects in re.findall(r"^\s*relation (\w+): (.+?)\s*(?://.*)?$", body, re.MULTILINE):
            for subject in subjects.split("|") if name != "fence" else ():
                plain, _, expires = subject.strip().partition(" with ")
                found.add((name, relation, plain, expires == "expiration"))
    return found


async def test_every_tuple_that_a_record_can_stand_for_is_one_that_spicedb_takes(client: SpiceDB) -> None:
    tuples = everything(TenantId(f"ten_{secrets.token_hex(8)}"))
    for each in tuples:
        await client.write([TupleOperation(Operation.TOUCH, each)], metadata={}, timeout=5)


def test_the_relations_of_the_schema_are_those_that_records_stand_for() -> None:
    assert declared(schema.schema_text()) == projected(everything(TenantId("ten_1")))
