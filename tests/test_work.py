"""work/: an untouched copy follows the course, a reader's work is never overwritten."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from ipykernel.ipkernel import IPythonKernel

from utils.course import work
from utils.files import ROOT

NAME = "01_descent.ipynb"


def notebook(*sources, outputs=(), language=IPythonKernel.language_info):
    """A notebook of code cells, in a chapter's form, with a kernel's own words."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "execution_count": 1 if outputs else None,
            "outputs": list(outputs),
            "source": source,
        }
        for i, source in enumerate(sources)
    ]
    metadata = {"language_info": dict(sorted(language.items()))}
    book = {"cells": cells, "metadata": metadata, "nbformat": 4}
    return json.dumps(book, indent=1) + "\n"


@pytest.fixture
def course(tmp_path):
    """A course of one chapter, version 1, and its work/ filled once."""
    (tmp_path / "chapters").mkdir()
    publish(tmp_path, "one")
    assert work.fill(tmp_path) == []
    return tmp_path


def publish(root, *sources):
    """A new version of the chapter in the course."""
    (root / "chapters" / NAME).write_text(notebook(*sources))


def edit(root, *sources, name=NAME, **more):
    """A reader's own version of a notebook in work/."""
    (root / "work" / name).write_text(notebook(*sources, **more))


def mine(root, name=NAME):
    """The text of a notebook in work/."""
    return (root / "work" / name).read_text()


def names(root):
    """The visible names in work/."""
    return sorted(p.name for p in (root / "work").iterdir() if p.name[0] != ".")


def book(root):
    """The bookkeeping file."""
    return root / "work" / work.BOOK


def test_the_first_fill_copies_every_chapter_byte_by_byte(course):
    assert names(course) == [NAME]
    assert mine(course) == notebook("one")


def test_a_copy_has_what_a_kernel_would_add_when_it_is_opened(course):
    """So that a notebook has no unsaved change the moment it is opened."""
    (course / "work" / NAME).unlink()
    chapter = course / "chapters" / NAME
    chapter.write_text(notebook("梯度", language={"name": "python"}), encoding="utf-8")
    assert work.fill(course) == []
    metadata = json.loads(mine(course))["metadata"]
    assert metadata["language_info"] == IPythonKernel.language_info
    assert work.fingerprint(course / "work" / NAME) == work.fingerprint(chapter)
    chapter.write_text('{"cells": []}')
    assert work.fill(course) == [], "even a notebook without any metadata"


def test_nothing_is_written_when_nothing_changed(course, monkeypatch):
    def refuse(*_):
        raise AssertionError("written")

    monkeypatch.setattr(work, "write_whole", refuse)
    assert work.fill(course) == []


def test_an_untouched_copy_follows_the_course(course):
    for version in ("two", "three"):
        publish(course, version)
        assert work.fill(course) == []
        assert mine(course) == notebook(version)
    assert names(course) == [NAME]


def test_running_cells_is_not_an_edit(course):
    edit(course, "one", outputs=[{"output_type": "stream", "name": "stdout"}])
    publish(course, "two")
    assert work.fill(course) == []
    assert mine(course) == notebook("two")


def test_sources_as_lines_or_as_one_text_are_the_same(course):
    publish(course, "a\nb")
    work.fill(course)
    edit(course, ["a\n", "b"])
    publish(course, "two")
    assert work.fill(course) == []
    assert mine(course) == notebook("two")


@pytest.mark.parametrize(
    "changed",
    [("one", "mine"), (), ("ONE",), ("one ",)],
    ids=["added", "removed", "changed", "space"],
)
def test_work_stays_and_the_new_version_lands_beside_it(course, changed):
    edit(course, *changed)
    publish(course, "two")
    said = work.fill(course)
    assert mine(course) == notebook(*changed)
    assert mine(course, "01_descent.new.ipynb") == notebook("two")
    assert len(said) == 1
    assert NAME in said[0] and "01_descent.new.ipynb" in said[0]
    assert work.fill(course) == []


def test_order_and_type_of_cells_are_an_edit(course):
    publish(course, "a", "b")
    work.fill(course)
    edit(course, "b", "a")
    publish(course, "two")
    assert len(work.fill(course)) == 1
    assert mine(course) == notebook("b", "a")
    typed = json.loads(notebook("two"))
    typed["cells"][0]["cell_type"] = "raw"
    (course / "work" / NAME).write_text(json.dumps(typed))
    assert work.fingerprint(course / "work" / NAME) != work.fingerprint(
        course / "chapters" / NAME
    )


def test_work_in_an_unchanged_chapter_is_left_alone(course):
    edit(course, "mine")
    assert work.fill(course) == []
    assert names(course) == [NAME]


