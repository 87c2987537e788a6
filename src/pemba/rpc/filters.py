"""The part of AIP-160 filters and AIP-132 orders that lists take."""

from __future__ import annotations

import re
from collections.abc import Collection

from pemba.errors import invalid_field
from pemba.service.workspace_search import TextMatch

MAX_FILTER_CHARACTERS = 1000

_RESTRICTION = re.compile(
    r"""\s*(?P<field>[A-Za-z_][\w.]*)\s*(?P<operator>[:=])\s*
    (?:"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^\s"():=\\]+))
    (?:\s+AND\s+(?=\S)|\s*$)""",
    re.VERBOSE,
)


def text_matches(text: str, fields: Collection[str]) -> tuple[TextMatch, ...]:
    """`name:"text" AND slug=text` on these fields.  Raises InvalidRequest, which names what it does not take."""
    if len(text) > MAX_FILTER_CHARACTERS or "\0" in text:
        raise invalid_field("filter", f"takes at most {MAX_FILTER_CHARACTERS} characters, none of them NUL")
    matches: list[TextMatch] = []
    at = 0
    while at < len(text.rstrip()):
        found = _RESTRICTION.match(text, at)
        if found is None:
            raise invalid_field(
                "filter", f'takes FIELD:"text" and FIELD="text", joined with AND; not {text[at : at + 64].strip()!r}'
            )
        if found["field"] not in fields:
            raise invalid_field(
                "filter", f"there is no {found['field'][:64]!r} to filter by; there are {_list(fields)}"
            )
        quoted = found["quoted"]
        value = found["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        matches.append(TextMatch(found["field"], value, whole=found["operator"] == "="))
        at = found.end()
    return tuple(matches)


def order(text: str, fields: Collection[str]) -> tuple[str, bool]:
    """(field, descending) of `name desc`; ("", False) for none.  Raises InvalidRequest."""
    if not text:
        return "", False
    field, *direction = text.split()[:3] or [""]
    if field not in fields or direction not in ([], ["asc"], ["desc"]):
        raise invalid_field(
            "order_by", f"takes one of {_list(fields)}, with ` desc` for the reverse; not {text[:64]!r}"
        )
    return field, direction == ["desc"]


def _list(fields: Collection[str]) -> str:
    return ", ".join(fields)
