"""Settings over gRPC on real servers."""

from __future__ import annotations

import grpc
import pytest

from pemba.v1 import operations_pb2, operations_pb2_grpc, workspaces_pb2


async def test_i7_settings_are_read_and_changed_and_secrets_come_one_by_one(api, reason) -> None:
    root = (await api.tenant("acme", "alice")).root_workspace
    named = {"tenant_id": root.tenant_id, "workspace_id": root.id}
    alice = {"metadata": api.metadata(pemba_on_behalf_of="user:alice")}
    request = workspaces_pb2.UpdateSettingsRequest(
        **named, namespace="mail", secrets={"password": "hunter2"}, request_id="r1"
    )
    request.values.update({"port": 25, "to": ["ä", None, {"b": 0.5}]})
    changed = await api.workspaces.UpdateSettings(request, **alice)
    replayed = await api.workspaces.UpdateSettings(request, **alice)
    assert replayed.replayed
    found = await api.workspaces.GetSettings(workspaces_pb2.GetSettingsRequest(**named), **alice)
    assert list(found.settings) == [changed.settings] == [replayed.settings]
    assert "hunter2" not in str((changed, replayed, found))
    assert [secret.name for secret in changed.settings.secrets] == ["password"]
    secret = workspaces_pb2.GetSecretSettingRequest(**named, namespace="mail", name="password")
    assert (await api.workspaces.GetSecretSetting(secret, **alice)).value == "hunter2"
    request = workspaces_pb2.UpdateSettingsRequest(**named, namespace="mail", etag="other", remove=["port"])
    for call, code, why in (
        (api.workspaces.UpdateSettings(request, **alice), grpc.StatusCode.ABORTED, "ETAG_MISMATCH"),
        (
            api.workspaces.GetSecretSetting(secret, metadata=api.metadata(pemba_on_behalf_of="user:mallory")),
            grpc.StatusCode.NOT_FOUND,
            "NOT_FOUND",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert (refused.value.code(), reason(refused.value)) == (code, why)
    operations = operations_pb2_grpc.OperationsServiceStub(api.channel)
    done = await operations.ReencryptSecrets(operations_pb2.ReencryptSecretsRequest(), metadata=api.metadata())
    assert (done.reencrypted, done.unreadable) == (0, 0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await operations.ReencryptSecrets(operations_pb2.ReencryptSecretsRequest(), **alice)
    assert reason(refused.value) == "ROLE_MISSING"