def test_an_untouched_new_file_follows_the_course(course):
    edit(course, "mine")
    for version in ("two", "three"):
        publish(course, version)
        assert len(work.fill(course)) == 1
    assert names(course) == ["01_descent.ipynb", "01_descent.new.ipynb"]
    assert mine(course, "01_descent.new.ipynb") == notebook("three")


def test_an_edited_new_file_is_not_overwritten_either(course):
    edit(course, "mine")
    publish(course, "two")
    work.fill(course)
    edit(course, "mine too", name="01_descent.new.ipynb")
    publish(course, "three")
    said = work.fill(course)
    assert "01_descent.new-2.ipynb" in said[0]
    edit(course, "mine as well", name="01_descent.new-2.ipynb")
    publish(course, "four")
    assert "01_descent.new-3.ipynb" in work.fill(course)[0]
    assert mine(course, "01_descent.new.ipynb") == notebook("mine too")
    assert mine(course, "01_descent.new-2.ipynb") == notebook("mine as well")
    assert mine(course, "01_descent.new-3.ipynb") == notebook("four")
    assert mine(course) == notebook("mine")


def test_a_deleted_new_file_does_not_come_back_for_the_same_version(course):
    edit(course, "mine")
    publish(course, "two")
    work.fill(course)
    (course / "work" / "01_descent.new.ipynb").unlink()
    assert work.fill(course) == []
    assert names(course) == [NAME]


def test_a_reader_who_took_the_new_version_over_follows_again(course):
    edit(course, "mine")
    publish(course, "two")
    work.fill(course)
    os.replace(course / "work" / "01_descent.new.ipynb", course / "work" / NAME)
    assert work.fill(course) == []
    publish(course, "three")
    assert work.fill(course) == []
    assert mine(course) == notebook("three")


def test_a_reader_who_already_has_the_new_sources_sees_nothing(course):
    edit(course, "two")
    publish(course, "two")
    assert work.fill(course) == []
    assert names(course) == [NAME]


def test_a_deleted_copy_comes_back_fresh(course):
    edit(course, "mine")
    (course / "work" / NAME).unlink()
    assert work.fill(course) == []
    assert mine(course) == notebook("one")


def test_a_chapter_dropped_from_the_course_leaves_the_copy(course):
    (course / "chapters" / NAME).unlink()
    assert work.fill(course) == []
    assert mine(course) == notebook("one")


@pytest.mark.parametrize(
    "text",
    ["{", "", "[]", '{"a": 1}', '{"a": {"given": 3}}', '{"a": {}}', "\x00"],
)
def test_a_damaged_book_is_set_aside_and_nothing_is_overwritten(course, text):
    edit(course, "mine")
    book(course).write_text(text)
    publish(course, "two")
    said = work.fill(course)
    assert ".copied.json.damaged" in said[0] and len(said) == 2
    assert (course / "work" / ".copied.json.damaged").read_text() == text
    assert mine(course) == notebook("mine")
    assert mine(course, "01_descent.new.ipynb") == notebook("two")
    assert work.fill(course) == []


def test_without_a_book_even_an_old_copy_is_kept(course):
    book(course).unlink()
    publish(course, "two")
    assert len(work.fill(course)) == 1
    assert mine(course) == notebook("one")


def test_without_a_book_a_version_that_lies_beside_is_not_put_there_twice(course):
    edit(course, "mine")
    publish(course, "two")
    work.fill(course)
    book(course).unlink()
    assert len(work.fill(course)) == 1
    assert names(course) == ["01_descent.ipynb", "01_descent.new.ipynb"]


def test_without_a_book_a_copy_equal_to_the_course_follows_again(course):
    book(course).write_text("{")
    assert len(work.fill(course)) == 1
    publish(course, "two")
    assert work.fill(course) == []
    assert mine(course) == notebook("two")


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"cells": [1]}', "{}"])
def test_a_notebook_that_cannot_be_read_is_kept(course, text):
    (course / "work" / NAME).write_text(text)
    assert work.fill(course) == []
    publish(course, "two")
    assert len(work.fill(course)) == 1
    assert mine(course) == text


def test_a_damaged_chapter_is_left_out_with_a_sentence(course):
    (course / "chapters" / NAME).write_text("<<<<<<< ours")
    said = work.fill(course)
    assert len(said) == 1 and NAME in said[0] and "damaged" in said[0]
    assert mine(course) == notebook("one")


class Crash(BaseException):
    """The machine stops here."""


def crash_at(monkeypatch, root, number):
    """Let the numbered write, counted from 1, be the one that never happens."""
    real, done = work.write_whole, []

    def write(path, data):
        done.append(path)
        if len(done) == number:
            raise Crash
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(work, "write_whole", write)
        try:
            work.fill(root)
        except Crash:
            return True
    return False


