"""Pages made from the chapters: the glossary, README's map, a teacher's minutes."""

import itertools
import json
import re

import pytest

from utils.course import author, pages, plan
from utils.exercises import progress

CHAPTERS = [c["name"] for c in progress.chapters()]
LONG = [name for name in CHAPTERS if not name.startswith("00")]


def plain(text):
    "Lower case, hyphens and line ends as spaces."
    return re.sub(r"[-\s]+", " ", text.lower())


@pytest.fixture
def course(tmp_path, monkeypatch):
    "A course of two chapters; course(1, text, ...) writes one."
    monkeypatch.setattr(progress, "ROOT", tmp_path)
    (tmp_path / "solutions").mkdir()

    def write(number, *texts):
        cells = [
            {"cell_type": "markdown", "id": f"c{i}", "metadata": {}, "source": text}
            for i, text in enumerate(texts)
        ]
        file = tmp_path / "solutions" / f"{number:02d}_x.ipynb"
        file.write_text(json.dumps({"cells": cells}))

    return write


def words(*rows):
    head = "## Words\n\n| English | 中文 | here |\n|---|---|---|"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


# ---- the glossary ----


def test_the_page_is_what_the_chapters_give():
    page = author.ROOT / "GLOSSARY.md"
    assert page.read_text(encoding="utf-8") == pages.glossary(), "author build"


@pytest.mark.parametrize("chapter", LONG)
def test_every_chapter_brings_words(chapter):
    assert sum(term["chapter"] == chapter for term in pages.terms()) >= 8


def test_terms_are_sorted_and_each_names_its_first_chapter(course):
    course(1, "# One", words(("zebra", "斑马", "striped"), ("Ant", "蚁", "small")))
    course(2, "# Two", words(("bee", "蜂", "buzzes")))
    rows = [line for line in pages.glossary().split("\n") if line.startswith("| ")][1:]
    assert rows == [
        "| Ant | 蚁 | small | [01](chapters/01_x.ipynb) |",
        "| bee | 蜂 | buzzes | [02](chapters/02_x.ipynb) |",
        "| zebra | 斑马 | striped | [01](chapters/01_x.ipynb) |",
    ]


def test_a_term_in_two_chapters_is_refused(course):
    course(1, "# One", words(("bee", "蜂", "buzzes")))
    course(2, "# Two", words(("bee", "蜂", "hurts")))
    with pytest.raises(ValueError, match=r"'bee' stands in .*01_x.* again in .*02_x"):
        pages.terms()


def test_two_terms_in_a_row_are_refused(course):
    course(1, "# One", words(("bee, wasp", "蜂", "buzz")))
    with pytest.raises(ValueError, match="01_x: 'bee, wasp': one term a row"):
        pages.terms()


def test_a_table_that_is_not_of_words_is_left_alone(course):
    course(1, "# One", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |")
    assert pages.terms() == []


@pytest.mark.parametrize("term", pages.terms(), ids=lambda term: term["english"])
def test_a_term_is_used_in_the_text_of_its_chapter(term):
    texts = progress.texts(term["chapter"])
    text = plain("\n".join(t for t in texts if not t.startswith("## Words")))
    word = re.escape(plain(term["english"]))
    assert re.search(rf"\b{word}(s|es|d|ed|ing)?\b", text), (
        f"{term['chapter']} explains {term['english']!r} in its table alone: "
        "name it where the idea comes up"
    )
    assert re.search("[\u4e00-\u9fff]", term["chinese"])


# ---- minutes ----


@pytest.mark.parametrize("chapter", LONG)
def test_the_opening_says_how_long_the_exercises_take(chapter):
    said = re.search(
        r"\*\*Time\*\*: \d+ min to read, (\d+) min of exercises",
        progress.texts(chapter)[0],
    )
    _, solving, _ = pages.minutes(chapter)
    assert said and abs(int(said[1]) - solving) <= 2.5, f"they sum up to {solving} min"


def test_minutes_are_shared_out_among_the_sections(course):
    course(
        1, "# One\n\n- **Time**: 30 min to read, 5 min of exercises",
        "## 1 · A\n\n" + "word " * 98, "Your turn (5 min).",
        "## 2 · B\n\n" + "word " * 197, "## What we now know\n\n" + "word " * 500,
    )  # fmt: skip
    reading, solving, parts = pages.minutes("01_x")
    assert (reading, solving) == (30, 5)
    assert [(name, after) for name, _, after in parts] == [("1 · A", 5), ("2 · B", 0)]
    assert sum(before for _, before, _ in parts) == pytest.approx(30)
    assert parts[1][1] > 1.5 * parts[0][1], "twice the words"


def test_an_opening_without_its_time_is_named(course):
    course(1, "# One")
    with pytest.raises(ValueError, match="01_x: the opening says no"):
        pages.minutes("01_x")


@pytest.mark.parametrize("chapter", LONG)
def test_a_chapter_needs_what_comes_before_it(chapter):
    numbers = pages.needs(chapter)
    assert all(1 <= number < int(chapter[:2]) for number in numbers), numbers
    assert numbers or chapter[:2] == "01"


def test_needs_are_read_and_said(course):
    text = "# Nine\n\n- **You need**: chapters 01 to 03, 05 and 07; 08 for section 6"
    course(9, text)
    assert pages.needs("09_x") == [1, 2, 3, 5, 7, 8]
    assert pages.spoken([1, 2, 3, 5, 7, 8]) == "01 to 03, 05, 07, 08"
    assert pages.spoken([]) == ""


def test_the_guide_for_teachers_has_the_minutes_of_every_chapter():
    text = (author.ROOT / "TEACHING.md").read_text(encoding="utf-8")
    assert text == plan.teaching(text), "python3 start.py author"
    for chapter in LONG:
        assert f"(chapters/{chapter}.ipynb) |" in text


def test_each_week_of_the_term_needs_only_what_the_term_had_before():
    names, had = {int(name[:2]): name for name in LONG}, []
    for number in itertools.chain(*plan.TERM):
        if number in names:
            lacking = set(pages.needs(names[number])) - set(had)
            assert not lacking, f"{number} needs {lacking}"
        had.append(number)
    assert len(plan.TERM) == 14 and len(had) == len(set(had))
    text = (author.ROOT / "TEACHING.md").read_text(encoding="utf-8")
    left = [f"{n:02}" for n in range(1, 29) if n not in had]
    assert f"by no chapter of it: {', '.join(left[:-1])} and {left[-1]}." in text


# ---- between marks ----


@pytest.mark.parametrize(
    "text", ["", "<!-- map -->\n", "<!-- end of map -->", "<!-- map -->\n" * 2]
)
def test_a_page_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match="needs the marks"):
        pages.between("map", ["| a |"], text)


def test_what_stands_around_the_marks_stays():
    text = "before\n<!-- map -->\nold\nolder\n<!-- end of map -->\nafter\n"
    once = pages.between("map", ["new", r"\1 \g<0>"], text)
    assert once == "before\n<!-- map -->\nnew\n\\1 \\g<0>\n<!-- end of map -->\nafter\n"
    assert pages.between("map", ["new", r"\1 \g<0>"], once) == once
