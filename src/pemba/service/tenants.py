"""Tenants: created with their root workspace and first admin, in one transaction."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import NotFound
from pemba.model import (
    Caller,
    Membership,
    ObjectRef,
    Role,
    Seq,
    SubjectRef,
    SystemScope,
    Tenant,
    TenantDeletion,
    TenantId,
    TenantScope,
    TenantStatus,
    TupleOperation,
    UserId,
    Workspace,
    WorkspaceKind,
)
from pemba.service import rights, tenant_deletion
from pemba.service.global_mutation import GlobalDraft, GlobalMutations
from pemba.service.guards import require_may_hold
from pemba.service.ids import new_tenant_id, new_workspace_id
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page, TenantCreated
from pemba.storage import journal, memberships, outbox, streams, tenant_deletions, tenants, users, workspaces
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.journal import AuditEntry
from pemba.telemetry import Event

_TENANT = TypeAdapter(Tenant)
_CREATED = TypeAdapter(tuple[Tenant, Workspace])
_MADE = TypeAdapter(tuple[Tenant, Workspace, Membership])

ROOT_SLUG = "root"


class TenantService:
    """The rules of tenants."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._global = GlobalMutations(mutations)
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_tenant(
        self, caller: Caller, *, slug: str, name: str, first_admin: UserId, options: MutationOptions
    ) -> TenantCreated:
        """A tenant with its root workspace and its first admin.  Raises AlreadyExists (SLUG_TAKEN)."""

        async def body(tx: SystemTransaction) -> GlobalDraft[tuple[Tenant, Workspace]]:
            rights.require_system(caller, "create a tenant")
            created = await _create(tx, caller, new_tenant_id(), slug, name, first_admin, options.method)
            tenant, root = created
            made = {"tenant_id": tenant.id, "slug": slug, "root_workspace_id": root.id}
            return GlobalDraft(created, positions={tenant.id: Seq(1)}, events=[(Event.TENANT_CREATED, made)])

        changed = await self._global.run(caller, f"tenant:{slug}", options, _CREATED, body)
        return TenantCreated(*changed.record, changed.token, replayed=changed.replayed)

    async def get_tenant(self, caller: Caller, *, tenant_id: TenantId | None, slug: str | None) -> Found[Tenant]:
        """By id or by slug.  Raises NotFound."""
        wanted = tenant_id if tenant_id is not None else await self._id_of(slug or "")
        async with self._database.read(TenantScope(wanted)) as tx:
            head = await outbox.head(tx, wanted)
            tenant = await tenants.get(tx)
            named = slug if tenant_id is None else tenant_id
            if tenant is None or not await rights.sees_tenant(tx, caller):
                raise NotFound(f"tenant {named}")
        return Found(tenant, self._signer.token({wanted: head}))

    async def list_tenants(self, caller: Caller, *, page_size: int, page_token: str) -> Page[Tenant]:
        """Every tenant, by slug."""
        rights.require_system(caller, "list tenants")
        arguments = ["ListTenants"]
        position = self._signer.page_position(arguments, page_token) or [""]
        async with self._database.read(SystemScope("list tenants")) as tx:
            found = await tenants.list_after(tx, position[0], page_size + 1)
        shown = tuple(found[:page_size])
        more = self._signer.page_token(arguments, [shown[-1].slug]) if len(found) > page_size else ""
        return Page(shown, more, "")

    async def update_tenant(
        self, caller: Caller, tenant_id: TenantId, *, name: str | None, options: MutationOptions
    ) -> Changed[Tenant]:
        """Change the name; None leaves it.  Raises ConcurrentUpdate (ETAG_MISMATCH)."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Tenant]:
            await rights.require_tenant_admin(tx, caller, "update the tenant")
            before = await _existing(tx)
            require_etag(before.etag, options)
            after = before if name in (None, before.name) else await tenants.update(tx, name or "", seq)
            return _draft(before, after)

        return await self._mutations.run(caller, tenant_id, options, _TENANT, body)

    async def suspend_tenant(self, caller: Caller, tenant_id: TenantId, *, options: MutationOptions) -> Changed[Tenant]:
        """Every check of the tenant is DENIED (TENANT_SUSPENDED) at once, and its records stand still."""
        return await self._set_status(caller, tenant_id, TenantStatus.SUSPENDED, options)

    async def activate_tenant(
        self, caller: Caller, tenant_id: TenantId, *, options: MutationOptions
    ) -> Changed[Tenant]:
        """Undo a suspension; its tuples were never withdrawn."""
        return await self._set_status(caller, tenant_id, TenantStatus.ACTIVE, options)

    async def delete_tenant(
        self, caller: Caller, tenant_id: TenantId, *, confirm_slug: str, options: MutationOptions
    ) -> Changed[TenantDeletion]:
        """No caller sees anything of the tenant from here on; the relay removes it (service/tenant_deletion.py).

        Raises NotFound, ConcurrentUpdate (ETAG_MISMATCH), InvalidRequest where `confirm_slug` is not its slug.
        """
        rights.require_system(caller, "delete a tenant")

        async def body(tx: SystemTransaction) -> GlobalDraft[TenantDeletion]:
            return await tenant_deletion.begin(tx, caller, tenant_id, confirm_slug, options)

        changed = await self._global.run(caller, f"tenant:{tenant_id}", options, tenant_deletion.DELETION, body)
        if not changed.replayed and not options.validate_only:
            tenant_deletion.log_start(changed.record)
        return changed

    async def get_tenant_deletion(
        self, caller: Caller, *, tenant_id: TenantId | None, slug: str | None
    ) -> TenantDeletion:
        """Of a tenant by its id, or of the last that was deleted with that slug.  Raises NotFound."""
        rights.require_system(caller, "follow the deletion of a tenant")
        async with self._database.begin(SystemScope("follow the deletion of a tenant")) as tx:
            deletion = await tenant_deletions.get(tx, tenant_id, slug or "")
            if deletion is None:
                raise NotFound(f"deletion of tenant {tenant_id or slug}")
            head, delivered = (await streams.positions(tx, [deletion.tenant_id]))[deletion.tenant_id]
        return replace(deletion, undelivered=head - delivered)

    async def _set_status(
        self, caller: Caller, tenant_id: TenantId, status: TenantStatus, options: MutationOptions
    ) -> Changed[Tenant]:
        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Tenant]:
            rights.require_system(caller, "suspend or activate a tenant")
            before = await _existing(tx)
            require_etag(before.etag, options)
            after = before if before.status is status else await tenants.set_status(tx, status, seq)
            draft = _draft(before, after)
            if after is before:
                return draft
            changed = Event.TENANT_STATUS_CHANGED, {"tenant_id": after.id, "status": after.status}
            return replace(draft, status_of=ObjectRef("tenant", after.id), events=[changed])

        return await self._mutations.run(caller, tenant_id, options, _TENANT, body, while_suspended=True)

    async def _id_of(self, slug: str) -> TenantId:
        async with self._database.read(SystemScope("find a tenant by its slug")) as tx:
            tenant = await tenants.get_by_slug(tx, slug)
        if tenant is None:
            raise NotFound(f"tenant {slug}")
        return tenant.id


async def _create(
    tx: SystemTransaction,
    caller: Caller,
    tenant_id: TenantId,
    slug: str,
    name: str,
    first_admin: UserId,
    method: str,
) -> tuple[Tenant, Workspace]:
    seq = await outbox.create_head(tx, tenant_id)
    admin = (await users.ensure_locked(tx, [first_admin]))[first_admin]
    require_may_hold(admin)
    tenant = await tenants.insert(tx, tenant_id, slug, name)
    root = await workspaces.insert(tx, _root(tenant), seq)
    membership = await memberships.put(
        tx, tenant_id, None, SubjectRef("user", first_admin), Role.ADMIN, caller.acting_user, seq
    )
    after = projection.workspace_tuples(root) | projection.membership_tuples(
        membership, subject_is_active=admin.has_tuples, object_is_archived=False
    )
    operations: list[TupleOperation] = projection.difference((), after)
    made = _MADE.dump_python((tenant, root, membership), mode="json")
    entry = AuditEntry(caller, method, f"tenant:{tenant_id}", None, made)
    await journal.append(tx, tenant_id, seq, outbox.split(operations), entry)
    return tenant, root


def _root(tenant: Tenant) -> Workspace:
    return Workspace(
        tenant_id=tenant.id,
        id=new_workspace_id(),
        parent_id=None,
        slug=ROOT_SLUG,
        name=tenant.name,
        kind=WorkspaceKind.ROOT,
        archive_time=None,
        archived_with=None,
        creator_id=None,
        create_time=tenant.create_time,
        update_time=tenant.update_time,
        etag="",
    )


async def _existing(tx: TenantTransaction) -> Tenant:
    tenant = await tenants.get(tx)
    assert tenant is not None  # the mutation found it before its body ran
    return tenant


def _draft(before: Tenant, after: Tenant) -> Draft[Tenant]:
    return Draft(
        after,
        (),
        f"tenant:{after.id}",
        _TENANT.dump_python(before, mode="json"),
        _TENANT.dump_python(after, mode="json"),
    )
