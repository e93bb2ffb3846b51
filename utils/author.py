"""The author's commands: python3 start.py author [COMMAND]

  build [NAMES]     the default: run what changed, derive the chapters, check (all below)
  run [NAMES]       execute solutions/ in place with stable bytes; --all: changed or not
  derive            write chapters/ from solutions/
  check             is chapters/ what solutions/ gives? do ruff and codespell agree?
  test [STAGES]     what the README's test command runs; stages: unit, solutions, chapters
  text NAMES        write solutions/NAME.nbtext, the notebook as plain text to edit
  pack NAMES        read it back; outputs of cells that did not change are kept
  new NN_slug       a new chapter to begin from
  address URL       the public repository: writes badges and the first cells

Names are a chapter's (01_descent) or its beginning (01).
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.modules.setdefault(
    "rfc3987_syntax", None
)  # nbformat would spend 2 s on its grammar
import nbformat  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS, CHAPTERS = ROOT / "solutions", ROOT / "chapters"
BEGIN = re.compile(r"^(\s*)### BEGIN SOLUTION(?: +(.*?))?\s*$")
END = re.compile(r"^\s*### END SOLUTION\s*$")
HEADER = re.compile(r"^%% (md|code) ([A-Za-z0-9_-]+) ?(.*)$", re.M)
KINDS = {"markdown": "md", "code": "code"}
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


class MarkError(ValueError):
    "A solution mark without its pair, or a region without a stub."


class NotebookError(ValueError):
    "A notebook, or its text form, that could not be kept as it is."


def named(names):
    "The solution notebooks with these names or beginnings; all when none is given."
    found = sorted(SOLUTIONS.glob("[0-9][0-9]_*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            known = ", ".join(path.stem for path in found)
            sys.exit(f"No solution begins with {name!r}; there are: {known}")
    return [p for p in found if not names or p.name.startswith(tuple(names))]


# ---- deriving a chapter ----


def stub(source, where=""):
    "The cell as a reader gets it: every solution region becomes its stub."
    kept, opened = [], None
    for number, line in enumerate(source.split("\n"), 1):
        if begin := BEGIN.match(line):
            if opened:
                raise MarkError(f"{where} line {number}: BEGIN inside another region")
            opened, (indent, instead) = number, begin.groups()
            if not indent and not instead:
                raise MarkError(
                    f"{where} line {number}: a region outside a function needs its stub, "
                    "as in: ### BEGIN SOLUTION lr = None"
                )
            kept.append(
                f"{indent}{instead or 'raise NotImplementedError'}  # your turn"
            )
        elif END.match(line):
            if not opened:
                raise MarkError(f"{where} line {number}: END without BEGIN")
            opened = None
        elif not opened:
            kept.append(line)
    if opened:
        raise MarkError(f"{where} line {opened}: this region never ends")
    return "\n".join(kept)


def derive(text, where=""):
    "The text of a solution notebook -> the text of its chapter. A pure function."
    _refuse_what_would_change(text, where)
    solved = nbformat.reads(text, as_version=4)
    chapter = nbformat.v4.new_notebook(metadata=METADATA)
    for cell in solved.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            continue
        metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "markdown":
            new = nbformat.v4.new_markdown_cell(cell.source, id=cell.id)
        else:
            source = stub(cell.source, f"{where} cell {cell.id}")
            new = nbformat.v4.new_code_cell(source, id=cell.id)
        new.metadata.update(metadata)
        chapter.cells.append(new)
    nbformat.validate(chapter)
    return _text(chapter)


def _refuse_what_would_change(text, where):
    "nbformat makes up an id where one is missing or used twice: another one each time."
    try:
        cells = [(c["cell_type"], c.get("id")) for c in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{where} is no notebook: {error!r}") from None
    seen = {None}
    for number, (kind, cell_id) in enumerate(cells, 1):
        if cell_id in seen:
            raise NotebookError(
                f"{where} cell {number}: its id {cell_id!r} is missing or used twice"
            )
        if kind not in KINDS:
            raise NotebookError(
                f"{where} cell {cell_id}: {kind} cells have no place here"
            )
        seen.add(cell_id)


def _text(notebook):
    return nbformat.writes(notebook, ensure_ascii=False).rstrip("\n") + "\n"


def _write(path, text):
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(ROOT)}")


def derived():
    "{path of a chapter: the text it must have} for every solution."
    return {
        CHAPTERS / path.name: derive(path.read_text(encoding="utf-8"), path.name)
        for path in named([])
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


# ---- executing ----


def environment(folder):
    """The environment in which notebooks run for the author and for the tests.

    Warnings are errors, sockets beyond this machine are refused and noted in
    `folder`/outbound.txt (tests/guard), the reader's progress is left alone.
    """
    guard, folder = ROOT / "tests" / "guard", Path(folder)
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    source = guard / "warnings_are_errors.py"
    (startup / "00_warnings.py").write_text(source.read_text(encoding="utf-8"))
    path = os.pathsep.join(filter(None, [str(guard), os.environ.get("PYTHONPATH")]))
    return {
        "COURSE_OUTBOUND": str(folder / "outbound.txt"),
        "COURSE_PROGRESS": "off",
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": path,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


def code_hash(notebook):
    "A fingerprint of what a notebook executes."
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def run(path, everything=False):
    "Execute one solution in place when its code changed; stable bytes; True when it ran."
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    ran = notebook.metadata.get("course", {}).get("executed")
    if ran == code_hash(notebook) and not everything:
        return False
    began = time.perf_counter()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", record_timing=False,
        coalesce_streams=True,  # else the clock cuts what a cell prints into pieces
        store_widget_state=False, resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        sys.exit(f"{path.relative_to(ROOT)} stopped; nothing was written.\n{error}")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata = nbformat.from_dict(
        {**METADATA, "course": {"executed": code_hash(notebook)}}
    )
    path.write_text(_text(notebook), encoding="utf-8", newline="\n")
    print(f"ran {path.relative_to(ROOT)} in {time.perf_counter() - began:.1f} s")
    return True


def run_all(names, everything):
    "Execute the named solutions; the map in chapter 00 follows when a chapter is new."
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment(folder))
        ran = [run(path, everything or bool(names)) for path in named(names)]
        for start in SOLUTIONS.glob("00_*.ipynb"):
            if lacks_a_chapter(start):
                ran.append(run(start, everything=True))
    return any(ran)


def lacks_a_chapter(start):
    "Whether the stored map of chapter 00 does not show every chapter."
    from utils import progress

    cells = nbformat.read(start, as_version=4).cells
    maps = [json.dumps(cell.get("outputs", []), ensure_ascii=False) for cell in cells]
    titles = [json.dumps(c["title"], ensure_ascii=False) for c in progress.chapters()]
    return not any(all(title[1:-1] in text for title in titles) for text in maps)


# ---- notebooks as plain text ----


def to_text(notebook):
    "A notebook as text: `%% code ID tag,tag` or `%% md ID` above each cell's source."
    parts = []
    for cell in notebook.cells:
        kind = KINDS.get(cell.cell_type)
        if kind is None:
            raise NotebookError(
                f"cell {cell.id}: {cell.cell_type} cells have no text form"
            )
        if cell.source != cell.source.strip("\n"):
            raise NotebookError(f"cell {cell.id} begins or ends with an empty line")
        if re.search("^%% ", cell.source, re.M):
            raise NotebookError(f"cell {cell.id}: a line begins with %% and a space")
        tags = ",".join(cell.metadata.get("tags", []))
        parts.append(f"%% {kind} {cell.id} {tags}".rstrip() + f"\n{cell.source}\n")
    return "\n".join(parts)


def from_text(text, old=None):
    "The text of `to_text` -> a notebook; outputs of unchanged cells come from `old`."
    _refuse_bad_headers(text)
    before = {cell.id: cell for cell in old.cells} if old else {}
    notebook = nbformat.v4.new_notebook(metadata=old.metadata if old else METADATA)
    parts = HEADER.split(text)
    for kind, cell_id, tags, source in zip(*(parts[i::4] for i in range(1, 5))):
        make = (
            nbformat.v4.new_markdown_cell if kind == "md" else nbformat.v4.new_code_cell
        )
        cell = make(source.strip("\n"), id=cell_id)
        if tags.strip():
            cell.metadata["tags"] = [tag.strip() for tag in tags.split(",")]
        same = before.get(cell_id)
        if kind == "code" and same is not None and same.source == cell.source:
            cell.outputs, cell.execution_count = same.outputs, same.execution_count
        notebook.cells.append(cell)
    nbformat.validate(notebook)
    return notebook


def _refuse_bad_headers(text):
    "What would else be lost, or pass for a part of the cell above."
    seen = set()
    for number, line in enumerate(text.split("\n"), 1):
        header = HEADER.match(line)
        if header and header[2] in seen:
            raise NotebookError(f"line {number}: the id {header[2]} is used twice")
        if line.startswith("%% ") and not header:
            raise NotebookError(
                f"line {number}: {line!r} is neither `%% md ID` nor `%% code ID tag,tag`"
            )
        if line.strip() and not header and not seen:
            raise NotebookError(f"line {number}: text above the first `%% md ID`")
        if header:
            seen.add(header[2])


def write_text(names):
    for path in named(names):
        notebook = nbformat.read(path, as_version=4)
        _write(path.with_suffix(".nbtext"), to_text(notebook))


def pack(names):
    for name in names:
        found = sorted(SOLUTIONS.glob(f"{name}*.nbtext"))
        if not found:
            sys.exit(f"No solutions/{name}*.nbtext: `author text {name}` writes it")
        for path in found:
            target = path.with_suffix(".ipynb")
            old = nbformat.read(target, as_version=4) if target.exists() else None
            notebook = from_text(path.read_text(encoding="utf-8"), old)
            _write(target, _text(with_address(notebook, repository(), path.stem)))


# ---- the address of the public repository ----


def repository():
    "The public repository's address, or '' while it is not known (pyproject.toml)."
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^repository = "(.*)"$', text, re.M)[1]


def bootstrap(url):
    "The first code cell: makes `utils` importable next door, and on Colab."
    here = 'import os\nimport sys\n\nsys.path.insert(0, os.path.abspath(".."))  # utils/ lies there'
    if not url:
        return here
    return (
        "import os\nimport subprocess\nimport sys\n\n"
        'if "google.colab" in sys.modules and not os.path.isdir("/content/course"):\n'
        f'    get = ["git", "clone", "-q", "--depth=1", "{url}", "/content/course"]\n'
        "    subprocess.run(get, check=True)\n"
        'if "google.colab" in sys.modules:\n'
        '    os.chdir("/content/course/chapters")\n'
        'sys.path.insert(0, os.path.abspath(".."))  # utils/ lies there'
    )


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
        fresh = notebook.metadata.get("course", {}).get("executed") == code_hash(
            notebook
        )
        with_address(notebook, url, path.stem)
        if fresh:  # the first cell shows nothing: its change needs no new run
            notebook.metadata["course"]["executed"] = code_hash(notebook)
        _write(path, _text(notebook))
    _write_derived()
    readme = ROOT / "README.md"
    _write(readme, readme_with_map(readme.read_text(encoding="utf-8"), url))


def readme_with_map(text, url):
    "README's text with the table of chapters between its two marks."
    from utils import progress

    rows = ["| chapter | exercises | read it solved |", "|---|---|---|"]
    for c in progress.chapters():
        file, links = f"{c['name']}.ipynb", badges(url, c["name"])
        title = f"[{c['title']}](chapters/{file})" + (f"<br>{links}" if links else "")
        rows.append(f"| {title} | {len(c['exercises'])} | [solved](solutions/{file}) |")
    table = "\n".join(rows)
    return re.sub(
        r"(<!-- map -->\n).*?(<!-- end of map -->)",
        lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.S,
    )  # fmt: skip


# ---- checking and testing ----


def _write_derived():
    for path, text in derived().items():
        _write(path, text)


def check():
    "Say what is stale or badly formatted; the number of findings."
    findings = list(stale())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if readme != readme_with_map(readme, repository()):
        findings.append("README.md's map is not what the chapters give")
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
    return len(findings)


def test(stages, extra=()):
    "The stages of the README's test command; the number that failed."
    from tests.stages import run_stages

    files = [name for name in stages if Path(name).exists() and "." in name]
    return run_stages([s for s in stages if s not in files], [*files, *extra])


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
    notebook = from_text(SKELETON.format(slug=name[3:]))
    _write(path, _text(with_address(notebook, repository(), name)))


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="start.py author", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = "build run derive check test text pack new address".split()
    parser.add_argument("command", nargs="?", default="build", choices=commands)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true", help="run: changed or not")
    args, extra = parser.parse_known_args(argv)
    if extra and args.command != "test":
        parser.error(f"unknown: {' '.join(extra)}")
    if args.command in ("new", "address") and len(args.names) != 1:
        parser.error(f"{args.command} needs one name")
    os.chdir(ROOT)
    match args.command:
        case "build":
            run_all(args.names, args.all)
            _write_derived()
            readme = ROOT / "README.md"
            text = readme.read_text(encoding="utf-8")
            _write(readme, readme_with_map(text, repository()))
            return check()
        case "run":
            run_all(args.names, args.all)
        case "derive":
            _write_derived()
        case "check":
            return check()
        case "test":
            return test(args.names, extra)
        case "text":
            write_text(args.names)
        case "pack":
            pack(args.names)
        case "new":
            new(*args.names)
        case "address":
            set_address(*args.names)
    return 0


if __name__ == "__main__":
    sys.exit(min(main(), 1))
