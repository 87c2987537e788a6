"""Users: global records.  A system key administers them; users see themselves and change how they are called."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from pydantic import TypeAdapter

from pemba.errors import AlreadyExists, Forbidden, NotFound, PreconditionFailed, Reason
from pemba.model import (
    GLOBAL_STREAM,
    Caller,
    Membership,
    SystemScope,
    TenantId,
    TenantScope,
    User,
    UserId,
    UserStatus,
    Workspace,
    WorkspaceId,
)
from pemba.service import rights, user_status, user_workspace
from pemba.service.global_mutation import GlobalDraft, GlobalMutations
from pemba.service.guards import require_may_hold
from pemba.service.mutation import MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.user_status import USER
from pemba.service.user_workspace import CurrentWorkspace, CurrentWorkspaces, FirstWorkspace
from pemba.storage import outbox, user_roles, user_search, users
from pemba.storage.database import SystemTransaction, Transaction

_CREATED: TypeAdapter[tuple[User, Workspace | None]] = TypeAdapter(tuple[User, Workspace | None])

ORDERS = ("id", "email", "create_time")


@dataclass(frozen=True, slots=True)
class UserSearch:
    """What a list of users is asked for; None asks for nothing, emails and beginnings match whatever their case."""

    status: UserStatus | None = None
    email: str | None = None
    email_begins: str | None = None
    name: str | None = None
    name_begins: str | None = None
    order: str = "id"
    descending: bool = False


class UserService:
    """The rules of users."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._global = GlobalMutations(mutations)
        self._current = CurrentWorkspaces(mutations)
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_user(
        self,
        caller: Caller,
        user_id: UserId,
        *,
        email: str,
        display_name: str,
        first_workspace: FirstWorkspace | None,
        options: MutationOptions,
    ) -> Changed[tuple[User, Workspace | None]]:
        """A user, with a workspace of their own where one is asked for, which becomes their current one.

        A record that a role made before is taken over.  Raises AlreadyExists (USER_EXISTS, EMAIL_TAKEN).
        """

        async def body(tx: SystemTransaction) -> GlobalDraft[tuple[User, Workspace | None]]:
            rights.require_system(caller, "create a user")
            seq = await user_workspace.take_number(tx, first_workspace)
            user = await users.create(tx, user_id, email, display_name)
            if user is None:
                raise AlreadyExists(Reason.USER_EXISTS, f"id: there is a user {user_id}; UpdateUser changes one")
            after = USER.dump_python(user, mode="json")
            if first_workspace is None:
                return GlobalDraft((user, None), changed=True, after=after)
            limit = self._mutations.max_users_per_tenant
            workspace = await user_workspace.create(tx, caller, seq, user, first_workspace, options.method, limit)
            positions = {first_workspace.tenant_id: seq}
            return GlobalDraft((user, workspace), changed=True, after=after, positions=positions)

        return await self._global.run(caller, f"user:{user_id}", options, _CREATED, body)

    async def get_user(self, caller: Caller, user_id: UserId) -> Found[User]:
        """Raises NotFound, also for whom the caller may not see."""
        async with self._database.read(TenantScope(GLOBAL_STREAM)) as tx:
            head = await outbox.head(tx, GLOBAL_STREAM)
            _require_knows(caller, user_id)
            user = await _visible(tx, caller, user_id)
        return Found(user, self._signer.token({GLOBAL_STREAM: head}))

    async def list_users(self, caller: Caller, *, search: UserSearch, page_size: int, page_token: str) -> Page[User]:
        """Every user whom the search is about, in its order."""
        rights.require_system(caller, "list users")
        arguments = ["ListUsers", astuple(search)]
        position = self._signer.page_position(arguments, page_token)
        async with self._database.read(SystemScope("list users")) as tx:
            head = await outbox.head(tx, GLOBAL_STREAM)
            found = await user_search.search(
                tx,
                status=search.status,
                email=search.email,
                email_begins=search.email_begins,
                name=search.name,
                name_begins=search.name_begins,
                order=(search.order, search.descending),
                after=position,
                limit=page_size + 1,
            )
        shown = found[:page_size]
        more = self._signer.page_token(arguments, shown[-1][0]) if len(found) > page_size else ""
        return Page(tuple(user for _, user in shown), more, self._signer.token({GLOBAL_STREAM: head}))

    async def update_user(
        self,
        caller: Caller,
        user_id: UserId,
        *,
        email: str | None,
        display_name: str | None,
        options: MutationOptions,
    ) -> Changed[User]:
        """None leaves a field, an empty email takes it away.  Users change their own display name, and no email.

        Raises AlreadyExists (EMAIL_TAKEN), PreconditionFailed (USER_SUSPENDED, USER_DEACTIVATED), Forbidden.
        """

        async def body(tx: SystemTransaction) -> GlobalDraft[User]:
            _require_knows(caller, user_id)
            await _visible(tx, caller, user_id)
            before = await users.lock(tx, user_id)
            assert before is not None  # users are never deleted
            if caller.acting_user is not None:
                _require_may_change_themselves(before, email)
            require_etag(before.etag, options)
            wanted = (
                before.email if email is None else email,
                before.display_name if display_name is None else display_name,
            )
            if wanted == (before.email, before.display_name):
                return GlobalDraft(before)
            after = await users.update(tx, user_id, *wanted)
            old, new = USER.dump_python(before, mode="json"), USER.dump_python(after, mode="json")
            return GlobalDraft(after, changed=True, before=old, after=new)

        return await self._global.run(caller, f"user:{user_id}", options, USER, body)

    async def suspend_user(
        self, caller: Caller, user_id: UserId, *, force: bool, options: MutationOptions
    ) -> Changed[User]:
        """Every check of the user is DENIED (USER_SUSPENDED) at once, their tuples go after it.

        Raises PreconditionFailed: LAST_ADMIN of a tenant without another active one, unless `force`; USER_DEACTIVATED.
        """

        async def body(tx: SystemTransaction) -> GlobalDraft[User]:
            rights.require_system(caller, "suspend a user")
            return await user_status.suspend(tx, caller, user_id, options, force=force)

        return await self._global.run(caller, f"user:{user_id}", options, USER, body)

    async def activate_user(self, caller: Caller, user_id: UserId, *, options: MutationOptions) -> Changed[User]:
        """Undo a suspension: every role is as it was.  Where there are many, the user is `activating` for a while."""

        async def body(tx: SystemTransaction) -> GlobalDraft[User]:
            rights.require_system(caller, "activate a user")
            return await user_status.activate(tx, caller, user_id, options)

        return await self._global.run(caller, f"user:{user_id}", options, USER, body)

    async def deactivate_user(self, caller: Caller, user_id: UserId, *, options: MutationOptions) -> Changed[User]:
        """For good: denied at once, their roles go after it.  Raises PreconditionFailed (LAST_ADMIN, LAST_OWNER)."""

        async def body(tx: SystemTransaction) -> GlobalDraft[User]:
            rights.require_system(caller, "deactivate a user")
            return await user_status.deactivate(tx, caller, user_id, options)

        return await self._global.run(caller, f"user:{user_id}", options, USER, body)

    async def record_login(self, caller: Caller, user_id: UserId, *, validate_only: bool) -> Changed[User]:
        """Remember when the user was last there, to the minute: no event, and nothing that a check could see.

        Raises PreconditionFailed (USER_SUSPENDED, USER_DEACTIVATED).
        """
        _require_knows(caller, user_id)
        async with self._database.begin(TenantScope(GLOBAL_STREAM)) as tx:
            _require_active(await _visible(tx, caller, user_id))
            await users.record_login(tx, user_id)
            user = await _visible(tx, caller, user_id)
            if validate_only:
                tx.discard()
        return Changed(user, "")

    async def list_user_memberships(
        self, caller: Caller, user_id: UserId, *, tenant_id: TenantId | None, page_size: int, page_token: str
    ) -> Page[Membership]:
        """The direct roles of a user, by tenant and workspace; of one tenant, or of all."""
        wanted = caller.tenant_id or tenant_id
        arguments = ["ListUserMemberships", user_id, wanted]
        position = self._signer.page_position(arguments, page_token) or user_roles.START
        async with self._database.read(SystemScope("list the roles of a user")) as tx:
            await _visible(tx, caller, user_id)
            head = await outbox.head(tx, wanted) if wanted else None
            found = await user_roles.after(tx, user_id, (position[0], position[1]), page_size + 1, wanted)
        shown = found[:page_size]
        more = self._signer.page_token(arguments, user_roles.place_of(shown[-1])) if len(found) > page_size else ""
        token = self._signer.token({wanted: head}) if wanted and head is not None else ""
        return Page(tuple(shown), more, token)

    async def set_current_workspace(
        self, caller: Caller, user_id: UserId, tenant_id: TenantId, workspace_id: WorkspaceId, *, validate_only: bool
    ) -> Changed[Workspace]:
        """Choose the workspace that a user works in.  Raises NotFound where they may not view it."""
        _require_sees(caller, user_id)
        return await self._current.set(user_id, tenant_id, workspace_id, validate_only=validate_only)

    async def get_current_workspace(
        self, caller: Caller, user_id: UserId, *, tenant_id: TenantId | None
    ) -> Found[CurrentWorkspace]:
        """The workspace that a user works in, in one tenant or in all.  Raises NotFound where they may view none."""
        _require_sees(caller, user_id)
        return await self._current.get(user_id, caller.tenant_id or tenant_id)


