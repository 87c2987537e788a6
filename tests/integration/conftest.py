"""Pemba's parts on a real database, in this process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from pemba.model import (
    ApiKey,
    Caller,
    Group,
    ObjectRef,
    Role,
    Scope,
    Share,
    SubjectRef,
    SystemScope,
    Tenant,
    UserId,
    Workspace,
)
from pemba.service.api_keys import ApiKeyService, Issued, Wanted
from pemba.service.groups import GroupService
from pemba.service.invitation_secrets import InvitationSecrets
from pemba.service.invitations import InvitationService
from pemba.service.memberships import MembershipService
from pemba.service.mutation import MutationOptions, Mutations
from pemba.service.refusals import Refusals
from pemba.service.share_expiry import ShareExpiry
from pemba.service.shares import ShareService
from pemba.service.tenant_deletion import TenantDeletions
from pemba.service.tenants import TenantService
from pemba.service.user_jobs import UserJobs
from pemba.service.users import UserService
from pemba.service.workspaces import WorkspaceService
from pemba.storage import installation
from pemba.storage.database import API_ROLE, RELAY_ROLE, SYSTEM_ROLE, Database
from pemba.storage.wakeup import Notifier
from pemba.tokens import Signer

SYSTEM = Caller("system_key:test", frozenset(Scope), None, None, "call-1", "ipv4:127.0.0.1")


@dataclass
class Parts:
    """The services on one database, with short ways to call them."""

    database: Database
    signer: Signer
    mutations: Mutations
    tenants: TenantService
    workspaces: WorkspaceService
    memberships: MembershipService
    groups: GroupService
    users: UserService
    shares: ShareService
    jobs: UserJobs
    expiry: ShareExpiry
    system: Caller = SYSTEM
    count: int = field(default=0)

    def __post_init__(self) -> None:
        self.keys = ApiKeyService(self.mutations)
        self.deletions = TenantDeletions(self.database, self.mutations.wakeup)
        self.invitations = self.inviting()

    def inviting(self, *root_secrets: str, good_for: timedelta = timedelta(days=7)) -> InvitationService:
        """Invitations under these root secrets."""
        secrets = InvitationSecrets(root_secrets or ["s" * 32], "https://app.acme.test/join?from=mail")
        return InvitationService(self.mutations, secrets, good_for)

    def acting(self, user: str) -> Caller:
        return replace(SYSTEM, acting_user=UserId(user))

    def options(self, method: str = "Test", **given: object) -> MutationOptions:
        return MutationOptions(method=method, **given)

    async def tenant(self, admin: str = "alice") -> tuple[Tenant, Workspace]:
        """A new tenant and its root."""
        self.count += 1
        created = await self.tenants.create_tenant(
            SYSTEM,
            slug=f"acme-{self.count}",
            name="Acme",
            first_admin=UserId(admin),
            options=self.options("CreateTenant"),
        )
        return created.tenant, created.root_workspace

    async def workspace(self, parent: Workspace, slug: str, owner: str | None = None, caller: Caller = SYSTEM):
        """A new workspace below `parent`."""
        changed = await self.workspaces.create_workspace(
            caller,
            parent.tenant_id,
            parent_id=parent.id,
            slug=slug,
            name=slug.title(),
            owner=UserId(owner) if owner else None,
            options=self.options("CreateWorkspace"),
        )
        return changed.record

    async def group(
        self, tenant: Tenant, slug: str, *members: str | Group, manager: str = "", external_id: str = ""
    ) -> Group:
        """A new group with these members, and with a manager where one is named."""
        changed = await self.groups.create_group(
            SYSTEM,
            tenant.id,
            slug=slug,
            name=slug.title(),
            external_id=external_id,
            options=self.options("CreateGroup"),
        )
        for member in members:
            await self.join(changed.record, member)
        if manager:
            await self.join(changed.record, manager, manager=True)
        return changed.record

    async def join(
        self, group: Group, member: str | Group, caller: Caller = SYSTEM, *, manager: bool = False, **options: object
    ):
        """Add a user or a group to a group; the whole answer."""
        return await self.groups.add_group_member(
            caller,
            group.tenant_id,
            group.id,
            subject=subject(member),
            manager=manager,
            options=self.options("AddGroupMember", **options),
        )

    async def leave(
        self,
        group: Group,
        member: str | Group,
        caller: Caller = SYSTEM,
        *,
        allow_missing: bool = False,
        **options: object,
    ):
        """Take a user or a group out of a group; the whole answer."""
        return await self.groups.remove_group_member(
            caller,
            group.tenant_id,
            group.id,
            subject=subject(member),
            allow_missing=allow_missing,
            options=self.options("RemoveGroupMember", **options),
        )

    async def role(
        self, on: Tenant | Workspace, user: str | Group, role: Role, caller: Caller = SYSTEM, **options: object
    ):
        """Give a role; the whole answer."""
        return await self.memberships.set_role(
            caller,
            tenant_of(on),
            object=ref(on),
            subject=subject(user),
            role=role,
            options=self.options("SetRole", **options),
        )

    async def remove(
        self,
        on: Tenant | Workspace,
        user: str | Group,
        caller: Caller = SYSTEM,
        *,
        allow_missing: bool = False,
        transfer_to: str | None = None,
    ):
        """Take a role away; the whole answer."""
        return await self.memberships.remove_member(
            caller,
            tenant_of(on),
            object=ref(on),
            subject=subject(user),
            allow_missing=allow_missing,
            transfer_to=UserId(transfer_to) if transfer_to else None,
            options=self.options("RemoveMember"),
        )

    async def share(
        self,
        of: Workspace,
        with_: Workspace,
        role: Role = Role.VIEWER,
        caller: Caller = SYSTEM,
        *,
        seconds: float | None = None,
        **options: object,
    ):
        """Share one with another, for so many seconds or up to one more, by the database's clock; the whole answer."""
        until = None
        if seconds is not None:
            until_ = "date_trunc('second', now() + make_interval(secs => $1 + 1))"
            [row] = await self.sql(f"SELECT {until_} AS until", seconds)
            until = row["until"]
        return await self.shares.create_share(
            caller,
            of.tenant_id,
            workspace_id=of.id,
            with_workspace_id=with_.id,
            role=role,
            expire_time=until,
            options=self.options("CreateShare", **options),
        )

    async def revoke(self, share: Share, caller: Caller = SYSTEM, **options: object):
        """Take a share back; the whole answer."""
        return await self.shares.revoke_share(
            caller, share.tenant_id, share.id, options=self.options("RevokeShare", **options)
        )

    async def key(
        self,
        tenant: Tenant | None,
        *scopes: Scope,
        user: str = "",
        workspace: Workspace | None = None,
        until: datetime | None = None,
        caller: Caller = SYSTEM,
        **options: object,
    ) -> Issued:
        """A new key, of these scopes or of one that reads; the whole answer."""
        wanted = Wanted(
            tenant_id=tenant.id if tenant else None,
            user_id=UserId(user) if user else None,
            workspace_id=workspace.id if workspace else None,
            name="test",
            scopes=frozenset(scopes or (Scope.READ,)),
            expire_time=until,
        )
        return await self.keys.create_api_key(caller, wanted, options=self.options("CreateApiKey", **options))

    async def revoke_key(self, key: ApiKey, caller: Caller = SYSTEM, **options: object):
        """End a key; the whole answer."""
        return await self.keys.revoke_api_key(
            caller, key.tenant_id, key.id, options=self.options("RevokeApiKey", **options)
        )

    async def rotate_key(self, key: ApiKey, caller: Caller = SYSTEM, *, seconds: float = 0, **options: object):
        """Another secret for a key, beside the one of now for so many seconds; the whole answer."""
        return await self.keys.rotate_api_key(
            caller,
            key.tenant_id,
            key.id,
            overlap=timedelta(seconds=seconds),
            options=self.options("RotateApiKey", **options),
        )

    async def suspend(self, user: str, *, force: bool = False, **options: object):
        """Suspend a user; the whole answer."""
        return await self.users.suspend_user(
            SYSTEM, UserId(user), force=force, options=self.options("SuspendUser", **options)
        )

    async def activate(self, user: str, **options: object):
        """Activate a user; the whole answer."""
        return await self.users.activate_user(SYSTEM, UserId(user), options=self.options("ActivateUser", **options))

    async def deactivate(self, user: str, **options: object):
        """Deactivate a user; the whole answer."""
        return await self.users.deactivate_user(SYSTEM, UserId(user), options=self.options("DeactivateUser", **options))

    async def user(self, user: str):
        """The record of a user."""
        return (await self.users.get_user(SYSTEM, UserId(user))).record

    async def all_jobs(self) -> int:
        """What changes of statuses left to do, done; how many steps it took."""
        steps = 0
        while await self.jobs.run_once():
            steps += 1
        return steps

    async def delete(self, tenant: Tenant, caller: Caller = SYSTEM, *, confirm: str = "", **options: object):
        """Delete a tenant, for callers; the whole answer."""
        return await self.tenants.delete_tenant(
            caller, tenant.id, confirm_slug=confirm or tenant.slug, options=self.options("DeleteTenant", **options)
        )

    async def all_deletions(self) -> int:
        """What deletions of tenants left to do, done; how many steps it took."""
        steps = 0
        while await self.deletions.run_once():
            steps += 1
        return steps

    async def sql(self, statement: str, *arguments: object):
        """Rows, as the system's role sees them."""
        async with self.database.begin(SystemScope("test")) as tx:
            return await tx.connection.fetch(statement, *arguments)

    async def operations(self, tenant: Tenant) -> list[list[str]]:
        """Each outbox row's operations in short: `+relation@subject`, `-relation@subject`."""
        rows = await self.sql("SELECT ops FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id)
        sign = {"touch": "+", "delete": "-"}
        return [
            [sign[o["op"]] + o["tuple"].partition("#")[2].replace(f"{tenant.id}/", "") for o in r["ops"]] for r in rows
        ]


def subject(of: str | Group) -> SubjectRef:
    return SubjectRef("group", of.id, "member") if isinstance(of, Group) else SubjectRef("user", of)


def ref(on: Tenant | Workspace) -> ObjectRef:
    return ObjectRef("tenant" if isinstance(on, Tenant) else "workspace", on.id)


def tenant_of(on: Tenant | Workspace):
    return on.id if isinstance(on, Tenant) else on.tenant_id


@pytest.fixture
def bare_spicedb(servers) -> Iterator[object]:
    """A SpiceDB with an empty store of its own."""
    server = servers.own_spicedb(f"spicedb_{secrets.token_hex(4)}")
    yield server
    server.stop()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, 10, (API_ROLE, SYSTEM_ROLE, RELAY_ROLE), read_url=database_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def parts(database: Database) -> AsyncIterator[Parts]:
    async with database.begin(SystemScope("test")) as tx:
        epoch = (await installation.read(tx)).database_epoch
    signer, notifier = Signer(["s" * 32], epoch), Notifier(database)
    mutations = Mutations(database, signer, notifier, Refusals(database))
    yield Parts(
        database,
        signer,
        mutations,
        TenantService(mutations),
        WorkspaceService(mutations),
        MembershipService(mutations),
        GroupService(mutations),
        UserService(mutations),
        ShareService(mutations),
        UserJobs(database, notifier),
        ShareExpiry(database, notifier),
    )
    await notifier.close()
