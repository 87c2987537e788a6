"""`pemba doctor` without servers: settings and where they come from, and what findings say."""

import json
import socket

import grpc
import pytest
from grpc_health.v1 import health_pb2

from pemba.cli.diagnosis import Level, lag, parked
from pemba.cli.settings_in_force import HIDDEN, without_password
from pemba.dev.ready import FILE_NAME, Ready
from pemba.storage.outbox import StreamStatus
from pemba.v1 import tenants_pb2

SECRET = "s3cret" * 6
RUNNING = Ready(
    grpc="127.0.0.1:4",
    http="127.0.0.1:5",
    key=SECRET,
    database_url=f"postgresql://pemba:{SECRET}@127.0.0.1:1/pemba",
    spicedb_endpoint="127.0.0.1:1",
    spicedb_key=SECRET,
    pid={},
)


@pytest.fixture
def examined(pemba):
    """Run the command; (its exit code, variable to (value, source), findings by subject)."""

    def run(*arguments):
        done = pemba("doctor", "--timeout", "2", "--output", "json", *arguments)
        assert SECRET not in done.out + done.err
        answer = json.loads(done.out)
        settings = {each["variable"]: (each["value"], each["source"]) for each in answer["settings"]}
        assert answer["ok"] == (done.code == 0)
        return done.code, settings, {each["subject"]: each for each in answer["findings"]}

    return run


def test_each_setting_is_told_with_where_it_comes_from(examined, monkeypatch, tmp_path):
    file = tmp_path / "key"
    file.write_text(SECRET)
    monkeypatch.setenv("PEMBA_KEY_FILE", str(file))
    monkeypatch.setenv("PEMBA_TENANT", "acme")
    monkeypatch.setenv("PEMBA_DATABASE_POOL_SIZE", "")
    _, settings, _ = examined("--endpoint", "127.0.0.1:1")
    assert settings["PEMBA_ENDPOINT"] == ("127.0.0.1:1", "--endpoint")
    assert settings["PEMBA_KEY"] == (HIDDEN, "PEMBA_KEY_FILE")
    assert settings["PEMBA_TENANT"] == ("acme", "PEMBA_TENANT")
    assert settings["PEMBA_DATABASE_POOL_SIZE"] == ("10", "default")
    assert settings["PEMBA_ROOT_SECRETS"] == ("", "not set")


@pytest.fixture
def settings_file(monkeypatch, tmp_path):
    """Writes the file that PEMBA_SETTINGS_FILE names; its path."""

    def write(text):
        file = tmp_path / "pemba.env"
        file.write_text(text)
        monkeypatch.setenv("PEMBA_SETTINGS_FILE", str(file))
        return file

    return write


def test_a_file_sets_what_the_environment_and_flags_do_not(examined, monkeypatch, settings_file):
    file = settings_file(
        f"# for acme\n\nPEMBA_ENDPOINT=127.0.0.1:2\nPEMBA_KEY = {SECRET}\nPEMBA_TENANT=acme\n"
        f"PEMBA_DATABASE_POOL_SIZE=20\nPEMBA_LOG_LEVEL=debug\nPEMBA_SPICEDB_KEY={SECRET}\n"
    )
    monkeypatch.setenv("PEMBA_TENANT", "globex")
    monkeypatch.setenv("PEMBA_LOG_LEVEL", "")
    monkeypatch.setenv("PEMBA_SPICEDB_KEY_FILE", str(file))
    code, settings, findings = examined("--endpoint", "127.0.0.1:1")
    assert settings["PEMBA_ENDPOINT"] == ("127.0.0.1:1", "--endpoint")
    assert settings["PEMBA_KEY"] == (HIDDEN, f"PEMBA_KEY in {file}")
    assert settings["PEMBA_TENANT"] == ("globex", "PEMBA_TENANT")
    assert settings["PEMBA_DATABASE_POOL_SIZE"] == ("20", f"PEMBA_DATABASE_POOL_SIZE in {file}")
    assert settings["PEMBA_LOG_LEVEL"] == ("info", "default")
    assert settings["PEMBA_SPICEDB_KEY"] == (HIDDEN, "PEMBA_SPICEDB_KEY_FILE")
    assert "no answer from 127.0.0.1:1" in findings["API"]["message"]
    assert code == 1


def test_what_a_file_sets_counts_for_commands(pemba, api, monkeypatch, settings_file):
    monkeypatch.delenv("PEMBA_ENDPOINT")
    settings_file(f"PEMBA_ENDPOINT={api.endpoint}\n")
    api.answer("ListTenants", tenants_pb2.ListTenantsResponse())
    assert pemba("tenant", "list").code == 0


@pytest.mark.parametrize("line", ["PEMBA_TENNANT=acme", "export PEMBA_TENANT=acme", "PATH=/bin"])
def test_a_line_of_the_file_that_sets_nothing_stops_every_command(pemba, settings_file, line):
    file = settings_file(f"PEMBA_TENANT=acme\n{line}\n")
    for command in (("tenant", "list"), ("doctor",), ("db", "current")):
        done = pemba(*command)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error: PEMBA_SETTINGS_FILE: {file}:2 sets no setting: ")


def test_a_file_that_is_not_there_is_named(pemba, monkeypatch):
    monkeypatch.setenv("PEMBA_SETTINGS_FILE", "/nowhere/pemba.env")
    done = pemba("tenant", "list")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: PEMBA_SETTINGS_FILE: cannot read /nowhere/pemba.env: ")


def test_a_wrong_setting_of_the_file_is_a_finding(examined, settings_file):
    settings_file("PEMBA_DATABASE_POOL_SIZE=lots\n")
    _, _, findings = examined()
    assert findings["settings"]["message"].startswith("PEMBA_DATABASE_POOL_SIZE: ")