def _require_sees(caller: Caller, user_id: UserId) -> None:
    """Raises NotFound unless it is a system key, or the user themselves, by no key that is confined to a workspace."""
    if not caller.is_system and (caller.acting_user != user_id or caller.workspace_id is not None):
        raise NotFound(f"user {user_id}")


def _require_knows(caller: Caller, user_id: UserId) -> None:
    """Raises NotFound for a tenant's key, whomever it acts for: the record of a user is no tenant's."""
    if caller.tenant_id is not None:
        raise NotFound(f"user {user_id}")


async def _visible(tx: Transaction, caller: Caller, user_id: UserId) -> User:
    """Raises NotFound, also for whom the caller may not see."""
    _require_sees(caller, user_id)
    user = await users.get(tx, user_id)
    if user is None:
        raise NotFound(f"user {user_id}")
    return user


def _require_active(user: User) -> None:
    """Raises PreconditionFailed (USER_SUSPENDED, USER_DEACTIVATED)."""
    require_may_hold(user)
    if user.status is UserStatus.SUSPENDED:
        raise PreconditionFailed(Reason.USER_SUSPENDED, f"user:{user.id} is suspended")


def _require_may_change_themselves(user: User, email: str | None) -> None:
    _require_active(user)
    if email not in (None, user.email):
        raise Forbidden(Reason.ROLE_MISSING, "email: it takes a system key, not acting for a user, to change it")
