"""The table of deletions of tenants, made with the others (storage/tables.py)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from pemba.model import MAX_NAME_CHARACTERS


def define(metadata: sa.MetaData) -> sa.Table:
    """One row a tenant that was deleted, from that moment on and for good: the API's role sees no record of it."""
    table = sa.Table(
        "tenant_deletion",
        metadata,
        # It outlives the tenant: no foreign key to it.
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column(
            "name",
            sa.Text,
            sa.CheckConstraint(f"char_length(name) BETWEEN 1 AND {MAX_NAME_CHARACTERS}", name="name"),
            nullable=False,
        ),
        # Of the call that asked for it.
        sa.Column("request_id", sa.Text, nullable=False),
        # How many records there were of each kind.
        sa.Column("counts", JSONB, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        # When no record was left.
        sa.Column("finish_time", sa.DateTime(timezone=True)),
    )
    sa.Index("tenant_deletion_slug_idx", table.c.slug, table.c.create_time)
    sa.Index("tenant_deletion_update_time_idx", table.c.update_time, postgresql_where=table.c.finish_time.is_(None))
    return table