def test_what_a_running_dev_tells_counts_where_nothing_is_set(examined, monkeypatch, tmp_path):
    RUNNING.write(tmp_path / FILE_NAME)
    monkeypatch.setenv("PEMBA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PEMBA_SPICEDB_ENDPOINT", "127.0.0.1:2")
    code, settings, findings = examined()
    assert code == 1
    assert settings["PEMBA_ENDPOINT"] == ("127.0.0.1:4", "pemba dev")
    assert settings["PEMBA_KEY"] == (HIDDEN, "pemba dev")
    assert settings["PEMBA_DATABASE_URL"] == ("postgresql://pemba@127.0.0.1:1/pemba", "pemba dev")
    assert settings["PEMBA_SPICEDB_ENDPOINT"] == ("127.0.0.1:2", "PEMBA_SPICEDB_ENDPOINT")
    assert "PEMBA_SPICEDB_KEY is not set" in findings["SpiceDB"]["message"]


def test_another_pembas_databases_are_not_those_of_the_running_dev(examined, monkeypatch, tmp_path):
    RUNNING.write(tmp_path / FILE_NAME)
    monkeypatch.setenv("PEMBA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PEMBA_ENDPOINT", "127.0.0.1:3")
    _, settings, findings = examined()
    assert settings["PEMBA_DATABASE_URL"] == ("", "not set")
    assert findings["PostgreSQL"]["level"] == findings["SpiceDB"]["level"] == "warning"


def test_with_nothing_set_it_says_what_to_do(pemba):
    done = pemba("doctor")
    assert done.code == 1
    assert "failure  API         PEMBA_ENDPOINT is not set" in done.out
    assert "-> start one with `pemba dev`" in done.out
    assert "warning  PostgreSQL  not examined\n" in done.out


def test_a_setting_that_is_wrong_is_named_and_one_that_is_missing_is_not(examined, monkeypatch):
    monkeypatch.setenv("PEMBA_DRAIN_SECONDS", "soon")
    code, _, findings = examined()
    assert code == 1
    assert findings["settings"]["message"].startswith("PEMBA_DRAIN_SECONDS: ")


def test_a_secret_file_that_cannot_be_read_is_a_failure(examined, monkeypatch, tmp_path):
    monkeypatch.setenv("PEMBA_KEY_FILE", str(tmp_path / "gone"))
    code, _, findings = examined()
    assert code == 1
    assert "PEMBA_KEY_FILE: cannot read" in findings["settings"]["message"]


def test_an_api_that_is_well_and_takes_the_key(examined, api):
    api.answer("ListTenants", tenants_pb2.ListTenantsResponse())
    _, _, findings = examined()
    assert findings["API"]["level"] == findings["key"]["level"] == "ok"


def test_a_key_that_is_refused_is_a_failure(examined, api):
    api.answer("ListTenants", lambda context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key"))
    code, _, findings = examined()
    assert (code, findings["key"]["level"], findings["key"]["message"]) == (1, "failure", "no such key")


def test_an_api_that_is_up_and_not_ready_is_a_failure(examined, api):
    api.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    code, _, findings = examined()
    assert code == 1
    assert "not ready" in findings["API"]["message"]


def test_nobody_at_the_address_is_a_failure(examined, monkeypatch):
    monkeypatch.setenv("PEMBA_KEY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    code, _, findings = examined("--endpoint", address)
    assert code == 1
    assert f"no answer from {address}" in findings["API"]["message"]


@pytest.mark.parametrize(
    ("oldest", "level"), [(None, Level.OK), (0.2, Level.OK), (10.5, Level.WARNING), (61.0, Level.FAILURE)]
)
def test_the_relays_lag_is_judged_by_the_oldest_change(oldest, level):
    fresh, late = (StreamStatus(f"ten_{age}", 0, 5, 3, 2, age) for age in (0.1, oldest))
    finding = lag([fresh, late])
    assert finding.level is level
    assert "not delivered yet: 4 (tenants: 2)" in finding.message
    assert bool(finding.to_do) is (level is not Level.OK)


def test_no_lag_is_well():
    assert lag([]).level is Level.OK


def test_parked_operations_are_a_warning_and_closed_checks_a_failure():
    assert list(parked([])) == []
    one, closed = (StreamStatus("ten_1", 0, 5, 5, 0, None, parked=3, closed=closed) for closed in (False, True))
    [finding] = parked([one])
    assert (finding.level, finding.message) == (Level.WARNING, "SpiceDB refused 3 (tenants: 1)")
    [finding] = parked([one, closed])
    assert finding.level is Level.FAILURE
    assert "closed in 1 of them" in finding.message
    assert "pemba outbox parked" in finding.to_do


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://pemba:s3cret@db.acme:5432/pemba", "postgresql://pemba@db.acme:5432/pemba"),
        ("postgres:///pemba?host=/run/pg&password=s3cret", "postgres:///pemba?host=/run/pg"),
        ("postgresql://:s3cret@db/pemba", "postgresql://db/pemba"),
        ("postgresql://pemba:s3/cret@db/pemba", HIDDEN),
        ("postgresql://pemba:s3#cret@db/pemba", HIDDEN),
        ("postgresql://pemba:s3?cret@db/pemba", HIDDEN),
        ("postgresql://pemba:s3@cret@db/pemba", HIDDEN),
        ("postgresql://pemba:s3cret", HIDDEN),
        ("postgresql://pemba:s3cret@[::1]:5432,db2/pemba", "postgresql://pemba@[::1]:5432,db2/pemba"),
        ("s3cret", HIDDEN),
    ],
)
def test_no_part_of_a_password_is_shown(url, shown):
    assert without_password(url) == shown
