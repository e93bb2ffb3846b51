"""Readers write in work/, never in chapters/: an update never meets their edits.

fill() copies what is missing. A copy that nobody edited follows the course; a copy
with work in it stays, and the new version lands beside it as NAME.new.ipynb. Running
cells is not an edit. Standard library only: start.py, Binder and conda call it.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from utils.files import ROOT, try_lock, write_whole

# Which versions of the course each file in work/ was given; "coming" is the one whose
# copying has begun, "offered" the one that lies beside the reader's own:
# {"NAME.ipynb": {"given": [fingerprint, ...], "coming": ..., "offered": ...}}
BOOK = ".copied.json"
LOCK = ".copied.lock"


class WorkError(Exception):
    """What keeps work/ from being filled, in one sentence."""


def fingerprint(path):
    """What a person writes: the cells' types and sources in order; None if damaged."""
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        written = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def well_formed(book):
    """Whether the bookkeeping has the shape that this module writes."""
    return isinstance(book, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("given"), list)
        and isinstance(entry.get("coming", ""), str)
        and isinstance(entry.get("offered", ""), str)
        for entry in book.values()
    )


def read_book(work):
    """(the bookkeeping, sentences); a damaged one is set aside and begun anew."""
    path = work / BOOK
    if not path.exists():
        return {}, []
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        book = None
    if well_formed(book):
        return book, []
    os.replace(path, work / f"{BOOK}.damaged")
    said = (
        f"work/{BOOK} was damaged and is now work/{BOOK}.damaged; all notebooks stay."
    )
    return {}, [said]


def write_book(work, book):
    """Store the bookkeeping."""
    write_whole(
        work / BOOK, (json.dumps(book, indent=1, sort_keys=True) + "\n").encode()
    )


def entry_of(book, name):
    """What the bookkeeping says of one file; made where it is missing."""
    return book.setdefault(name, {"given": []})


def note_given(work, book, name, version):
    """Store that work/NAME holds this version of the course."""
    entry = entry_of(book, name)
    if entry.pop("coming", None) is None and version in entry["given"]:
        return
    if version not in entry["given"]:
        entry["given"].append(version)
    write_book(work, book)


def copy_of(chapter):
    """A chapter's bytes with what JupyterLab adds of the kernel as soon as it opens it.

    So that opening a notebook changes nothing, and leaves nothing to be saved.
    """
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    notebook.setdefault("metadata", {})["language_info"] = {  # as ipykernel reports it
        "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": sys.version.split()[0],
    }
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def give(chapter, path, version, book):
    """Copy a chapter to work/; a crash in between leaves a file that counts as ours."""
    entry_of(book, path.name)["coming"] = version
    write_book(path.parent, book)
    write_whole(path, copy_of(chapter))
    note_given(path.parent, book, path.name, version)


def untouched(path, book):
    """Whether a file's sources are ones that the course gave under this name."""
    entry = book.get(path.name, {"given": []})
    return fingerprint(path) in [*entry["given"], entry.get("coming", "none")]


def present(path):
    """Whether something bears this name, even a link to nothing."""
    return os.path.lexists(path)


def place_beside(mine, version, book):
    """The .new name that is free, untouched, or holds this version already."""
    number = 1
    while True:
        ending = "new" if number == 1 else f"new-{number}"
        path = mine.with_name(f"{mine.stem}.{ending}.ipynb")
        if not present(path) or fingerprint(path) == version or untouched(path, book):
            return path
        number += 1


def offer(chapter, mine, version, book):
    """Put the course's version beside the reader's own; the sentence that says so."""
    new = place_beside(mine, version, book)
    if fingerprint(new) == version:
        note_given(mine.parent, book, new.name, version)
    else:
        give(chapter, new, version, book)
    entry_of(book, mine.name)["offered"] = version
    write_book(mine.parent, book)
    return (
        f"{mine.name} has changed in the course; your work in it is kept, "
        f"the new version is {new.name}."
    )


def fill_one(chapter, mine, book):
    """Bring one chapter to work/; a sentence, if there is something to say."""
    version = fingerprint(chapter)
    entry = book.get(mine.name, {"given": []})
    if version is None:
        return f"chapters/{chapter.name} is damaged, so it was left out."
    if not present(mine):
        give(chapter, mine, version, book)
    elif fingerprint(mine) == version:
        note_given(mine.parent, book, mine.name, version)
    elif untouched(mine, book):
        give(chapter, mine, version, book)
    elif version not in [*entry["given"], entry.get("offered")]:
        return offer(chapter, mine, version, book)
    return None


def make_work(root):
    """The folders chapters/ and work/; the second is made where it is missing."""
    chapters, work = root / "chapters", root / "work"
    if not chapters.is_dir():
        raise WorkError(f"{chapters} is missing: fetch the course again.")
    if present(work) and not work.is_dir():
        raise WorkError(f"{work} is not a folder: move it away, then start again.")
    work.mkdir(exist_ok=True)
    return chapters, work


@contextmanager
def alone(work, patience=60):
    """One fill of a work/ at a time; the system frees the lock when its holder dies."""
    with (work / LOCK).open("a") as file:
        end = time.monotonic() + patience
        while not try_lock(file):
            if time.monotonic() > end:
                raise WorkError(
                    f"Another start.py is still filling {work}: end it, then start again."
                )
            time.sleep(0.05)
        yield


def fill(root):
    """Bring work/ up to date with chapters/; the sentences a reader should see."""
    try:
        chapters, work = make_work(Path(root))
        with alone(work):
            book, said = read_book(work)
            for chapter in sorted(chapters.glob("*.ipynb")):
                said.append(fill_one(chapter, work / chapter.name, book))
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(
            f"Chapters could not be copied to {Path(root) / 'work'}: {reason}."
        ) from None
    return [sentence for sentence in said if sentence]


def main():
    """Fill work/ of this copy of the course."""
    try:
        for sentence in fill(ROOT):
            print(sentence, flush=True)
    except WorkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
