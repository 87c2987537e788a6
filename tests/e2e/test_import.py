"""`pemba import` against a running `pemba dev`: there and back, cut off in the middle, and what is in the way."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pemba.cli.call_options import CallOptions
from pemba.cli.connection import Connection, connect
from pemba.cli.failure import CallFailed
from pemba.cli.importing import applying, stages
from pemba.cli.outbox import read_streams
from pemba.cli.progress import Progress
from pemba.v1 import memberships_pb2
from tests.e2e.calls import Caller, ref, user_ref

Pemba = Callable[..., subprocess.CompletedProcess[str]]
Lines = Callable[..., Path]


@pytest.fixture
def pemba(running_dev: Mapping[str, str]) -> Pemba:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pemba", *map(str, arguments)],
            env=dict(running_dev),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def slug() -> str:
    return f"acme-{secrets.token_hex(4)}"


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """Write a file of these lines."""

    def write(*records: dict[str, Any], name: str = "data.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return file

    return write


@pytest.fixture
def here(ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """The connection of a command in this process."""
    monkeypatch.setenv("PEMBA_KEY", ready["key"])
    with connect(CallOptions(endpoint=ready["grpc"])) as connection:
        yield connection


Head = Callable[[str], Awaitable[int]]


@pytest.fixture
def head_seq(ready: dict[str, Any]) -> Head:
    """How many changes a tenant has had."""

    async def head_of(tenant: str) -> int:
        streams = await read_streams(ready["database_url"], True, 10_000)
        return next(each.head_seq for each in streams if each.tenant_id == tenant)

    return head_of


def order(file: Path, tenant: str, **more: Any) -> stages.Order:
    wanted = {"create": False, "first_admin": "", "journal": file.with_name("journal"), "max_errors": 100, **more}
    return stages.Order(files=[file], tenant=tenant, **wanted)


def member(object_: str, subject: str, role: str) -> dict[str, Any]:
    return {"kind": "member", "object": object_, "subject": subject, "role": role}


def data_set(slug: str) -> list[dict[str, Any]]:
    """A small company, in an order in which nothing could be made."""
    return [
        {"kind": "share", "workspace": "ops", "with_workspace": "eng/backend", "role": "viewer"},
        member("ops", "group:external:00g1", "viewer"),
        member("eng", f"user:{slug}-bob", "owner"),
        member("tenant", f"user:{slug}-bob", "member"),
        {"kind": "group_member", "group": "external:00g1", "subject": "group:leads"},
        {"kind": "group_member", "group": "leads", "subject": f"user:{slug}-carol", "manager": True},
        {"kind": "group", "slug": "leads"},
        {"kind": "group", "slug": "staff", "name": "Staff", "external_id": "00g1"},
        {"kind": "workspace", "path": "eng/backend", "name": "Backend"},
        {"kind": "workspace", "path": "ops"},
        {"kind": "workspace", "path": "eng"},
        {"kind": "user", "id": f"{slug}-bob", "email": f"bob@{slug}.test", "display_name": "Bob"},
        member("eng/backend", f"user:{slug}-dave", "editor"),
    ]


def report(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def counts(said: dict[str, Any], when: str) -> list[int]:
    """Tenant, users, workspaces, groups, group members, members, shares."""
    return list(said[when].values())


def made(said: dict[str, Any]) -> dict[str, int]:
    return {kind: actions["make"] for kind, actions in said["kinds"].items()}


async def test_a6_a_data_set_becomes_a_tenant_and_goes_again(pemba: Pemba, lines: Lines, slug: str, system: Caller):
    file = lines(*data_set(slug))
    there = (file, "--tenant", slug, "--create", "--first-admin", f"user:{slug}-alice", "-o", "json")

    planned = report(pemba("import", *there))
    wanted = {"tenant": 1, "user": 1, "workspace": 3, "group": 2, "group_member": 2, "member": 4, "share": 1}
    assert (planned["stage"], made(planned)) == ("dry_run", wanted)
    assert await system.refused("GetTenant", slug=slug) == ("NOT_FOUND", "NOT_FOUND")

    applied = report(pemba("import", *there, "--apply"))
    assert (applied["stage"], made(applied)) == ("applied", wanted)
    assert (counts(applied, "before")[2:], counts(applied, "after")[2:]) == ([0, 0, 0, 0, 0], [4, 2, 2, 5, 1])
    tenant = (await system("GetTenant", slug=slug))["tenant"]["id"]
    ids = {
        path: (await system("GetWorkspace", tenant_id=tenant, path=path))["workspace"]["id"]
        for path in ("eng", "eng/backend", "ops")
    }
    token = applied["token"]
    for user, permission, path in (
        ("alice", "own", "ops"),
        ("bob", "own", "eng/backend"),
        ("carol", "view", "ops"),  # of leads, who are of staff
        ("dave", "edit", "eng/backend"),
        ("dave", "view", "ops"),  # the share
    ):
        assert await system.may(tenant, f"{slug}-{user}", permission, ids[path], token), (user, permission, path)
    assert not await system.may(tenant, f"{slug}-dave", "view", ids["eng"], token)

    assert report(pemba("import", file, "--tenant", slug, "--apply", "-o", "json"))["stage"] == "nothing_to_do"

    undone = report(pemba("import", file, "--undo", "--apply", "-o", "json"))
    assert counts(undone, "after")[2:] == [1, 0, 0, 1, 0]  # the root, and the first admin
    assert undone["kinds"]["user"] == {"stays: users are global and never deleted": 1}
    assert not await system.may(tenant, f"{slug}-bob", "view", tenant)
    assert pemba("import", file, "--undo").returncode == 3


async def test_w8_what_is_wrong_is_told_all_at_once_and_nothing_is_changed(
    pemba: Pemba, lines: Lines, acme: dict[str, str], head_seq: Head
):
    file = lines(
        member("eng", "user:bob", "boss"),
        {"kind": "workspace", "path": "sales/north"},
        member("nowhere", "user:bob", "viewer"),
        {"kind": "group", "slug": "staff"},
        {"kind": "group", "slug": "staff"},
        {"kind": "group_member", "group": "staff", "subject": "group:staff"},
    )
    head = await head_seq(acme["tenant"])
    said = report(pemba("import", file, "--tenant", acme["slug"], "--apply", "-o", "json"), 1)
    assert [(each["line"], each["field"]) for each in said["errors"]] == [
        *((1, "role"), (2, "path"), (3, "object"), (5, ""), (6, "subject"))
    ]
    few = pemba("import", file, "--tenant", acme["slug"], "--max-errors", 2)
    assert few.returncode == 1
    assert few.stdout.startswith(
        "data.jsonl:1: role: takes a role that a workspace has: viewer, member, admin, owner\n"
    )
    assert "... and 3 more" in few.stdout
    assert await head_seq(acme["tenant"]) == head
    assert [each.name for each in file.parent.iterdir()] == ["data.jsonl"]


def begin(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def test_an_import_that_is_killed_goes_on_where_it_was_and_repeats_nothing(
    pemba: Pemba, lines: Lines, running_dev: Mapping[str, str], acme: dict[str, str], head_seq: Head
):
    file = lines(
        *({"kind": "workspace", "path": f"team-{number:03d}"} for number in range(150)),
        *(member(f"team-{number:03d}", "user:bob", "viewer") for number in range(150)),
    )
    head = await head_seq(acme["tenant"])
    command = [sys.executable, "-m", "pemba", "import", str(file), "--tenant", acme["slug"], "--apply"]
    process = begin(command, running_dev)
    try:
        deadline = time.monotonic() + 60
        while await head_seq(acme["tenant"]) < head + 20:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    assert await head_seq(acme["tenant"]) < head + 151

    again = pemba("import", file, "--tenant", acme["slug"], "--apply")
    assert again.returncode == 3
    assert "--resume goes on with it" in again.stderr

    done = report(pemba("import", file, "--resume", "-o", "json"))
    assert (done["stage"], done["after"]["workspace"], done["after"]["member"]) == ("applied", 153, 151)
    assert await head_seq(acme["tenant"]) == head + 151  # 150 workspaces, and one call for all the roles
    assert pemba("import", file, "--resume").returncode == 3


def forget(journal: Path, which: str) -> None:
    """What a crash leaves between the answer of a call and the note of it."""
    with sqlite3.connect(journal) as db:
        changed = db.execute(f"UPDATE records SET done = 0, id = '', etag = '' WHERE {which}").rowcount
        db.execute("UPDATE meta SET value = 'applying' WHERE name = 'state'")
    db.close()
    assert changed


@pytest.mark.parametrize(
    "which",
    [
        "kind = 'share'",
        "kind = 'member'",
        "kind = 'tenant'",
        "name = 'ops' AND other = ''",
        "name = 'leads' AND id = ''",
    ],
)
async def test_a_call_whose_answer_was_not_noted_is_not_made_twice(
    pemba: Pemba, lines: Lines, slug: str, system: Caller, head_seq: Head, which: str
):
    file = lines(*data_set(slug))
    first = ("--tenant", slug, "--create", "--first-admin", f"user:{slug}-alice")
    assert pemba("import", file, *first, "--apply").returncode == 0
    tenant = (await system("GetTenant", slug=slug))["tenant"]["id"]
    head = await head_seq(tenant)

    forget(file.with_name("data.jsonl.import"), which)
    assert report(pemba("import", file, "--resume", "-o", "json"))["stage"] == "applied"
    assert await head_seq(tenant) == head

    forget(file.with_name("data.jsonl.import"), which)
    undone = report(pemba("import", file, "--undo", "--apply", "-o", "json"))
    assert counts(undone, "after")[2:] == [1, 0, 0, 1, 0]


async def test_what_an_import_changed_is_set_back(pemba: Pemba, lines: Lines, acme: dict[str, str], system: Caller):
    tenant = acme["tenant"]
    user = f"{acme['slug']}-bob"
    await system("CreateUser", id=user, email=f"b@{acme['slug']}.test", display_name="Bob")
    await system("SetRole", tenant_id=tenant, object=ref(acme["eng"]), subject=user_ref(user), role="ROLE_VIEWER")
    staff = (await system("CreateGroup", tenant_id=tenant, slug="staff", name="Staff"))["group"]["id"]
    for each in (user, "carol"):
        await system("AddGroupMember", tenant_id=tenant, group_id=staff, subject=user_ref(each))
    file = lines(
        {"kind": "tenant", "slug": acme["slug"], "name": "Acme Corporation"},
        {"kind": "user", "id": user, "display_name": "Robert"},
        {"kind": "workspace", "path": "eng", "name": "Engineers"},
        {"kind": "group", "slug": "staff", "name": "Everybody", "external_id": "x"},
        {"kind": "group_member", "group": "staff", "subject": f"user:{user}", "manager": True},
        {"kind": "group_member", "group": "staff", "subject": "user:dave"},
        member("eng", f"user:{user}", "admin"),
        member("eng/backend", f"user:{user}", "owner"),
        member("tenant", f"user:{user}", "member"),
    )

    async def state() -> list[Any]:
        read = [
            (await system("GetTenant", tenant_id=tenant))["tenant"]["name"],
            (await system("GetUser", user_id=user))["user"]["display_name"],
            (await system("GetWorkspace", tenant_id=tenant, path="eng"))["workspace"]["name"],
            (await system("GetGroup", tenant_id=tenant, group_id=staff))["group"]["external_id"],
        ]
        listed = await system("ListGroupMembers", tenant_id=tenant, group_id=staff)
        read.append([(each["subject"]["id"], each["manager"]) for each in listed["group_members"]])
        for id_ in (acme["eng"], acme["backend"], tenant):
            members = await system("ListMembers", tenant_id=tenant, object=ref(id_))
            read.append([(each["subject"]["id"], each["role"]) for each in members["memberships"]])
        return read

    before = await state()
    applied = report(pemba("import", file, "--tenant", acme["slug"], "--apply", "-o", "json"))
    assert [each["change"] for each in applied["kinds"].values()] == [1] * 6
    after = await state()
    assert after[:4] == ["Acme Corporation", "Robert", "Engineers", "x"]
    assert after[4] == [(user, True), ("carol", False), ("dave", False)]

    undone = report(pemba("import", file, "--undo", "--apply", "-o", "json"))
    # an only owner cannot be removed; without a role on the tenant bob would lose the one that he had before
    assert sum(count for how, count in undone["kinds"]["member"].items() if how.startswith("stays")) == 2
    now = await state()
    assert (now[:6], now[7]) == (before[:6], [(user, "ROLE_MEMBER"), ("alice", "ROLE_ADMIN")])


@pytest.mark.parametrize("later", ["child", "member", "rename", "role", "group", "held", "personal"])
async def test_an_undo_that_later_changes_build_on_is_refused_as_a_whole(
    pemba: Pemba, lines: Lines, slug: str, system: Caller, head_seq: Head, later: str
):
    file = lines(*data_set(slug))
    first = ("--tenant", slug, "--create", "--first-admin", f"user:{slug}-alice")
    assert pemba("import", file, *first, "--apply").returncode == 0
    tenant = (await system("GetTenant", slug=slug))["tenant"]["id"]
    root = (await system("GetWorkspace", tenant_id=tenant, path=""))["workspace"]["id"]
    ops = (await system("GetWorkspace", tenant_id=tenant, path="ops"))["workspace"]["id"]
    staff = (await system("GetGroup", tenant_id=tenant, slug="staff"))["group"]["id"]
    there = {"tenant_id": tenant}
    on = {"object": ref(ops), "subject": user_ref("erin"), "role": "ROLE_VIEWER"}
    of_bob = {"subject": user_ref(f"{slug}-bob"), "role": "ROLE_ADMIN"}
    below = {"parent_id": ops, "slug": "later", "name": "Later"}
    changes: dict[str, tuple[str, dict[str, Any], str]] = {
        "child": ("CreateWorkspace", below, "workspace ops/later is below it"),
        "member": ("SetRole", on, "member workspace:ops user:erin is on it"),
        "rename": ("UpdateWorkspace", {"workspace_id": ops, "name": "New"}, "workspace ops was changed since"),
        "role": ("SetRole", {"object": ref(tenant), **of_bob}, f"member tenant user:{slug}-bob was changed since"),
        "group": ("AddGroupMember", {"group_id": staff, "subject": user_ref("erin")}, "staff user:erin is of it"),
        "held": ("SetRole", {"object": ref(root), **of_bob}, f"workspace:/ user:{slug}-bob would go with it"),
    }
    changes["personal"] = ("EnsurePersonalWorkspace", {"user_id": f"{slug}-bob"}, f"user:{slug}-bob would go with it")
    method, fields, said = changes[later]
    await system(method, **there, **fields)
    head = await head_seq(tenant)
    refused = pemba("import", file, "--undo", "--apply")
    assert refused.returncode == 1
    assert said in refused.stdout
    assert await head_seq(tenant) == head


async def test_a_group_that_is_too_large_for_one_call_gets_its_members_one_by_one(
    here: Connection, lines: Lines, acme: dict[str, str], system: Caller, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(applying, "MAX_SET_MEMBERS", 2)
    monkeypatch.setattr(stages.obstacles, "_WITH", stages.obstacles._WITH.replace("10000", "2"))
    people = [{"kind": "group_member", "group": "staff", "subject": f"user:{name}"} for name in ("a", "b", "c")]
    file = lines({"kind": "group", "slug": "staff"}, *people)
    progress = Progress("test")
    assert stages.apply(here, order(file, acme["slug"]), progress).after["group_member"] == 3
    staff = (await system("GetGroup", tenant_id=acme["tenant"], slug="staff"))["group"]["id"]
    listed = await system("ListGroupMembers", tenant_id=acme["tenant"], group_id=staff)
    assert [each["subject"]["id"] for each in listed["group_members"]] == ["a", "b", "c"]
    undone = stages.undo(here, order(file, ""), progress, carry_out=True)
    assert (undone.stage, undone.after["group"], undone.after["group_member"]) == ("undone", 0, 0)


async def test_what_was_changed_meanwhile_stops_an_import_and_an_undo_that_was_cut_off_goes_on(
    here: Connection, lines: Lines, acme: dict[str, str], system: Caller, monkeypatch: pytest.MonkeyPatch
):
    tenant, progress = acme["tenant"], Progress("test")
    file = lines({"kind": "workspace", "path": "sales"}, {"kind": "workspace", "path": "eng", "name": "Engineers"})
    wanted = order(file, acme["slug"])

    def between(*_: Any) -> None:
        monkeypatch.undo()
        raise CallFailed(stages.Problem("CANCELLED", "cut off"))

    monkeypatch.setattr(stages.Applying, "run", between)
    with pytest.raises(CallFailed, match="cut off"):
        stages.apply(here, wanted, progress)
    await system("UpdateWorkspace", tenant_id=tenant, workspace_id=acme["eng"], name="Somebody's")
    with pytest.raises(CallFailed, match=r"data.jsonl:2: workspace eng: etag: the record was changed"):
        stages.resume(here, wanted, progress)

    monkeypatch.setattr(stages.Undoing, "_take_back", between)
    with pytest.raises(CallFailed, match="cut off"):
        stages.undo(here, wanted, progress, carry_out=True)
    with pytest.raises(CallFailed, match="--undo --apply does"):
        stages.apply(here, wanted, progress)
    assert stages.undo(here, wanted, progress, carry_out=True).after["workspace"] == 3
    assert (await system("GetWorkspace", tenant_id=tenant, path="eng"))["workspace"]["name"] == "Somebody's"


async def test_what_is_not_there_in_the_end_is_told(
    here: Connection, lines: Lines, acme: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    file = lines(member("eng", "user:bob", "viewer"), {"kind": "workspace", "path": "ops"})
    run = stages.Applying.run

    def with_somebody_else(self: stages.Applying, progress: Progress) -> None:
        run(self, progress)
        removal = memberships_pb2.RemoveMemberRequest(
            tenant_id=acme["tenant"],
            object={"type": "workspace", "id": acme["eng"]},
            subject={"type": "user", "id": "bob"},
        )
        self._journal.note(token=here.read(here.memberships.RemoveMember, removal).token)

    monkeypatch.setattr(stages.Applying, "run", with_somebody_else)
    report = stages.apply(here, order(file, acme["slug"]), Progress("test"))
    assert report.stage == "applied"
    assert [str(each) for each in report.complaints] == [
        "data.jsonl:1: member workspace:eng user:bob is not there as the line says; was it changed meanwhile?",
        "data.jsonl:1: member workspace:eng user:bob gives view, and a check denies it",
    ]


def test_the_journal_is_of_these_files_alone(pemba: Pemba, lines: Lines, acme: dict[str, str]):
    file = lines({"kind": "workspace", "path": "sales"})
    assert pemba("import", file, "--tenant", acme["slug"], "--apply").returncode == 0
    file.write_text('{"kind": "workspace", "path": "other"}\n')
    refused = pemba("import", file, "--undo", "--apply")
    assert refused.returncode == 3
    assert "is of an import of other files" in refused.stderr
    done = pemba("import", file, "--tenant", acme["slug"], "--apply")
    assert done.returncode == 0, done.stderr
    assert len(list(file.parent.glob("data.jsonl.import*"))) == 2  # the earlier one is kept aside


def test_a_tenant_is_made_where_that_is_asked_for_and_at_no_other_time(
    pemba: Pemba, lines: Lines, slug: str, acme: dict[str, str]
):
    file = lines({"kind": "workspace", "path": "sales"})
    assert "--create makes it" in pemba("import", file, "--tenant", slug).stderr
    assert "--first-admin is missing" in pemba("import", file, "--tenant", slug, "--create").stderr
    taken = pemba("import", file, "--tenant", acme["slug"], "--create", "--first-admin", "user:alice")
    assert taken.returncode == 3
    assert "there is a tenant" in taken.stderr
    assert "--tenant is missing" in pemba("import", file).stderr
    assert pemba("import", file, "--undo", "--resume").returncode == 2
    assert os.listdir(file.parent) == ["data.jsonl"]