@pytest.mark.parametrize("number", range(1, 8))
def test_a_crash_between_two_writes_of_an_update_heals(course, monkeypatch, number):
    publish(course, "two")
    crashed = crash_at(monkeypatch, course, number)
    assert crashed == (number <= 3)
    publish(course, "three")
    assert work.fill(course) == []
    assert mine(course) == notebook("three")
    assert names(course) == [NAME]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_edit_after_a_crash_is_kept_and_the_update_offered(
    course, monkeypatch, number
):
    publish(course, "two")
    assert crash_at(monkeypatch, course, number)
    held = json.loads(mine(course))["cells"][0]["source"]
    edit(course, held, "mine")
    said = work.fill(course)
    assert mine(course) == notebook(held, "mine")
    if number < 3:
        assert len(said) == 1
        assert mine(course, "01_descent.new.ipynb") == notebook("two")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_crash_between_two_writes_of_an_offer_heals(course, monkeypatch, number):
    edit(course, "mine")
    publish(course, "two")
    assert crash_at(monkeypatch, course, number)
    assert len(work.fill(course)) == 1
    assert mine(course) == notebook("mine")
    assert names(course) == ["01_descent.ipynb", "01_descent.new.ipynb"]
    assert mine(course, "01_descent.new.ipynb") == notebook("two")
    publish(course, "three")
    work.fill(course)
    assert mine(course, "01_descent.new.ipynb") == notebook("three")


def test_writes_are_all_or_nothing(course, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    publish(course, "two")
    with monkeypatch.context() as patched:
        patched.setattr("utils.files.os.replace", fail)
        with pytest.raises(work.WorkError, match="No space left"):
            work.fill(course)
    assert mine(course) == notebook("one")
    assert not list((course / "work").glob(".*.part"))


def test_missing_chapters_are_one_sentence(tmp_path):
    with pytest.raises(work.WorkError, match="chapters is missing"):
        work.fill(tmp_path)
    assert not (tmp_path / "work").exists()


def test_a_file_named_work_is_one_sentence(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "work").write_text("mine")
    with pytest.raises(work.WorkError, match="not a folder"):
        work.fill(tmp_path)
    assert (tmp_path / "work").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_sentence(course, monkeypatch):
    def fail(*_):
        raise PermissionError(13, "Permission denied")

    publish(course, "two")
    monkeypatch.setattr("utils.files.open", fail, raising=False)
    with pytest.raises(work.WorkError, match=r"could not be copied.*Permission denied"):
        work.fill(course)


def copy_of_the_module(root):
    """Run `python -m utils.course.work` in a copy of the course that holds nothing else."""
    (root / "utils" / "course").mkdir(parents=True)
    for name in ("__init__.py", "files.py", "course/__init__.py", "course/work.py"):
        shutil.copy(ROOT / "utils" / name, root / "utils" / name)
    return subprocess.run(
        [sys.executable, "-S", "-m", "utils.course.work"],
        cwd=root,
        capture_output=True,
        text=True,
    )


def test_as_a_command_it_fills_work_without_any_package(course):
    (course / "work" / NAME).unlink()
    done = copy_of_the_module(course)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mine(course) == notebook("one")


def test_as_a_command_it_says_what_is_wrong_in_one_line(tmp_path):
    done = copy_of_the_module(tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "chapters" in done.stderr


def test_two_fills_at_once_agree(tmp_path):
    """Twenty rounds of two processes: an untouched chapter stays the course's own."""
    for number in range(20):
        root = tmp_path / str(number)
        (root / "chapters").mkdir(parents=True)
        for name in ("01_a", "02_b", "03_c"):
            (root / "chapters" / f"{name}.ipynb").write_text(notebook("one", name))
        fill = f"from utils.course import work; print(work.fill({str(root)!r}))"
        both = [
            subprocess.Popen(
                [sys.executable, "-c", fill],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        assert [process.communicate()[0] for process in both] == ["[]\n"] * 2
        for chapter in (root / "chapters").iterdir():
            chapter.write_text(notebook("two", chapter.stem))
        assert work.fill(root) == [], "an untouched copy follows the course"
        assert {p.suffix for p in (root / "work").glob("[!.]*")} == {".ipynb"}
        assert not list((root / "work").glob("*.new.ipynb"))


def test_a_fill_that_waits_too_long_says_who_holds_the_lock(tmp_path):
    (tmp_path / "work").mkdir()
    with work.alone(tmp_path / "work"):  # noqa: SIM117
        with pytest.raises(work.WorkError, match="Another start"):
            with work.alone(tmp_path / "work", patience=0.1):
                pass
