"""The cells of a solved notebook -> the body of its page: folds, exercises, outputs."""

import html
import re

from utils.course import notebooks
from utils.course.book import labs, outputs, text

SET_UP = ("bootstrap", "imports")
ROW = re.compile(r"<tr>\s*<td>([^<]+)</td>\s*<td>([^<]+)</td>")


class Chapter:
    "One chapter of the book: its body, headings, words, pictures, what a search finds."

    def __init__(self, notebook, name, page, hints, frames):
        self.name, self.page, self.hints, self.frames = name, page, hints, frames
        self.cells = notebook.cells
        self.pictures = [p for c in self.cells for p in outputs.pictures(c, name)]
        self.labs, self.found, self.notes = [], [], []
        first = self.pictures[0].file if self.pictures else None
        self.eager = {first}
        title = self.cells[0].source
        self.title = title.split("\n")[0].lstrip("# ")
        self.body = "\n".join(self._parts())

    def _parts(self):
        cells, at, setup = self.cells, 0, []
        while at < len(cells):
            cell = cells[at]
            if cell.id in SET_UP and not cell.get("outputs"):
                setup.append(cell)
            else:
                if setup:
                    yield _set_up(setup)
                    setup = []
                if cell.cell_type == "markdown":
                    yield self._text(cell)
                else:
                    check = cells[at + 1] if at + 1 < len(cells) else None
                    if check is not None and check.id == f"{cell.id}-check":
                        yield self._exercise(cell, check)
                        at += 1
                    else:
                        yield self._code(cell)
            at += 1

    # ---- text ----

    def _text(self, cell):
        drawn = self.page.html(cell.source)
        if cell.source.startswith("## Words"):
            drawn = ROW.sub(self._row, drawn)
        self._index(drawn)
        if "solution" in cell.metadata.get("tags", []) and "<details" not in drawn:
            return fold("answer", "A model answer", drawn)
        if cell.id == "title":
            heading, _, rest = drawn.partition("</h1>")
            return f'{heading}</h1>\n<!-- run -->\n<div class="opening">{rest}</div>'
        kind = (
            " task" if "your turn" in drawn.lower() and "<blockquote" in drawn else ""
        )
        return f'<div class="text{kind}">{drawn}</div>'

    def _row(self, found):
        "A row of the table of words: the term leads to the glossary."
        link = self.page.word(found[1]) or found[1]
        return f'<tr><th scope="row">{link}</th><td lang="zh">{found[2]}</td>'

    def _index(self, drawn):
        "Note the text under its last heading, for the search."
        for part in re.split(r"(?=<h[1-6] id=)", drawn):
            heading = re.match(r'<h[1-6] id="([^"]+)">(.*?)</h[1-6]>', part)
            if heading or not self.found:
                place, name = heading.groups() if heading else ("", self.name)
                self.found.append([place, _plain(name), ""])
                part = part[heading.end() :] if heading else part
            self.found[-1][2] = f"{self.found[-1][2]} {_plain(part)}".strip()

    # ---- code ----

    def _code(self, cell):
        if notebooks.BEGIN.search(cell.source) or "### BEGIN SOLUTION" in cell.source:
            return self._exercise(cell, None)
        parts = [self._source(cell.source)]
        if outputs.is_lab(cell):
            parts += self._lab(cell)
        else:
            parts += self._outputs(cell)
        return f'<div class="cell" id="{self._place(cell.id)}">{"".join(parts)}</div>'

    def _place(self, name):
        return self.page.place(f"cell {name}")

    def _source(self, source, kind="code"):
        return (
            f'<div class="{kind}">{text.code(source)}</div>' if source.strip() else ""
        )

    def _outputs(self, cell):
        eager = any(p.file in self.eager for p in outputs.pictures(cell, self.name))
        return outputs.shown(cell, self.page, self.name, eager)

    def _lab(self, cell):
        face = outputs.pictures(cell, self.name)[-1]
        lab = labs.of(cell, self.name, face, self.frames)
        self.labs.append(lab)
        self.notes += [f"{self.name}, cell {cell.id}: {note}" for note in lab.notes]
        others = [out for out in self._outputs(cell) if "<figure" not in out]
        return [lab.html(), *others]

    # ---- exercises ----

    def _exercise(self, cell, check):
        "The stub as a reader gets it, the ladder of hints, the answer: folded."
        stub = self._source(notebooks.stub(cell.source, cell.id))
        answer = [self._source(solved(cell.source)), *self._outputs(cell)]
        if check is not None:
            answer += [self._source(check.source), *self._outputs(check)]
        ladder, hints = "", self.hints.get(cell.id, ())
        for number, hint in reversed(list(enumerate(hints, 1))):
            says = text.hint(hint) + ladder
            ladder = fold("hint", f"Hint {number} of {len(hints)}", says)
        self.found[-1][2] += f" {cell.id}"
        return (
            f'<section class="exercise" id="{self._place(cell.id)}" '
            f'aria-label="Exercise {html.escape(cell.id)}">{stub}{ladder}'
            f"{fold('answer', 'Show the answer', ''.join(answer))}</section>"
        )


def solved(source):
    "The answer without the marks around it."
    marks = ("### BEGIN SOLUTION", "### END SOLUTION")
    return "\n".join(x for x in source.split("\n") if not x.strip().startswith(marks))


def fold(kind, says, body):
    "What is folded until a reader asks for it; no script is needed."
    return f'<details class="{kind}"><summary>{says}</summary>{body}</details>'


def _set_up(cells):
    body = "".join(f'<div class="code">{text.code(c.source)}</div>' for c in cells)
    return fold("setup", "Set-up and imports", body)


def _plain(drawn):
    "HTML -> the words a search goes through."
    drawn = re.sub(r"<pre>.*?</pre>|\ue000\d+\ue001", " ", drawn, flags=re.S)
    plain = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", drawn)).split())
    return re.sub(r" (?=[.,;:?!)]|'s\b)|(?<=\() ", "", plain)
