"""What every notebook keeps to, so that readers find the same things in each."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from utils.course import author, notebooks, pages
from utils.course.notebooks import nbformat  # which starts quicker there

TAGS = {"setup", "solution", "nbval-ignore-output", "raises-exception"}
FETCHES = re.compile(
    r"https?://|\burllib\b|\brequests\b|\bhttpx\b|\bfetch_\w+\(|"
    r"^\s*[!%]+\s*(pip|wget|curl|conda)",
    re.M,
)
SECTIONS = ("What we now know", "What is still wrong", "Read next")
VAGUE = {
    "here",
    "this",
    "link",
    "click here",
    "this link",
    "more",
    "read more",
    "source",
}


def _each(folder):
    paths = sorted((author.ROOT / folder).glob("*.ipynb"))
    return [pytest.param(path, id=f"{folder}/{path.stem}") for path in paths]


SOLUTIONS, CHAPTERS = _each("solutions"), _each("chapters")
every = pytest.mark.parametrize("path", SOLUTIONS + CHAPTERS)
solution = pytest.mark.parametrize("path", SOLUTIONS)
chapter = pytest.mark.parametrize("path", CHAPTERS)
NUMBERED = [p for p in SOLUTIONS if not p.id.startswith("solutions/00_")]
numbered = pytest.mark.parametrize("path", NUMBERED)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    "The text of Markdown cells without code blocks and formulas: [(cell id, text)]."
    blocks = re.compile(r"```.*?```|~~~.*?~~~|\$\$.*?\$\$", re.S)
    cells = (cell for cell in notebook.cells if cell.cell_type == "markdown")
    return [(cell.id, blocks.sub("", cell.source)) for cell in cells]


def headings(notebook):
    "[(level, text, cell id)] in order."
    return [
        (len(marks), text.strip(), cell_id)
        for cell_id, source in prose(notebook)
        for marks, text in re.findall(r"^(#{1,6}) +(.+?) *#*$", source, re.M)
    ]


def tags(cell):
    return cell.metadata.get("tags", [])


def tree(cell):
    "The syntax tree of a cell without its IPython magics."
    lines = cell.source.split("\n")
    return ast.parse(
        "\n".join("" if x.lstrip()[:1] in "!%" and x.strip() else x for x in lines)
    )


def outputs(notebook, *kinds):
    for cell in code_cells(notebook):
        for number, output in enumerate(cell.outputs):
            if output.output_type in kinds:
                yield cell, number, output


def test_there_are_notebooks():
    assert len(SOLUTIONS) >= 2 and len(CHAPTERS) >= 2


# ---- headings, first cells ----


@every
def test_one_title_in_the_first_cell(path):
    notebook = read(path)
    top = [cell_id for level, _, cell_id in headings(notebook) if level == 1]
    assert top == ["title"]
    assert notebook.cells[0].id == "title" and notebook.cells[0].source.startswith("# ")


@every
def test_heading_levels_never_jump(path):
    levels = headings(read(path))
    jumps = [
        f"{cell_id}: {text!r} (h{level} after h{before})"
        for (before, _, _), (level, text, cell_id) in pairwise(levels)
        if level > before + 1
    ]
    assert jumps == []


@every
def test_the_first_code_cell_is_the_bootstrap(path):
    first = code_cells(read(path))[0]
    assert first.id == "bootstrap"
    assert first.source == pages.bootstrap(author.repository())


@every
def test_the_kernel_is_any_python_3(path):
    metadata = read(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert metadata.kernelspec.language == "python"
    assert metadata.language_info == {"name": "python"}, "a version changes by machine"


# ---- links, images ----

LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")


def links(notebook):
    "[(cell id, whether an image, text, target)], code spans left out."
    for cell_id, source in prose(notebook):
        for mark, text, target in LINK.findall(re.sub(r"`[^`]*`", "`code`", source)):
            yield cell_id, mark == "!", text, target


def anchors(notebook):
    "What Jupyter makes of headings: text without marks, spaces as hyphens."
    plain = (re.sub(r"[`*_]", "", text) for _, text, _ in headings(notebook))
    return {re.sub(r"\s", "-", text) for text in plain}


@every
def test_relative_links_and_anchors_lead_somewhere(path):
    notebook, lost = read(path), []
    for cell_id, _, _, target in links(notebook):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = path.parent / file if file else path
        if not there.exists():
            lost.append(f"{cell_id}: {target}")
        elif anchor and there.suffix == ".ipynb" and anchor not in anchors(read(there)):
            lost.append(f"{cell_id}: no heading for {target}")
    assert lost == []


@every
def test_links_say_where_they_lead(path):
    said = [
        f"{cell_id}: [{text}]({target})"
        for cell_id, image, text, target in links(read(path))
        if not image and (text.strip().lower() in VAGUE or len(text.strip(" *_`")) < 2)
    ]
    assert said == []


@every
def test_web_links_are_secure_and_whole(path):
    odd = [
        target
        for _, _, _, target in links(read(path))
        if re.match(r"[a-z]+:", target)
        and not re.match(r"https://[\w.-]+\.\w+(/\S*)?$|mailto:\S+@", target)
    ]
    assert odd == []


@every
def test_images_have_a_text(path):
    notebook = read(path)
    bare = [target for _, image, text, target in links(notebook) if image and not text]
    for cell_id, source in prose(notebook):
        for tag in re.findall(r"<img\b[^>]*>", source):
            if not re.search(r"alt=[\"'][^\"']+[\"']", tag):
                bare.append(f"{cell_id}: {tag}")
    assert bare == []


@solution
def test_figures_have_their_sentence_and_their_caption(path):
    for cell, number, output in outputs(read(path), "display_data", "execute_result"):
        if "image/png" not in output.data:
            continue
        text = output.data.get("text/plain", "")
        assert not text.startswith("<Figure"), f"{cell.id}: use plots.show"
        assert len(text.split()) >= 8, f"{cell.id}: {text!r}"
        assert output.metadata["image/png"]["alt"] == text, cell.id
        after = [o.get("data", {}) for o in cell.outputs[number + 1 : number + 2]]
        captions = [data.get("text/markdown", "") for data in after]
        assert [c[:1] + c[-1:] for c in captions] == ["**"], f"{cell.id}: no caption"


# ---- cells ----


@every
def test_only_known_tags(path):
    known = TAGS if path.parent.name == "solutions" else TAGS - {"solution"}
    used = {(cell.id, tag) for cell in read(path).cells for tag in tags(cell)}
    assert [pair for pair in sorted(used) if pair[1] not in known] == []


@every
def test_code_is_python_with_short_lines(path):
    for cell in code_cells(read(path)):
        tree(cell)
        long = [line for line in cell.source.split("\n") if len(line) > 100]
        assert long == [], cell.id


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def awaits_within(tree):
    """Lines with a comprehension that awaits and stands in another one.

    Python 3.10 refuses it, 3.11 does not, and ruff looks at `async for` alone.
    """
    lines = set()
    for outer in ast.walk(tree):
        if isinstance(outer, COMPREHENSIONS):
            first = outer.generators[0].iter  # is worked out before, outside
            outside = {id(node) for node in ast.walk(first)}
            for inner in ast.walk(outer):
                if (
                    inner is not outer
                    and id(inner) not in outside
                    and isinstance(inner, COMPREHENSIONS)
                    and any(
                        isinstance(node, ast.Await) or getattr(node, "is_async", 0)
                        for node in ast.walk(inner)
                    )
                ):
                    lines.add(inner.lineno)
    return sorted(lines)


def test_a_comprehension_that_awaits_in_another_one_is_found():
    for bad in (
        "{k: [await f(n) for n in N] for k in K}",
        "[[n async for n in k] for k in K]",
    ):
        assert awaits_within(ast.parse(bad)) == [1], bad
    for good in ("[await f(n) for n in N]", "[n for n in [await f(k) for k in K]]"):
        assert awaits_within(ast.parse(good)) == [], good


@every
def test_no_cell_awaits_in_a_comprehension_within_another_one(path):
    cells = [cell for cell in code_cells(read(path)) if "await" in cell.source]
    found = {cell.id: awaits_within(tree(cell)) for cell in cells}
    assert {cell_id: lines for cell_id, lines in found.items() if lines} == {}


def test_no_module_awaits_in_a_comprehension_within_another_one():
    files = [*author.ROOT.glob("utils/**/*.py"), *author.ROOT.glob("tests/**/*.py")]
    sources = {file.name: file.read_text(encoding="utf-8") for file in files}
    found = {n: awaits_within(ast.parse(s)) for n, s in sources.items() if "await" in s}
    assert {name: lines for name, lines in found.items() if lines} == {}


def claims(cell):
    "Whether a cell fails where it does not show what it should."
    for node in ast.walk(tree(cell)):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            asserts = name.rpartition(".")[2].startswith("assert_")
            if asserts or name in ("check.close", "check.expect_failure"):
                return True
    return False


@every
def test_a_cell_whose_output_is_not_compared_asserts_what_it_claims(path):
    cells = code_cells(read(path))
    silent = [c.id for c in cells if "nbval-ignore-output" in tags(c) and not claims(c)]
    assert silent == []


@every
def test_nothing_is_fetched(path):
    found = [
        (cell.id, FETCHES.search(cell.source)[0])
        for cell in code_cells(read(path))
        if cell.id != "bootstrap" and FETCHES.search(cell.source)
    ]
    assert found == []


def checked(notebook):
    "The exercises of a notebook: the names that its cells check."
    sources = (cell.source for cell in code_cells(notebook))
    return [name for s in sources for name in re.findall(r"\bex\.(\w+)\.check\(", s)]


@every
def test_an_exercise_is_followed_by_its_check(path):
    notebook = read(path)
    ids = [cell.id for cell in notebook.cells]
    sources = {cell.id: cell.source for cell in notebook.cells}
    names = checked(notebook)
    assert len(set(names)) == len(names), "an exercise is checked twice"
    for name in names:
        assert name in ids and f"{name}-check" in ids
        assert ids.index(f"{name}-check") == ids.index(name) + 1
        assert sources[f"{name}-check"] == f"{name} = ex.{name}.check({name})"
    pairs = [i for i in ids if f"{i}-check" in ids]
    assert pairs == names, (
        "progress counts a cell NAME and its NAME-check as an exercise"
    )
    if path.parent.name == "solutions":
        assert [i for i in ids if "### BEGIN SOLUTION" in sources[i]] == names


@chapter
def test_a_chapter_shows_no_solution_and_only_its_first_picture(path):
    first_look, ids = None, []
    for cell in read(path).cells:
        assert "SOLUTION" not in cell.source, cell.id
        ids.append(cell.id)
        if cell.cell_type == "markdown" or cell.execution_count is None:
            assert not cell.get("outputs"), cell.id
            continue
        assert first_look is None and notebooks.has_picture(cell), cell.id
        first_look = cell.id
    if not path.name.startswith("00_"):
        before = ids[: ids.index(first_look)]
        assert not any(f"{i}-check" in ids for i in before), "after an exercise"


@chapter
def test_a_line_under_the_title_leads_to_the_solved_chapter(path):
    title = read(path).cells[0].source
    assert f"(../solutions/{path.name})" in title.split("\n")[2]


# ---- stored outputs ----


@solution
def test_every_code_cell_was_run_in_order(path):
    counts = [cell.execution_count for cell in code_cells(read(path)) if cell.source]
    assert counts == list(range(1, len(counts) + 1)), "python3 start.py author run"


@solution
def test_the_stored_outputs_are_those_of_this_code(path):
    notebook = read(path)
    ran = notebook.metadata.get("course", {}).get("executed")
    assert ran == notebooks.code_hash(notebook), "python3 start.py author run"


@solution
def test_no_stored_warning_and_no_error(path):
    streams = outputs(read(path), "stream")
    assert [(cell.id, o.text) for cell, _, o in streams if o.name == "stderr"] == []
    errors = outputs(read(path), "error")
    assert [c.id for c, _, _ in errors if "raises-exception" not in tags(c)] == []


@solution
def test_nothing_of_one_machine_is_stored(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/home/\w|/Users/\w|[A-Z]:\\\\Users|/root/|\.venv/", text)


@solution
def test_stored_outputs_are_small(path):
    assert sum(len(str(cell.outputs)) for cell in code_cells(read(path))) < 1_500_000


# ---- what each chapter has, from 01 on ----


@numbered
def test_exercises_predictions_and_a_lab(path):
    cells = code_cells(read(path))
    assert len(checked(read(path))) >= 6, "exercises"
    guesses = [
        cell.id for cell in cells if re.search(r"^guess\w* *=", cell.source, re.M)
    ]
    assert len(guesses) >= 3, f"predictions: {guesses}"
    labs = [c.id for c in cells if re.search(r"\bplots\.explore\(", c.source)]
    assert labs, "no plots.explore"


@numbered
def test_the_last_sections_and_the_glossary(path):
    notebook = read(path)
    texts = [text for _, text, _ in headings(notebook)]
    assert [section for section in SECTIONS if section not in texts] == []
    rows = "\n".join(source for _, source in prose(notebook))
    table = re.search(
        r"^\|\s*English\s*\|\s*中文\s*\|.*\n\|[-:| ]+\|\n((?:\|.*\n?)+)", rows, re.M
    )
    assert table, "no glossary"
    for row in table[1].strip().split("\n"):
        english, chinese = (cell.strip() for cell in row.split("|")[1:3])
        assert english and re.search("[\u4e00-\u9fff]", chinese), row


@numbered
def test_a_figure_comes_early(path):
    words = lines = 0
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\]\([^)]*\)", "]", cell.source)
            words += len(re.findall(r"\w+(?:['’-]\w+)*", text))
            continue
        if cell.id != "bootstrap":
            lines += sum(bool(line.strip()) for line in cell.source.split("\n"))
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            break
    assert words <= 150, f"{words} words before the first figure"
    assert lines <= 10, f"{lines} lines of code before the first figure"


def test_every_link_of_the_guides_leads_somewhere():
    for guide in author.ROOT.glob("*.md"):
        for _, text, target in LINK.findall(guide.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|#", target):
                assert Path(guide.parent, target.split("#")[0]).exists(), (text, target)


def key_letters():
    "The letters of README's key of axes."
    text = (author.ROOT / "README.md").read_text(encoding="utf-8")
    line = next(x for x in text.split("\n") if x.startswith("Names of arrays end in"))
    return set(re.findall(r"`([A-Z])`", line))


def axes(source):
    "{name: letters} of the names in a cell that end in axes: X_ND, w_D, mean_3."
    names = [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Name, ast.arg))
    ]
    names = {getattr(n, "id", None) or getattr(n, "arg", "") for n in names}
    found = {
        name: re.search(r"(?:^[A-Z]|[a-z0-9])_([A-Z0-9]*[A-Z][A-Z0-9]*)$", name)
        for name in names
    }
    return {name: set(re.sub(r"\d", "", m[1])) for name, m in found.items() if m}


def test_names_that_end_in_axes_are_recognised():
    source = "X_ND, MAX_ROWS, w_2D, by_rank = 1, 2, 3, 4\ndef f(std_3, y_hat_N): pass"
    assert axes(source) == {"X_ND": {"N", "D"}, "w_2D": {"D"}, "y_hat_N": {"N"}}
    assert {"N", "D", "H", "B", "T", "E", "V", "C"} <= key_letters()


@solution
def test_names_of_arrays_end_in_letters_of_the_key(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            for name, letters in axes(cell.source).items():
                assert letters <= key_letters(), (
                    f"{cell.id}: {name}: README has the key"
                )
