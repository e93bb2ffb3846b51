"""Pages made from the chapters: README's map, the glossary, a teacher's minutes, links."""

import re

from utils.exercises import progress

FIRST_CELL = """import os
import sys

up = [os.path.abspath("../" * folders) for folders in range(9)]
found = [p for p in up + sys.path if os.path.exists(f"{p}/utils/check.py")]
assert found, "The course is not here: move this notebook into its folder work/."
sys.path.insert(0, found[0])  # utils/ lies there"""
FETCH = """get = "git clone -q --depth=1 URL /content/course"
if "google.colab" in sys.modules and not os.path.exists("/content/course"):
    os.system(get)
up ="""


def bootstrap(url):
    "The first code cell: makes `utils` importable from any folder of the course."
    if not url:
        return FIRST_CELL
    cell = FIRST_CELL.replace("up =", FETCH.replace("URL", url))
    return cell.replace("range(9)]", 'range(9)] + ["/content/course"]')


def badges(url, chapter):
    "Links that open a chapter on Binder and on Colab; '' while there is no address."
    if not url:
        return ""
    where = url.removeprefix("https://github.com/")
    open_in = f"urlpath=lab%2Ftree%2Fwork%2F{chapter}.ipynb"
    return (
        f"[Run on Binder](https://mybinder.org/v2/gh/{where}/HEAD?{open_in}) · "
        f"[Run on Colab](https://colab.research.google.com/github/{where}/blob/main/"
        f"chapters/{chapter}.ipynb)"
    )


def book(url):
    "Where GitHub Pages shows the book of this repository; '' while there is no address."
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", url)
    return f"https://{found[1].lower()}.github.io/{found[2]}/" if found else ""


def with_address(notebook, url, chapter):
    "The notebook with its first code cell and its links for this address."
    cells = {cell.id: cell for cell in notebook.cells}
    cells["bootstrap"].source = bootstrap(url)
    title = cells["title"]
    kept = [x for x in title.source.split("\n") if not x.startswith("[Run on Binder]")]
    while kept and not kept[-1].strip():
        kept.pop()
    links = badges(url, chapter)
    title.source = "\n".join([*kept, "", links] if links else kept)
    return notebook


def readme_with_map(text, url):
    "README's text with the table of chapters between its two marks."
    rows = ["| chapter, solved | exercises | to solve |", "|---|---|---|"]
    for c in progress.chapters():
        file, links = f"{c['name']}.ipynb", badges(url, c["name"])
        solve = f"[notebook](chapters/{file})" + (f"<br>{links}" if links else "")
        title = f"[{c['title']}](solutions/{file})"
        rows.append(f"| {title} | {len(c['exercises'])} | {solve} |")
    return between("map", rows, text)


def between(mark, rows, text):
    "`text` with the rows of a table between <!-- mark --> and <!-- end of mark -->."
    marks = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    if text.count(marks[0]) != 1 or text.count(marks[1]) != 1:
        raise ValueError(
            f"a page needs the marks {marks[0].strip()} and {marks[1]}, once"
        )
    before, _, rest = text.partition(marks[0])
    return (
        before + marks[0] + "\n".join([*rows, marks[1]]) + rest.partition(marks[1])[2]
    )


# ---- minutes ----


def minutes(chapter):
    """How long a chapter takes: -> (reading, exercises, [(section, reading, exercises)]).

    Reading time is what the opening says, shared out among the sections by their words
    and lines of code; an exercise says its minutes in the text above it.
    """
    box = re.search(r"\*\*Time\*\*: (\d+) min to read", progress.texts(chapter)[0])
    if box is None:
        raise ValueError(f"{chapter}: the opening says no `**Time**: ... min to read`")
    found = []
    for kind, source in progress.sources(chapter):
        heading = re.match(r"## (\d+ · .+)", source) if kind == "markdown" else None
        if heading or re.match("## ", source):
            found.append([heading and heading[1], 0, 0])
        if not found or found[-1][0] is None:
            continue
        if kind == "markdown":
            found[-1][1] += len(source.split()) / WORDS
            found[-1][2] += sum(map(int, EXERCISE.findall(source)))
        else:
            found[-1][1] += len(source.splitlines()) / LINES
    found = [section for section in found if section[0]]
    share = int(box[1]) / sum(weight for _, weight, _ in found)
    parts = [(name, weight * share, after) for name, weight, after in found]
    return int(box[1]), sum(after for *_, after in parts), parts


