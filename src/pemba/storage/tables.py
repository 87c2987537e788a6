"""The tables, as SQLAlchemy knows them.  Migrations make them; a test compares the two catalogs.

Every row of a tenant carries `tenant_id` in its keys and foreign keys, so a cross-tenant reference cannot be
stored.  CHECK constraints make illegal states unstorable.  Row-level security (in the migrations) is a second wall.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, UUID

from pemba.model import MAX_EXTERNAL_ID_CHARACTERS, MAX_NAME_CHARACTERS, SHARDS
from pemba.storage import audit_tables as audit_tables  # one import knows every table
from pemba.storage import deletion_tables as deletion_tables
from pemba.storage import invitation_tables as invitation_tables
from pemba.storage import key_tables as key_tables
from pemba.storage import personal_rules
from pemba.storage import setting_tables as setting_tables
from pemba.storage.columns import metadata as metadata
from pemba.storage.columns import name_column, one_of, time_column

# Constraints whose violation is a domain error (storage.errors); any other violation is a defect.
TENANT_SLUG = "tenants_slug_key"
SIBLING_SLUG = "workspaces_sibling_slug_key"
ONE_ROOT = "workspaces_one_root_key"
ONE_PERSONAL = "workspaces_one_personal_key"
PARENT = "workspaces_tenant_id_parent_id_fkey"
EMAIL = "users_email_key"
GROUP_SLUG = "groups_slug_key"
EXTERNAL_ID = "groups_external_id_key"
IDEMPOTENCY = "idempotency_pkey"


installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1", name="one"), primary_key=True, autoincrement=False),
    # Whose tuples SpiceDB holds: it is written there too, and never changes.
    sa.Column("installation_id", UUID(as_uuid=True), nullable=False),
    # Another life of this database (restored from a backup) gets another epoch: tokens name it.
    sa.Column("database_epoch", UUID(as_uuid=True), nullable=False),
    # Another life of SpiceDB's data; a tenant whose own differs awaits its repair.
    sa.Column("store_epoch", UUID(as_uuid=True), nullable=False),
    # The last one for which every tenant's repair is in its stream; another than `store_epoch`: some are missing.
    sa.Column("filled_epoch", UUID(as_uuid=True), nullable=False),
    # A seqlock over the SpiceDB schema: odd while an apply is under way.
    sa.Column("schema_number", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    time_column("create_time"),
    # When the whole store was last compared with the records.
    time_column("reconcile_time", nullable=True),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, sa.CheckConstraint("octet_length(id) BETWEEN 1 AND 256", name="id"), primary_key=True),
    sa.Column("email", sa.Text, sa.CheckConstraint("octet_length(email) BETWEEN 3 AND 320", name="email")),
    sa.Column(
        "display_name",
        sa.Text,
        sa.CheckConstraint(f"char_length(display_name) <= {MAX_NAME_CHARACTERS}", name="display_name"),
        nullable=False,
        server_default=sa.text("''"),
    ),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'active'")),
    time_column("suspend_time", nullable=True),
    time_column("deactivate_time", nullable=True),
    time_column("last_login_time", nullable=True),
    time_column("create_time"),
    time_column("update_time"),
    # Suspended, and their tuples are coming back: the status follows them.
    sa.Column("activating", sa.Boolean, nullable=False, server_default=sa.text("false")),
    # Changes of the record, the etag; 0 where a role made it and nobody has created the user yet.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    one_of("status", "status", "active", "suspended", "deactivated"),
    sa.CheckConstraint("(status = 'suspended') = (suspend_time IS NOT NULL)", name="suspended"),
    sa.CheckConstraint("(status = 'deactivated') = (deactivate_time IS NOT NULL)", name="deactivated"),
    sa.CheckConstraint("NOT activating OR status = 'suspended'", name="activating"),
)
sa.Index(EMAIL, sa.func.lower(users.c.email), unique=True)
sa.Index("users_email_idx", sa.text("(coalesce(lower(email), '') COLLATE \"C\")"), users.c.id)
sa.Index("users_display_name_idx", sa.func.lower(users.c.display_name).collate("C"))
sa.Index("users_create_time_idx", users.c.create_time, users.c.id)
sa.Index("users_inactive_idx", users.c.id, postgresql_where=sa.text("status <> 'active'"))

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("slug", sa.Text, nullable=False),
    name_column(),
    sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'active'")),
    time_column("suspend_time", nullable=True),
    # The sequence of the change that made this row what it is: the etag.
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("create_time"),
    time_column("update_time"),
    sa.UniqueConstraint("slug", name=TENANT_SLUG),
    # One that is being deleted is gone for callers (tenant_deletion), and its slug is its id.
    one_of("status", "status", "active", "suspended", "deleting"),
    sa.CheckConstraint("(status = 'suspended') = (suspend_time IS NOT NULL)", name="suspended"),
)

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("parent_id", sa.Text),
    sa.Column("slug", sa.Text, nullable=False),
    name_column(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("personal_user_id", sa.Text),
    sa.Column("creator_id", sa.Text),
    time_column("archive_time", nullable=True),
    # The workspace whose archiving took this one along; itself, where it was the one named.
    sa.Column("archived_with", sa.Text),
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("create_time"),
    time_column("update_time"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "parent_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="RESTRICT", name=PARENT
    ),
    sa.ForeignKeyConstraint(["creator_id"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["personal_user_id"], ["users.id"], ondelete="RESTRICT"),
    one_of("kind", "kind", "root", "shared", "personal"),
    sa.CheckConstraint("(kind = 'shared') = (parent_id IS NOT NULL)", name="parent"),
    sa.CheckConstraint("(kind = 'personal') = (personal_user_id IS NOT NULL)", name="personal"),
    sa.CheckConstraint("parent_id <> id", name="own_parent"),
    sa.CheckConstraint("(archive_time IS NULL) = (archived_with IS NULL)", name="archived"),
    sa.CheckConstraint("kind <> 'root' OR archive_time IS NULL", name="root_not_archived"),
    # That kind and personal_user_id never change is a matter of privileges, the rest of personal_rules.
)
sa.Index(ONE_ROOT, workspaces.c.tenant_id, unique=True, postgresql_where=sa.text("kind = 'root'"))
sa.Index(
    ONE_PERSONAL,
    workspaces.c.tenant_id,
    workspaces.c.personal_user_id,
    unique=True,
    postgresql_where=sa.text("personal_user_id IS NOT NULL"),
)
sa.Index(
    SIBLING_SLUG,
    workspaces.c.tenant_id,
    workspaces.c.parent_id,
    workspaces.c.slug,
    unique=True,
    postgresql_where=sa.text("parent_id IS NOT NULL"),
)
sa.Index(
    "workspaces_archived_with_idx",
    workspaces.c.tenant_id,
    workspaces.c.archived_with,
    postgresql_where=sa.text("archived_with IS NOT NULL"),
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("slug", sa.Text, nullable=False),
    name_column(),
    sa.Column(
        "external_id",
        sa.Text,
        sa.CheckConstraint(f"char_length(external_id) BETWEEN 1 AND {MAX_EXTERNAL_ID_CHARACTERS}", name="external_id"),
    ),
    # The sequence of the change that made this row, or the list of its members, what it is: the etag.
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("create_time"),
    time_column("update_time"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="RESTRICT"),
    sa.UniqueConstraint("tenant_id", "slug", name=GROUP_SLUG),
    sa.UniqueConstraint("tenant_id", "external_id", name=EXTERNAL_ID),
)

group_members = sa.Table(
    "group_members",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("group_id", sa.Text, nullable=False),
    sa.Column("subject_type", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'user' THEN subject_id END", persisted=True)),
    sa.Column(
        "member_group_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'group' THEN subject_id END", persisted=True)
    ),
    sa.Column("manager", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("added_by", sa.Text),
    time_column("join_time"),
    sa.Column(
        "api_key_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'api_key' THEN subject_id END", persisted=True)
    ),
    sa.PrimaryKeyConstraint("tenant_id", "group_id", "subject_type", "subject_id"),
    sa.ForeignKeyConstraint(["tenant_id", "group_id"], ["groups.tenant_id", "groups.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["tenant_id", "member_group_id"], ["groups.tenant_id", "groups.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["added_by"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"], ondelete="RESTRICT"),
    one_of("subject_type", "subject_type", "user", "group", "api_key"),
    sa.CheckConstraint("NOT manager OR subject_type = 'user'", name="manager"),
    sa.CheckConstraint("subject_type <> 'group' OR subject_id <> group_id", name="own_member"),
)
sa.Index("group_members_of_user_idx", group_members.c.user_id, group_members.c.tenant_id, group_members.c.group_id)
sa.Index(
    "group_members_of_group_idx",
    group_members.c.tenant_id,
    group_members.c.member_group_id,
    postgresql_where=sa.text("member_group_id IS NOT NULL"),
)

sa.Index(
    "group_members_of_key_idx",
    group_members.c.tenant_id,
    group_members.c.api_key_id,
    postgresql_where=sa.text("api_key_id IS NOT NULL"),
)

memberships = sa.Table(
    "memberships",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("workspace_id", sa.Text),  # NULL: a role on the tenant itself
    sa.Column("subject_type", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'user' THEN subject_id END", persisted=True)),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("invited_by", sa.Text),
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("join_time"),
    time_column("update_time"),
    sa.Column("group_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'group' THEN subject_id END", persisted=True)),
    sa.Column(
        "api_key_id", sa.Text, sa.Computed("CASE WHEN subject_type = 'api_key' THEN subject_id END", persisted=True)
    ),
    # NULLs are one value here: a second role of the same subject on the tenant itself cannot be stored either.
    sa.UniqueConstraint(
        "tenant_id",
        "workspace_id",
        "subject_type",
        "subject_id",
        name="memberships_subject_key",
        postgresql_nulls_not_distinct=True,
    ),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="RESTRICT"
    ),
    sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["invited_by"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["tenant_id", "group_id"], ["groups.tenant_id", "groups.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"], ondelete="RESTRICT"),
    one_of("subject_type", "subject_type", "user", "group", "api_key"),
    one_of("role", "role", "viewer", "member", "admin", "owner"),
    sa.CheckConstraint("workspace_id IS NOT NULL OR role IN ('member', 'admin')", name="tenant_role"),
    sa.CheckConstraint("role <> 'owner' OR subject_type = 'user'", name="owner_is_user"),
)
sa.Index("memberships_user_id_idx", memberships.c.tenant_id, memberships.c.user_id)
sa.Index(
    "memberships_group_id_idx",
    memberships.c.tenant_id,
    memberships.c.group_id,
    postgresql_where=sa.text("group_id IS NOT NULL"),
)
sa.Index(
    "memberships_api_key_id_idx",
    memberships.c.tenant_id,
    memberships.c.api_key_id,
    postgresql_where=sa.text("api_key_id IS NOT NULL"),
)
# Roles on tenants themselves, in order: the unique key has workspace_id in between.
sa.Index(
    "memberships_of_tenants_idx",
    memberships.c.tenant_id,
    memberships.c.subject_type,
    memberships.c.subject_id,
    postgresql_where=sa.text("workspace_id IS NULL"),
)
sa.Index(
    "memberships_of_user_idx",
    memberships.c.user_id,
    memberships.c.tenant_id,
    sa.text("(coalesce(workspace_id, ''))"),
)

shares = sa.Table(
    "shares",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    # The workspace on which the roster of the other one gets the role.
    sa.Column("workspace_id", sa.Text, nullable=False),
    sa.Column("with_workspace_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    time_column("expire_time", nullable=True),
    sa.Column("created_by", sa.Text),
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("create_time"),
    sa.PrimaryKeyConstraint("tenant_id", "id"),
    sa.UniqueConstraint("tenant_id", "workspace_id", "with_workspace_id", name="shares_pair_key"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="RESTRICT"
    ),
    sa.ForeignKeyConstraint(
        ["tenant_id", "with_workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="RESTRICT"
    ),
    sa.ForeignKeyConstraint(["created_by"], ["users.id"], ondelete="RESTRICT"),
    one_of("role", "role", "viewer", "member", "admin"),
    sa.CheckConstraint("workspace_id <> with_workspace_id", name="with_itself"),
    # What a tuple's expiration can say as well.
    sa.CheckConstraint("expire_time = date_trunc('second', expire_time)", name="whole_seconds"),
)
sa.Index("shares_with_workspace_idx", shares.c.tenant_id, shares.c.with_workspace_id)
# What is due, and each tenant's next.
sa.Index("shares_expire_time_idx", shares.c.expire_time, postgresql_where=sa.text("expire_time IS NOT NULL"))
sa.Index(
    "shares_next_expiry_idx",
    shares.c.tenant_id,
    shares.c.expire_time,
    postgresql_where=sa.text("expire_time IS NOT NULL"),
)

user_current_workspace = sa.Table(
    "user_current_workspace",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("workspace_id", sa.Text, nullable=False),
    time_column("update_time"),
    sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="CASCADE"
    ),
)
sa.Index(
    "user_current_workspace_workspace_idx", user_current_workspace.c.tenant_id, user_current_workspace.c.workspace_id
)

user_job = sa.Table(
    "user_job",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("goal", sa.Text, nullable=False),
    # The user's version that asked for it: a later status change puts another, and the job starts over.
    sa.Column("user_version", sa.BigInteger, nullable=False),
    # The membership up to which it is done, '' for a role on the tenant itself.
    sa.Column("after_tenant", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("after_workspace", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("request_id", sa.Text, nullable=False),
    time_column("create_time"),
    time_column("update_time"),
    sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"),
    one_of("goal", "goal", "withdraw", "restore", "remove"),
)
sa.Index("user_job_update_time_idx", user_job.c.update_time)

tenant_head = sa.Table(
    "tenant_head",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("shard", sa.SmallInteger, nullable=False),
    sa.Column("head_seq", sa.BigInteger, nullable=False),
    # The life of SpiceDB's data in which the stream began: what counts until something of it is delivered.
    sa.Column("store_epoch", UUID(as_uuid=True), nullable=False),
    sa.CheckConstraint(f"shard BETWEEN 0 AND {SHARDS - 1}", name="shard"),
    sa.CheckConstraint("head_seq >= 0", name="head_seq"),
    # Head, outbox and delivery rows outlive a deleted tenant: no foreign key to it.
    postgresql_with={"fillfactor": "50"},
)
sa.Index("tenant_head_shard_idx", tenant_head.c.shard)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.SmallInteger, nullable=False),
    sa.Column("ops", JSONB, nullable=False),
    sa.Column("op_count", sa.Integer, nullable=False),
    sa.Column("op_bytes", sa.Integer, nullable=False),
    sa.Column("trace", JSONB, nullable=False),
    time_column("create_time"),
    # In the stream `~` alone: the user or the tenant whose status changed, as in `user:alice`.
    sa.Column("about", sa.Text),
    # With this row everything of the tenant is in that life of SpiceDB's data.
    sa.Column("store_epoch", UUID(as_uuid=True)),
    # When, once this row is delivered, the next of the tenant's tuples expires; NULL: none does.
    time_column("next_expiry", nullable=True),
    sa.CheckConstraint("seq > 0", name="seq"),
    sa.CheckConstraint("op_count BETWEEN 0 AND 500 AND op_count = jsonb_array_length(ops)", name="op_count"),
    sa.CheckConstraint("op_bytes BETWEEN 0 AND 2097152", name="op_bytes"),
    sa.CheckConstraint("(tenant_id = '~') = (about IS NOT NULL) AND (about IS NULL OR op_count = 0)", name="about"),
)
sa.Index("outbox_create_time_idx", outbox.c.create_time)
sa.Index("outbox_store_epoch_idx", outbox.c.tenant_id, postgresql_where=outbox.c.store_epoch.is_not(None))

tenant_delivery = sa.Table(
    "tenant_delivery",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("shard", sa.SmallInteger, nullable=False),
    sa.Column("delivered_seq", sa.BigInteger, nullable=False),
    # SpiceDB's token of the tenant's last write; NULL until one of its rows carried an operation.
    sa.Column("zedtoken", sa.Text),
    # The shard's `deliveries` counter when this row was last written.
    sa.Column("stamp", sa.BigInteger, nullable=False),
    # The schema in force before the last write: an older one than now makes the token too old to ask at.
    sa.Column("schema_number", sa.BigInteger, nullable=False),
    sa.Column("store_epoch", UUID(as_uuid=True), nullable=False),
    time_column("next_expiry", nullable=True),
    # Of its parked operations: the first row of which one is missing, the oldest schema under which one was refused.
    sa.Column("parked_from", sa.BigInteger),
    time_column("update_time"),
    sa.Column("parked_under", sa.BigInteger),
    # Somebody could be left with more than the records say: nothing is answered.
    sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.CheckConstraint("delivered_seq >= 0", name="delivered_seq"),
    sa.CheckConstraint("(parked_from IS NULL) = (parked_under IS NULL)", name="parked"),
    sa.CheckConstraint("NOT closed OR parked_from IS NOT NULL", name="closed"),
    postgresql_with={
        "fillfactor": "50",
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "100",
    },
)
sa.Index("tenant_delivery_shard_stamp_idx", tenant_delivery.c.shard, tenant_delivery.c.stamp)
sa.Index(
    "tenant_delivery_parked_idx",
    tenant_delivery.c.tenant_id,
    postgresql_where=tenant_delivery.c.parked_from.is_not(None),
)

# What SpiceDB refuses, one row a tuple; it ends when a later operation on the tuple is delivered.
parked_operation = sa.Table(
    "parked_operation",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("tuple", sa.Text, primary_key=True),
    sa.Column("op", sa.Text, nullable=False),
    # The outbox row of the operation, and the first one since when the tuple is not what it should be.
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("since_seq", sa.BigInteger, nullable=False),
    sa.Column("effect", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    # The schema in force before it was refused, and when it was last repaired.
    sa.Column("schema_number", sa.BigInteger, nullable=False),
    sa.Column("retried_under", sa.BigInteger),
    time_column("park_time"),
    one_of("op", "op", "touch", "delete"),
    one_of("effect", "effect", "grants_less", "withdrawn", "restricts"),
    sa.CheckConstraint("op = 'touch' OR effect = 'restricts'", name="delete"),
    sa.CheckConstraint("since_seq BETWEEN 1 AND seq", name="seq"),
)
sa.Index(
    "parked_operation_since_seq_idx",
    parked_operation.c.tenant_id,
    parked_operation.c.since_seq,
    parked_operation.c.tuple,
)
# Of one tuple one, whatever its expiration.
sa.Index("parked_operation_plain_key", parked_operation.c.tenant_id, sa.text("split_part(tuple, '[', 1)"), unique=True)

relay_lease = sa.Table(
    "relay_lease",
    metadata,
    sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("n", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    # The highest number that SpiceDB is known to have held.
    sa.Column("landed", sa.BigInteger, nullable=False, server_default=sa.text("-1")),
    sa.Column("holder", sa.Text),
    time_column("lease_until", nullable=True),
    sa.Column("deliveries", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint(f"shard BETWEEN 0 AND {SHARDS - 1}", name="shard"),
    sa.CheckConstraint("(holder IS NULL) = (lease_until IS NULL)", name="holder"),
    postgresql_with={"fillfactor": "50"},
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),  # '~' for mutations that belong to no tenant
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("acting_user", sa.Text, nullable=False),  # '' for none
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("body_digest", BYTEA, nullable=False),
    sa.Column("response", JSONB),  # NULL only inside the transaction that makes it
    sa.Column("token", sa.Text, nullable=False, server_default=sa.text("''")),
    time_column("create_time"),
    sa.PrimaryKeyConstraint("tenant_id", "principal", "acting_user", "method", "request_id", name=IDEMPOTENCY),
)
sa.Index("idempotency_create_time_idx", idempotency.c.create_time)

schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'pending'")),
    sa.Column("zedtoken", sa.Text),
    sa.Column("why", sa.Text),
    time_column("create_time"),
    time_column("finish_time", nullable=True),
    one_of("state", "state", "pending", "applied", "failed"),
    sa.CheckConstraint("(state = 'applied') = (zedtoken IS NOT NULL)", name="applied"),
    sa.CheckConstraint("(state = 'failed') = (why IS NOT NULL)", name="failed"),
    sa.CheckConstraint("(state = 'pending') = (finish_time IS NULL)", name="pending"),
)

personal_rules.attach(metadata)
