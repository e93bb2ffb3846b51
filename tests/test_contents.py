"""JupyterLab may write in work/, and only read the rest of the course."""

import asyncio

import pytest
from tornado.web import HTTPError

from utils.course.contents import Contents, in_work


@pytest.fixture
def contents(tmp_path):
    for folder in ("work", "solutions", "workshop"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("as it was")
    (tmp_path / "README.md").write_text("as it was")
    return Contents(root_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("path", "mine"),
    [
        ("work", True),
        ("/work/a.txt", True),
        ("work/week1/a.txt", True),
        ("workshop/a.txt", False),
        ("solutions/a.txt", False),
        ("README.md", False),
        ("", False),
    ],
)
def test_only_work_is_the_readers_own(path, mine):
    assert in_work(path) == mine


@pytest.mark.parametrize("path", ["solutions/a.txt", "README.md", "workshop/a.txt"])
def test_the_rest_can_be_read_and_not_changed(contents, path, tmp_path):
    model = asyncio.run(contents.get(path))
    assert model["content"] == "as it was" and model["writable"] is False
    for change in (
        contents.save({**model, "content": "mine"}, path),
        contents.delete_file(path),
        contents.rename_file(path, "work/b.txt"),
        contents.rename_file("work/a.txt", path),
        contents.save({**model, "content": "mine"}, path + ".new"),
        contents.delete_file("work"),
    ):
        with pytest.raises(HTTPError, match="write in the folder work/"):
            asyncio.run(change)
    assert (tmp_path / path).read_text() == "as it was"


def test_in_work_everything_goes(contents, tmp_path):
    model = asyncio.run(contents.get("work/a.txt"))
    assert model["writable"] is True
    asyncio.run(contents.save({**model, "content": "mine"}, "work/a.txt"))
    asyncio.run(contents.rename_file("work/a.txt", "work/b.txt"))
    assert (tmp_path / "work" / "b.txt").read_text() == "mine"
    asyncio.run(contents.delete_file("work/b.txt"))
    assert list((tmp_path / "work").glob("*.txt")) == []
