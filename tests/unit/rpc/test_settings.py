"""Settings: shapes in, records out, and secrets in one answer alone."""

from __future__ import annotations

import pytest

from pemba.service.settings import SettingsChange
from pemba.v1 import operations_pb2
from pemba.v1.workspaces_pb2 import GetSecretSettingRequest, GetSettingsRequest, UpdateSettingsRequest
from tests.unit.rpc.conftest import TENANT_ID, WORKSPACE_ID, Running

NAMED = {"tenant_id": TENANT_ID, "workspace_id": WORKSPACE_ID}


def update(values=None, **given) -> UpdateSettingsRequest:
    request = UpdateSettingsRequest(**{**NAMED, "namespace": "mail", **given})
    request.values.update(values or {})
    return request


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels > 1 else 1


async def test_i7_settings_are_listed_by_namespace_with_the_names_of_secrets(running: Running) -> None:
    answer = await running.call("GetSettings", GetSettingsRequest(**NAMED, namespaces=["mail"]))
    assert running.settings.calls[0].options == {"namespaces": ["mail"]}
    [settings] = answer.settings
    assert (settings.namespace, settings.etag, answer.token) == ("mail", "e1", "t1")
    assert settings.values["port"] == 25
    assert list(settings.values["to"]) == ["a", None]
    assert [secret.name for secret in settings.secrets] == ["password"]


async def test_an_update_says_what_to_set_and_to_remove(running: Running) -> None:
    values = {"port": 25, "tls": None, "to": ["a", {"b": 1.5}]}
    request = update(values, secrets={"password": "hunter2"}, remove=["old"], replace=True, etag="e1", request_id="r1")
    answer = await running.call("UpdateSettings", request)
    [noted] = running.settings.calls
    assert noted.options["namespace"] == "mail"
    assert noted.options["change"] == SettingsChange(
        values=values, secrets={"password": "hunter2"}, remove=("old",), replace=True
    )
    assert (noted.options["options"].etag, noted.options["options"].request_id) == ("e1", "r1")
    assert (answer.settings.namespace, answer.token) == ("mail", "")


async def test_i7_a_secret_takes_the_name_and_comes_with_the_position_of_its_audit(running: Running) -> None:
    answer = await running.call("GetSecretSetting", GetSecretSettingRequest(**NAMED, namespace="mail", name="password"))
    assert (answer.value, answer.token) == ("hunter2", "t2")
    [noted] = running.settings.calls
    assert noted.options == {"namespace": "mail", "name": "password", "method": "GetSecretSetting"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (update(namespace=""), "namespace"),
        (update(namespace="Mail"), "namespace"),
        (update(namespace="m" * 65), "namespace"),
        (update({"": 1}), "values"),
        (update({"a b": 1}), "values"),
        (update({"a": float("nan")}), "values"),
        (update({"a": float("inf")}), "values"),
        (update({"a": nested(11)}), "values.a"),
        (update({"a": "x\0"}), "values.a"),
        (update({"a": {"x\0": 1}}), "values.a"),
        (update({"a": "x" * 131_072}), "values"),
        (update({f"n{n}": 1 for n in range(201)}), "values"),
        (update(secrets={"a": ""}), "secrets.a"),
        (update(secrets={"a": "é" * 4097}), "secrets.a"),
        (update(secrets={"a!": "b"}), "secrets"),
        (update(remove=["n" * 129]), "remove"),
        (GetSettingsRequest(**NAMED, namespaces=["mail", "9"]), "namespaces"),
        (GetSecretSettingRequest(**NAMED, namespace="mail"), "name"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_what_is_no_setting_is_refused_by_field(running: Running, request_, field: str) -> None:
    refusal = await running.refusal(type(request_).__name__.removesuffix("Request"), request_)
    assert list(refusal.violations) == [field]
    assert running.settings.calls == []


async def test_a_name_is_set_or_removed_once_and_no_error_says_a_secret(running: Running) -> None:
    request = update({"a": 1}, secrets={"a": "hunter2", "b": "hunter2" * 2000}, remove=["a"])
    refusal = await running.refusal("UpdateSettings", request)
    assert set(refusal.violations) == {"values.a", "secrets.a", "remove.a", "secrets.b"}
    assert "hunter2" not in f"{refusal.message} {refusal.violations}"


async def test_the_deepest_value_and_the_longest_secret_go_through(running: Running) -> None:
    await running.call("UpdateSettings", update({"a": nested(10)}, secrets={"b": "é" * 4096}))
    assert len(running.settings.calls) == 1


async def test_secrets_are_encrypted_anew_on_demand(running: Running) -> None:
    answer = await running.call("ReencryptSecrets", operations_pb2.ReencryptSecretsRequest())
    assert (answer.reencrypted, answer.unreadable) == (2, 1)
