"""The plan of all chapters and the paths through it, beside what stands today."""

import csv

from utils.course import pages
from utils.exercises import progress
from utils.files import ROOT

PATHS = {
    "Student": ("from one neuron on, in order", range(1, 30)),
    "Engineer who knows PyTorch": (
        "05 as a check, then the machine, the cluster and serving",
        [5, *range(9, 22), 23, 24, 27, 28],
    ),
    "Three evenings": ("a line, a backward pass, a ring", [1, 3, 16]),
}
TERM = (
    [1, 2], [3], [4, 5], [6, 7], [9], [10, 11], [12, 13],
    [14], [16], [17, 21], [18], [19], [23, 24], [27, 28],
)  # fmt: skip  # chapters of each week; those that wait for nobody may be left out


def chapters():
    "[{'number', 'slug', 'part', 'what', 'stands'}] of the whole plan, in order."
    file = ROOT / "utils" / "course" / "plan.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    here = {c["name"] for c in progress.chapters()}
    return [row | {"stands": f"{row['number']}_{row['slug']}" in here} for row in rows]


def plan_rows():
    "README's table of parts: what stands is a link, the rest is to come."
    parts = {}
    for c in chapters():
        name = f"{c['number']} {c['what']}"
        if c["stands"]:
            name = f"[{name}](solutions/{c['number']}_{c['slug']}.ipynb)"
        parts.setdefault(c["part"], []).append(name if c["stands"] else f"*{name}*")
    stand, planned = sum(c["stands"] for c in chapters()), len(chapters())
    lacking = f"{stand} of {planned} chapters stand; those *in italics* are to come."
    return [
        *([lacking, ""] if stand < planned else []),
        "| part | chapters |",
        "|---|---|",
        *(f"| {part} | {'; '.join(names)} |" for part, names in parts.items()),
    ]


def _standing(numbers):
    "Those of the numbers that stand: [chapter], hours to read and hours to solve them."
    stand = {int(c["number"]): c for c in chapters() if c["stands"]}
    found = [stand[number] for number in numbers if number in stand]
    spent = [pages.minutes(f"{c['number']}_{c['slug']}") for c in found]
    return found, *(sum(each[i] for each in spent) / 60 for i in (0, 1))


def path_rows():
    "README's table of paths, with the hours of the chapters that stand."
    rows = [
        "| path | chapters | hours to read and to solve |",
        "|---|---|---|",
    ]
    for name, (what, numbers) in PATHS.items():
        found, read, solve = _standing(numbers)
        if not found:
            continue
        links = ", ".join(
            f"[{c['number']}](chapters/{c['number']}_{c['slug']}.ipynb)" for c in found
        )
        rows.append(f"| **{name}**: {what} | {links} | {read:.0f} + {solve:.0f} |")
    return rows


def term_rows():
    "TEACHING's table of a term, with the hours of each week's chapters that stand."
    rows = ["| week | chapters | hours to read and to solve |", "|---|---|---|"]
    for week, numbers in enumerate(TERM, 1):
        found, read, solve = _standing(numbers)
        links = "; ".join(
            f"[{c['number']} {c['what']}](chapters/{c['number']}_{c['slug']}.ipynb)"
            for c in found
        )
        rows.append(f"| {week} | {links} | {read:.1f} + {solve:.1f} |")
    return rows


def teaching(text):
    "TEACHING.md's text with the term and the minutes between their marks."
    return pages.teaching_with_minutes(pages.between("term", term_rows(), text))


def readme(text):
    "README's text with the plan and the paths between their marks."
    text = pages.between("plan", plan_rows(), text)
    return pages.between("paths", path_rows(), text)
