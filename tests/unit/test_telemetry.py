"""What operators read: lines of JSON, with context, without secrets."""

import ast
import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from pemba import telemetry


@pytest.fixture
def restored_logging():
    """Other tests find logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, _ = handlers, root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(restored_logging):
    stream = io.StringIO()
    telemetry.set_up_logging("info", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_carries_event_level_utc_time_and_the_calls_context(lines):
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger("pemba.relay").warning(telemetry.Event.SHARD_PAUSED, shard=3)
    [line] = lines()
    assert line["event"] == "shard_paused"
    assert (line["level"], line["shard"], line["request_id"]) == ("warning", 3, "r-1")
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(lines):
    structlog.get_logger("pemba").debug("detail")
    logging.getLogger("elsewhere").debug("detail")
    logging.getLogger("uvicorn.error").info("chatter")
    assert lines() == []


def test_a_librarys_log_comes_out_in_the_same_form(lines):
    logging.getLogger("elsewhere").warning("%d left", 3)
    [line] = lines()
    assert (line["event"], line["logger"], line["level"]) == ("3 left", "elsewhere", "warning")


def test_a_traceback_does_not_show_local_variables(lines):
    secret = "".join(["hor", "se"])
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger("pemba").exception(telemetry.Event.RPC_FAILED)
    [line] = lines()
    assert "ValueError: 5" in line["exception"]
    assert secret not in json.dumps(line)


def test_the_console_form_is_for_people_and_hides_locals_too(restored_logging):
    stream = io.StringIO()
    telemetry.set_up_logging("info", "console", stream)
    secret = "".join(["hor", "se"])
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger("pemba").exception("failed", shard=3)
    assert "failed" in stream.getvalue()
    assert "ValueError: 5" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_answers_whose_callers_have_gone_are_not_reported_as_errors_of_the_server() -> None:
    stream = io.StringIO()
    telemetry.set_up_logging("info", "json", stream)
    core = logging.getLogger("grpc._cython.cygrpc")
    core.error("ExecuteBatchError raised in core by servicer method [/pemba.v1.PermissionService/Check]")
    core.error("something else")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["something else"]


def test_every_event_of_the_log_has_its_name_from_the_one_place():
    """`log.info(Event.X, ...)`, nowhere a text."""
    package = Path(telemetry.__file__).parent
    literal = [
        f"{path.relative_to(package)}:{call.lineno}"
        for path in package.rglob("*.py")
        if path.parent.name != "dev"  # there it is a file
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "log"
        and call.args
        and isinstance(call.args[0], (ast.Constant, ast.JoinedStr))
    ]
    assert literal == []


def test_the_names_of_events_are_those_of_the_code():
    assert [event for event in telemetry.Event if event.value != event.name.lower()] == []
