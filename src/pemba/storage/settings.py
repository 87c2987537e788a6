"""Settings of workspaces: values as JSON, secrets as they were sealed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from pemba.model import Seq, TenantId, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement

_OF = "tenant_id = :tenant_id AND workspace_id = :workspace_id"
_LIST = Statement(
    f"""
    SELECT namespace, name, value, sealed IS NOT NULL AS secret, changed_seq, update_time FROM workspace_settings
    WHERE {_OF} AND (CAST(:namespaces AS text[]) IS NULL OR namespace = ANY (CAST(:namespaces AS text[])))
    ORDER BY namespace, name
    """
)
_COUNT = Statement(f"SELECT count(DISTINCT namespace) AS namespaces FROM workspace_settings WHERE {_OF}")
# A value comes as text: None would else be no value, and not JSON's null.
_PUT = Statement(
    """
    INSERT INTO workspace_settings (tenant_id, workspace_id, namespace, name, value, sealed, sealed_under, changed_seq)
    SELECT :tenant_id, :workspace_id, :namespace, name, CAST(value AS jsonb), sealed,
        CASE WHEN sealed IS NOT NULL THEN CAST(:under AS text) END, :seq
    FROM unnest(CAST(:names AS text[]), CAST(:values AS text[]), CAST(:sealed AS text[])) AS given (name, value, sealed)
    ON CONFLICT (tenant_id, workspace_id, namespace, name) DO UPDATE SET value = excluded.value,
        sealed = excluded.sealed, sealed_under = excluded.sealed_under, changed_seq = excluded.changed_seq,
        update_time = now()
    """
)
_DELETE = Statement(
    f"DELETE FROM workspace_settings WHERE {_OF} AND namespace = :namespace AND name = ANY (CAST(:names AS text[]))"
)
_SEALED = Statement(f"SELECT sealed FROM workspace_settings WHERE {_OF} AND namespace = :namespace AND name = :name")
_TENANTS_UNDER_OTHERS = Statement(
    "SELECT DISTINCT tenant_id FROM workspace_settings WHERE sealed_under <> :under ORDER BY tenant_id"
)
_UNDER_OTHERS = Statement(
    """
    SELECT workspace_id, namespace, name, sealed FROM workspace_settings
    WHERE tenant_id = :tenant_id AND sealed_under <> :under
        AND (workspace_id, namespace, name) > (:after_workspace, :after_namespace, :after_name)
    ORDER BY workspace_id, namespace, name LIMIT :limit
    """
)
_RESEAL = Statement(
    f"""
    UPDATE workspace_settings SET sealed = :sealed, sealed_under = :under
    WHERE {_OF} AND namespace = :namespace AND name = :name AND sealed IS NOT NULL
    """
)

Place = tuple[str, str, str]
"""(workspace, namespace, name) of a setting of the tenant"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A setting as it is stored, without what is secret of it."""

    namespace: str
    name: str
    value: object
    is_secret: bool
    seq: Seq
    update_time: datetime


async def of_workspace(
    tx: TenantTransaction, workspace_id: WorkspaceId, namespaces: Collection[str] | None
) -> list[Stored]:
    """Those of these namespaces, or (None) all, by namespace and name."""
    named = None if namespaces is None else list(namespaces)
    records = await _LIST.rows(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, namespaces=named)
    return [_stored(record) for record in records]


async def count_namespaces(tx: TenantTransaction, workspace_id: WorkspaceId) -> int:
    return int((await _COUNT.one(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id))["namespaces"])


async def put(
    tx: TenantTransaction,
    workspace_id: WorkspaceId,
    namespace: str,
    values: Mapping[str, object],
    sealed: Mapping[str, str],
    under: str,
    seq: Seq,
) -> None:
    """Set values (JSON by name), and secrets that were sealed `under` one key."""
    await _PUT.run(
        tx,
        tenant_id=tx.tenant_id,
        workspace_id=workspace_id,
        namespace=namespace,
        names=[*values, *sealed],
        values=[*(json.dumps(value) for value in values.values()), *(None for _ in sealed)],
        sealed=[*(None for _ in values), *sealed.values()],
        under=under,
        seq=seq,
    )


async def delete(tx: TenantTransaction, workspace_id: WorkspaceId, namespace: str, names: Collection[str]) -> None:
    await _DELETE.run(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, namespace=namespace, names=list(names))


async def get_sealed(tx: TenantTransaction, workspace_id: WorkspaceId, namespace: str, name: str) -> str | None:
    """The secret of that name, sealed; None where there is none, and where it is no secret."""
    record = await _SEALED.row(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, namespace=namespace, name=name)
    return None if record is None else record["sealed"]


async def tenants_under_others(tx: SystemTransaction, under: str) -> list[TenantId]:
    """The tenants that have secrets sealed under another key."""
    return [TenantId(r["tenant_id"]) for r in await _TENANTS_UNDER_OTHERS.rows(tx, under=under)]


async def under_others(tx: TenantTransaction, under: str, after: Place, limit: int) -> list[tuple[Place, str]]:
    """(place, secret as it was sealed) of those sealed under another key that follow `after`, at most `limit`."""
    records = await _UNDER_OTHERS.rows(
        tx,
        tenant_id=tx.tenant_id,
        under=under,
        after_workspace=after[0],
        after_namespace=after[1],
        after_name=after[2],
        limit=limit,
    )
    return [((r["workspace_id"], r["namespace"], r["name"]), r["sealed"]) for r in records]


async def reseal(tx: TenantTransaction, places: Sequence[tuple[Place, str]], under: str) -> None:
    """The same secrets, sealed under this key; nothing else of them changes."""
    for (workspace_id, namespace, name), sealed in places:
        await _RESEAL.run(
            tx,
            tenant_id=tx.tenant_id,
            workspace_id=workspace_id,
            namespace=namespace,
            name=name,
            sealed=sealed,
            under=under,
        )


def _stored(record: Record) -> Stored:
    return Stored(
        record["namespace"],
        record["name"],
        record["value"],
        record["secret"],
        Seq(record["changed_seq"]),
        record["update_time"],
    )
