"""Any method of a running Pemba by its name, with the fields of its request as they stand in the protos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from pemba.rpc.server import SERVICES
from tests.stack import Refusal

METHODS = {method.name: method for service in SERVICES for method in service.methods}
SECONDS = 20.0


@dataclass(frozen=True)
class Caller:
    """Somebody with a key, on behalf of a user where one is named."""

    channel: grpc.aio.Channel
    key: str
    user: str = ""

    def acting(self, user: str) -> Caller:
        return replace(self, user=user)

    async def __call__(self, name: str, /, **fields: Any) -> Any:
        """The answer as JSON knows it, with the names of the protos; of a stream all of it, in a list."""
        method = METHODS[name]
        request = ParseDict(fields, GetMessageClass(method.input_type)()).SerializeToString()
        path = f"/{method.containing_service.full_name}/{name}"
        answer = GetMessageClass(method.output_type)
        metadata = [("authorization", f"Bearer {self.key}")]
        if self.user:
            metadata.append(("pemba-on-behalf-of", f"user:{self.user}"))
        if method.server_streaming:
            stream = self.channel.unary_stream(path, response_deserializer=answer.FromString)
            return [_plain(each) async for each in stream(request, metadata=metadata, timeout=SECONDS)]
        unary = self.channel.unary_unary(path, response_deserializer=answer.FromString)
        return _plain(await unary(request, metadata=metadata, timeout=SECONDS))

    async def refused(self, name: str, /, **fields: Any) -> tuple[str, str]:
        """The code and the reason of the refusal that there has to be."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self(name, **fields)
        return error.value.code().name, Refusal(error.value).reason

    async def may(self, tenant: str, user: str, permission: str, workspace: str, token: str = "") -> bool:
        """Whether a check is ALLOWED; False is DENIED."""
        consistency = {"at_least_as_fresh": token} if token else {"fully_consistent": True}
        answer = await self(
            "Check",
            tenant_id=tenant,
            resource=ref(workspace),
            permission=permission,
            subject=user_ref(user),
            consistency=consistency,
        )
        assert answer["decision"] in ("DECISION_ALLOWED", "DECISION_DENIED")
        return bool(answer["decision"] == "DECISION_ALLOWED")


def _plain(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def ref(id_: str) -> dict[str, str]:
    """A tenant or a workspace, by its id."""
    return {"type": {"ten": "tenant", "ws": "workspace"}[id_.partition("_")[0]], "id": id_}


def user_ref(user: str) -> dict[str, str]:
    return {"type": "user", "id": user}


async def give(caller: Caller, acme: dict[str, str], where: str, user: str, role: str) -> str:
    """The token of a role that is given."""
    subject = user_ref(user)
    given = await caller("SetRole", tenant_id=acme["tenant"], object=ref(acme[where]), subject=subject, role=role)
    return str(given["token"])
