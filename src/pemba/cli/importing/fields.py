"""The fields of one line, each with the rule that the API has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pemba.model import MAX_WORKSPACE_DEPTH, RESERVED_SLUGS, SHARE_ROLES, TENANT_ROLES, WORKSPACE_ROLES, Role, is_slug
from pemba.rpc.validation import MAX_PATH_CHARACTERS, Fields

EXTERNAL = "external:"
"""Before a group's external id, where that stands in the place of its slug."""

Given = dict[str, str | bool]
Names = tuple[str, str]
Rule = Callable[[str, str], str]
"""Of a field and its value; notes what is wrong with it."""


class Line:
    """Reads the fields of a line; the end of the block raises InvalidRequest with all that is wrong with them."""

    def __init__(self, value: dict[str, object]) -> None:
        self._left = value
        self.fields = Fields()
        self.given: Given = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for field in self._left:
            self.fields.wrong(field[:64] if field.isprintable() else ascii(field[:64]), "is no field of this kind")
        self.fields.__exit__(kind, error, traceback)

    def take(self, field: str, rule: Rule) -> str:
        """A field that has to be there."""
        if field not in self._left:
            self.fields.wrong(field, "is missing")
            return ""
        return self._text(field, rule) or ""

    def give(self, field: str, rule: Rule) -> None:
        """A field that may be there."""
        if field in self._left and (value := self._text(field, rule)) is not None:
            self.given[field] = value

    def flag(self, field: str) -> None:
        """True or false; false where it is not there."""
        value = self._left.pop(field, False)
        if not isinstance(value, bool):
            self.fields.wrong(field, "takes true or false")
        self.given[field] = value is True

    def take_role(self, object_: str, subject: str) -> None:
        """A role that the object has, and the subject can have: only users are owners."""
        type_ = object_.partition(":")[0] or "workspace"
        roles: tuple[Role, ...] = TENANT_ROLES if type_ == "tenant" else WORKSPACE_ROLES
        if subject.startswith("group:"):
            roles = tuple(role for role in roles if role is not Role.OWNER)
        whose = f"a {type_} has{' for a group' if subject.startswith('group:') else ''}"
        self._role(roles, f"takes a role that {whose}")

    def take_share_role(self) -> None:
        self._role(SHARE_ROLES, "takes a role that a share gives")

    def path(self, field: str, value: str) -> str:
        """Of a workspace, without the slashes at its ends; empty is the root."""
        return self.fields.path(field, value.removeprefix("workspace:").strip("/"))

    def new_path(self, field: str, value: str) -> str:
        """Of a workspace that there may be to make."""
        path = self.path(field, value)
        slugs = path.split("/")
        if not path:
            self.fields.wrong(field, "takes a workspace below the root: the root comes with its tenant")
        if len(slugs) >= MAX_WORKSPACE_DEPTH:
            self.fields.wrong(field, f"stands too deep: a tree has {MAX_WORKSPACE_DEPTH} levels, with the root")
        if reserved := RESERVED_SLUGS.intersection(slugs):
            self.fields.wrong(field, f"{', '.join(sorted(reserved))}: a reserved word")
        return path

    def object(self, field: str, value: str) -> str:
        """`tenant`, or `workspace:` and a path."""
        return value if value == "tenant" else f"workspace:{self.path(field, value)}"

    def group(self, field: str, value: str) -> str:
        """A slug, or `external:` and an external id."""
        name = value.removeprefix("group:")
        if name.startswith(EXTERNAL) and len(name) > len(EXTERNAL):
            self.fields.external_id(field, name.removeprefix(EXTERNAL))
        elif not is_slug(name):
            self.fields.wrong(field, f"takes a group's slug, or {EXTERNAL}ID with its external id")
        return name

    def subject(self, field: str, value: str) -> str:
        """`user:ID` or `group:SLUG`; after `user:` all is the id."""
        if value.startswith("user:"):
            return f"user:{self.fields.user_id(field, value.removeprefix('user:'))}"
        if value.startswith("group:"):
            return f"group:{self.group(field, value)}"
        self.fields.wrong(field, f"takes user:ID, group:SLUG or group:{EXTERNAL}ID")
        return value

    def time(self, field: str, value: str) -> str:
        """In UTC and whole seconds."""
        try:
            time = datetime.fromisoformat(value)
            if time.tzinfo is not None:
                return in_seconds(time)
        except (ValueError, OverflowError):
            pass
        self.fields.wrong(field, "takes a time with its zone, 2026-12-31T18:00Z")
        return value

    def _text(self, field: str, rule: Rule) -> str | None:
        value = self._left.pop(field)
        if isinstance(value, str) and len(value) <= MAX_PATH_CHARACTERS:
            return rule(field, value)
        self.fields.wrong(field, f"takes a text of at most {MAX_PATH_CHARACTERS} characters")
        return None

    def _role(self, roles: Iterable[Role], takes: str) -> None:
        value = self._left.pop("role", None)
        role = Role.MEMBER if value == "editor" else value
        if role not in list(roles):
            self.fields.wrong("role", f"{takes}: {', '.join(roles)}" if value is not None else "is missing")
        self.given["role"] = str(role)


def in_seconds(time: datetime) -> str:
    """`2026-12-31T18:00:00Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
