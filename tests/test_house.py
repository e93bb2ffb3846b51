"""The house: which wing of utils/ may import which, and how large a module may grow."""

import re

import pytest

from utils.bench import runner
from utils.course import author

UTILS = author.ROOT / "utils"
NOT_CHAPTERS = {
    "__init__",
    "__main__",
    "runner",
    "ratio",
    "measure",
    "recordings",
    "machine",
    "apart",
    "findings",
}


def test_a_wing_imports_only_from_wings_below_it():
    assert author.imports_between_wings() == 0


def test_an_import_upwards_is_found(tmp_path, monkeypatch, capsys):
    "The contract can fail: a copy in which what is built draws."
    for file in UTILS.rglob("*.py"):
        copy = tmp_path / file.relative_to(author.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    pyproject = (author.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    monkeypatch.setattr(author, "ROOT", tmp_path)
    assert author.imports_between_wings() == 0
    with (tmp_path / "utils/built/optim.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef draw():\n    from utils.figures import optimizers\n")
    assert author.imports_between_wings() == 1
    assert "utils.built.optim -> utils.figures.optimizers" in capsys.readouterr().out


def layers():
    "The names in the contract of imports, from the top of the house down."
    text = (author.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r"\w+", re.search(r"layers = \[(.*?)\n\]", text, re.S)[1])


def test_every_module_is_in_a_wing_or_a_small_tool():
    top = {p.name for p in UTILS.iterdir() if p.is_file() and p.suffix == ".py"}
    assert len(top) <= 10, top
    here = {p.stem for p in UTILS.iterdir() if p.is_dir() or p.suffix == ".py"}
    assert here - {"__init__", "__pycache__"} == set(layers())


def test_contributing_draws_the_house_as_the_contract_has_it():
    text = (author.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    wings = re.findall(r"^\| `(\w+)/` \|", text, re.M)
    (tools,) = re.findall(r"^\| ((?:`\w+\.py` ?)+)\|", text, re.M)
    assert wings == layers()[: len(wings)]
    assert set(re.findall(r"`(\w+)\.py`", tools)) == set(layers()[len(wings) :])


def test_no_module_has_outgrown_one_purpose():
    long = {
        str(path.relative_to(UTILS)): lines
        for path in UTILS.rglob("*.py")
        if path.parent.name not in ("checks", "slips")
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}


def test_what_belongs_to_a_chapter_is_named_as_the_chapter():
    slugs = {path.stem[3:] for path in author.named([])}
    for wing in ("checks", "slips", "figures"):
        found = {p.stem for p in (UTILS / wing).glob("*.py")} - {"__init__"}
        assert found <= slugs, wing
    bench = {p.stem for p in (UTILS / "bench").glob("*.py")} - NOT_CHAPTERS
    assert bench <= slugs, "a benchmark that `discover` would not find"
    assert bench and runner.discover()


def test_every_wing_says_what_it_is_for():
    for wing in UTILS.iterdir():
        if wing.is_dir() and wing.name != "__pycache__":
            source = (wing / "__init__.py").read_text(encoding="utf-8")
            assert source.startswith('"'), wing.name


# ---- a notebook from before the wings ----


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("from utils import optim, plots", "utils.built.optim"),
        ("from utils.descent import mse", "utils.built.descent"),
        ("import utils.kernels", "utils.built.int8"),
        ("from utils import progress", "utils.exercises.progress"),
        ("from utils.rehearsal import rehearse", "utils.practice."),
    ],
)
def test_a_chapter_from_before_the_wings_is_told_where_the_new_one_lies(line, now):
    with pytest.raises(ModuleNotFoundError, match=re.escape(now)) as caught:
        exec(line)
    assert "beside it, as NAME.new.ipynb" in str(caught.value)


@pytest.mark.parametrize("line", ["from utils import nothing", "import utils.nothing"])
def test_what_never_was_is_missing_as_usual(line):
    with pytest.raises(ImportError, match="nothing") as caught:
        exec(line)
    assert "NAME.new.ipynb" not in str(caught.value)
