"""The documents know what the code knows."""

import re
from pathlib import Path

import pytest

from pemba import config
from pemba.cli.failure import ExitCode
from pemba.cli.main import CONTENTS

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "docs/settings.md").read_text()
KINDS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, config._Settings)]
FIELDS = {
    f"PEMBA_{name.upper()}": field
    for kind in KINDS
    for name, field in kind.model_fields.items()
    if field.validation_alias is None
}


@pytest.mark.parametrize("variable", sorted(FIELDS))
def test_every_setting_is_documented_with_its_default(variable):
    row = re.search(rf"^\|.*`{variable}`.*$", SETTINGS, re.MULTILINE)
    assert row is not None
    default = FIELDS[variable].get_default()
    if isinstance(default, bool | int | float | str) and not FIELDS[variable].is_required() and default != "":
        said = row[0].split("|")[2].strip()
        assert said == (f"{default:g}" if isinstance(default, float) else str(default).lower())


def test_every_documented_setting_is_one():
    assert set(re.findall(r"`(PEMBA_\w+)`", SETTINGS)) <= set(FIELDS)


def test_every_command_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert [
        command for command in CONTENTS if f"`{command}`" not in changelog and f"`{command} " not in changelog
    ] == []


def test_every_exit_code_is_in_the_readme():
    documented = re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert documented == [str(code.value) for code in ExitCode]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/settings.md"])
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []
