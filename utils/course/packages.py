"""The lists of packages, and what of them is installed.

environment.yml (its pip section) is what every reader gets; utils/course/authors.txt and
extras.txt come on top where a command asks for them.

Standard library only, and an old Python must be able to load it.
"""

import operator
import re
import sys

from utils.course.sentences import Problem

LISTS = ("authors", "extras")  # utils/course/NAME.txt


def read(path):
    """A small file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def plain(line):
    """A line of the list without its comment and its YAML quotes."""
    line = re.sub(r"(^|\s)#.*$", "", line).strip()
    quoted = len(line) > 1 and line[0] in "'\"" and line[-1] == line[0]
    return line[1:-1].strip() if quoted else line


def requirements(root):
    """The plain lines below '- pip:' in environment.yml, as pip wants them."""
    try:
        text = (root / "environment.yml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Problem(
            f"environment.yml, the list of packages, is missing or damaged in "
            f"{root}: fetch the course again."
        ) from None
    found, depth = [], None
    for line in text.splitlines():
        item, indent = plain(line), len(line) - len(line.lstrip())
        if not item:
            continue
        if depth is None:
            depth = indent if re.match(r"- pip\s*:$", item) else None
        elif indent <= depth:
            break
        elif item.startswith("- "):
            found.append(plain(item[2:]))
    found = [line for line in found if not line.startswith("-")]
    if not found:
        raise Problem(
            f"environment.yml in {root} has no pip section: fetch the course again."
        )
    return found


def applies(line, version):
    """Whether a line's marker admits a Python; None when that can't be told here."""
    answers = [holds(test, version) for test in line.partition(";")[2].split(" and ")]
    return None if None in answers else all(answers)


def holds(test, version):
    """One test of a marker, as in python_version < "3.11"."""
    match = re.match(r"python_version\s*([<>=!]+)\s*(['\"])3\.(\d+)\2$", test.strip())
    signs = {
        "<": operator.lt,
        "<=": operator.le,
        "==": operator.eq,
        ">": operator.gt,
        ">=": operator.ge,
        "!=": operator.ne,
    }
    if not test.strip():
        return True
    if not match or match.group(1) not in signs:
        return None
    return signs[match.group(1)](version[1], int(match.group(3)))


def more(root, name):
    """The lines of one of LISTS, as pip wants them."""
    path = root / "utils" / "course" / f"{name}.txt"
    text = read(path)
    if text is None:
        raise Problem(
            f"{path}, a list of packages, is missing: fetch the course again."
        )
    return [plain(line) for line in text.splitlines() if plain(line)]


def everything(root, lists=()):
    """The lines of environment.yml and of the lists that are named."""
    return requirements(root) + [line for name in lists for line in more(root, name)]


def pinned(lines, version=None):
    """[(name, version)] of the pinned lines that apply to a Python."""
    version = version or sys.version_info[:2]
    lines = [line for line in lines if applies(line, version)]
    matches = [re.match(r"([\w.\-]+)\s*==\s*([^\s;]+)", line) for line in lines]
    return [match.groups() for match in matches if match]


def pins(root, version=None):
    """[(name, version)] that environment.yml pins for a Python."""
    return pinned(requirements(root), version)


def wrong(pairs):
    """[(name, wanted, installed or None)] where the running Python differs."""
    from importlib import metadata

    found = []
    for name, wanted in pairs:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        if installed is None or installed.split("+")[0] != wanted.split("+")[0]:
            found.append((name, wanted, installed))
    return found


def wrong_pins(root, lists=()):
    """What of environment.yml and the named lists differs in the running Python."""
    return wrong(pinned(everything(root, lists)))


def models(root):
    """The packages that carry a pre-trained model, as pip wants them; [] if none."""
    text = read(root / "utils" / "data" / "models.txt") or ""
    return [plain(line) for line in text.splitlines() if plain(line)]
