"""The commands, as a person types them in a second terminal, against a running `pemba dev`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from pemba.config import DevSettings, load

ROOT = Path(__file__).parents[2]

Pemba = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pemba(running_dev: Mapping[str, str]) -> Pemba:
    """Run `pemba ARGUMENTS`; keywords are settings."""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pemba", *arguments],
            env={**running_dev, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def tenant(pemba: Pemba) -> str:
    """A tenant of one's own, with alice as admin and the workspaces eng and eng/backend; its slug."""
    slug = f"acme-{secrets.token_hex(4)}"
    for arguments in (
        ("tenant", "create", slug, "--first-admin", "user:alice"),
        ("workspace", "create", "eng", "--tenant", slug),
        ("workspace", "create", "eng/backend", "--tenant", slug),
    ):
        done = pemba(*arguments)
        assert done.returncode == 0, done.stderr
    return slug


def parsed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_tenants_life(pemba: Pemba, tenant: str):
    got = parsed(pemba("tenant", "get", tenant, "-o", "json"))["tenant"]
    assert (got["slug"], got["status"]) == (tenant, "TENANT_STATUS_ACTIVE")
    assert tenant in [each["slug"] for each in parsed(pemba("tenant", "list", "-o", "json"))["tenants"]]
    assert parsed(pemba("tenant", "update", tenant, "--name", "New", "-o", "json"))["tenant"]["name"] == "New"

    token = pemba("tenant", "suspend", tenant, "-o", "token").stdout.strip()
    question = ("check", "user:alice", "own", "workspace:eng", "--tenant", tenant)
    denied = pemba(*question, "--at-least-as-fresh", token)
    assert (denied.stdout, denied.returncode) == ("DENIED (TENANT_SUSPENDED)\n", 1)

    token = pemba("tenant", "activate", tenant, "-o", "token").stdout.strip()
    assert pemba(*question, "--at-least-as-fresh", token).stdout == "ALLOWED\n"


def test_a_workspaces_life(pemba: Pemba, tenant: str):
    there = ("--tenant", tenant)
    assert pemba("workspace", "create", "ops", "--owner", "user:carol", *there).returncode == 0
    moved = pemba("workspace", "move", "eng/backend", "ops", *there)
    assert moved.returncode == 0, moved.stderr
    assert pemba("workspace", "update", "ops/backend", "--name", "New", *there).returncode == 0
    assert parsed(pemba("workspace", "get", "ops/backend", "-o", "json", *there))["workspace"]["name"] == "New"

    token = pemba("workspace", "archive", "ops", "-o", "token", *there).stdout.strip()
    question = ("check", "user:carol", "own", f"workspace:{_id(pemba, 'ops/backend', tenant)}", *there)
    assert pemba(*question, "--at-least-as-fresh", token).stdout == "DENIED\n"
    slugs = [each["slug"] for each in parsed(pemba("workspace", "list", "-o", "json", *there))["workspaces"]]
    assert slugs == ["eng"]

    token = pemba("workspace", "unarchive", "ops", "-o", "token", *there).stdout.strip()
    assert pemba(*question, "--at-least-as-fresh", token).stdout == "ALLOWED\n"

    refused = pemba("workspace", "delete", "ops", *there)
    assert refused.returncode == 3
    assert "(HAS_CHILDREN)" in refused.stderr
    assert pemba("workspace", "delete", "ops/backend", *there).returncode == 0
    assert pemba("workspace", "delete", "ops", *there).returncode == 0


def _id(pemba: Pemba, path: str, tenant: str) -> str:
    found: str = parsed(pemba("workspace", "get", path, "-o", "json", "--tenant", tenant))["workspace"]["id"]
    return found


