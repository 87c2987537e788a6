"""The settings that a command started here would have, and where each comes from.  No secret is ever shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pemba.config import SECTIONS, Setting, set_by, settings_of

HIDDEN = "(set, not shown)"
_SHOWN_PARAMETERS = ("host", "port", "sslmode", "application_name")
_HOST = r"(?:[\w.-]*|\[[\w.:]*\])(?::\d*)?"
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^:@/?#]*)(?::[^@/?#]*)?@)?"
    rf"(?P<host>{_HOST}(?:,{_HOST})*)(?P<path>/[^@?#]*)?(?:\?(?P<query>[^@#]*))?"
)


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting as it counts; `source` is a variable, a flag, `pemba dev` (the one that runs here) or `default`."""

    variable: str
    value: str
    source: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def in_force(flags: Mapping[str, str], running: Mapping[str, str]) -> list[InForce]:
    """All settings.  `flags` (name to value) win over the environment, that over what a `pemba dev` tells."""
    every = [setting for section in SECTIONS for setting in settings_of(section)]
    return [InForce(setting.variable, *_value_and_source(setting, flags, running)) for setting in every]


def _value_and_source(setting: Setting, flags: Mapping[str, str], running: Mapping[str, str]) -> tuple[str, str]:
    if flags.get(setting.name):
        return _safe(setting, flags[setting.name]), f"--{setting.name}"
    if (found := set_by(setting)) is not None:
        variable, text = found
        return _safe(setting, text), variable
    if running.get(setting.name):
        return _safe(setting, running[setting.name]), "pemba dev"
    return (setting.default.replace("`", ""), "default") if setting.default else ("", "not set")


def _safe(setting: Setting, text: str) -> str:
    if setting.is_secret:
        return HIDDEN
    return without_password(text) if setting.name == "database_url" else text


def without_password(url: str) -> str:
    """A PostgreSQL URL without what may be secret in it; nothing of it where it has another form than we know."""
    match = _URL.fullmatch(url)
    if match is None:
        return HIDDEN
    parameters = [each for each in (match["query"] or "").split("&") if each.partition("=")[0] in _SHOWN_PARAMETERS]
    user = f"{match['user']}@" if match["user"] else ""
    query = "?" + "&".join(parameters) if parameters else ""
    return f"{match['scheme']}://{user}{match['host']}{match['path'] or ''}{query}"
