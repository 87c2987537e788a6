"""The documents know what the code knows."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pemba import config
from pemba.cli.failure import ExitCode
from pemba.cli.main import CONTENTS

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "docs/settings.md").read_text()
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))
KINDS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, config.Settings)]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_settings_are_as_make_docs_writes_them():
    assert GENERATE["settings_text"]() == SETTINGS, "run `make docs`"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_documented_with_what_it_is_for(kind):
    names = {name for name, field in kind.model_fields.items() if field.validation_alias is None}
    rows = {name: re.search(rf"^\|.*`PEMBA_{name.upper()}`.*$", SETTINGS, re.MULTILINE) for name in names}
    assert [name for name, row in rows.items() if row is None or not row[0].split("|")[3].strip()] == []


def test_a_default_of_the_settings_is_shown():
    assert "| `PEMBA_RELAY_POLL_MIN_SECONDS` | 0.05 | how often" in SETTINGS


def test_every_command_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert [
        command for command in CONTENTS if f"`{command}`" not in changelog and f"`{command} " not in changelog
    ] == []


def test_every_exit_code_is_in_the_readme():
    documented = re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert documented == [str(code.value) for code in ExitCode]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_python_in_the_documents_is_that_of_the_example():
    example = (ROOT / "examples/check_access.py").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/calling.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    assert [block for block in blocks if block not in example] == []


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/*.svg")), ids=lambda drawing: drawing.name)
def test_drawings_are_well_formed_and_tell_in_words_what_they_show(drawing):
    tree = ElementTree.parse(drawing)
    for element in ("title", "desc"):
        assert tree.findtext(f"{{http://www.w3.org/2000/svg}}{element}")
    assert "prefers-color-scheme: dark" in drawing.read_text()
