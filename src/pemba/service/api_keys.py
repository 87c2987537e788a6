"""API keys: made, listed, rotated and revoked.

A tenant's key is a record of the tenant, and its changes are rows of the tenant's stream; one that is confined to no
tenant is global, as users are.  Whatever ends a secret is a row of the stream `~` besides: servers forget it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import Forbidden, NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import (
    GLOBAL_STREAM,
    ApiKey,
    ApiKeyId,
    Caller,
    ObjectRef,
    Scope,
    Seq,
    SystemScope,
    TenantId,
    TenantScope,
    Tuple,
    UserId,
    UserStatus,
    WorkspaceId,
)
from pemba.service import guards, key_roles, rights
from pemba.service.global_mutation import GlobalDraft, GlobalMutations
from pemba.service.ids import new_api_key_id
from pemba.service.key_secrets import Secret, new_secret
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action
from pemba.storage import api_keys, outbox, users
from pemba.storage.api_keys import NewKey
from pemba.storage.database import SystemTransaction, TenantTransaction, Transaction

API_KEY = TypeAdapter(ApiKey)

MAX_OVERLAP = timedelta(days=7)
"""After a rotation, of the secret before it."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its new secret, which is empty in replays and dry runs."""

    changed: Changed[ApiKey]
    secret: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a new key is to be; a None confines it to nothing, or names nobody."""

    tenant_id: TenantId | None
    user_id: UserId | None
    workspace_id: WorkspaceId | None
    name: str
    scopes: frozenset[Scope]
    expire_time: datetime | None


Body = Callable[[Transaction], Awaitable[tuple[ApiKey | None, ApiKey]]]
"""The key before and after it."""
Withdraw = Callable[[TenantTransaction, Seq], Awaitable[Collection[Tuple]]]
"""The tuples that go with it."""


class ApiKeyService:
    """The rules of API keys."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._global = GlobalMutations(mutations)
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_api_key(self, caller: Caller, wanted: Wanted, *, options: MutationOptions) -> Issued:
        """Raises NotFound, Forbidden (SCOPE_MISSING, ROLE_MISSING), InvalidRequest (an expiry that is not to come)."""
        id_, secret = new_api_key_id(), new_secret()

        async def body(tx: Transaction) -> tuple[None, ApiKey]:
            return None, await issue(tx, caller, wanted, id_, secret)

        return self._issued(await self._change(caller, wanted.tenant_id, id_, options, body), secret.text, options)

    async def rotate_api_key(
        self,
        caller: Caller,
        tenant_id: TenantId | None,
        id_: ApiKeyId,
        *,
        overlap: timedelta,
        options: MutationOptions,
    ) -> Issued:
        """Another secret; that of now is good for `overlap` (0 to 7 days) more.

        Raises NotFound, Forbidden, ConcurrentUpdate, PreconditionFailed (API_KEY_ENDED, ROTATION_UNDER_WAY).
        """
        secret = new_secret()

        async def body(tx: Transaction) -> tuple[ApiKey, ApiKey]:
            before = await _seen(tx, caller, id_, await api_keys.lock(tx, tenant_id, id_))
            await _require_may_issue(tx, caller, before)
            require_etag(before.etag, options)
            _require_can_rotate(before, overlap, await api_keys.now(tx))
            return before, await api_keys.rotate(tx, id_, secret.prefix, secret.hash, overlap)

        return self._issued(await self._change(caller, tenant_id, id_, options, body), secret.text, options)

    async def revoke_api_key(
        self, caller: Caller, tenant_id: TenantId | None, id_: ApiKeyId, *, options: MutationOptions
    ) -> Changed[ApiKey]:
        """For good, with every role that it has; a second time changes nothing.  Raises NotFound, ConcurrentUpdate."""

        async def body(tx: Transaction) -> tuple[ApiKey, ApiKey]:
            before = await _seen(tx, caller, id_, await api_keys.lock(tx, tenant_id, id_))
            require_etag(before.etag, options)
            return before, before if before.revoke_time else await api_keys.revoke(tx, id_)

        async def withdraw(tx: TenantTransaction, seq: Seq) -> Collection[Tuple]:
            return await key_roles.withdraw(tx, id_, seq)

        return await self._change(caller, tenant_id, id_, options, body, withdraw)

    async def get_api_key(self, caller: Caller, tenant_id: TenantId | None, id_: ApiKeyId) -> Found[ApiKey]:
        """Raises NotFound, also for whose it is not."""
        if tenant_id is None:
            async with self._database.read(SystemScope("read an API key")) as system:
                head = await outbox.head(system, GLOBAL_STREAM)
                key = await _seen(system, caller, id_, await api_keys.get(system, None, id_))
        else:
            async with self._database.read(TenantScope(tenant_id)) as tx:
                head = await outbox.head(tx, tenant_id)
                key = await _seen(tx, caller, id_, await api_keys.get(tx, tenant_id, id_))
        return Found(key, self._signer.token({tenant_id or GLOBAL_STREAM: head}))

    async def list_api_keys(
        self,
        caller: Caller,
        tenant_id: TenantId | None,
        *,
        user_id: UserId | None,
        include_revoked: bool,
        page_size: int,
        page_token: str,
    ) -> Page[ApiKey]:
        """Those that the caller may see, the oldest first.  Raises NotFound (tenant)."""
        arguments = ["ListApiKeys", tenant_id, user_id, include_revoked, caller.acting_user]
        [after] = self._signer.page_position(arguments, page_token) or [""]
        listed = partial(
            api_keys.list_after, user_id=user_id, with_revoked=include_revoked, after=after, limit=page_size + 1
        )
        if tenant_id is None:
            async with self._database.read(SystemScope("list API keys")) as system:
                head = await outbox.head(system, GLOBAL_STREAM)
                seen_by = _only_own(caller)
                found = await listed(system, None, seen_by=seen_by)
        else:
            async with self._database.read(TenantScope(tenant_id)) as tx:
                head = await outbox.head(tx, tenant_id)
                await rights.require_belongs(tx, caller)
                seen_by = await rights.key_viewer(tx, caller)
                found = await listed(tx, tenant_id, seen_by=seen_by)
        shown = tuple(found[:page_size])
        more = self._signer.page_token(arguments, [shown[-1].id]) if len(found) > page_size else ""
        return Page(shown, more, self._signer.token({tenant_id or GLOBAL_STREAM: head}))

    async def _change(
        self,
        caller: Caller,
        tenant_id: TenantId | None,
        id_: ApiKeyId,
        options: MutationOptions,
        body: Body,
        withdraw: Withdraw | None = None,
    ) -> Changed[ApiKey]:
        """`withdraw` ends the key, which no suspension of its tenant stands in the way of."""
        about = ObjectRef("api_key", id_)
        if tenant_id is None:
            _only_own(caller)

            async def everywhere(tx: SystemTransaction) -> GlobalDraft[ApiKey]:
                before, after = await body(tx)
                return GlobalDraft(after, changed=after != before, before=_json(before), after=_json(after))

            return await self._global.run(caller, str(about), options, API_KEY, everywhere)

        async def in_tenant(tx: TenantTransaction, seq: Seq) -> Draft[ApiKey]:
            before, after = await body(tx)
            operations = projection.difference(await withdraw(tx, seq) if withdraw else (), ())
            announced = [about] if before not in (None, after) else []
            return Draft(after, operations, str(about), _json(before), _json(after), announced=announced)

        return await self._mutations.run(
            caller, tenant_id, options, API_KEY, in_tenant, while_suspended=withdraw is not None
        )

    @staticmethod
    def _issued(changed: Changed[ApiKey], secret: str, options: MutationOptions) -> Issued:
        return Issued(changed, "" if changed.replayed or options.validate_only else secret)