WORDS, LINES = 200, 20  # read in a minute: for the shares alone
EXERCISE = re.compile(r"\((\d+) min")


def needs(chapter):
    "Numbers of the chapters that the opening asks for, ranges written out."
    line = re.search(r"\*\*You need\*\*: (.+)", progress.texts(chapter)[0])
    spans = re.findall(r"\b(\d\d)(?: to (\d\d))?\b", line[1] if line else "")
    return sorted({n for a, b in spans for n in range(int(a), int(b or a) + 1)})


def spoken(numbers):
    "[1, 2, 3, 7, 9] -> '01 to 03, 07, 09'."
    runs = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        if len(run) > 2:
            parts.append(f"{run[0]:02} to {run[-1]:02}")
        else:
            parts += [f"{number:02}" for number in run]
    return ", ".join(parts)


def teaching_with_minutes(text):
    "TEACHING.md's text with needs and the minutes of every section between its marks."
    rows = [
        "| chapter | needs | read | solve | minutes of its sections |",
        "|---|---|---|---|---|",
    ]
    for c in progress.chapters():
        if not any("min to read" in text for text in progress.texts(c["name"])[:1]):
            continue
        reading, solving, parts = minutes(c["name"])
        each = (
            f"{name.split(' ')[0]}: {read + solve:.0f}" for name, read, solve in parts
        )
        link = f"[{c['title']}](chapters/{c['name']}.ipynb)"
        rows.append(
            f"| {link} | {spoken(needs(c['name']))} | {reading} | {solving} | {', '.join(each)} |"
        )
    return between("minutes", rows, text)


# ---- the glossary ----

ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.M)


def terms():
    """Every term of the chapters' tables of words, in the order of the chapters.

    -> [{"english", "chinese", "line", "chapter", "title"}]. Raises ValueError where a term
    stands twice, or a row holds more than one.
    """
    found = {}
    for chapter in progress.chapters():
        for english, chinese, line in _rows(chapter["name"]):
            if re.search("[,，、]", english + chinese):
                raise ValueError(f"{chapter['name']}: {english!r}: one term a row")
            if english in found:
                raise ValueError(
                    f"{english!r} stands in the words of {found[english]['chapter']} and "
                    f"again in those of {chapter['name']}: keep the first"
                )
            found[english] = {
                "english": english, "chinese": chinese, "line": line,
                "chapter": chapter["name"], "title": chapter["title"],
            }  # fmt: skip
    return list(found.values())


def _rows(chapter):
    "(English, Chinese, one line) of each row below a chapter's heading `## Words`."
    for source in progress.texts(chapter):
        if re.match(r"## Words\s*$", source.split("\n")[0]):
            yield from (row for row in ROW.findall(source) if row[2] != "here")


def glossary():
    "GLOSSARY.md: all terms from a to z, each with the chapter that brings it."
    rows = [
        f"| {t['english']} | {t['chinese']} | {t['line']} | "
        f"[{t['chapter'][:2]}](chapters/{t['chapter']}.ipynb) |"
        for t in sorted(terms(), key=lambda t: t["english"].casefold())
    ]
    return "\n".join([
        "# Words", "",
        "Every term of the course, in English and Chinese, with the chapter that brings it."
        " Made from the tables at the chapters' ends by `python3 start.py author`.", "",
        "| English | 中文 | in one line | chapter |", "|---|---|---|---|", *rows, "",
    ])  # fmt: skip
