"""Notebooks as data: a solution becomes a chapter, a notebook becomes text and back.

Pure functions of texts and notebooks; files and commands are utils.course.author's.
"""

import hashlib
import json
import re
import sys

sys.modules.setdefault(
    "rfc3987_syntax", None
)  # nbformat would spend 2 s on its grammar
import nbformat  # noqa: E402

BEGIN = re.compile(r"^(\s*)### BEGIN SOLUTION(?: +(.*?))?\s*$")
END = re.compile(r"^\s*### END SOLUTION\s*$")
HEADER = re.compile(r"^%% (md|code) ([A-Za-z0-9_-]+) ?(.*)$", re.M)
KINDS = {"markdown": "md", "code": "code"}
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


class MarkError(ValueError):
    "A solution mark without its pair, or a region without a stub."


class NotebookError(ValueError):
    "A notebook, or its text form, that could not be kept as it is."


# ---- deriving a chapter ----


def stub(source, where=""):
    "The cell as a reader gets it: every solution region becomes its stub."
    kept, opened = [], None
    for number, line in enumerate(source.split("\n"), 1):
        if begin := BEGIN.match(line):
            if opened:
                raise MarkError(f"{where} line {number}: BEGIN inside another region")
            opened, (indent, instead) = number, begin.groups()
            if not indent and not instead:
                raise MarkError(
                    f"{where} line {number}: a region outside a function needs its stub, "
                    "as in: ### BEGIN SOLUTION lr = None"
                )
            kept.append(
                f"{indent}{instead or 'raise NotImplementedError'}  # your turn"
            )
        elif END.match(line):
            if not opened:
                raise MarkError(f"{where} line {number}: END without BEGIN")
            opened = None
        elif not opened:
            kept.append(line)
    if opened:
        raise MarkError(f"{where} line {opened}: this region never ends")
    return "\n".join(kept)


def derive(text, where="", book=""):
    """The text of a solution notebook -> the text of its chapter. A pure function.

    book: the address of the book, once it is known.

    Its outputs go, but for the first picture: it gives nothing away, and shows a visitor
    who runs nothing what the text speaks of.
    """
    _refuse_what_would_change(text, where)
    solved = nbformat.reads(text, as_version=4)
    chapter = nbformat.v4.new_notebook(metadata=METADATA)
    kept = [cell for cell in solved.cells if "solution" not in _tags(cell)]
    first_look = next(filter(has_picture, kept), None)
    for cell in kept:
        if cell.cell_type == "markdown":
            source = (
                with_link(cell.source, where, book)
                if cell.id == "title"
                else cell.source
            )
            new = nbformat.v4.new_markdown_cell(source, id=cell.id)
        else:
            source = stub(cell.source, f"{where} cell {cell.id}")
            new = nbformat.v4.new_code_cell(source, id=cell.id)
        if cell is first_look:  # nbval refuses outputs without a count
            new.outputs, new.execution_count = cell.outputs, 1
        if _tags(cell):
            new.metadata["tags"] = _tags(cell)
        chapter.cells.append(new)
    nbformat.validate(chapter)
    return written(chapter)


def _tags(cell):
    return cell.metadata.get("tags", [])


def has_picture(cell):
    "Whether a picture is among the stored outputs of a cell."
    return any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))


def with_link(title, file, book=""):
    "A chapter's first cell with a line below its heading: where to look, and not solve."
    line = (
        f"*Only looking? [The solved chapter](../solutions/{file}) shows every answer "
        "and every picture.*"
    )
    if book:
        page = book + file.replace(".ipynb", ".html")
        line = (
            f"*Only looking? [This chapter in the book]({page}) shows every answer and "
            "every picture, and its labs move.*"
        )
    if not file or line in title:
        return title
    heading, _, rest = title.partition("\n")
    return f"{heading}\n\n{line}\n{rest}".rstrip("\n")


def _refuse_what_would_change(text, where):
    "nbformat makes up an id where one is missing or used twice: another one each time."
    try:
        cells = [(c["cell_type"], c.get("id")) for c in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{where} is no notebook: {error!r}") from None
    seen = {None}
    for number, (kind, cell_id) in enumerate(cells, 1):
        if cell_id in seen:
            raise NotebookError(
                f"{where} cell {number}: its id {cell_id!r} is missing or used twice"
            )
        if kind not in KINDS:
            raise NotebookError(
                f"{where} cell {cell_id}: {kind} cells have no place here"
            )
        seen.add(cell_id)


def written(notebook):
    "The bytes of a notebook's file, as text: the same ones each time."
    return nbformat.writes(notebook, ensure_ascii=False).rstrip("\n") + "\n"


def code_hash(notebook):
    "A fingerprint of what a notebook executes."
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


# ---- notebooks as plain text ----


def to_text(notebook):
    "A notebook as text: `%% code ID tag,tag` or `%% md ID` above each cell's source."
    parts = []
    for cell in notebook.cells:
        kind = KINDS.get(cell.cell_type)
        if kind is None:
            raise NotebookError(
                f"cell {cell.id}: {cell.cell_type} cells have no text form"
            )
        if cell.source != cell.source.strip("\n"):
            raise NotebookError(f"cell {cell.id} begins or ends with an empty line")
        if re.search("^%% ", cell.source, re.M):
            raise NotebookError(f"cell {cell.id}: a line begins with %% and a space")
        tags = ",".join(cell.metadata.get("tags", []))
        parts.append(f"%% {kind} {cell.id} {tags}".rstrip() + f"\n{cell.source}\n")
    return "\n".join(parts)


def from_text(text, old=None):
    "The text of `to_text` -> a notebook; outputs of unchanged cells come from `old`."
    _refuse_bad_headers(text)
    before = {cell.id: cell for cell in old.cells} if old else {}
    notebook = nbformat.v4.new_notebook(metadata=old.metadata if old else METADATA)
    parts = HEADER.split(text)
    for kind, cell_id, tags, source in zip(*(parts[i::4] for i in range(1, 5))):
        make = (
            nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell
        )
        cell = make(source.strip("\n"), id=cell_id)
        if tags.strip():
            cell.metadata["tags"] = [tag.strip() for tag in tags.split(",")]
        same = before.get(cell_id)
        if kind == "code" and same is not None and same.source == cell.source:
            cell.outputs, cell.execution_count = same.outputs, same.execution_count
        notebook.cells.append(cell)
    nbformat.validate(notebook)
    return notebook


def _refuse_bad_headers(text):
    "What would else be lost, or pass for a part of the cell above."
    seen = set()
    for number, line in enumerate(text.split("\n"), 1):
        header = HEADER.match(line)
        if header and header[2] in seen:
            raise NotebookError(f"line {number}: the id {header[2]} is used twice")
        if line.startswith("%% ") and not header:
            raise NotebookError(
                f"line {number}: {line!r} is neither `%% md ID` nor `%% code ID tag,tag`"
            )
        if line.strip() and not header and not seen:
            raise NotebookError(f"line {number}: text above the first `%% md ID`")
        if header:
            seen.add(header[2])
