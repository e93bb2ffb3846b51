"""The author's commands: deriving, notebooks as text, executing, the public address."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.course import author, notebooks, pages, running
from utils.course.notebooks import nbformat  # which starts quicker there

SOLUTIONS = author.named([])
REAL = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
URL = "https://github.com/someone/backprop-to-cluster"


def code(source, cell_id="c", tags=(), **more):
    cell = nbformat.v4.new_code_cell(source, id=cell_id, **more)
    return tagged(cell, tags)


def md(source, cell_id="m", tags=()):
    return tagged(nbformat.v4.new_markdown_cell(source, id=cell_id), tags)


def tagged(cell, tags):
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def text_of(*cells):
    notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=notebooks.METADATA)
    return nbformat.writes(notebook)


def derived(*cells):
    return nbformat.reads(notebooks.derive(text_of(*cells), "x.ipynb"), as_version=4)


# ---- stub ----

FUNCTION = """def f(x):
    "Twice."
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION"""


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("", ""),
        ("x = 1\n\ny = 2\n", "x = 1\n\ny = 2\n"),
        (
            FUNCTION,
            'def f(x):\n    "Twice."\n    raise NotImplementedError  # your turn',
        ),
        (
            "a = 1\n### BEGIN SOLUTION lr = None\nlr = 0.5\n### END SOLUTION\nb = 2",
            "a = 1\nlr = None  # your turn\nb = 2",
        ),
        (
            "def f():\n    ### BEGIN SOLUTION return 0\n    return 5\n"
            "    ### END SOLUTION",
            "def f():\n    return 0  # your turn",
        ),
        (
            FUNCTION + "\n\n" + FUNCTION.replace("f(x)", "g(x)"),
            'def f(x):\n    "Twice."\n    raise NotImplementedError  # your turn\n\n'
            'def g(x):\n    "Twice."\n    raise NotImplementedError  # your turn',
        ),
        (
            "class A:\n    def f(self):\n        ### BEGIN SOLUTION  \n        π = '梯度'\n"
            "        ### END SOLUTION  \n    ü = '→'",
            "class A:\n    def f(self):\n        raise NotImplementedError  # your turn\n"
            "    ü = '→'",
        ),
        ("x = '### BEGIN SOLUTION'", "x = '### BEGIN SOLUTION'"),
    ],
    ids=range(8),
)
def test_a_region_becomes_its_stub(source, want):
    assert notebooks.stub(source) == want
    assert notebooks.stub(notebooks.stub(source)) == want


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("a\n### BEGIN SOLUTION\nb\n### END SOLUTION", "line 2: .*needs its stub"),
        ("a\n### BEGIN SOLUTION  \nb\n### END SOLUTION", "line 2: .*needs its stub"),
        ("a\n    ### BEGIN SOLUTION\nb", "line 2: this region never ends"),
        ("a\nb\n### END SOLUTION", "line 3: END without BEGIN"),
        ("### BEGIN SOLUTIONS\nb\n### END SOLUTION", "line 3: END without BEGIN"),
        (
            "### BEGIN SOLUTION a = 1\n### BEGIN SOLUTION b = 1\n### END SOLUTION",
            "line 2: BEGIN inside another region",
        ),
    ],
)
def test_bad_marks_are_named_with_cell_and_line(source, says):
    with pytest.raises(notebooks.MarkError, match=f"^x.ipynb cell bad {says}"):
        notebooks.derive(text_of(md("# T"), code(source, "bad")), "x.ipynb")


# ---- derive ----


def test_derive_keeps_what_a_reader_needs_and_drops_the_rest():
    out = nbformat.v4.new_output("stream", text="hello")
    chapter = derived(
        md("# Ünï 梯度", "title"),
        code(FUNCTION, "f", ["setup"], outputs=[out], execution_count=3),
        code("print(f(2))", "hidden", ["solution"]),
        md("only solved", "also-hidden", ["solution", "setup"]),
        code("1 / 0", "last", ["raises-exception", "nbval-ignore-output"]),
    )
    assert [cell.id for cell in chapter.cells] == ["title", "f", "last"]
    title, f, last = chapter.cells
    assert title.source.startswith("# Ünï 梯度\n\n*Only looking? [The solved chapter]")
    assert "(../solutions/x.ipynb)" in title.source and title.metadata == {}
    assert f.metadata == {"tags": ["setup"]}
    assert last.metadata == {"tags": ["raises-exception", "nbval-ignore-output"]}
    assert (f.outputs, f.execution_count) == ([], None)
    assert chapter.metadata == notebooks.METADATA


def test_derive_keeps_the_first_picture_and_no_other():
    pictures = [
        nbformat.v4.new_output("display_data", {"image/png": "aa", "text/plain": "A."}),
        nbformat.v4.new_output("display_data", {"text/markdown": "*A.*"}),
    ]
    text = nbformat.v4.new_output("stream", text="hello")
    _, *cells = derived(
        md("# T", "title"),
        code("1", "hidden", ["solution"], outputs=pictures, execution_count=1),
        code("2", "words", outputs=[text], execution_count=2),
        code("3", "look", outputs=pictures, execution_count=3),
        code("4", "again", outputs=pictures, execution_count=4),
    ).cells
    stored = [(c.id, c.outputs, c.execution_count) for c in cells]
    assert stored == [("words", [], None), ("look", pictures, 1), ("again", [], None)]


def test_the_line_that_leads_to_the_solved_chapter_comes_once():
    once = notebooks.with_link("# T\n\nText.", "07_x.ipynb")
    heading, _, line, _, rest = once.split("\n")
    assert (heading, rest) == ("# T", "Text.") and "(../solutions/07_x.ipynb)" in line
    assert notebooks.with_link(once, "07_x.ipynb") == once
    assert notebooks.with_link("# T", "") == "# T"
    assert notebooks.with_link("# T", "07_x.ipynb").split("\n")[2] == line


def test_derive_drops_other_metadata_and_the_fingerprint_of_the_run():
    notebook = nbformat.reads(text_of(code("1")), as_version=4)
    notebook.metadata["course"] = {"executed": "abc"}
    notebook.cells[0].metadata["execution"] = {"iopub.status.idle": "now"}
    chapter = json.loads(notebooks.derive(nbformat.writes(notebook)))
    assert "course" not in chapter["metadata"]
    assert chapter["cells"][0]["metadata"] == {}


def test_derive_is_pure_and_a_chapter_derives_to_itself():
    text = text_of(md("# Ünï"), code(FUNCTION, "f"))
    once = notebooks.derive(text)
    assert once == notebooks.derive(text) == notebooks.derive(once)
    assert once.endswith("}\n") and "\r" not in once and "Ünï" in once


def _changed(**change):
    notebook = json.loads(text_of(md("# T"), code("1", "c"), code("2", "d")))
    notebook["cells"][2].update(change)
    if "id" in change and change["id"] is None:
        del notebook["cells"][2]["id"]
    return json.dumps(notebook)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_changed(id="c"), "x.ipynb cell 3: its id 'c' is missing or used twice"),
        (_changed(id=None), "x.ipynb cell 3: its id None is missing"),
        (_changed(cell_type="raw"), "x.ipynb cell d: raw cells have no place here"),
        ("{", "x.ipynb is no notebook"),
        ("[]", "x.ipynb is no notebook"),
        ("{}", "x.ipynb is no notebook: KeyError"),
    ],
)
def test_what_would_not_derive_to_the_same_bytes_is_refused(text, says):
    with pytest.raises(notebooks.NotebookError, match=says):
        notebooks.derive(text, "x.ipynb")


@REAL
def test_chapters_are_what_solutions_give(path):
    chapter = author.CHAPTERS / path.name
    want = notebooks.derive(path.read_text(encoding="utf-8"), path.name)
    assert chapter.exists(), "python3 start.py author derive"
    assert chapter.read_text(encoding="utf-8") == want, "python3 start.py author derive"
    assert b"\r" not in chapter.read_bytes()


def test_the_map_in_the_readme_follows_the_chapters():
    text = (author.ROOT / "README.md").read_text(encoding="utf-8")
    assert text == pages.readme_with_map(text, author.repository()), (
        "python3 start.py author"
    )
    assert "01_descent.ipynb" in text


def test_no_chapter_without_a_solution():
    have = {path.name for path in author.CHAPTERS.glob("*.ipynb")}
    assert have <= {path.name for path in SOLUTIONS}


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project of one solution, in a folder of its own."
    monkeypatch.setattr(author, "ROOT", tmp_path)
    monkeypatch.setattr(author, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(author, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr("utils.exercises.progress.ROOT", tmp_path)
    (tmp_path / "solutions").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.course]\nrepository = ""\n')
    (tmp_path / "README.md").write_text("# R\n<!-- map -->\n<!-- end of map -->\nend\n")
    author.new("07_one")
    return tmp_path


def test_stale_names_what_is_wrong(project, capsys):
    chapter = project / "chapters" / "07_one.ipynb"
    assert list(author.stale()) == ["chapters/07_one.ipynb is missing"]
    author.write_derived()
    assert list(author.stale()) == []
    chapter.write_text(chapter.read_text() + " ")
    (project / "chapters" / "08_gone.ipynb").write_text("{}")
    assert list(author.stale()) == [
        "chapters/07_one.ipynb is not what solutions/07_one.ipynb gives",
        "chapters/08_gone.ipynb has no solution",
    ]


def test_nothing_is_written_twice(project, capsys):
    author.write_derived()
    capsys.readouterr()
    author.write_derived()
    assert capsys.readouterr().out == ""


# ---- names, new ----


def test_named_finds_by_beginning_and_keeps_order(project):
    author.new("03_other")
    stems = lambda *names: [p.stem for p in author.named(names)]  # noqa: E731
    assert stems() == ["03_other", "07_one"]
    assert stems("07") == stems("07_one") == stems("07_one.ipynb") == ["07_one"]
    assert stems("07", "03") == ["03_other", "07_one"]


def test_a_name_that_nothing_begins_with_is_named(project):
    with pytest.raises(SystemExit) as error:
        author.named(["07", "99"])
    assert str(error.value) == "No solution begins with '99'; there are: 07_one"


def test_a_new_chapter_is_a_valid_one(project):
    notebook = nbformat.read(project / "solutions" / "07_one.ipynb", as_version=4)
    nbformat.validate(notebook)
    first, second, third = notebook.cells
    assert (first.id, second.id, third.id) == ("title", "bootstrap", "imports")
    assert first.source.startswith("# ") and third.metadata.tags == ["setup"]
    assert second.source == pages.bootstrap("")
    assert "from utils.checks import one as ex" in third.source
    for cell in (second, third):
        compile(cell.source, cell.id, "exec")


@pytest.mark.parametrize(
    "name", ["7_one", "07-one", "07_One", "one", "07_one.ipynb", ""]
)
def test_a_bad_name_is_refused(project, name):
    with pytest.raises(SystemExit, match="A chapter is named like"):
        author.new(name)


def test_a_new_chapter_never_overwrites(project):
    with pytest.raises(SystemExit, match="already there"):
        author.new("07_one")


@pytest.mark.parametrize(
    "arguments", [["new"], ["new", "a", "b"], ["address"], ["--x"]]
)
def test_a_command_without_its_name_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        author.main(arguments)
    assert error.value.code == 2 and "error: " in capsys.readouterr().err


# ---- notebooks as text ----


def round_trip(notebook):
    return notebooks.from_text(notebooks.to_text(notebook), notebook)


@REAL
def test_text_and_back_changes_no_byte(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebooks.written(round_trip(notebook)) == path.read_text(encoding="utf-8")
    text = notebooks.to_text(notebook)
    assert notebooks.to_text(notebooks.from_text(text)) == text


SOURCES = (
    "", "one", "one\n\n\ntwo", "  indented", "trailing  ", "%%time\nf()", " %% md x",
    "# %% md x", "%%", "x = '''\n%%md'''", "ü 梯度 →", "\ttab", "a\n \nb", "%timeit f()",
)  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_survives_as_text(source):
    cells = code(source, "a-1", ["setup", "solution"]), md(source, "b_2"), code(source)
    notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=notebooks.METADATA)
    assert round_trip(notebook) == notebook


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (code("\nx"), "cell c begins or ends with an empty line"),
        (code("x\n"), "cell c begins or ends with an empty line"),
        (md("\n"), "cell m begins or ends with an empty line"),
        (code("x\n%% md y\nz"), "cell c: a line begins with %% and a space"),
        (md("%% of all"), "cell m: a line begins with %%"),
        (nbformat.v4.new_raw_cell("r", id="r"), "cell r: raw cells have no text form"),
    ],
)
def test_what_would_not_survive_as_text_is_refused(cell, says):
    with pytest.raises(notebooks.NotebookError, match=says):
        notebooks.to_text(nbformat.v4.new_notebook(cells=[cell]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# lost\n%% md a\n", "line 1: text above the first"),
        ("%% md a\nx\n%% markdown b\ny", "line 3: '%% markdown b' is neither"),
        ("%% md a\nx\n%% code\ny", "line 3: '%% code' is neither"),
        ("%% md a\nx\n\n%% code a\ny", "line 4: the id a is used twice"),
    ],
)
def test_text_that_would_be_lost_is_refused(text, says):
    with pytest.raises(notebooks.NotebookError, match=says):
        notebooks.from_text(text)


def test_text_from_an_editor_may_have_other_spacing():
    text = (
        "\n\n%% md  title\n".replace("md  ", "md ")
        + "# T\n\n\n\n%% code c a, b \n\nx\n\n"
    )
    first, second = notebooks.from_text(text).cells
    assert (first.source, second.source) == ("# T", "x")
    assert second.metadata.tags == ["a", "b"]


def test_outputs_of_unchanged_cells_are_kept():
    out = nbformat.v4.new_output("stream", text="hello")
    cells = [
        code(s, s, outputs=[out], execution_count=i + 1) for i, s in enumerate("abc")
    ]
    old = nbformat.v4.new_notebook(cells=cells)
    text = notebooks.to_text(old).replace("%% code b\nb", "%% code b\nb2")
    counts = [
        (c.execution_count, len(c.outputs))
        for c in notebooks.from_text(text, old).cells
    ]
    assert counts == [(1, 1), (None, 0), (3, 1)]


def test_text_and_pack_write_files(project, capsys):
    author.write_text(["07"])
    text = project / "solutions" / "07_one.nbtext"
    before = (project / "solutions" / "07_one.ipynb").read_bytes()
    author.pack(["07"])
    assert (project / "solutions" / "07_one.ipynb").read_bytes() == before
    text.write_text(text.read_text() + "\n%% code extra\nx = 1\n")
    author.pack(["07"])
    notebook = nbformat.read(project / "solutions" / "07_one.ipynb", as_version=4)
    assert [c.id for c in notebook.cells][-1] == "extra"
    with pytest.raises(SystemExit, match="author text 09"):
        author.pack(["09"])


# ---- executing ----


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the project with the solution 00 and a chapter that prints slowly."
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(author.ROOT / "utils", root / "utils", ignore=_no_cache)
    shutil.copytree(author.ROOT / "tests" / "guard", root / "tests" / "guard")
    shutil.copy(author.ROOT / "pyproject.toml", root)
    names = ("map", "paths", "plan")
    marks = "".join(f"<!-- {name} -->\n<!-- end of {name} -->\n" for name in names)
    (root / "README.md").write_text(marks)
    marks = "<!-- term -->\n<!-- end of term -->\n<!-- minutes -->\n<!-- end of minutes -->\n"
    (root / "TEACHING.md").write_text(marks)
    (root / "solutions").mkdir()
    for path in SOLUTIONS[:1]:
        shutil.copy(path, root / "solutions")
    slow = "import time\n\nfor i in range(3):\n    print(i)\n    time.sleep(0.3)"
    cells = [
        md("# T", "title"),
        code(pages.bootstrap(""), "bootstrap"),
        code(slow, "s"),
    ]
    cells[2].metadata["execution"] = {"iopub.execute_input": "a time"}
    (root / "solutions" / "01_slow.ipynb").write_text(text_of(*cells))
    return root


def _no_cache(folder, names):
    return [name for name in names if name == "__pycache__"]


def author_command(root, *arguments):
    "Run the author's commands of a copy; what was printed."
    environ = {k: v for k, v in os.environ.items() if k != "COURSE_PROGRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "utils.course.author", *arguments],
        cwd=root, env=environ, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_map_follows_when_a_chapter_is_new(project):
    def lacks():
        return running.lacks_a_chapter(start)

    author.new("00_start")
    start = project / "solutions" / "00_start.ipynb"
    notebook = nbformat.read(start, as_version=4)
    titles = 'A question or a claim ... 08 · "One" & 梯度'
    out = nbformat.v4.new_output("display_data", {"text/plain": titles})
    notebook.cells[2].outputs = [out]
    nbformat.write(notebook, start)
    assert not lacks()
    for title, late in (('08 · "One" & 梯度', False), ("09 · Two", True)):
        cells = [md(f"# {title}", "title"), code("", "bootstrap")]
        (project / "solutions" / "08_x.ipynb").write_text(text_of(*cells))
        assert lacks() == late


def contents(root):
    return {
        p.name: p.read_bytes() for p in sorted((root / "solutions").glob("*.ipynb"))
    }


def test_two_runs_give_the_same_bytes(copy):
    said = author_command(copy, "run", "--all")
    once = contents(copy)
    assert "ran solutions/01_slow.ipynb" in said
    assert author_command(copy, "run") == "", "what did not change is not run again"
    author_command(copy, "run", "00")
    assert contents(copy) == once
    assert b"iopub" not in once["01_slow.ipynb"], "the time of a run"
    slow = json.loads(once["01_slow.ipynb"])["cells"][2]["outputs"]
    assert [output["text"] for output in slow] == [["0\n", "1\n", "2"]] or [
        "".join(output["text"]) for output in slow
    ] == ["0\n1\n2\n"], "one output, however slowly it was printed"
    assert not (copy / "work").exists(), "a run is no progress"


def test_setting_and_unsetting_the_address_changes_no_byte(copy):
    author_command(copy, "address", "")
    files = [copy / "pyproject.toml", copy / "README.md"]
    files += sorted((copy / "solutions").glob("*.ipynb"))
    files += sorted((copy / "chapters").glob("*.ipynb"))
    before = {path: path.read_bytes() for path in files}
    author_command(copy, "address", URL + ".git/")
    assert f'repository = "{URL}"' in files[0].read_text()
    for path in files[2:]:
        text = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        assert notebook.cells[1].source == pages.bootstrap(URL), path
        assert notebook.cells[0].source.endswith(pages.badges(URL, path.stem))
        assert notebook.cells[0].source.count("mybinder.org") == 1
    assert files[1].read_text().count("mybinder.org") == len(files[2:]) / 2
    assert "ran" not in author_command(copy, "run"), "the first cell shows nothing"
    author_command(copy, "address", "")
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/a/b",
        "https://github.com/a",
        "github.com/a/b",
        "https://github.com/a/b/c",
        "https://github.com/a b/c",
        'https://github.com/a/"',
    ],
)
def test_what_is_no_address_is_refused(project, url):
    before = (project / "pyproject.toml").read_text()
    with pytest.raises(SystemExit, match="An address looks like"):
        author.set_address(url)
    assert (project / "pyproject.toml").read_text() == before


def test_badges_are_well_formed():
    assert pages.badges("", "01_descent") == ""
    links = re.findall(r"\[([^]]+)\]\((\S+)\)", pages.badges(URL, "01_descent"))
    assert [text for text, _ in links] == ["Run on Binder", "Run on Colab"]
    where = "someone/backprop-to-cluster"
    assert links[0][1] == (
        f"https://mybinder.org/v2/gh/{where}/HEAD"
        "?urlpath=lab%2Ftree%2Fwork%2F01_descent.ipynb"
    )
    assert links[1][1] == (
        f"https://colab.research.google.com/github/{where}/blob/main/"
        "chapters/01_descent.ipynb"
    )


@pytest.mark.parametrize("url", ["", URL])
@pytest.mark.parametrize("folder", [".", "work", "work/week1/monday", "solutions"])
def test_the_first_cell_finds_the_course_above(url, folder, tmp_path, monkeypatch):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "check.py").touch()
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(pages.bootstrap(url), {})
    assert Path(sys.path[0]) == tmp_path
    assert (url in pages.bootstrap(url)) or not url
    lines = [line for line in pages.bootstrap(url).split("\n") if line]
    assert len(lines) == (9 if url else 6) and max(map(len, lines)) <= 100


@pytest.mark.parametrize("url", ["", URL])
def test_outside_the_course_the_first_cell_says_what_to_do(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = [p for p in sys.path if not Path(p, "utils", "check.py").exists()]
    monkeypatch.setattr(sys, "path", elsewhere)
    with pytest.raises(AssertionError, match="not here: move this notebook into its"):
        exec(pages.bootstrap(url), {})
    graded = [*elsewhere, str(author.ROOT)]  # nbgrader names the course in PYTHONPATH
    monkeypatch.setattr(sys, "path", graded)
    exec(pages.bootstrap(url), {})
    assert sys.path[0] == str(author.ROOT)


def test_on_colab_the_first_cell_fetches_the_course_once(tmp_path, monkeypatch):
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(author.ROOT)])
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    monkeypatch.setattr(os, "system", commands.append)
    exec(pages.bootstrap(URL), {})
    assert commands == [f"git clone -q --depth=1 {URL} /content/course"]


def test_the_map_of_the_readme_links_chapters(project):
    text = pages.readme_with_map((project / "README.md").read_text(), "")
    row = next(line for line in text.split("\n") if "07_one" in line)
    assert row.startswith("| [A question or a claim](solutions/07_one.ipynb) |")
    assert "[notebook](chapters/07_one.ipynb)" in row
    assert text.startswith("# R\n<!-- map -->\n| chapter") and text.endswith("end\n")
    assert pages.readme_with_map(text, "") == text
    assert "mybinder.org" in pages.readme_with_map(text, URL)
