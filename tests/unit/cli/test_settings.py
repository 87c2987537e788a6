"""`pemba settings`."""

from __future__ import annotations

import io

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import operations_pb2, workspaces_pb2

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
NAMED = {"tenant_id": TENANT_ID, "workspace_id": WORKSPACE_ID}
ARGUMENTS = (WORKSPACE_ID, "mail")


def mail() -> workspaces_pb2.Settings:
    settings = workspaces_pb2.Settings(
        namespace="mail",
        secrets=[workspaces_pb2.SecretSetting(name="password", update_time=Timestamp(seconds=1_800_000_000))],
    )
    settings.values.update({"port": 25, "to": ["ä", None]})
    return settings


def update(values=None, **given) -> workspaces_pb2.UpdateSettingsRequest:
    request = workspaces_pb2.UpdateSettingsRequest(**NAMED, namespace="mail", **given)
    if values:
        request.values.update(values)
    return request


def test_i7_settings_are_a_table_of_values_and_of_the_names_of_secrets(pemba, api):
    api.answer("GetSettings", workspaces_pb2.GetSettingsResponse(settings=[mail()]))
    done = pemba("settings", "get", *ARGUMENTS, "-t", TENANT_ID)
    assert [line.split(maxsplit=2) for line in done.out.splitlines()] == [
        ["NAMESPACE", "NAME", "VALUE"],
        ["mail", "password", "(secret) since 2027-01-15 08:00:00Z"],
        ["mail", "port", "25"],
        ["mail", "to", '["ä", null]'],
    ]
    assert api.requests == [("GetSettings", workspaces_pb2.GetSettingsRequest(**NAMED, namespaces=["mail"]))]


@pytest.mark.parametrize(
    ("text", "value"),
    [("25", 25), ('"25"', "25"), ("smtp.acme.test", "smtp.acme.test"), ("null", None), ('{"a": [1]}', {"a": [1]})],
)
def test_a_value_is_json_or_else_a_text(pemba, api, text, value):
    api.answer("UpdateSettings", workspaces_pb2.UpdateSettingsResponse(settings=mail()))
    assert pemba("settings", "set", *ARGUMENTS, "port", text, "-t", TENANT_ID, "--etag", "e1").code == 0
    assert api.requests == [("UpdateSettings", update({"port": value}, etag="e1"))]


def test_i7_a_secret_is_read_from_standard_input_and_printed_by_its_own_command_alone(pemba, api, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    api.answer("UpdateSettings", workspaces_pb2.UpdateSettingsResponse(settings=mail()))
    done = pemba("settings", "set", *ARGUMENTS, "password", "--hidden", "-t", TENANT_ID)
    assert "hunter2" not in done.out + done.err
    api.answer("GetSecretSetting", workspaces_pb2.GetSecretSettingResponse(value="hunter2"))
    assert pemba("settings", "secret", *ARGUMENTS, "password", "-t", TENANT_ID).out == "hunter2\n"
    assert [request for _, request in api.requests] == [
        update(secrets={"password": "hunter2"}),
        workspaces_pb2.GetSecretSettingRequest(**NAMED, namespace="mail", name="password"),
    ]


@pytest.mark.parametrize("arguments", [["password", "hunter2", "--hidden"], ["port"]])
def test_a_value_is_named_or_it_is_a_secret(pemba, api, arguments):
    done = pemba("settings", "set", *ARGUMENTS, *arguments, "-t", TENANT_ID)
    assert done.code == 2
    assert "VALUE" in done.err
    assert api.requests == []


def test_settings_are_removed_by_name(pemba, api):
    api.answer("UpdateSettings", workspaces_pb2.UpdateSettingsResponse(settings=mail()))
    assert pemba("settings", "unset", *ARGUMENTS, "port", "password", "-t", TENANT_ID).code == 0
    assert api.requests == [("UpdateSettings", update(remove=["port", "password"]))]


def test_how_many_secrets_were_encrypted_anew_and_which_are_lost_is_said(pemba, api):
    api.answer("ReencryptSecrets", operations_pb2.ReencryptSecretsResponse(reencrypted=3, unreadable=1))
    lines = pemba("settings", "reencrypt").out.splitlines()
    assert [line.split()[0] for line in lines] == ["3", "1"]
