"""The author's commands: python3 start.py author [COMMAND]

  build [NAMES]     the default: run what changed, derive the chapters, check (all below)
  run [NAMES]       execute solutions/ in place with stable bytes; --all: changed or not
  derive [NAMES]    write chapters/ from solutions/
  check             is chapters/ what solutions/ gives? do ruff and codespell agree?
  test [WHAT]       what the README's test command runs; WHAT: a stage (unit, solutions,
                    chapters), a chapter's number, files
  mutants NN [EXERCISES]   references wrong in one place: does every check notice?
  text NAMES        write solutions/NAME.nbtext, the notebook as plain text to edit
  pack NAMES        read it back; outputs of cells that did not change are kept
  new NN_slug       a new chapter to begin from
  book [FOLDER]  the solved chapters as pages, into .book/site; nothing is executed
  frames [NAMES]   draw the labs of solutions for the book, and write nothing else
  pictures    README's pictures anew, from the running course
  address URL       the public repository: writes badges and the first cells
  nbgrader NN FOLDER [EXERCISE=POINTS ...]   a chapter as an assignment of nbgrader
  licences    utils/course/licences.md anew, from what is installed

Names are a chapter's (01_descent) or its beginning (01).
"""

import argparse
import os
import re
import subprocess
import sys

from utils.course import mutants, notebooks, pages, plan, running
from utils.course.notebooks import nbformat  # which starts quicker there
from utils.files import ROOT

SOLUTIONS, CHAPTERS = ROOT / "solutions", ROOT / "chapters"


