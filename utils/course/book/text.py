"""Markdown of a chapter -> HTML, as JupyterLab draws it, with links that fit the book.

Formulas are set aside before Markdown sees them, as JupyterLab does it, and wait as marks
(maths.py sets them all in one go). A bold word of the glossary becomes its link.
"""

import ast
import html
import re

import mistune
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

TOKENS = re.compile(
    r"(?P<fence>^(?P<f>```+|~~~+).*?^(?P=f))"
    r"|(?P<code>(?P<t>`+)(?!`).+?(?<!`)(?P=t)(?!`))"
    r"|(?P<money>\\\$)"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|\$(?!\s)(?P<line>(?:[^$\\\n]|\\.)+?)(?<!\s)\$(?!\d)",
    re.S | re.M,
)
CHAPTERS = re.compile(r"\b[Cc]hapters? \d\d(?:(?:, | and | to | or )\d\d\b)*")
WHOLE = re.compile(r"\d[\d.,]*(?: %|e-\d+)")
SHORT = 30  # characters of TeX that a line of a phone holds
LOCAL = {"README.md": "index.html", "GLOSSARY.md": "glossary.html"}


class Formulas:
    "Every formula of the book, each known by its mark in the HTML."

    def __init__(self):
        self.found = {}  # (tex, block) -> number

    def mark(self, tex, block):
        number = self.found.setdefault((tex.strip(), block), len(self.found))
        return f"\ue000{number}\ue001"

    def replaced(self, text, drawn):
        "`text` with every mark replaced by what `drawn(number)` gives."
        short = [not block and len(tex) <= SHORT for tex, block in self.found]

        def one(mark):
            number, after = int(mark[1]), mark[2]
            if after and short[number]:
                return f'<span class="whole">{drawn(number)}{after}</span>'
            return drawn(number) + after

        return re.sub("\ue000(\\d+)\ue001([,.;:?!)]*)", one, text)


def code(source, language="python"):
    "Source text -> coloured HTML inside a <pre>."
    try:
        lexer = get_lexer_by_name(language or "text")
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    marked = highlight(source, lexer, HtmlFormatter(nowrap=True)).rstrip("\n")
    return f"<pre><code>{marked}</code></pre>"


def whole(text):
    "HTML in which no line ends inside `98 %` or `1e-5`."
    return WHOLE.sub(r'<span class="whole">\g<0></span>', text)


def inline(source):
    "A line of plain text with `code` and *stress* in it -> HTML."
    says = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(source, quote=False))
    return re.sub(r"(?<!\S)\*([a-z]+(?: [a-z]+)*)\*(?![\w*])", r"<em>\1</em>", says)


def hint(source):
    "A hint -> HTML: the lines that are Python, all or all but the first, as code."
    lines = source.split("\n")
    for first in (0, 1):
        if len(lines) > 1 and _is_python("\n".join(lines[first:])):
            says = "".join(f"<p>{inline(line)}</p>" for line in lines[:first])
            return says + f'<div class="code">{code(chr(10).join(lines[first:]))}</div>'
    return f"<p>{'<br>'.join(map(inline, lines))}</p>"


def _is_python(source):
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def slug(text):
    "A heading or a term as the name of a place on its page."
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


class Page:
    "Draws the texts of one page; knows its headings and the first use of its words."

    def __init__(self, formulas, here="", chapters=(), words=None):
        self.formulas, self.here = formulas, here
        self.chapters = {name[:2]: name for name in chapters}
        self.words = words or {}  # term in lower case -> one line
        self.headings, self.used, self.ids = [], [], set()
        names = "table", "mistune.plugins.table.table_in_quote", "strikethrough"
        self.draw = mistune.Markdown(
            renderer=_Renderer(self), plugins=[_plugin(name) for name in names]
        )

    def html(self, source):
        "Markdown -> HTML."
        drawn = self.draw(TOKENS.sub(self._aside, source))
        return re.sub(
            r"<table>.*?</table>", r'<div class="wide">\g<0></div>', drawn, flags=re.S
        )

    def _aside(self, found):
        if found["block"] is not None:
            return self.formulas.mark(found["block"], True)
        if found["line"] is not None:
            return self.formulas.mark(found["line"], False)
        return found[0]

    def place(self, text):
        "A name for a place that no other place of the page has."
        name, number = slug(text), 1
        while name in self.ids:
            number += 1
            name = f"{slug(text)}-{number}"
        self.ids.add(name)
        return name

    def link(self, url):
        "Where a link of a notebook leads in the book."
        path, _, place = url.partition("#")
        file = path.rsplit("/", 1)[-1]
        if "://" in path or not path:
            return url
        if file in LOCAL:
            return LOCAL[file]
        if file.endswith(".ipynb") and file[:-6] in self.chapters.values():
            return file[:-6] + ".html" + (f"#{place}" if place else "")
        return url

    def word(self, text):
        "A bold word of the glossary as its link; the first one is the word's place."
        key = html.unescape(text).lower()
        if key not in self.words:
            return None
        first = key not in self.used
        self.used += [key] * first
        place = f' id="{self.place(f"word {key}")}"' if first else ""
        says = html.escape(self.words[key])
        target = f"glossary.html#term-{slug(key)}"
        return f'<a class="word"{place} href="{target}" title="{says}">{text}</a>'


def _plugin(name):
    from mistune.plugins import import_plugin

    return import_plugin(name)


class _Renderer(mistune.HTMLRenderer):
    def __init__(self, page):
        super().__init__(escape=False)
        self.page = page

    def text(self, text):
        return CHAPTERS.sub(self._chapters, whole(super().text(text)))

    def _chapters(self, found):
        def one(number):
            name = self.page.chapters.get(number[0])
            there = name and name != self.page.here
            return f'<a href="{name}.html">{number[0]}</a>' if there else number[0]

        return re.sub(r"\d\d", one, found[0])

    def heading(self, text, level, **attrs):
        plain = re.sub(r"<[^>]+>", "", text)
        name = self.page.place(plain)
        self.page.headings.append((level, name, text))
        return f'<h{level} id="{name}">{text}</h{level}>\n'

    def link(self, text, url, title=None):
        text = re.sub(r"</?a\b[^>]*>", "", text)  # no link inside a link
        url = self.page.link(url)
        return f'<a href="{html.escape(url)}">{text}</a>'

    def strong(self, text):
        word = None if "<a" in text else self.page.word(text)
        return f"<strong>{word or text}</strong>"

    def block_code(self, source, info=None):
        return f'<div class="code">{code(source, (info or "text").split()[0])}</div>\n'

    def block_html(self, source):
        return source.replace("<details>", '<details class="aside">') + "\n"

    def image(self, text, url, title=None):
        return f'<img alt="{html.escape(text)}" src="{html.escape(url)}">'
