"""What happens in the domain is told in the log, with counts, once it is committed and not before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from pemba.errors import PreconditionFailed
from pemba.model import Role, UserId
from pemba.telemetry import Event
from tests.integration.conftest import SYSTEM, Parts

DOMAIN = {
    Event.TENANT_CREATED,
    Event.TENANT_STATUS_CHANGED,
    Event.USER_STATUS_CHANGED,
    Event.CASCADE_COMMITTED,
    Event.CASCADE_STARTED,
    Event.CASCADE_FINISHED,
}


@pytest.fixture
def told() -> Iterator[object]:
    """Takes what was told since it was last asked."""
    with structlog.testing.capture_logs() as lines:

        def take() -> list[dict[str, object]]:
            taken = [line for line in lines if line["event"] in DOMAIN]
            lines.clear()
            return taken

        yield take


def line(event: Event, method: str, about: str, **fields: object) -> dict[str, object]:
    return {"event": event, "log_level": "info", "method": method, "about": about, **fields}


async def test_k8_a_tenant_is_told_of_once_it_is_complete(parts: Parts, told) -> None:
    options = parts.options("CreateTenant", request_id="r", body_digest=b"x")
    for _ in range(2):  # a repetition makes nothing
        made = await parts.tenants.create_tenant(
            SYSTEM, slug="acme", name="Acme", first_admin=UserId("alice"), options=options
        )
    named = {"tenant_id": made.tenant.id, "slug": "acme", "root_workspace_id": made.root_workspace.id}
    assert told() == [line(Event.TENANT_CREATED, "CreateTenant", "tenant:acme", **named)]
    dry = parts.options("CreateTenant", validate_only=True)
    await parts.tenants.create_tenant(SYSTEM, slug="globex", name="G", first_admin=UserId("alice"), options=dry)
    assert told() == []


async def test_k8_what_a_change_takes_along_is_told_with_counts(parts: Parts, told) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.workspace(eng, "backend")
    await parts.role(tenant, "bob", Role.MEMBER)
    group = await parts.group(tenant, "team", "bob")
    await parts.role(eng, group, Role.VIEWER)
    told()
    options = parts.options("ArchiveWorkspace")
    with pytest.raises(PreconditionFailed):
        await parts.workspaces.archive_workspace(SYSTEM, tenant.id, root.id, options=options)
    assert told() == []
    await parts.workspaces.archive_workspace(SYSTEM, tenant.id, eng.id, options=options)
    await parts.workspaces.unarchive_workspace(SYSTEM, tenant.id, eng.id, options=parts.options("Unarchive"))
    await parts.groups.delete_group(SYSTEM, tenant.id, group.id, options=parts.options("DeleteGroup"))
    about = f"workspace:{eng.id}"
    assert told() == [
        line(Event.CASCADE_COMMITTED, "ArchiveWorkspace", about, workspaces=2, tuples=4),
        line(Event.CASCADE_COMMITTED, "Unarchive", about, workspaces=2, tuples=4),
        line(Event.CASCADE_COMMITTED, "DeleteGroup", f"group:{group.id}", tuples=2),
    ]
    await parts.remove(tenant, "bob", transfer_to="carol")
    assert told() == [line(Event.CASCADE_COMMITTED, "RemoveMember", f"tenant:{tenant.id}", roles=2, groups=0)]


async def test_k8_a_suspension_tells_what_follows_it_and_when_it_has(parts: Parts, told) -> None:
    for n in range(2):
        tenant, _ = await parts.tenant(admin=f"admin{n}")
        await parts.role(tenant, "bob", Role.MEMBER)
    told()
    await parts.suspend("bob")
    assert told() == [
        line(Event.USER_STATUS_CHANGED, "SuspendUser", "user:bob", status="suspended"),
        line(Event.CASCADE_STARTED, "SuspendUser", "user:bob", tenants=2, holdings=2),
    ]
    await parts.all_jobs()
    assert told() == [line(Event.CASCADE_FINISHED, "SuspendUser", "user:bob")]
    await parts.activate("bob")
    assert told() == [line(Event.USER_STATUS_CHANGED, "ActivateUser", "user:bob", status="active")]
    await parts.tenants.suspend_tenant(SYSTEM, tenant.id, options=parts.options("SuspendTenant"))
    changed = {"tenant_id": tenant.id, "status": "suspended"}
    assert told() == [line(Event.TENANT_STATUS_CHANGED, "SuspendTenant", f"tenant:{tenant.id}", **changed)]
