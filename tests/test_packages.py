"""utils/course/packages.py: the list of packages, its markers and its pins."""

import re

import pytest
from packaging.utils import canonicalize_name

import start
from tests.stand_in import LIST, fails
from utils.course import licences, packages
from utils.files import ROOT


def test_the_list_leaves_out_comments_options_and_other_sections(course):
    assert packages.requirements(course) == [
        "torch==9.1",
        "plain==1.0",
        "quoted==2.0; python_version >= '3.8'",
        'marked==3.0; python_version < "3.8"',
    ]


def test_the_list_ends_where_its_section_ends(course):
    (course / "environment.yml").write_text(LIST + "  - late\nvariables:\n  - more\n")
    assert len(packages.requirements(course)) == 4


@pytest.mark.parametrize(
    ("marker", "version", "answer"),
    [
        ("", (3, 11), True),
        ("python_version < '3.11'", (3, 10), True),
        ("python_version < '3.11'", (3, 11), False),
        ('python_version >= "3.9"', (3, 10), True),
        ('python_version>"3.10"', (3, 10), False),
        ("python_version == '3.12'", (3, 12), True),
        ("python_version != '3.12'", (3, 12), False),
        ("python_version <= '3.12'", (3, 12), True),
        ("python_version >= '3.11' and python_version < '3.13'", (3, 13), False),
        ("python_version >= '3.11' and python_version < '3.13'", (3, 12), True),
        ("sys_platform == 'win32'", (3, 12), None),
    ],
)
def test_markers(marker, version, answer):
    assert packages.applies(f"a==1; {marker}" if marker else "a==1", version) is answer


def test_pins_follow_the_python(course):
    names = [name for name, _ in packages.pins(course, (3, 11))]
    assert names == ["torch", "plain", "quoted"]
    assert ("marked", "3.0") in packages.pins(course, (3, 7))


@pytest.mark.parametrize("minor", range(start.OLDEST[1], start.NEWEST[1] + 1))
def test_the_real_lists_pin_each_package_once_for_every_python(minor):
    lines = packages.everything(ROOT, packages.LISTS)
    assert None not in [packages.applies(line, (3, minor)) for line in lines]
    names = [name for name, _ in packages.pinned(lines, (3, minor))]
    assert len(names) == len(set(names)) >= 20
    assert set(names) == {name for name, _ in packages.pinned(lines, (3, 11))}
    assert all("==" in line for line in lines)


def test_authors_tools_are_not_in_the_readers_list():
    names = {name for name, _ in packages.pins(ROOT)}
    authors = {name for name, _ in packages.pinned(packages.more(ROOT, "authors"))}
    tools = {"hypothesis", "ruff", "playwright", "codespell", "import-linter"}
    assert authors == tools | {"pytest-xdist"}
    assert not names & authors and {"pytest", "nbval", "scipy"} <= names


@pytest.mark.parametrize("text", [None, "dependencies:\n  - pip\n", "\xff"])
def test_no_list_is_one_sentence(course, capsys, text):
    (course / "environment.yml").unlink()
    if text is not None:
        (course / "environment.yml").write_bytes(text.encode("latin-1"))
    assert "fetch the course again" in fails(course, capsys)


def test_every_package_of_the_lists_has_a_licence_in_the_table():
    text = licences.PAGE.read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w-]+) \| (.+?) \| ", text, re.M))
    lines = packages.everything(ROOT, packages.LISTS) + packages.models(ROOT)
    for name, _ in packages.pinned(lines):
        assert table.get(canonicalize_name(name)), f"{name}: start.py author licences"


def test_what_a_package_brings_along_stands_in_the_table_too():
    names = [name for name, _, _ in licences.rows()]
    assert {"anyio", "tornado", "numpy"} <= set(names) and len(names) > 80
    assert len(names) == len(set(names))
