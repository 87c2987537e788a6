"""The rules of workspaces: the tree, moves, the archive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pemba.errors import Forbidden, NotFound, PembaError, Reason
from pemba.model import MAX_WORKSPACE_DEPTH, Role, WorkspaceId

UNKNOWN = WorkspaceId("ws_01h455vb4pex5vsknk084sn02q")


async def move(parts, workspace, parent, caller=None):
    return await parts.workspaces.move_workspace(
        caller or parts.system,
        workspace.tenant_id,
        workspace.id,
        new_parent_id=parent.id,
        options=parts.options("MoveWorkspace"),
    )


async def archive(parts, workspace, caller=None):
    return await parts.workspaces.archive_workspace(
        caller or parts.system, workspace.tenant_id, workspace.id, options=parts.options("ArchiveWorkspace")
    )


async def unarchive(parts, workspace):
    return await parts.workspaces.unarchive_workspace(
        parts.system, workspace.tenant_id, workspace.id, options=parts.options("UnarchiveWorkspace")
    )


async def delete(parts, workspace, caller=None):
    return await parts.workspaces.delete_workspace(
        caller or parts.system, workspace.tenant_id, workspace.id, options=parts.options("DeleteWorkspace")
    )


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def test_a_workspace_made_for_a_user_has_them_as_owner_and_creator(parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", caller=parts.acting("alice"))
    assert eng.creator_id == "alice"
    assert (await parts.operations(tenant))[1] == ["+owner@user:alice", f"+parent@workspace:{root.id}"]
    ops = await parts.workspace(root, "ops", owner="bob")
    assert ops.creator_id is None
    assert (await parts.operations(tenant))[2] == ["+owner@user:bob", f"+parent@workspace:{root.id}"]


async def test_a_parent_that_is_not_there_or_another_tenants_is_not_found(parts) -> None:
    _, root = await parts.tenant()
    other, _ = await parts.tenant()
    for parent in (UNKNOWN, root.id):
        with pytest.raises(NotFound, match="parent workspace"):
            await parts.workspaces.create_workspace(
                parts.system, other.id, parent_id=parent, slug="eng", name="E", owner=None, options=parts.options()
            )


async def test_siblings_differ_in_their_slugs_and_cousins_need_not(parts) -> None:
    _, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    assert await refusal(parts.workspace(root, "eng")) is Reason.SLUG_TAKEN
    await parts.workspace(eng, "eng")


async def test_a_tree_has_its_bound_of_levels_by_creating_and_by_moving(parts) -> None:
    _, root = await parts.tenant()
    line = [root]
    while len(line) < MAX_WORKSPACE_DEPTH:
        line.append(await parts.workspace(line[-1], f"level-{len(line)}"))
    assert await refusal(parts.workspace(line[-1], "deeper")) is Reason.TOO_DEEP
    other = await parts.workspace(root, "other")
    below = await parts.workspace(other, "below")
    assert await refusal(move(parts, other, line[-2])) is Reason.TOO_DEEP
    assert (await move(parts, below, line[-2])).record.parent_id == line[-2].id


async def test_a_move_refuses_cycles_the_root_and_a_taken_slug(parts) -> None:
    _, root = await parts.tenant()
    a = await parts.workspace(root, "aaa")
    b = await parts.workspace(a, "bbb")
    c = await parts.workspace(b, "ccc")
    assert await refusal(move(parts, a, a)) is Reason.CYCLE
    assert await refusal(move(parts, a, c)) is Reason.CYCLE
    assert await refusal(move(parts, root, c)) is Reason.ROOT_WORKSPACE
    await parts.workspace(root, "ccc")
    assert await refusal(move(parts, c, root)) is Reason.SLUG_TAKEN


async def test_a_move_changes_one_tuple_and_its_parents_is_the_only_one(parts) -> None:
    tenant, root = await parts.tenant()
    a, b = await parts.workspace(root, "aaa"), await parts.workspace(root, "bbb")
    await move(parts, b, a)
    assert (await parts.operations(tenant))[-1] == [
        f"-parent@workspace:{root.id}",
        f"+parent@workspace:{a.id}",
    ]
    assert (await move(parts, b, a)).token == ""


async def test_k3_a_parent_with_children_and_the_root_cannot_be_deleted(parts) -> None:
    tenant, root = await parts.tenant()
    a = await parts.workspace(root, "aaa", owner="bob")
    b = await parts.workspace(a, "bbb")
    assert await refusal(delete(parts, a)) is Reason.HAS_CHILDREN
    assert await refusal(delete(parts, root)) is Reason.ROOT_WORKSPACE
    await delete(parts, b)
    await delete(parts, a)
    assert (await parts.operations(tenant))[-1] == ["-owner@user:bob", f"-parent@workspace:{root.id}"]
    assert await refusal(delete(parts, a)) is Reason.NOT_FOUND


async def test_an_archive_takes_the_subtree_along_and_gives_back_what_it_took(parts) -> None:
    tenant, root = await parts.tenant()
    a = await parts.workspace(root, "aaa", owner="bob")
    b = await parts.workspace(a, "bbb", owner="bob")
    c = await parts.workspace(a, "ccc", owner="bob")
    await archive(parts, c)
    archived = await archive(parts, a)
    assert archived.record.archived_with == a.id
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        ["-owner@user:bob", f"-parent@workspace:{root.id}", "-owner@user:bob", f"-parent@workspace:{a.id}"]
    )
    assert await refusal(unarchive(parts, b)) is Reason.WORKSPACE_ARCHIVED
    await unarchive(parts, a)
    states = await parts.sql("SELECT slug, archive_time IS NULL AS used FROM workspaces ORDER BY slug")
    assert {r["slug"]: r["used"] for r in states} == {"aaa": True, "bbb": True, "ccc": False, "root": True}
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        ["+owner@user:bob", f"+parent@workspace:{root.id}", "+owner@user:bob", f"+parent@workspace:{a.id}"]
    )
    await unarchive(parts, c)


async def test_what_goes_takes_along_the_tuples_of_users_who_were_suspended_a_moment_ago(parts) -> None:
    """Their tuples may still stand, and once the records are gone nobody looks for them."""
    tenant, root = await parts.tenant()
    for verb in (archive, delete):
        top = await parts.workspace(root, f"top-{verb.__name__}", owner="sue")
        await parts.sql("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = 'sue'")
        await verb(parts, top)
        assert (await parts.operations(tenant))[-1] == ["-owner@user:sue", f"-parent@workspace:{root.id}"]
        if verb is archive:
            await unarchive(parts, top)
            assert (await parts.operations(tenant))[-1] == [f"+parent@workspace:{root.id}"]
        await parts.sql("UPDATE users SET status = 'active', suspend_time = NULL WHERE id = 'sue'")


async def test_an_answer_about_what_may_not_be_seen_is_that_about_what_is_not_there(parts) -> None:
    tenant, root = await parts.tenant("alice")
    mine, theirs = await parts.workspace(root, "mine", owner="mia"), await parts.workspace(root, "theirs")
    mia = parts.acting("mia")
    for parent in (theirs, replace(theirs, id=UNKNOWN)):
        with pytest.raises(NotFound, match=f"^parent workspace {parent.id} was not found$"):
            await parts.workspace(parent, "child", caller=mia)
        with pytest.raises(NotFound, match=f"^new parent workspace {parent.id} was not found$"):
            await move(parts, mine, parent, mia)
    with pytest.raises(NotFound, match=f"^tenant {tenant.id} was not found$"):
        await parts.workspaces.list_workspaces(
            parts.acting("mallory"),
            tenant.id,
            parent_id=None,
            recursive=False,
            include_archived=False,
            page_size=5,
            page_token="",
        )


async def test_an_owner_beside_the_acting_user_is_refused(parts) -> None:
    _, root = await parts.tenant("alice")
    assert (
        await refusal(parts.workspace(root, "top", owner="bob", caller=parts.acting("alice"))) is Reason.INVALID_FIELD
    )
    await parts.workspace(root, "top", owner="alice", caller=parts.acting("alice"))


async def test_a_dry_runs_etag_is_nobodys(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")

    async def rename(name: str, **options: object):
        return await parts.workspaces.update_workspace(
            parts.system, tenant.id, top.id, name=name, options=parts.options(**options)
        )

    dry = (await rename("Dry", validate_only=True)).record
    await rename("Real")
    with pytest.raises(PembaError) as refused:
        await rename("Blind", etag=dry.etag)
    assert refused.value.reason is Reason.ETAG_MISMATCH


async def test_what_is_archived_takes_no_change_but_unarchive_and_delete(parts) -> None:
    tenant, root = await parts.tenant()
    a, b = await parts.workspace(root, "aaa"), await parts.workspace(root, "bbb")
    await archive(parts, a)
    for call in (
        parts.workspace(a, "child"),
        parts.role(a, "bob", Role.VIEWER),
        parts.remove(a, "bob", allow_missing=True),
        move(parts, a, b),
        move(parts, b, a),
        parts.workspaces.update_workspace(parts.system, tenant.id, a.id, name="X", options=parts.options()),
    ):
        assert await refusal(call) is Reason.WORKSPACE_ARCHIVED
    assert await refusal(archive(parts, root)) is Reason.ROOT_WORKSPACE
    assert (await archive(parts, a)).token == ""
    await delete(parts, a)


async def test_a_large_archive_is_several_rows_and_its_token_names_the_last(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    await parts.sql(
        "INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(1, 1200) n",
    )
    await parts.sql(
        "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
        " SELECT $1, $2, 'user', 'user-' || n, 'viewer', 1 FROM generate_series(1, 1200) n",
        tenant.id,
        top.id,
    )
    changed = await archive(parts, top)
    rows = await parts.operations(tenant)
    assert [len(row) for row in rows[-3:]] == [500, 500, 201]
    assert parts.signer.positions(changed.token).positions == {tenant.id: len(rows)}
    audited = await parts.sql("SELECT jsonb_array_length(ops) AS n, after FROM audit ORDER BY seq DESC LIMIT 3")
    assert [(r["n"], r["after"] is None) for r in audited] == [(201, True), (500, True), (500, False)]


async def test_workspaces_are_found_by_path_and_listed_by_level_and_whole(parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    backend = await parts.workspace(eng, "backend")
    await parts.workspace(root, "ops")
    get = parts.workspaces.get_workspace
    assert (await get(parts.system, tenant.id, workspace_id=None, path="eng/backend")).record == backend
    assert (await get(parts.system, tenant.id, workspace_id=None, path="")).record == root
    for who, path in ((parts.system, "eng/frontend"), (parts.acting("mallory"), "eng/backend")):
        with pytest.raises(NotFound, match=f"^workspace {path} was not found$"):
            await get(who, tenant.id, workspace_id=None, path=path)

    async def listed(size: int, **arguments):
        slugs, page_token = [], ""
        while True:
            page = await parts.workspaces.list_workspaces(
                parts.system,
                tenant.id,
                **{"parent_id": None, "recursive": False, "include_archived": False, **arguments},
                page_size=size,
                page_token=page_token,
            )
            slugs += [w.slug for w in page.records]
            page_token = page.next_page_token
            if not page_token:
                return slugs

    for size in (1, 2, 100):
        assert await listed(size) == ["eng", "ops"]
        assert await listed(size, recursive=True) == ["eng", "backend", "ops"]
        assert await listed(size, parent_id=eng.id) == ["backend"]
    await archive(parts, eng)
    assert await listed(10, recursive=True) == ["ops"]
    assert await listed(10, recursive=True, include_archived=True) == ["eng", "backend", "ops"]


async def test_rights_on_workspaces_are_those_of_the_table(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    leaf = await parts.workspace(top, "leaf")
    other = await parts.workspace(root, "other")
    for user, role in (("adam", Role.ADMIN), ("mia", Role.MEMBER), ("vic", Role.VIEWER)):
        await parts.role(top, user, role)

    async def may(user: str, call) -> bool:
        try:
            await call(parts.acting(user))
        except Forbidden:
            return False
        return True

    async def rename(caller):
        await parts.workspaces.update_workspace(caller, tenant.id, leaf.id, name="X", options=parts.options())

    async def child(caller):
        await parts.workspace(leaf, f"of-{caller.acting_user}", caller=caller)

    async def shelve(caller):
        await archive(parts, leaf, caller)
        await unarchive(parts, leaf)

    users = ("alice", "olga", "adam", "mia", "vic")
    assert [await may(u, rename) for u in users] == [True, True, True, False, False]
    assert [await may(u, child) for u in users] == [True, True, True, False, False]
    assert [await may(u, shelve) for u in users] == [True, True, False, False, False]
    assert [await may(u, lambda caller: move(parts, leaf, top, caller)) for u in users] == [
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(NotFound):  # olga may not see the new parent
        await move(parts, leaf, other, parts.acting("olga"))
    with pytest.raises(NotFound):
        await rename(parts.acting("mallory"))
    await parts.role(root, "rob", Role.ADMIN)
    with pytest.raises(Forbidden):  # the root is its tenant admins'
        await parts.workspaces.update_workspace(
            parts.acting("rob"), tenant.id, root.id, name="X", options=parts.options()
        )
