"""One clear line, or JSON, on stderr, and an exit code that says what kind of failure it was."""

import json
import socket
import subprocess
import sys
import threading

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from pemba.cli.connection import find_target
from pemba.cli.main import CONTENTS, app
from pemba.config import ClientSettings
from pemba.dev.ready import FILE_NAME, Ready, write_private
from pemba.errors import ConfigError


def refusal(code, message, *details):
    """A servicer's answer: a google.rpc.Status with details."""

    def abort(context):
        packed = [Any() for _ in details]
        for any_, detail in zip(packed, details, strict=True):
            any_.Pack(detail)
        status = status_pb2.Status(code=code, message=message, details=packed)
        context.abort_with_status(rpc_status.to_status(status))

    return abort


def test_a_guard_is_one_line_with_its_reason(pemba, api):
    info = error_details_pb2.ErrorInfo(reason="SLUG_TAKEN", domain="pemba")
    api.answer("CreateTenant", refusal(code_pb2.ALREADY_EXISTS, "the slug acme is taken", info))
    done = pemba("tenant", "create", "acme", "--first-admin", "user:alice")
    assert (done.code, done.out) == (3, "")
    assert done.err == "error: the slug acme is taken (SLUG_TAKEN)\n"


def test_json_errors_carry_every_detail(pemba, api):
    info = error_details_pb2.ErrorInfo(reason="INVALID_FIELD", domain="pemba", metadata={"k": "v"})
    violation = error_details_pb2.BadRequest.FieldViolation(field="slug", description="takes a slug")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=500_000_000))
    api.answer("CreateTenant", refusal(code_pb2.INVALID_ARGUMENT, "slug: takes a slug", info, bad, retry))
    done = pemba("tenant", "create", "x", "--first-admin", "user:alice", "--output", "json")
    assert done.code == 3
    assert json.loads(done.err)["error"] == {
        "code": "INVALID_ARGUMENT",
        "message": "slug: takes a slug",
        "reason": "INVALID_FIELD",
        "metadata": {"k": "v"},
        "violations": [{"field": "slug", "description": "takes a slug"}],
        "retry_seconds": 0.5,
    }


def test_an_error_without_retry_info_does_not_invent_one(pemba, api):
    api.answer("GetTenant", refusal(code_pb2.NOT_FOUND, "tenant acme was not found"))
    assert pemba("tenant", "get", "acme").err == "error: tenant acme was not found\n"


def test_a_deadline_says_how_to_wait_longer(pemba, api):
    def never(context):
        context.add_callback(gone.set)
        gone.wait(5)

    gone = threading.Event()
    api.answer("GetTenant", never)
    done = pemba("tenant", "get", "acme", "--timeout", "0.2")
    assert done.code == 3
    assert "--timeout" in done.err


def test_nobody_there_names_the_address(pemba, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    monkeypatch.setenv("PEMBA_KEY", "k" * 32)
    done = pemba("tenant", "list", "--endpoint", address)
    assert (done.code, done.err) == (3, f"error: cannot reach Pemba at {address}\n")


def test_without_an_address_the_setting_is_named(pemba):
    done = pemba("tenant", "list")
    assert done.code == 2
    assert "PEMBA_ENDPOINT is not set" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tenant", "create", "acme"], "--first-admin"),
        (["check", "user:bob"], "'permission'"),
        (["workspace", "fly"], "'fly'"),
        (["tenant", "list", "--limit", "0"], "'--limit'"),
        (["tenant", "list", "--output", "xml"], "'--output'"),
        (["tenant", "list", "--on-behalf-of", "alice"], "--on-behalf-of takes user:ID"),
    ],
)
def test_usage_errors_name_the_argument_and_exit_with_2(pemba, api, arguments, named):
    done = pemba(*arguments)
    assert (done.code, done.out) == (2, "")
    assert named in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_a_database_setting_that_is_missing_is_named(pemba):
    done = pemba("db", "current")
    assert (done.code, done.err) == (2, "error: PEMBA_DATABASE_URL is not set\n")


def test_help_is_a_table_of_contents(pemba):
    done = pemba("--help")
    assert done.code == 0
    at = [done.out.index(f"│ {command} ") for command in CONTENTS]
    assert at == sorted(at)
    assert {command.name or command.callback.__name__ for command in app.registered_commands} <= set(CONTENTS)


def test_help_does_not_wait_for_grpc_or_the_database_driver():
    program = "import sys, pemba.cli.main; print([m for m in ('grpc', 'sqlalchemy', 'asyncpg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


# -- whom a command calls ---------------------------------------------------------------------------------

RUNNING = Ready(
    grpc="127.0.0.1:4",
    http="127.0.0.1:5",
    key="dev-key",
    database_url="",
    spicedb_endpoint="",
    spicedb_key="",
    pid={},
)


@pytest.fixture
def dev_folder(tmp_path):
    RUNNING.write(tmp_path / FILE_NAME)
    return tmp_path


def target(folder, **settings):
    found = find_target(ClientSettings(**settings), folder)
    return found.endpoint, found.key


def test_a_running_dev_is_found_without_settings(dev_folder):
    assert target(dev_folder) == ("127.0.0.1:4", "dev-key")
    assert target(dev_folder, endpoint="127.0.0.1:4") == ("127.0.0.1:4", "dev-key")


def test_settings_win_over_a_running_dev(dev_folder):
    assert target(dev_folder, endpoint="pemba:1", key="mine") == ("pemba:1", "mine")
    assert target(dev_folder, key="mine") == ("127.0.0.1:4", "mine")


def test_the_key_of_a_dev_is_not_sent_elsewhere(dev_folder):
    with pytest.raises(ConfigError, match="PEMBA_KEY or PEMBA_KEY_FILE is not set"):
        target(dev_folder, endpoint="pemba:1")


def test_a_broken_ready_file_is_as_good_as_none(tmp_path):
    write_private(tmp_path / FILE_NAME, "{")
    with pytest.raises(ConfigError, match="PEMBA_ENDPOINT is not set"):
        target(tmp_path)


def test_a_dev_that_is_gone_is_named(pemba, monkeypatch, dev_folder):
    monkeypatch.setenv("PEMBA_DATA_DIR", str(dev_folder))
    done = pemba("tenant", "list", "--timeout", "2")
    assert done.code == 3
    assert f"(from {dev_folder / FILE_NAME}); is `pemba dev` running?" in done.err