def named(names):
    "The solution notebooks with these names or beginnings; all when none is given."
    found = sorted(SOLUTIONS.glob("[0-9][0-9]_*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            known = ", ".join(path.stem for path in found)
            sys.exit(f"No solution begins with {name!r}; there are: {known}")
    return [p for p in found if not names or p.name.startswith(tuple(names))]


# ---- chapters ----


def _write(path, text):
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(ROOT)}")


def derived(names=()):
    "{path of a chapter: the text it must have} for every solution, or the named ones."
    book = pages.book(repository())
    return {
        CHAPTERS / p.name: notebooks.derive(p.read_text(encoding="utf-8"), p.name, book)
        for p in named(names)
    }


def stale():
    "What is wrong with chapters/, a sentence each."
    want = derived()
    for path, text in want.items():
        if not path.exists():
            yield f"chapters/{path.name} is missing"
        elif path.read_text(encoding="utf-8") != text:
            yield f"chapters/{path.name} is not what solutions/{path.name} gives"
    for path in sorted(set(CHAPTERS.glob("*.ipynb")) - set(want)):
        yield f"chapters/{path.name} has no solution"


def run_all(names, everything):
    "Execute the named solutions; the map in chapter 00 follows when a chapter is new."
    start = SOLUTIONS.glob("00_*.ipynb")
    return running.run_all(named(names), everything or bool(names), next(start, None))


# ---- notebooks as plain text ----


def write_text(names):
    for path in named(names):
        notebook = nbformat.read(path, as_version=4)
        _write(path.with_suffix(".nbtext"), notebooks.to_text(notebook))


def pack(names):
    for name in names:
        found = sorted(SOLUTIONS.glob(f"{name}*.nbtext"))
        if not found:
            sys.exit(f"No solutions/{name}*.nbtext: `author text {name}` writes it")
        for path in found:
            target = path.with_suffix(".ipynb")
            old = nbformat.read(target, as_version=4) if target.exists() else None
            notebook = notebooks.from_text(path.read_text(encoding="utf-8"), old)
            pages.with_address(notebook, repository(), path.stem)
            _write(target, notebooks.written(notebook))


# ---- the address of the public repository ----


def repository():
    "The public repository's address, or '' while it is not known (pyproject.toml)."
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^repository = "(.*)"$', text, re.M)[1]


def set_address(url):
    "Write the address to its one place and to what is made from it."
    url = url.removesuffix("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        sys.exit(f"An address looks like https://github.com/OWNER/NAME, not {url!r}")
    file = ROOT / "pyproject.toml"
    text = file.read_text(encoding="utf-8")
    text = re.sub(r'^repository = ".*"$', f'repository = "{url}"', text, flags=re.M)
    _write(file, text)
    for path in named([]):
        notebook = nbformat.read(path, as_version=4)
        executed = notebook.metadata.get("course", {}).get("executed")
        fresh = executed == notebooks.code_hash(notebook)
        pages.with_address(notebook, url, path.stem)
        if fresh:  # the first cell shows nothing: its change needs no new run
            notebook.metadata["course"]["executed"] = notebooks.code_hash(notebook)
        _write(path, notebooks.written(notebook))
    write_derived()
    write_pages()


# ---- checking and testing ----


def write_derived(names=()):
    for path, text in derived(names).items():
        _write(path, text)


def made_pages():
    "{path of a page that is made from the chapters: the text it must have}."
    readme, teaching = ROOT / "README.md", ROOT / "TEACHING.md"
    text = readme.read_text(encoding="utf-8")
    return {
        readme: plan.readme(pages.readme_with_map(text, repository())),
        ROOT / "GLOSSARY.md": pages.glossary(),
        teaching: plan.teaching(teaching.read_text(encoding="utf-8")),
    }


def write_pages():
    for path, text in made_pages().items():
        _write(path, text)


def check():
    "Say what is stale or badly formatted; the number of findings."
    findings = list(stale())
    for page, text in made_pages().items():
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            findings.append(
                f"{page.name} is not what the chapters give: `author build`"
            )
    for finding in findings:
        print(finding)
    sources = ["utils", "tests", "start.py", "solutions"]
    for command in (
        ["ruff", "check", *sources],
        ["ruff", "format", "--check", *sources],
        ["codespell_lib", "utils", "tests", "chapters", "start.py", *ROOT.glob("*.md")],
    ):
        command = [sys.executable, "-m", *map(str, command)]
        findings += [command] * bool(subprocess.call(command, cwd=ROOT))
    findings += [imports_between_wings] * bool(imports_between_wings())
    return len(findings)


def imports_between_wings():
    "Hold utils/ to the layers of pyproject.toml; 0 where they hold, printed where not."
    code = "from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr)
    return done.returncode


def test(words, extra=()):
    "The README's test command: stages, chapters, files; the number that failed."
    from tests.stages import run_stages

    return run_stages(words, extra)


SKELETON = """%% md title
# A question or a claim

Two or three sentences: what the reader will hold at the end, and why anyone wants it.

- **You need**: chapters ...
- **You will**: derive ..., predict ..., measure ...
- **Time**: ... min to read, ... min of exercises

%% code bootstrap

%% code imports setup
import numpy as np

from utils import check, plots
from utils.checks import {slug} as ex
"""


def new(name):
    "A new chapter to begin from."
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        sys.exit(f"A chapter is named like 03_backprop, not {name!r}")
    path = SOLUTIONS / f"{name}.ipynb"
    if path.exists():
        sys.exit(f"{path.relative_to(ROOT)} is already there")
    notebook = notebooks.from_text(SKELETON.format(slug=name[3:]))
    _write(path, notebooks.written(pages.with_address(notebook, repository(), name)))


def nbgrader(chapter, folder, *points):
    "Write a chapter into a folder as an assignment of nbgrader."
    from utils.course import grading

    for path in named([chapter]):
        try:
            print(f"wrote {grading.write(path, folder, points)}")
        except grading.GradingError as error:
            sys.exit(f"{path.name}: {error}")


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="start.py author", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = (
        "build run derive check test mutants text pack new book frames pictures "
        "address nbgrader licences"
    )
    parser.add_argument("command", nargs="?", default="build", choices=commands.split())
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true", help="run: changed or not")
    args, extra = parser.parse_known_args(argv)
    if extra and args.command != "test":
        parser.error(f"unknown: {' '.join(extra)}")
    if args.command in ("new", "address") and len(args.names) != 1:
        parser.error(f"{args.command} needs one name")
    if args.command == "book":
        args.names = [os.path.abspath(name) for name in args.names]
    if args.command == "nbgrader":
        if len(args.names) < 2:
            parser.error("nbgrader needs a chapter and a folder")
        args.names[1] = os.path.abspath(args.names[1])
    os.chdir(ROOT)
    match args.command:
        case "build":
            run_all(args.names, args.all)
            write_derived()
            write_pages()
            return check()
        case "run":
            run_all(args.names, args.all)
        case "derive":
            write_derived(args.names)
        case "check":
            return check()
        case "test":
            return test(args.names, extra)
        case "mutants":
            return mutants.command(named(args.names[:1]), args.names[1:])
        case "text":
            write_text(args.names)
        case "pack":
            pack(args.names)
        case "new":
            new(*args.names)
        case "book":
            from utils.course.book import build

            return build.command(args.names, repository())
        case "frames":
            running.draw_labs(named(args.names))
        case "pictures":
            from utils.course.book import pictures

            return pictures.command()
        case "address":
            set_address(*args.names)
        case "nbgrader":
            nbgrader(*args.names)
        case "licences":
            from utils.course import licences

            return licences.command()
    return 0


if __name__ == "__main__":
    sys.exit(min(main(), 1))