async def issue(tx: Transaction, caller: Caller, wanted: Wanted, id_: ApiKeyId, secret: Secret) -> ApiKey:
    """A new key with that secret, where the caller may have such a one.  Raises as `create_api_key`."""
    await _require_may_issue(tx, caller, wanted)
    await _require_user(tx, caller, wanted.user_id)
    if wanted.workspace_id is not None and isinstance(tx, TenantTransaction):
        await rights.usable(tx, caller, wanted.workspace_id, Action.SEE)
    if wanted.expire_time is not None and wanted.expire_time <= await api_keys.now(tx):
        raise invalid_field("expire_time", "takes a time in the future, by the database's clock")
    new = NewKey(
        id=id_,
        tenant_id=wanted.tenant_id,
        user_id=wanted.user_id,
        workspace_id=wanted.workspace_id,
        name=wanted.name,
        scopes=tuple(sorted(wanted.scopes)),
        expire_time=wanted.expire_time,
        created_by=caller.acting_user,
        prefix=secret.prefix,
        secret_hash=secret.hash,
    )
    return await api_keys.insert(tx, new)


def _only_own(caller: Caller) -> UserId | None:
    """Of keys that are confined to no tenant: the user who sees only their own, None for a system key.

    Raises NotFound for a key that is confined to a tenant.
    """
    if caller.tenant_id is not None:
        raise NotFound("an API key that is confined to no tenant")
    return caller.acting_user


