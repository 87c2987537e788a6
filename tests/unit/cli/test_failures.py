"""One clear line, or JSON, on stderr, and an exit code that says what kind of failure it was."""

import json
import re
import socket
import subprocess
import sys
import threading

import pytest
import typer
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from pemba.cli.connection import find_target
from pemba.cli.main import CONTENTS, app
from pemba.config import ClientSettings
from pemba.dev.ready import FILE_NAME, Ready, write_private
from pemba.errors import ConfigError

WORKSPACE = "ws_01h455vb4pex5vsknk084sn02s"


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
        (["tenant", "create", "acme"], "--first-admin is missing: user:ID, "),
        (["check", "user:bob"], "PERMISSION is missing: own, administer,"),
        (["workspace", "fly"], "'fly'"),
        (["tenant", "list", "--limit", "0"], "--limit: input should be greater"),
        (["tenant", "list", "--output", "xml"], "--output: 'xml' is not one of"),
        (["tenant", "list", "--on-behalf-of", "alice"], "--on-behalf-of takes user:ID"),
    ],
)
def test_usage_errors_name_the_argument_and_exit_with_2(pemba, api, arguments, named):
    done = pemba(*arguments)
    assert (done.code, done.out) == (2, "")
    assert named in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def required(command, path=()):
    """Every required parameter of every command, with the words that leave it alone out."""
    for name, below in getattr(command, "commands", {}).items():
        yield from required(below, (*path, name))
    needed = [p for p in getattr(command, "params", ()) if p.required]
    options = {p: [p.opts[-1], "x"] for p in needed if p.opts[-1].startswith("-")}
    arguments = [p for p in needed if p not in options]
    for left_out in needed:
        given = arguments[: arguments.index(left_out)] if left_out in arguments else arguments
        words = [word for p, pair in options.items() if p is not left_out for word in pair]
        yield pytest.param([*path, *("x" for _ in given), *words], left_out, id=f"{' '.join(path)} {left_out.name}")


@pytest.mark.parametrize(("arguments", "left_out"), list(required(typer.main.get_command(app))))
def test_an_argument_that_is_missing_is_named_with_what_it_takes(pemba, arguments, left_out):
    name = max(left_out.opts, key=len) if left_out.opts[-1].startswith("-") else left_out.metavar
    done = pemba(*arguments)
    assert done.code == 2
    said = rf"error: {name or left_out.name.strip('_').upper()} is missing: \S.+  See pemba \S.*--help\.\n"
    assert re.fullmatch(said, done.err), done.err


@pytest.mark.parametrize(
    ("arguments", "field", "shown"),
    [
        (["check", "user:bob", "fly", f"workspace:{WORKSPACE}"], "permission", "PERMISSION"),
        (["check", "user:bob", "fly", "folder:x"], "resource.type", "RESOURCE"),
        (
            ["check", "user:b", "view", "folder:x", "--at-least-as-fresh", "x"],
            "consistency.at_least_as_fresh",
            "--at-least-as-fresh",
        ),
        (["check", "user:bob", "view", "folder:x"], "something.new", "something.new"),
    ],
)
def test_a_refusal_names_the_argument_where_the_api_names_a_field(pemba, api, arguments, field, shown):
    words = (*arguments, "--tenant", "ten_01h455vb4pex5vsknk084sn02q")
    bad = error_details_pb2.BadRequest(field_violations=[{"field": field, "description": "takes another"}])
    for _ in range(2):
        api.answer("Check", refusal(code_pb2.INVALID_ARGUMENT, f"{field}: takes another", bad))
    assert pemba(*words).err == f"error: {shown}: takes another\n"
    error = json.loads(pemba(*words, "-o", "json").err)["error"]
    assert (error["message"], error["violations"][0]["field"]) == (f"{field}: takes another", field)


@pytest.mark.parametrize("output", [["-o", "json"], ["--output=json"], ["--output", "json"]])
def test_what_cannot_be_read_is_told_as_json_to_who_asked_for_json(pemba, output):
    done = pemba("tenant", "get", *output)
    assert (done.code, done.out) == (2, "")
    error = json.loads(done.err)["error"]
    assert (error["code"], error["message"]) == ("USAGE", "TENANT is missing: its slug or id")


def test_a_database_setting_that_is_missing_is_named(pemba):
    done = pemba("db", "current")
    takes = "postgresql://user:password@host:port/name; the user owns the tables"
    assert (done.code, done.err) == (2, f"error: PEMBA_DATABASE_URL is not set: {takes}\n")


def test_help_is_a_table_of_contents(pemba):
    done = pemba("--help")
    assert done.code == 0
    at = [done.out.index(f"│ {command} ") for command in CONTENTS]
    assert at == sorted(at)
    assert {command.name or command.callback.__name__ for command in app.registered_commands} <= set(CONTENTS)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        (["check"], "[OPTIONS] {SUBJECT} {PERMISSION} [RESOURCE]"),
        (["workspace", "list"], "[OPTIONS] [PARENT]"),
        (["member", "set"], "[OPTIONS] {OBJECT} {SUBJECT} {ROLE}"),
    ],
)
def test_help_shows_arguments_in_capitals_and_flags_without_a_value(pemba, command, usage):
    shown = pemba(*command, "--help").out
    assert f"Usage: pemba {' '.join(command)} {usage}" in shown
    assert "bool" not in shown


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


def every_option(command):
    """All options of all commands, by name."""
    for below in getattr(command, "commands", {}).values():
        yield from every_option(below)
    for parameter in getattr(command, "params", ()):
        yield from (name for name in parameter.opts if name.startswith("--"))


def test_no_command_takes_a_key_or_secret_as_an_argument():
    names = set(every_option(typer.main.get_command(app)))
    assert "--tenant" in names
    assert [name for name in names if re.search("key|secret|password", name)] == []
