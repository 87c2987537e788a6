"""The methods of WorkspaceService that are about settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from pemba.model import (
    MAX_SECRET_BYTES,
    MAX_SETTING_LEVELS,
    TenantId,
    WorkspaceId,
    is_setting_name,
    is_setting_namespace,
)
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.settings import SettingsChange, SettingsService
from pemba.v1.workspaces_pb2 import (
    GetSecretSettingRequest,
    GetSecretSettingResponse,
    GetSettingsRequest,
    GetSettingsResponse,
    UpdateSettingsRequest,
    UpdateSettingsResponse,
)

MAX_VALUES_BYTES = 128 * 1024
"""Of the values of one request, as they come: what is stored is measured as JSON."""
MAX_NAMES = 200
MAX_INTEGER = 2**53


class SettingsMethods:
    def __init__(self, service: SettingsService) -> None:
        self._settings = service

    async def get_settings(self, request: GetSettingsRequest, call: Call) -> GetSettingsResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
            for namespace in request.namespaces:
                _namespace(fields, "namespaces", namespace)
        found = await self._settings.get_settings(
            call.caller, tenant_id, workspace_id, namespaces=list(request.namespaces)
        )
        return GetSettingsResponse(settings=[records.settings(each) for each in found.record], token=found.token)

    async def update_settings(self, request: UpdateSettingsRequest, call: Call) -> UpdateSettingsResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
            namespace = _namespace(fields, "namespace", request.namespace)
            change = _change(fields, request)
        changed = await self._settings.update_settings(
            call.caller, tenant_id, workspace_id, namespace=namespace, change=change, options=call.options(request)
        )
        return UpdateSettingsResponse(
            settings=records.settings(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def get_secret_setting(self, request: GetSecretSettingRequest, call: Call) -> GetSecretSettingResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
            namespace = _namespace(fields, "namespace", request.namespace)
            _name(fields, "name", request.name)
        found = await self._settings.get_secret(
            call.caller, tenant_id, workspace_id, namespace=namespace, name=request.name, method="GetSecretSetting"
        )
        return GetSecretSettingResponse(value=found.record, token=found.token)


_Named = GetSettingsRequest | UpdateSettingsRequest | GetSecretSettingRequest


def _named(fields: Fields, request: _Named) -> tuple[TenantId, WorkspaceId]:
    return (
        fields.tenant_id("tenant_id", request.tenant_id),
        fields.workspace_id("workspace_id", request.workspace_id),
    )


def _namespace(fields: Fields, field: str, value: str) -> str:
    if not is_setting_namespace(value):
        fields.wrong(field, "takes 1 to 64 of a-z, 0-9, `_`, `-` and `.`, with a letter first")
    return value


def _name(fields: Fields, field: str, value: str) -> None:
    if not is_setting_name(value):
        fields.wrong(field, "takes 1 to 128 letters, digits, `_`, `-` and `.`, with a letter first")


def _change(fields: Fields, request: UpdateSettingsRequest) -> SettingsChange:
    """Errors name settings, and never say what they are to be."""
    values, secrets = _values(fields, request.values), dict(request.secrets)
    named = Counter([*values, *secrets, *set(request.remove)])
    if len(named) > MAX_NAMES:
        fields.wrong("values", f"takes at most {MAX_NAMES} names, with those of `secrets` and `remove`")
        return SettingsChange(values={}, secrets={})
    for field, names in (("values", values), ("secrets", secrets), ("remove", request.remove)):
        for name in names:
            _name(fields, field, name)
            if named[name] > 1:
                fields.wrong(f"{field}.{name[:128]}", "is named twice; `values`, `secrets` and `remove` share no name")
    for name, secret in secrets.items():
        if not 0 < len(secret.encode()) <= MAX_SECRET_BYTES:
            fields.wrong(f"secrets.{name[:128]}", f"takes 1 to {MAX_SECRET_BYTES} bytes")
    return SettingsChange(values=values, secrets=secrets, remove=tuple(request.remove), replace=request.replace)


def _values(fields: Fields, values: Struct) -> dict[str, Any]:
    if values.ByteSize() > MAX_VALUES_BYTES:
        fields.wrong("values", f"takes at most {MAX_VALUES_BYTES} bytes")
        return {}
    try:
        given = plain(values)
    except ValueError:  # protobuf says so of what JSON has no number for
        fields.wrong("values", "takes finite numbers only")
        return {}
    for name, value in given.items():
        if _levels(value) > MAX_SETTING_LEVELS:
            fields.wrong(f"values.{name[:128]}", f"takes at most {MAX_SETTING_LEVELS} levels")
        elif _has_nul(value):
            fields.wrong(f"values.{name[:128]}", "takes no NUL in its texts")
    return given


def plain(values: Struct) -> dict[str, Any]:
    """As JSON, whole numbers without a fraction.  Raises ValueError for what JSON has no number for."""
    return {name: _with_integers(value) for name, value in MessageToDict(values).items()}


def _with_integers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_INTEGER:
        return int(value)
    if isinstance(value, dict):
        return {name: _with_integers(inside) for name, inside in value.items()}
    return [_with_integers(inside) for inside in value] if isinstance(value, list) else value


def _levels(value: object) -> int:
    """1 for what has nothing in it."""
    return 1 + max(map(_levels, _inside(value)), default=0)


def _has_nul(value: object) -> bool:
    """PostgreSQL's JSON has none."""
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
    return any("\0" in text for text in texts) or any(map(_has_nul, _inside(value)))


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
