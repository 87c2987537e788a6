"""What a request is about, by the names that requests have for things: for the audit."""

from __future__ import annotations

from google.protobuf.message import Message

from pemba.v1 import types_pb2

MAX_CHARACTERS = 300

# The first of these that a request has is its object; what comes after is what else it is about.
_NAMES = {
    "object": "",
    "resource": "",
    "workspace": "",
    "workspace_id": "workspace",
    "group_id": "group",
    "share_id": "share",
    "api_key_id": "api_key",
    "invitation_id": "invitation",
    "user_id": "user",
    "subject": "",
    "with_workspace": "",
    "parent_id": "workspace",
    "new_parent_id": "workspace",
    "from_user": "user",
    "to_user": "user",
    "transfer_to": "user",
    "tenant_id": "tenant",
}


def named_in(request: Message) -> tuple[str, ...]:
    """Everything that the request names, in text, as `workspace:ws_...`; the object first, and the tenant last.

    Whether there is such a thing, or could be, nobody has looked yet: what no text can hold is left out.
    """
    fields = request.DESCRIPTOR.fields_by_name
    found = [_text(getattr(request, name), type_) for name, type_ in _NAMES.items() if name in fields]
    return tuple(dict.fromkeys(text for text in found if text and len(text) <= MAX_CHARACTERS and text.isprintable()))


def _text(value: object, type_: str) -> str:
    if isinstance(value, (types_pb2.ObjectRef, types_pb2.SubjectRef)):
        return f"{value.type}:{value.id}" if value.type and value.id else ""
    return f"{type_}:{value}" if isinstance(value, str) and type_ and value else ""
