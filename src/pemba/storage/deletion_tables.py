"""The table of deletions of tenants."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from pemba.storage.columns import metadata, name_column, time_column

# One row a tenant that was deleted, from that moment on and for good: the API's role sees no record of it.
tenant_deletion = sa.Table(
    "tenant_deletion",
    metadata,
    # It outlives the tenant: no foreign key to it.
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("slug", sa.Text, nullable=False),
    name_column(),
    # Of the call that asked for it.
    sa.Column("request_id", sa.Text, nullable=False),
    # How many records there were of each kind.
    sa.Column("counts", JSONB, nullable=False),
    time_column("create_time"),
    time_column("update_time"),
    # When no record was left.
    time_column("finish_time", nullable=True),
)
sa.Index("tenant_deletion_slug_idx", tenant_deletion.c.slug, tenant_deletion.c.create_time)
sa.Index(
    "tenant_deletion_update_time_idx",
    tenant_deletion.c.update_time,
    postgresql_where=tenant_deletion.c.finish_time.is_(None),
)
