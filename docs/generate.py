"""Writes docs/settings.md from pemba.config: `make docs`."""

from pathlib import Path

from pemba.config import SECTIONS, Setting, Settings, settings_of

FILE = Path(__file__).with_name("settings.md")

INTRODUCTION = """\
<!-- Generated from src/pemba/config.py by `make docs`: change it there. -->

# Settings

Every setting is an environment variable. One that is a secret can also come from a file: the variable that ends in
`_FILE` names it, so that no secret stands in a command line or in a process's environment. An empty variable counts as
not set. A setting that is wrong or missing stops the command, exit code 2, with a line that names it.

`PEMBA_SETTINGS_FILE` names a file of settings, `PEMBA_NAME=value` on each line, the value as it stands; a line that
begins with `#` is a comment. What the environment has wins over it, and a command's flag over both. `pemba doctor`
shows which settings are in force, and where each comes from.
"""


def settings_text() -> str:
    return "\n".join([INTRODUCTION, *map(section_text, SECTIONS)])


def section_text(section: type[Settings]) -> str:
    title, _, prose = (section.__doc__ or "").partition("\n")
    paragraph = "\n".join(line.strip() for line in prose.strip().splitlines())
    rows = ["| variable | default | says |", "|---|---|---|", *map(row, settings_of(section))]
    return "\n".join([f"## {title}", "", *([paragraph, ""] if paragraph else []), *rows, ""])


def row(setting: Setting) -> str:
    default = f" {setting.default} " if setting.default else " "
    return f"| {', '.join(f'`{each}`' for each in setting.variables)} |{default}| {setting.description} |"


if __name__ == "__main__":
    FILE.write_text(settings_text())
