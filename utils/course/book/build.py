"""The book as a folder of files: one page per chapter, a first page, the glossary.

    python3 start.py author book [FOLDER]     .book/site, or another folder

It reads solutions/ and runs nothing of it. The pages work from a disk, from any server,
and without a script; what moves is static/book.js.
"""

import json
import os
import re
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path

import jinja2

from utils.course import notebooks, pages
from utils.course.book import home, maths
from utils.course.book.cells import Chapter
from utils.course.book.labs import PLACES
from utils.course.book.text import Formulas, Page, slug
from utils.exercises import progress
from utils.files import ROOT

HERE = Path(__file__).parent
SITE = ROOT / ".book" / "site"
NAME = "Backprop to Cluster"


def chapters(formulas, frames=PLACES):
    "Every chapter of solutions/, drawn."
    known = progress.chapters()
    words = {t["english"].lower(): t["line"] for t in pages.terms()}
    for chapter in known:
        name = chapter["name"]
        file = ROOT / "solutions" / f"{name}.ipynb"
        notebook = notebooks.nbformat.reads(
            file.read_text(encoding="utf-8"), as_version=4
        )
        page = Page(formulas, name, [c["name"] for c in known], words)
        yield Chapter(notebook, name, page, hints(name), frames)


def hints(name):
    "{exercise: its ladder of hints} of a chapter."
    file = ROOT / "utils" / "checks" / f"{name[3:]}.py"
    if not file.exists():
        return {}
    exercises = import_module(f"utils.checks.{name[3:]}").chapter.exercises
    return {key: exercise.hints for key, exercise in exercises.items()}


def build(site=SITE, url="", frames=PLACES):
    "Write the site; -> {'pages', 'labs', 'notes'}."
    maths.fetch()
    formulas = Formulas()
    book = list(chapters(formulas, frames))
    glossary = _glossary(formulas, book)
    first = home.page(formulas, book, url)
    drawn = maths.drawn(formulas.found)
    site = _emptied(Path(site))
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    shared = {"book": book, "name": NAME, "url": url}

    def write(file, **values):
        text = templates.get_template("page.html").render(**shared, file=file, **values)
        text = formulas.replaced(text, lambda number: drawn[number])
        (site / file).write_text(text, encoding="utf-8", newline="\n")

    for at, chapter in enumerate(book):
        around = [book[at - 1] if at else None, *book[at + 1 : at + 2], None][:2]
        write(
            f"{chapter.name}.html", title=chapter.title, current=chapter.name,
            body=chapter.body.replace("<!-- run -->", _run(url, chapter.name)),
            headings=[h for h in chapter.page.headings if h[0] == 2],
            before=around[0], after=around[1], says=_says(chapter),
        )  # fmt: skip
        _copy(site, {p.file: p.data for p in chapter.pictures})
        for lab in chapter.labs:
            _copy(site, lab.files)
    write("glossary.html", title="Words", current="glossary", headings=[], before=None,
          after=None, body=glossary, says="Every term in English and Chinese.")  # fmt: skip
    write("index.html", title=NAME, current="index", headings=[], before=None,
          after=book[0], body=first, says=home.CLAIM)  # fmt: skip
    _copy(site, {f"static/{f.name}": f for f in (HERE / "static").iterdir()})
    _copy(site, maths.assets())
    if url:
        _copy(site, {f"notebooks/{c.name}.ipynb": ROOT / "chapters" / f"{c.name}.ipynb"
                     for c in book})  # fmt: skip
    _copy(site, {"static/index.js": search_index(book).encode(), ".nojekyll": b""})
    return {
        "pages": len(book) + 2, "labs": [lab for c in book for lab in c.labs],
        "notes": [note for c in book for note in c.notes],
    }  # fmt: skip


def _emptied(site):
    "An empty folder for the site; only one that a build has made is emptied."
    if site.exists() and any(site.iterdir()):
        if not (site / ".nojekyll").exists():
            sys.exit(f"{site} is not empty and no book: choose another folder")
        shutil.rmtree(site)
    site.mkdir(parents=True, exist_ok=True)
    return site


def _copy(site, files):
    for file, source in files.items():
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            shutil.copyfile(source, target)


def _says(chapter):
    "The first sentences of a chapter, for a list of search results elsewhere."
    return chapter.found[0][2][:200].rsplit(" ", 1)[0] if chapter.found else ""


def _run(url, name):
    "Buttons that run a chapter elsewhere; '' while there is no public address."
    if not url:
        return ""
    links = re.findall(r"\[(.+?)\]\((.+?)\)", pages.badges(url, name))
    shown = "".join(f'<a class="button" href="{to}">{says}</a>' for says, to in links)
    file = f'<a class="button" href="notebooks/{name}.ipynb" download>Download</a>'
    return f'<p class="run">{shown}{file}</p>'


def _glossary(formulas, book):
    "All words; each chapter's number leads to the first use of the word there."
    page = Page(formulas)
    used = {c.name: c.page for c in book}
    rows = []
    for term in sorted(pages.terms(), key=lambda t: t["english"].casefold()):
        key = term["english"].lower()
        there = f"#word-{slug(key)}" if key in used[term["chapter"]].used else ""
        line = page.html(term["line"]).strip().removeprefix("<p>").removesuffix("</p>")
        rows.append(
            f'<tr role="row" id="term-{slug(key)}"><th scope="row" role="rowheader">'
            f'{term["english"]}</th><td role="cell" lang="zh">{term["chinese"]}</td>'
            f'<td role="cell">{line}</td><td role="cell"><a href="{term["chapter"]}.html{there}" aria-label="{term["english"]}: '
            f'chapter {term["chapter"][:2]}">{term["chapter"][:2]}</a></td></tr>'
        )
    head = "".join(
        f'<th scope="col" role="columnheader">{h}</th>'
        for h in ("English", "中文", "in one line", "chapter")
    )
    return (
        f"<h1>Words</h1><p>{len(rows)} terms, in English and Chinese, each with the "
        'chapter that brings it.</p><div class="wide"><table class="glossary" role="table"><thead '
        f'role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">'
        f"{''.join(rows)}</tbody></table></div>"
    )


def search_index(book):
    "A script that hands the search every section: [page, title, place, heading, text]."
    rows = [
        [f"{c.name}.html", c.title, place, heading, text]
        for c in book for place, heading, text in c.found
    ]  # fmt: skip
    for term in pages.terms():
        rows.append([
            "glossary.html", "Words", "term-" + slug(term["english"]), term["english"],
            f"{term['chinese']} {term['line']}",
        ])  # fmt: skip
    packed = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return f"window.bookIndex = {packed}\n"


def command(names, url=""):
    "author book [FOLDER]: build, and say what stands where."
    began = time.perf_counter()
    site = Path(os.path.abspath(names[0])) if names else SITE
    try:
        done = build(site, url)
    except maths.MissingError as missing:
        print(missing)
        return 1
    for note in done["notes"]:
        print(note)
    size = sum(f.stat().st_size for f in site.rglob("*") if f.is_file()) / 1e6
    moving = sum(lab.drawn is not None for lab in done["labs"])
    print(
        f"{done['pages']} pages, {moving} of {len(done['labs'])} labs moving, {size:.1f} MB "
        f"in {time.perf_counter() - began:.1f} s: open {site / 'index.html'}"
    )
    return 0
