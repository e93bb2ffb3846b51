"""Stored outputs of a cell -> HTML: figures with their sentence, verdicts, tables, texts."""

import base64
import html
import re
import struct

from utils.course.book.text import whole

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
CONTROLS = "controls: "  # what plots.explore leaves where no kernel runs
NOT_GUESSED = "no guess yet; "


class Picture:
    "One picture of a page: its file below the site, its sentence, its size."

    def __init__(self, file, data, says):
        self.file, self.data, self.says = file, data, " ".join(says.split())
        self.width, self.height = struct.unpack(">II", data[16:24])  # of a PNG


def joined(text):
    return text if isinstance(text, str) else "".join(text)


def pictures(cell, chapter):
    "The pictures among a cell's outputs."
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            says = alt or joined(data.get("text/plain", ""))
            file = f"img/{chapter}/{cell['id']}-{len(found) + 1}.png"
            png = base64.b64decode(joined(data["image/png"]))
            found.append(Picture(file, png, says))
    return found


def is_lab(cell):
    "Whether a cell shows controls."
    return any(
        joined(output.get("data", {}).get("text/plain", "")).startswith(CONTROLS)
        for output in cell.get("outputs", [])
    )


def image(picture, eager=False):
    "An <img> with its true alternative text and its size, so that nothing jumps."
    how = "" if eager else ' loading="lazy" decoding="async"'
    return (
        f'<div class="picture"><img src="{picture.file}" alt="{html.escape(picture.says)}" '
        f'width="{round(picture.width / 1.1)}" height="{round(picture.height / 1.1)}"{how}>'
        "</div>"
    )


def figure(picture, eager=False):
    "A picture over its sentence; a screen reader hears the sentence once, as the alt."
    says = whole(html.escape(picture.says, quote=False))
    return (
        f'<figure>{image(picture, eager)}<figcaption aria-hidden="true">{says}'
        "</figcaption></figure>"
    )


def shown(cell, page, chapter, eager=False):
    "The outputs of a cell, each as HTML; a lab's picture is left to labs.py."
    found, drawn, caption_next = [], iter(pictures(cell, chapter)), False
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        plain = joined(data.get("text/plain", ""))
        told, caption_next = caption_next, False
        if output["output_type"] == "stream":
            found.append(_pre(joined(output["text"]).rstrip("\n"), "printed"))
        elif output["output_type"] == "error":
            found.append(_pre(ANSI.sub("", "\n".join(output["traceback"])), "error"))
        elif "image/png" in data:
            found.append(figure(next(drawn), eager))
            caption_next = True
        elif "text/markdown" in data:
            if not told:  # below a picture it is the caption, which stands already
                found.append(page.html(joined(data["text/markdown"])))
        elif "text/html" in data:
            found.append(_html(joined(data["text/html"]), plain, page))
        elif plain and not plain.startswith(CONTROLS):
            found.append(_pre(plain, "value"))
    return _guess_first([part for part in found if part])


def _guess_first(found):
    "Behind a fold what answers a prediction, and the values beside it."
    if not any(NOT_GUESSED in part for part in found):
        return found
    text = [part.replace(NOT_GUESSED, "", 1) for part in found if "<figure" not in part]
    says = "<summary>Guess first, then look</summary>"
    rest = [part for part in found if "<figure" in part]
    return [f'<details class="reveal">{says}{"".join(text)}</details>', *rest]


def _pre(text, kind):
    return f'<pre class="out {kind}">{html.escape(text, quote=False)}</pre>'


def _html(marked, plain, page):
    if "course-asleep" in marked:
        return ""
    if "course-verdict" in marked or 'role="status"' in marked:
        word, _, rest = plain.partition(": ")
        kind = "right" if word.startswith("✓") else "told"
        rest = html.escape(rest, quote=False)
        return f'<p class="verdict {kind}"><b>{html.escape(word)}</b> {rest}</p>'
    marked = re.sub(r"<(style|script)\b.*?</\1>", "", marked, flags=re.S)
    marked = re.sub(
        r'href="([^"]+)"', lambda m: f'href="{html.escape(page.link(m[1]))}"', marked
    )
    return f'<div class="wide">{marked}</div>'
