-- What SetRole sends to change a role, for pgbench: the statements of pemba.storage, in its order, as its role.
-- The first SELECT also looks up which membership it is to be; Pemba sends BEGIN and SET LOCAL as one.
\set n random(0, :targets - 1)
BEGIN;
SELECT set_config('pemba.tenant_id', tenant_id, true) AS scope, tenant_id AS tenant, workspace_id AS workspace, user_id AS writer, shard, role, CASE role WHEN 'member' THEN ops_member ELSE ops_viewer END AS ops FROM (SELECT *, CASE WHEN random() < 0.5 THEN 'member' ELSE 'viewer' END AS role FROM bench_target WHERE n = :n) t \gset
UPDATE tenant_head SET head_seq = head_seq + 1 WHERE tenant_id = :tenant RETURNING head_seq AS seq, '{' || head_seq || '}' AS seqs \gset
SELECT id, slug, name, status, create_time, update_time, changed_seq FROM tenants WHERE id = :tenant;
SELECT id, status FROM users WHERE id = ANY (ARRAY[CAST(:writer AS text)]) ORDER BY id FOR SHARE;
SELECT tenant_id, id, parent_id, slug, name, kind, archive_time, archived_with, creator_id, create_time, update_time, changed_seq FROM workspaces WHERE tenant_id = :tenant AND id = :workspace;
SELECT tenant_id, workspace_id, subject_type, subject_id, role, join_time, update_time, invited_by, changed_seq FROM memberships WHERE tenant_id = :tenant AND workspace_id IS NOT DISTINCT FROM CAST(:workspace AS text) AND subject_type = 'user' AND subject_id = :writer;
INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, invited_by, changed_seq) VALUES (:tenant, :workspace, 'user', :writer, :role, NULL, CAST(:seq AS bigint)) ON CONFLICT ON CONSTRAINT memberships_subject_key DO UPDATE SET role = excluded.role, changed_seq = excluded.changed_seq, update_time = now() RETURNING tenant_id, workspace_id, subject_type, subject_id, role, join_time, update_time, invited_by, changed_seq;
WITH given AS (SELECT seq, CAST(ops AS jsonb) AS ops, octet_length(ops) AS op_bytes, ordinality = 1 AS first FROM unnest(CAST(:seqs AS bigint[]), ARRAY[CAST(:ops AS text)]) WITH ORDINALITY AS rows (seq, ops, ordinality)), appended AS (INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace) SELECT CAST(:tenant AS text), seq, CAST(:shard AS smallint), ops, jsonb_array_length(ops), op_bytes, '{}' FROM given) INSERT INTO audit (tenant_id, seq, principal, acting_user, peer, request_id, method, object, before, after, ops) SELECT CAST(:tenant AS text), seq, 'pgbench', NULL, '', '', 'SetRole', CAST(:workspace AS text), CASE WHEN first THEN CAST(:ops AS jsonb) END, CASE WHEN first THEN CAST(:ops AS jsonb) END, ops FROM given;
COMMIT;
