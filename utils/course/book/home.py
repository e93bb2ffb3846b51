"""The first page: what a visitor will be able to do, three pictures, a lab, the way in."""

import html
import re

from utils.course.book import outputs
from utils.course.book.text import Page
from utils.files import ROOT

CLAIM = (
    "Write gradient descent, an autograd engine, convolutions, a GPT, a ring all-reduce "
    "and 4-bit weights yourself. Hold each against the industrial library. Measure all "
    "of it on your own laptop, without a GPU or a network."
)
GALLERY = (  # (chapter, cell) of pictures that a visitor stops for
    ("03_backprop", "moons-run"),
    ("16_collectives", "lab"),
    ("24_quantization", "first-look"),
)
LAB = "01_descent"  # it moves on the first page
SECTIONS = {"plan": "The whole plan", "paths": "Paths through it"}  # README's marks


def section(text, name):
    "What stands between README's marks of this name; '' where they are missing."
    found = re.search(f"<!-- {name} -->\n(.*?)<!-- end of {name} -->", text, re.S)
    return found[1].strip() if found else ""


def page(formulas, book, url):
    "The body of the first page."
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    draw = Page(formulas, "index", [c.name for c in book])
    known = {c.name: c for c in book}
    parts = [_hero(book, url), _lab(known), _gallery(known), _cards(book, draw)]
    for name, heading in SECTIONS.items():
        if text := section(readme, name):
            drawn = draw.html(f"## {heading}\n\n{text}")
            parts.append(f'<div class="text">{drawn}</div>')
    return "\n".join(filter(None, parts))


def _hero(book, url):
    opening = next((c for c in book if c.name.startswith("01")), book[0])
    run = f'<a class="button" href="{url}">Run it</a>' if url else ""
    return (
        f'<div class="hero"><h1>Backprop to Cluster</h1><p class="claim">{CLAIM}</p>'
        f'<p class="run"><a class="button first" href="{opening.name}.html">Begin with '
        f"chapter {opening.name[:2]}</a>{run}</p>"
        '<p class="how">Read here, or run it: <code>python3 start.py</code> opens the same '
        "chapters as notebooks, where every exercise checks itself and names your slip."
        "</p></div>"
    )


def _gallery(known):
    shown = []
    for name, cell in GALLERY:
        chapter = known.get(name)
        found = chapter and [p for p in chapter.pictures if f"/{cell}-" in p.file]
        if chapter and (found or chapter.pictures):
            picture = (found or chapter.pictures)[0]
            shown.append(
                f'<a href="{name}.html">{outputs.image(picture, eager=True)}'
                f"<span>{html.escape(chapter.title)}</span></a>"
            )
    return f'<div class="gallery">{"".join(shown)}</div>' if shown else ""


def _lab(known):
    chapter = known.get(LAB)
    if not chapter or not chapter.labs or chapter.labs[0].drawn is None:
        return ""
    return f'<h2 id="move">Move something</h2>{chapter.labs[0].html()}'


def _first(chapter):
    "The first sentence of a chapter's opening."
    opening = chapter.cells[0].source.partition("\n")[2].strip()
    return re.split(r"(?<=[.!?]) ", opening)[0]


def _cards(book, draw):
    cards = []
    for chapter in book:
        will = re.search(r"\*\*You will\*\*: (.+)", chapter.cells[0].source)
        time = re.search(r"\*\*Time\*\*: (.+)", chapter.cells[0].source)
        says = draw.html(f"You will {will[1].strip()}." if will else _first(chapter))
        how_long = f'<p class="time">{html.escape(time[1].strip())}</p>' if time else ""
        cards.append(
            f'<li><a href="{chapter.name}.html">{html.escape(chapter.title)}</a>'
            f"{says}{how_long}</li>"
        )
    return (
        '<h2 id="chapters">What you will be able to do</h2>'
        f'<ul class="cards">{"".join(cards)}</ul>'
    )
