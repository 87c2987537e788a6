"""What an event of the audit is about besides its object: whatever its records name, and its tuples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pemba.model import GLOBAL_TYPES, TenantId, TupleOperation, decode_id, encode_id

_NAMED_BY = {
    "workspace_id": "workspace",
    "with_workspace_id": "workspace",
    "group_id": "group",
    "user_id": "user",
    "personal_user_id": "user",
    "api_key_id": "api_key",
}
_TYPES = {
    "ten_": "tenant",
    "ws_": "workspace",
    "grp_": "group",
    "key_": "api_key",
    "inv_": "invitation",
    "shr_": "share",
}
_PLACES = frozenset({"parent", "tenant"})
"""Relations by which a workspace hangs in the tree: what it hangs below is not what the change is about."""


def of_records(records: Iterable[object]) -> Iterator[str]:
    """What records in JSON name, in text: themselves, and their workspaces, groups and subjects; not who made them."""
    for record in records:
        if isinstance(record, list):
            yield from of_records(record)
        elif isinstance(record, dict):
            yield from _of_record(record)


def _of_record(record: dict[str, object]) -> Iterator[str]:
    if type_ := _TYPES.get(str(record.get("id", "")).partition("_")[0] + "_"):
        yield f"{type_}:{record['id']}"
    for field, type_ in _NAMED_BY.items():
        if record.get(field):
            yield f"{type_}:{record[field]}"
    subject = record.get("subject")
    if isinstance(subject, dict):
        yield f"{subject.get('type')}:{subject.get('id')}"


def of_operations(tenant_id: TenantId, operations: Iterable[TupleOperation]) -> Iterator[str]:
    """The tenant's objects and the users that tuples name, in text, by the ids that callers know."""
    for operation in operations:
        changed = operation.tuple
        named = [(changed.resource.type, changed.resource.id)]
        if changed.relation not in _PLACES:
            named.append((changed.subject.type, changed.subject.id))
        for type_, id_ in named:
            text = _in_text(tenant_id, type_, id_)
            if text is not None:
                yield text


def _in_text(tenant_id: TenantId, type_: str, stored_id: str) -> str | None:
    """None for another tenant's, and for an id that no caller can have given."""
    owner, _, id_ = ("", "", stored_id) if type_ in GLOBAL_TYPES else stored_id.partition("/")
    if owner not in ("", encode_id(tenant_id)):
        return None
    try:
        decoded = decode_id(id_)
    except ValueError:
        return None
    return f"{type_}:{decoded}" if decoded.isprintable() else None


def others(object_text: str, *found: Iterable[str]) -> list[str]:
    """Each of these once, in order, without the object itself."""
    every = dict.fromkeys(text for texts in found for text in texts)
    every.pop(object_text, None)
    return list(every)