def test_a_members_life(pemba: Pemba, tenant: str):
    where = ("workspace:eng", "--tenant", tenant)
    assert pemba("member", "set", "workspace:eng", "user:bob", "owner", "--tenant", tenant).returncode == 0
    got = parsed(pemba("member", "get", "workspace:eng", "user:bob", "-o", "json", "--tenant", tenant))["membership"]
    assert got["role"] == "ROLE_OWNER"
    moved = pemba("member", "transfer", *where, "--from", "user:bob", "--to", "user:carol")
    assert moved.returncode == 0, moved.stderr
    roles = {
        each["subject"]["id"]: each["role"]
        for each in parsed(pemba("member", "list", *where, "-o", "json"))["memberships"]
    }
    assert roles == {"bob": "ROLE_ADMIN", "carol": "ROLE_OWNER"}
    refused = pemba("member", "remove", "workspace:eng", "user:carol", "--tenant", tenant)
    assert refused.returncode == 3
    assert "(LAST_OWNER)" in refused.stderr


def test_a_users_life(pemba: Pemba, tenant: str):
    name = f"user:{tenant}-zoe"
    made = pemba("user", "create", name, "--email", f"zoe@{tenant}.test", "--workspace-in", tenant, "-o", "json")
    assert made.returncode == 0, made.stderr
    workspace = parsed(made)["workspace"]
    asked = ("check", name, "own", f"workspace:{workspace['slug']}", "--tenant", tenant, "--fully-consistent")
    assert pemba(*asked).returncode == 0
    assert workspace["id"] in pemba("user", "current", name).stdout
    assert pemba("user", "record-login", name).returncode == 0
    assert pemba("user", "suspend", name).returncode == 0
    assert pemba(*asked).returncode == 1
    assert name in pemba("user", "list", "--filter", f"status=suspended AND email:zoe@{tenant}").stdout
    assert pemba("user", "activate", name).returncode == 0
    assert pemba(*asked).returncode == 0
    refused = pemba("user", "deactivate", name)
    assert refused.returncode == 3
    assert "(LAST_OWNER)" in refused.stderr
    held = parsed(pemba("user", "memberships", name, "-o", "json"))["memberships"]
    assert [each["role"] for each in held] == ["ROLE_OWNER"]


def test_the_same_request_id_changes_once(pemba: Pemba, tenant: str):
    change = ("member", "set", "workspace:eng", "user:bob", "admin", "--tenant", tenant, "--request-id", "r-1")
    first, again = (pemba(*change, "-o", "token") for _ in range(2))
    assert first.stdout == again.stdout != "\n"
    reused = pemba("member", "set", "workspace:eng", "user:bob", "viewer", "--tenant", tenant, "--request-id", "r-1")
    assert "(REQUEST_ID_REUSED)" in reused.stderr


def test_validate_only_changes_nothing(pemba: Pemba, tenant: str):
    done = pemba("workspace", "create", "ops", "--tenant", tenant, "--validate-only")
    assert done.returncode == 0, done.stderr
    gone = pemba("workspace", "get", "ops", "--tenant", tenant)
    assert gone.returncode == 3


def test_acting_for_a_user_is_bound_by_their_roles(pemba: Pemba, tenant: str):
    done = pemba("workspace", "get", "eng", "--tenant", tenant, "--on-behalf-of", "user:mallory", "-o", "json")
    assert done.returncode == 3
    assert json.loads(done.stderr)["error"]["code"] == "NOT_FOUND"


def test_errors_of_the_server_come_as_json_where_json_was_asked_for(pemba: Pemba, tenant: str):
    done = pemba("tenant", "create", tenant, "--first-admin", "user:alice", "-o", "json")
    assert done.returncode == 3
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["reason"]) == ("ALREADY_EXISTS", "SLUG_TAKEN")


def test_a_wrong_key_is_refused(pemba: Pemba):
    done = pemba("tenant", "list", PEMBA_KEY="w" * 32)
    assert done.returncode == 3
    assert "(KEY_INVALID)" in done.stderr


