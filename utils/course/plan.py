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
    stand = sum(c["stands"] for c in chapters())
    return [
        f"{stand} of {len(chapters())} chapters stand; those *in italics* are to come.",
        "",
        "| part | chapters |",
        "|---|---|",
        *(f"| {part} | {'; '.join(names)} |" for part, names in parts.items()),
    ]


def path_rows():
    "README's table of paths, with the hours of the chapters that stand."
    rows = [
        "| path | chapters that stand | hours to read and to solve |",
        "|---|---|---|",
    ]
    stand = {int(c["number"]): c for c in chapters() if c["stands"]}
    for name, (what, numbers) in PATHS.items():
        found = [stand[number] for number in numbers if number in stand]
        if not found:
            continue
        spent = [pages.minutes(f"{c['number']}_{c['slug']}")[:2] for c in found]
        read, solve = (sum(minutes) / 60 for minutes in zip(*spent))
        links = ", ".join(
            f"[{c['number']}](chapters/{c['number']}_{c['slug']}.ipynb)" for c in found
        )
        rows.append(f"| **{name}**: {what} | {links} | {read:.0f} + {solve:.0f} |")
    return rows


def readme(text):
    "README's text with the plan and the paths between their marks."
    text = pages.between("plan", plan_rows(), text)
    return pages.between("paths", path_rows(), text)
