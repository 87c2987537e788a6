"""Settings of workspaces, by namespace: values as JSON, and secrets, which are sealed and given out one by one.

What is secret is in no answer but that of `get_secret`, and neither in audit nor in what a replay is answered from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from pydantic import TypeAdapter

from pemba.errors import Forbidden, NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import Caller, SecretSetting, Seq, Settings, TenantId, TenantScope, WorkspaceId
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag, require_usable
from pemba.service.results import Changed, Found
from pemba.service.rights import Action, require_belongs, usable, visible
from pemba.service.sealing import Sealer
from pemba.storage import journal, outbox, settings, tenants
from pemba.storage.database import TenantTransaction
from pemba.storage.journal import AuditEntry
from pemba.storage.settings import Stored

MAX_NAMESPACES = 16
MAX_NAMES = 200
MAX_NAMESPACE_VALUES = 2000
MAX_NAMESPACE_BYTES = 64 * 1024

_SETTINGS = TypeAdapter(Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """What to set and to remove in one namespace, each name once.

    What is not named stays; `replace` removes the other values, though no secret.
    """

    values: Mapping[str, object]
    secrets: Mapping[str, str]
    remove: Collection[str] = ()
    replace: bool = False


class SettingsService:
    """The rules of settings."""

    def __init__(self, mutations: Mutations, sealer: Sealer) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer
        self._sealer = sealer

    async def get_settings(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, namespaces: Collection[str]
    ) -> Found[tuple[Settings, ...]]:
        """Those of these namespaces, of all where none is named.  Raises NotFound, Forbidden."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await visible(tx, caller, workspace_id, Action.SETTINGS)
            stored = await settings.of_workspace(tx, workspace_id, namespaces or None)
        found = tuple(
            _settings(tenant_id, workspace_id, namespace, list(of))
            for namespace, of in groupby(stored, lambda each: each.namespace)
        )
        return Found(found, self._signer.token({tenant_id: head}))

    async def update_settings(
        self,
        caller: Caller,
        tenant_id: TenantId,
        workspace_id: WorkspaceId,
        *,
        namespace: str,
        change: SettingsChange,
        options: MutationOptions,
    ) -> Changed[Settings]:
        """Change one namespace; the answer says what it has then.

        Raises PreconditionFailed (SETTINGS_TOO_LARGE, WORKSPACE_ARCHIVED), InvalidRequest (a value where there is a
        secret), ConcurrentUpdate (ETAG_MISMATCH), NotFound, Forbidden.
        """
        # The digest of a request stays for a day: nobody is to try guesses of the secrets in it.
        options = replace(options, body_digest=self._sealer.digest(options.body_digest))

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Settings]:
            await usable(tx, caller, workspace_id, Action.SETTINGS)
            stored = await settings.of_workspace(tx, workspace_id, [namespace])
            before = _settings(tenant_id, workspace_id, namespace, stored)
            require_etag(before.etag, options)
            todo = _what_changes(before, change)
            await self._carry_out(tx, workspace_id, namespace, todo, seq)
            after = _settings(
                tenant_id, workspace_id, namespace, await settings.of_workspace(tx, workspace_id, [namespace])
            )
            await _require_room(tx, after)
            old, new = _audited(before, todo, before), _audited(after, todo, before)
            return Draft(after, (), f"workspace:{workspace_id}", old, new)

        return await self._mutations.run(caller, tenant_id, options, _SETTINGS, body)

    async def get_secret(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, namespace: str, name: str, method: str
    ) -> Changed[str]:
        """A secret in the clear, and the tenant's position: the audit has who reads it, or it is not given.

        Raises NotFound, Forbidden, PreconditionFailed (SECRET_UNREADABLE, TENANT_SUSPENDED).
        """
        try:
            async with self._database.begin(TenantScope(tenant_id)) as tx:
                head = await outbox.head(tx, tenant_id)
                await require_belongs(tx, caller)
                require_usable(await tenants.get(tx), tenant_id, while_suspended=False)
                await visible(tx, caller, workspace_id, Action.SETTINGS)
                sealed = await settings.get_sealed(tx, workspace_id, namespace, name)
                if sealed is None:
                    raise NotFound(f"secret setting {namespace}/{name}")
                secret = self._sealer.open((tenant_id, workspace_id, namespace, name), sealed)
                told = {"namespace": namespace, "read": name}
                entry = AuditEntry(caller, method, f"workspace:{workspace_id}", after=told)
                if not await journal.append_read(tx, tenant_id, [entry]):
                    raise NotFound(f"tenant {tenant_id}")
        except (Forbidden, PreconditionFailed) as refusal:
            about = (f"workspace:{workspace_id}", f"tenant:{tenant_id}")
            await self._mutations.refusals.record(caller, tenant_id, method, refusal, about)
            raise
        return Changed(secret, self._signer.token({tenant_id: head}))

    async def _carry_out(
        self, tx: TenantTransaction, workspace_id: WorkspaceId, namespace: str, todo: SettingsChange, seq: Seq
    ) -> None:
        if todo.remove:
            await settings.delete(tx, workspace_id, namespace, todo.remove)
        if todo.values or todo.secrets:
            sealed = {
                name: self._sealer.seal((tx.tenant_id, workspace_id, namespace, name), secret).text
                for name, secret in todo.secrets.items()
            }
            await settings.put(tx, workspace_id, namespace, todo.values, sealed, self._sealer.under, seq)


