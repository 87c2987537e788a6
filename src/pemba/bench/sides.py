"""Pemba and SpiceDB, each asked in its own words; and whether they say what the records say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory

from pemba.bench.dataset import Question
from pemba.bench.ghz import Request, Target
from pemba.bench.loading import Loaded
from pemba.dev.ready import Ready
from pemba.model import spicedb_id

Asked = Sequence[Question]
"""The questions of one request: one for a check, several for a page."""

_PEMBA = "pemba.v1.PermissionService"
_SPICEDB = "authzed.api.v1.PermissionsService"
_ALLOWED = {"DECISION_ALLOWED": True, "DECISION_DENIED": False}
_PERMITTED = {"PERMISSIONSHIP_HAS_PERMISSION": True, "PERMISSIONSHIP_NO_PERMISSION": False}
_AT_ONCE = 8
_CALL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Side:
    """Who is asked, how a request is put, and where the answers are in a response: one a question."""

    name: str
    target: Target
    request: Callable[[Asked], Request]
    answers: Callable[[dict[str, Any]], list[bool]]


class Sides:
    """Every way to ask; the direct ones at least as fresh as `token`, which is what Pemba gives as well."""

    def __init__(self, loaded: Loaded, ready: Ready, token: str) -> None:
        fresh = {"atLeastAsFresh": {"token": token}}
        pemba, direct = _Pemba(loaded), _Direct(loaded, fresh)
        fast = _Direct(loaded, {"minimizeLatency": True})

        def ours(method: str) -> Target:
            return Target(ready.grpc, ready.key, f"{_PEMBA}/{method}")

        def theirs(method: str) -> Target:
            return Target(ready.spicedb_endpoint, ready.spicedb_key, f"{_SPICEDB}/{method}")

        self.check = Side("pemba", ours("Check"), pemba.check, pemba.answer)
        self.page = Side("pemba", ours("BatchCheck"), pemba.page, pemba.answers)
        self.direct_check = Side("spicedb", theirs("CheckPermission"), direct.check, direct.answer)
        self.fast_check = Side("spicedb, minimize_latency", theirs("CheckPermission"), fast.check, fast.answer)
        self.direct_page = Side("spicedb", theirs("CheckBulkPermissions"), direct.page, direct.answers)


class _Pemba:
    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def check(self, asked: Asked) -> Request:
        [question] = asked
        return {"tenant_id": self._loaded.tenants[question.tenant], **self._item(question)}

    def page(self, asked: Asked) -> Request:
        return {"tenant_id": self._loaded.tenants[asked[0].tenant], "items": [self._item(q) for q in asked]}

    def _item(self, question: Question) -> Request:
        return {
            "resource": {"type": "workspace", "id": self._loaded.workspaces[question.tenant][question.workspace]},
            "permission": str(question.permission),
            "subject": {"type": "user", "id": question.user},
        }

    def answer(self, response: dict[str, Any]) -> list[bool]:
        return [_ALLOWED[response["decision"]]]

    def answers(self, response: dict[str, Any]) -> list[bool]:
        return [_ALLOWED[result["decision"]] for result in response["results"]]


class _Direct:
    def __init__(self, loaded: Loaded, consistency: Request) -> None:
        self._loaded = loaded
        self._consistency = consistency

    def check(self, asked: Asked) -> Request:
        [question] = asked
        return {"consistency": self._consistency, **self._item(question)}

    def page(self, asked: Asked) -> Request:
        return {"consistency": self._consistency, "items": [self._item(question) for question in asked]}

    def _item(self, question: Question) -> Request:
        tenant = self._loaded.tenants[question.tenant]
        workspace = self._loaded.workspaces[question.tenant][question.workspace]
        return {
            "resource": {"objectType": "workspace", "objectId": spicedb_id(tenant, "workspace", workspace)},
            "permission": str(question.permission),
            "subject": {"object": {"objectType": "user", "objectId": spicedb_id(tenant, "user", question.user)}},
        }

    def answer(self, response: dict[str, Any]) -> list[bool]:
        return [_PERMITTED[response["permissionship"]]]

    def answers(self, response: dict[str, Any]) -> list[bool]:
        return [_PERMITTED[pair["item"]["permissionship"]] for pair in response["pairs"]]


async def disagreements(loaded: Loaded, side: Side, asked: Iterable[Asked]) -> list[str]:
    """Send the very requests that the load sends: a line for each answer that is not what the records say."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(channel: grpc.aio.Channel, questions: Asked) -> list[str]:
        async with turn:
            try:
                said = side.answers(await call(channel, side.target, side.request(questions)))
            except (grpc.RpcError, KeyError) as error:
                return [f"{side.name}: no answer: {error!r}"]
        if len(said) != len(questions):
            return [f"{side.name}: {len(said)} answers to {len(questions)} questions"]
        pairs = zip(questions, said, strict=True)
        return [f"{side.name}: {q} is answered {answer}" for q, answer in pairs if answer != loaded.dataset.allows(q)]

    async with grpc.aio.insecure_channel(side.target.address) as channel:
        return [line for lines in await asyncio.gather(*(one(channel, each) for each in asked)) for line in lines]


async def call(channel: grpc.aio.Channel, target: Target, request: Request) -> dict[str, Any]:
    """Any unary method of the generated modules, in proto3 JSON both ways."""
    service, _, name = target.method.partition("/")
    pool = descriptor_pool.Default()
    method = pool.FindServiceByName(service).methods_by_name[name]
    answer = message_factory.GetMessageClass(method.output_type)
    ask: Any = channel.unary_unary(
        f"/{target.method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    message = json_format.ParseDict(dict(request), message_factory.GetMessageClass(method.input_type)())
    response = await ask(message, timeout=_CALL_SECONDS, metadata=(("authorization", f"Bearer {target.key}"),))
    return json_format.MessageToDict(response)
