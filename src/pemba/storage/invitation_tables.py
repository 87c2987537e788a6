"""The table of invitations."""

from __future__ import annotations

import sqlalchemy as sa

from pemba.model import MAX_EMAIL_BYTES
from pemba.storage.columns import metadata, time_column

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    # NULL: to the tenant itself.
    sa.Column("workspace_id", sa.Text),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    # NULL: a key in its own name.
    sa.Column("invited_by", sa.Text),
    sa.Column("accepted_by", sa.Text),
    # How it ended, other than by its time; NULL: not yet.
    sa.Column("outcome", sa.Text),
    sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
    time_column("end_time", nullable=True),
    time_column("create_time"),
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE"),
    # It goes with its workspace: nothing else tells of it.
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="CASCADE"
    ),
    sa.ForeignKeyConstraint(["invited_by"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["accepted_by"], ["users.id"], ondelete="RESTRICT"),
    sa.CheckConstraint(f"octet_length(email) BETWEEN 3 AND {MAX_EMAIL_BYTES}", name="email"),
    sa.CheckConstraint(
        "CASE WHEN workspace_id IS NULL THEN role IN ('member', 'admin')"
        " ELSE role IN ('viewer', 'member', 'admin', 'owner') END",
        name="role",
    ),
    sa.CheckConstraint("outcome IN ('accepted', 'declined', 'revoked')", name="outcome"),
    sa.CheckConstraint("(outcome IS NULL) = (end_time IS NULL)", name="end"),
    # Used once: who accepted is there where it was accepted, and stays.
    sa.CheckConstraint("(accepted_by IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'accepted')", name="accepted"),
)
sa.Index("invitations_workspace_idx", invitations.c.tenant_id, invitations.c.workspace_id, invitations.c.id)
