"""The labs of a page: native controls over the frames that frames.py drew ahead."""

import html
import json
import re
import shutil

from utils.course.book import outputs
from utils.course.book.frames import BYTES, cell_name
from utils.files import ROOT

KEPT = ROOT / ".book" / "frames"  # what this machine has drawn
SHIPPED = ROOT / "utils" / "course" / "book" / "shipped"  # what a clean clone has
PLACES = (KEPT, SHIPPED)


def drawing(chapter):
    "The environment in which a notebook's labs are drawn ahead."
    return {
        "COURSE_LABS": "utils.course.book.frames:keep",
        "COURSE_FRAMES": str(KEPT / chapter),
    }


def settle(chapter, cells, kept=KEPT, shipped=SHIPPED):
    "After a run: drop frames of cells that are gone, bring those that ship up to date."
    new, old = kept / chapter, shipped / chapter
    names = {cell_name(cell.source) for cell in cells}
    for folder in new.glob("*/"):
        if folder.name not in names:
            shutil.rmtree(folder)
    if old.exists() and new.exists() and _contents(new) != _contents(old):
        shutil.rmtree(old)
        shutil.copytree(new, old)
        print(f"wrote {old}")


def _contents(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*.*")}


def last(cells):
    "How many cells it takes to reach the last lab; 0 where there is none."
    found = [at for at, c in enumerate(cells, 1) if "plots.explore(" in c.source]
    return max(found, default=0)


def of(cell, chapter, face, places=PLACES):
    "The lab of a cell: with its frames where they were drawn and show the same lab."
    name, notes = cell_name(cell.source), []
    for place in places:
        folder = place / chapter / name
        if (folder / "error.txt").exists():
            last = (folder / "error.txt").read_text(encoding="utf-8").strip()
            notes.append(f"its frames could not be drawn: {last.splitlines()[-1]}")
        try:
            drawn = json.loads((folder / "lab.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        says = _start(drawn)
        if words(says) != words(face.says):
            notes.append("its frames are of an older lab: `author frames` draws them")
            continue
        if says != face.says:
            notes.append("its frames are of another run than the chapter's outputs")
        size = sum((folder / file).stat().st_size for file in set(drawn["files"]))
        if size > BYTES:
            notes.append(
                f"its frames are {size / 1e6:.1f} MB: give draw.book fewer steps"
            )
        return Lab(chapter, name, face, drawn, folder, notes)
    return Lab(chapter, name, face, None, None, notes or ["no frames: it stands still"])


def words(says):
    "A lab's sentence without its numbers: what a new measurement leaves as it was."
    return re.sub(r"[\d.,]+", "0", says)


def _start(drawn):
    "What the frame says at which a lab starts."
    at = number(drawn["controls"], [c["start"] for c in drawn["controls"]])
    return " ".join(drawn["says"][at].split())


def number(controls, steps):
    "Which frame the steps of the controls show: the last control moves first."
    at = 0
    for control, step in zip(controls, steps):
        at = at * len(control["labels"]) + step
    return at


class Lab:
    "A lab on a page; `drawn` is None where only its static face is known."

    def __init__(self, chapter, name, face, drawn, folder, notes):
        self.chapter, self.name, self.face = chapter, name, face
        self.drawn, self.folder, self.notes = drawn, folder, notes

    @property
    def files(self):
        "{file below the site: the file drawn}."
        if self.drawn is None:
            return {}
        return {
            f"labs/{self.name}/{f}": self.folder / f for f in set(self.drawn["files"])
        }

    def html(self, eager=False):
        says = html.escape(self.face.says, quote=False)
        image = outputs.image(self.face, eager)
        if self.drawn is None:
            return (
                f'<figure class="lab still">{image}<figcaption>{says}</figcaption></figure>'
                '<p class="note">This lab stands still here; in the notebook it moves.</p>'
            )
        count, controls = len(self.drawn["files"]), self.drawn["controls"]
        start = number(controls, [c["start"] for c in controls])
        where = "on the machine that made this page's numbers"
        if _start(self.drawn) != self.face.says:
            where = "in another run, whose measured numbers differ from this page's"
        choices = [len(c["labels"]) for c in controls]
        data = {
            "folder": f"labs/{self.name}/", "files": self.drawn["files"],
            "says": self.drawn["says"], "steps": [n for n in choices if n > 1],
        }  # fmt: skip
        packed = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
        return (
            f'<figure class="lab" id="lab-{self.name}" data-frame="{start}">'
            f'<form class="controls" aria-label="Controls of the lab" hidden>'
            f"{''.join(self._control(i, c) for i, c in enumerate(controls))}"
            '<button type="reset">Back to the start</button></form>'
            f'{image}<figcaption aria-live="polite">{says}</figcaption>'
            f'<p class="note">{count} positions, drawn ahead {where}. In the notebook every '
            "step is yours to take.</p>"
            f'<script type="application/json">{packed}</script></figure>'
        )

    def _control(self, place, control):
        name, labels = f"{self.name}-{place}", control["labels"]
        start, says = control["start"], html.escape(control["label"])
        if len(labels) == 1:  # nothing to choose here, and lab.js counts no step
            return f"<span>{says}: {html.escape(labels[0])}</span>"
        if control["kind"] == "check" and labels == ["no", "yes"]:  # off is step 0
            on = " checked" * start
            return f'<label><input type="checkbox" id="{name}"{on}> {says}</label>'
        if control["kind"] == "slider":
            words = html.escape(json.dumps(labels, ensure_ascii=False))
            return (
                f'<label for="{name}">{says} <output>{html.escape(labels[start])}</output>'
                f'<input type="range" id="{name}" min="0" max="{len(labels) - 1}" '
                f'value="{start}" data-labels="{words}" '
                f'aria-valuetext="{html.escape(labels[start])}"></label>'
            )
        options = "".join(
            f"<option{' selected' * (i == start)}>{html.escape(label)}</option>"
            for i, label in enumerate(labels)
        )
        return (
            f'<label for="{name}">{says} <select id="{name}">{options}</select></label>'
        )