def _settings(tenant_id: TenantId, workspace_id: WorkspaceId, namespace: str, stored: Sequence[Stored]) -> Settings:
    return Settings(
        tenant_id,
        workspace_id,
        namespace,
        {each.name: each.value for each in stored if not each.is_secret},
        tuple(SecretSetting(each.name, each.update_time) for each in stored if each.is_secret),
        max((each.update_time for each in stored), default=None),
        _etag(stored),
    )


def _etag(stored: Sequence[Stored]) -> str:
    """Of what is there and the changes that made it so: one that comes back after it went is another."""
    told = "".join(f"{each.name}:{each.seq}\n" for each in stored)
    return hashlib.sha256(told.encode()).hexdigest()[:16] if told else ""


def _what_changes(before: Settings, change: SettingsChange) -> SettingsChange:
    """What of it makes a difference; a secret always does.  Raises InvalidRequest."""
    secrets = {secret.name for secret in before.secrets}
    exposed = next((name for name in change.values if name in secrets), None)
    if exposed is not None:
        raise invalid_field(f"values.{exposed}", "is a secret: set it in `secrets`, or remove it first")
    values = {
        name: value
        for name, value in change.values.items()
        if name not in before.values or _text(before.values[name]) != _text(value)
    }
    going = set(change.remove)
    if change.replace:
        going |= before.values.keys() - change.values.keys() - change.secrets.keys()
    there = before.values.keys() | secrets
    return SettingsChange(values=values, secrets=change.secrets, remove=sorted(going & there))


async def _require_room(tx: TenantTransaction, after: Settings) -> None:
    names = len(after.values) + len(after.secrets)
    size = sum(len(name.encode()) + len(_text(value).encode()) for name, value in after.values.items())
    count = sum(map(_count, after.values.values()))
    namespaces = await settings.count_namespaces(tx, after.workspace_id)
    for what, there, limit in (
        ("names in a namespace", names, MAX_NAMES),
        ("values in a namespace, with all that is in them", count, MAX_NAMESPACE_VALUES),
        ("bytes of values in a namespace", size, MAX_NAMESPACE_BYTES),
        ("namespaces in a workspace", namespaces, MAX_NAMESPACES),
    ):
        if there > limit:
            raise PreconditionFailed(
                Reason.SETTINGS_TOO_LARGE, f"there would be {there} {what}; it takes {limit}", {"limit": str(limit)}
            )


def _count(value: object) -> int:
    """A value, with all that is in it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inside))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _audited(of: Settings, todo: SettingsChange, before: Settings) -> dict[str, object]:
    """What changes, as it was or is then; of a secret the name."""
    touched = {*todo.values, *todo.secrets, *todo.remove}
    told: dict[str, object] = {
        "namespace": of.namespace,
        "values": {name: value for name, value in of.values.items() if name in touched},
        "secrets": _among(touched, (secret.name for secret in of.secrets)),
    }
    return told if of is before else {**told, "removed": list(todo.remove)}


def _among(names: Collection[str], of: Iterable[str]) -> list[str]:
    return [name for name in of if name in names]
