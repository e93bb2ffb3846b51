"""Whose work the course stands on: every package of its lists and the licence it names.

`python3 start.py author licences` writes licences.md from what is installed here. Other
systems and Pythons bring a few other packages (Colab's own, colorama on Windows).
"""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.course import packages
from utils.files import ROOT

PAGE = ROOT / "utils" / "course" / "licences.md"
WHO = {
    "every reader": packages.requirements,
    "models and pictures": packages.models,
    "extras": lambda root: packages.more(root, "extras"),
    "tests and authors": lambda root: packages.more(root, "authors"),
}
HEAD = """# Licences

What `start.py` installs, the licence that each package names in its own metadata, and who
gets it. A package stands where it is first asked for, with all that it brings along.
Made by `python3 start.py author licences` on Linux, Python 3.11.

| package | licence | for |
|---|---|---|
"""


def brought(asked, found, seen):
    "Add a requirement's package and what that requires to found: {name: distribution}."
    key = canonicalize_name(asked.name), frozenset(asked.extras)
    if key in seen:
        return
    seen.add(key)
    try:
        found[key[0]] = dist = metadata.distribution(asked.name)
    except metadata.PackageNotFoundError:
        return  # another system's, or one that is installed without what it asks for
    for needed in map(Requirement, dist.requires or ()):
        extras = [{"extra": extra} for extra in ("", *asked.extras)]
        if needed.marker is None or any(map(needed.marker.evaluate, extras)):
            brought(needed, found, seen)


def licence(dist):
    "What a distribution's metadata says of its licence, '' where it says nothing."
    said = dist.metadata.get("License-Expression")
    classes = dist.metadata.get_all("Classifier") or []
    classes = [c.split(" :: ")[-1] for c in classes if c.startswith("License :: ")]
    short = (dist.metadata.get("License") or "").strip().split("\n")[0]
    return said or ", ".join(classes) or short[:40]


def rows():
    "[(package, licence, who gets it)] by name."
    found, seen, made = {}, set(), []
    for who, lines in WHO.items():
        before = set(found)
        for asked in map(Requirement, lines(ROOT)):
            if asked.marker is None or asked.marker.evaluate():
                brought(asked, found, seen)
        made += [(key, licence(found[key]), who) for key in found if key not in before]
    return sorted(made)


def page():
    "The text of licences.md."
    lines = (f"| {' | '.join(row)} |\n" for row in rows())
    return HEAD + "".join(lines)


def command():
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0
