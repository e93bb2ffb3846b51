"""The plan of 29 chapters, and README's tables made from it."""

import pytest

from utils.course import author, plan


def test_the_plan_has_29_chapters_in_order():
    rows = plan.chapters()
    assert [row["number"] for row in rows] == [f"{n:02}" for n in range(1, 30)]
    assert len({row["slug"] for row in rows}) == 29
    assert len({row["part"] for row in rows}) == 5 and all(row["what"] for row in rows)


def test_every_chapter_that_stands_is_in_the_plan_under_its_own_number():
    planned = {f"{row['number']}_{row['slug']}" for row in plan.chapters()}
    here = {path.stem for path in author.named([]) if not path.stem.startswith("00_")}
    assert here <= planned
    assert sum(row["stands"] for row in plan.chapters()) == len(here)


def test_what_stands_is_a_link_and_the_rest_is_to_come():
    text = "\n".join(plan.plan_rows())
    for row in plan.chapters():
        link = f"](solutions/{row['number']}_{row['slug']}.ipynb)"
        assert (link in text) == row["stands"]
        assert (f"*{row['number']} {row['what']}*" in text) != row["stands"]


def test_every_path_leads_through_chapters_that_stand():
    rows = plan.path_rows()[2:]
    assert len(rows) == len(plan.PATHS)
    for row in rows:
        read, solve = row.rsplit("|", 2)[1].split("+")
        assert int(read) > 0 and int(solve) > 0 and "](chapters/" in row


def test_readme_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="plan"):
        plan.readme("no marks")