async def _seen(tx: Transaction, caller: Caller, id_: ApiKeyId, key: ApiKey | None) -> ApiKey:
    """Raises NotFound where there is none, and where it is neither the caller's nor of what the caller administers."""
    if isinstance(tx, TenantTransaction):
        await rights.require_belongs(tx, caller)
        viewer = await rights.key_viewer(tx, caller)
    else:
        viewer = _only_own(caller)
    if key is None or viewer not in (None, key.user_id):
        raise NotFound(f"API key {id_}")
    return key


async def _require_may_issue(tx: Transaction, caller: Caller, key: Wanted | ApiKey) -> None:
    """To hand out a secret takes what it is good for: its scopes, and to be its user, or to administer its tenant."""
    _require_scopes(caller, key.scopes)
    if isinstance(tx, TenantTransaction):
        await rights.key_viewer(tx, caller)
    if caller.is_system or (key.user_id is not None and key.user_id == caller.acting_user):
        return
    if key.user_id is not None:
        raise Forbidden(Reason.ROLE_MISSING, "it takes the user themselves, or a system key, to make a user's key")
    if isinstance(tx, TenantTransaction):
        await rights.require_tenant_admin(tx, caller, "make a key of the tenant")
    else:
        rights.require_system(caller, "make a system key")


def _require_scopes(caller: Caller, scopes: Collection[Scope]) -> None:
    """Nobody gives a key more than they have."""
    missing = sorted(set(scopes) - caller.scopes)
    if missing:
        raise Forbidden(
            Reason.SCOPE_MISSING,
            f"scopes: nobody gives a key what they call without: `{missing[0]}`",
            {"scope": missing[0]},
        )


async def _require_user(tx: Transaction, caller: Caller, user_id: UserId | None) -> None:
    """Raises NotFound, PreconditionFailed (USER_DEACTIVATED; USER_SUSPENDED for a user who makes their own)."""
    if user_id is None:
        return
    user = await users.lock_shared(tx, user_id)
    if user is None:
        raise NotFound(f"user {user_id}")
    guards.require_may_hold(user)
    if user.status is UserStatus.SUSPENDED and caller.acting_user is not None:
        raise PreconditionFailed(Reason.USER_SUSPENDED, f"user:{user_id} is suspended")


def _require_can_rotate(key: ApiKey, overlap: timedelta, now: datetime) -> None:
    if key_roles.has_ended(key, now):
        raise PreconditionFailed(Reason.API_KEY_ENDED, "the key was revoked, or has expired; make another one")
    until = key.previous_secret_expire_time
    if overlap and until is not None and until > now:
        raise PreconditionFailed(
            Reason.ROTATION_UNDER_WAY,
            "overlap: the secret before the last rotation is still good; wait for its end, or rotate without one",
            {"until": until.isoformat()},
        )


def _json(key: ApiKey | None) -> object:
    return None if key is None else API_KEY.dump_python(key, mode="json")