def test_operators_commands_take_the_database_by_setting(pemba: Pemba, running_dev: Mapping[str, str], tenant: str):
    ready = json.loads((Path(running_dev["HOME"]) / ".local/share/pemba/dev/ready.json").read_text())
    settings = {
        "PEMBA_DATABASE_URL": ready["database_url"],
        "PEMBA_SPICEDB_ENDPOINT": ready["spicedb_endpoint"],
        "PEMBA_SPICEDB_KEY": ready["spicedb_key"],
    }
    assert "(the newest)" in pemba("db", "current", **settings).stdout
    assert "(the newest)" in pemba("db", "upgrade", **settings).stdout
    assert pemba("schema", "check", **settings).returncode == 0
    tenant_id = parsed(pemba("tenant", "get", tenant, "-o", "json"))["tenant"]["id"]
    streams = parsed(pemba("outbox", "status", "--all", "-o", "json", **settings))["streams"]
    [stream] = [each for each in streams if each["tenant_id"] == tenant_id]
    assert stream["head_seq"] == 3
    assert tenant_id in pemba("outbox", "status", "--all", **settings).stdout


def test_a_revision_that_there_is_not_is_named(pemba: Pemba, running_dev: Mapping[str, str]):
    ready = json.loads((Path(running_dev["HOME"]) / ".local/share/pemba/dev/ready.json").read_text())
    done = pemba("db", "upgrade", "nonsense", PEMBA_DATABASE_URL=ready["database_url"])
    assert done.returncode == 3
    assert "nonsense" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_run_passes_arguments_on_and_ends_with_all_that_it_started(tmp_path: Path, number: int):
    home = tmp_path / "home"
    home.mkdir()
    file = tmp_path / "ready.json"
    # a make that runs these tests is none of this one's business
    others = ("PEMBA_", "XDG_", "MAKE", "MFLAGS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    process = subprocess.Popen(
        # what set-up makes is there: these tests run in it
        ["make", "--old-file", ".venv/.set-up", "run", f"ARGS=--grpc-port 0 --http-port 0 --ready-file {file}"],
        cwd=ROOT,
        env={**inherited, "HOME": str(home), "PEMBA_CACHE_DIR": str(load(DevSettings).cache_folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("pemba ready grpc=127.0.0.1:")
        started = list(psutil.Process(process.pid).children(recursive=True))
        assert len(started) > 3
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal's Ctrl-C reaches the whole group
        else:
            process.send_signal(number)
        process.communicate(timeout=60)
        _, alive = psutil.wait_procs(started, timeout=20)
        assert alive == []
        assert not file.exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def test_the_doctor_finds_a_running_dev_well_and_shows_no_secret(pemba: Pemba, running_dev: Mapping[str, str]):
    ready = json.loads((Path(running_dev["HOME"]) / ".local/share/pemba/dev/ready.json").read_text())
    done = pemba("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = done.stdout.split("\n\n")[1].splitlines()
    assert [line.split()[:2] for line in findings] == [
        ["ok", part] for part in ("settings", "API", "key", "PostgreSQL", "relay", "SpiceDB")
    ]
    assert ready["grpc"] in done.stdout
    assert ready["key"] not in done.stdout
    assert ready["spicedb_key"] not in done.stdout


def test_w6_editor_is_member(pemba: Pemba, tenant: str):
    added = pemba("member", "set", "workspace:eng", "user:bob", "editor", "--tenant", tenant, "-o", "json")
    assert parsed(added)["membership"]["role"] == "ROLE_MEMBER"


def test_a5_every_service_has_commands_and_a_usage_error_names_the_argument(pemba: Pemba, tenant: str):
    listed = pemba("--help").stdout
    for noun in ("tenant", "workspace", "member", "group", "user", "share", "check", "lookup", "outbox", "reconcile"):
        assert f" {noun} " in listed
    wrong = pemba("check", "alice", "view", "workspace:eng", "--tenant", tenant)
    assert wrong.returncode == 2
    assert "SUBJECT" in wrong.stderr
