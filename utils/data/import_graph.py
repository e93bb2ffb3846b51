"""The import graph of an installed package: a real graph that everybody has.

A node is a .py file, an edge goes from a file to a file that it imports, a node's words
are the names in its code taken apart (`make_loss_fn`: make, loss), its class is the
folder below the package. The files are parsed, never run.

    python -m utils.data.import_graph torch utils/data/torch_imports.npz
"""

import ast
import contextlib
import gc
import io
import re
import sys
import warnings
from collections import Counter
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import given
from utils.files import write_whole

LEFT_OUT = {"test", "tests", "_vendor", "externals"}  # others' code, and no test
# one part of a name: HTMLParser_v2 holds html, parser
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


# where a syntax tree keeps names
NAMED = {
    ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg",
    ast.FunctionDef: "name", ast.AsyncFunctionDef: "name", ast.ClassDef: "name",
}  # fmt: skip


class Graph(NamedTuple):
    """N files, E imports between them, V words, C classes.

    edges_E2: whole numbers, row (i, j): file i imports file j, each pair once.
    counts_NV: how often a word stands in a file, at most 255. y_N: the class, 0 .. C-1.
    names, words, classes: N, V and C texts. source: the package and its version.
    """

    edges_E2: np.ndarray
    counts_NV: np.ndarray
    y_N: np.ndarray
    names: list
    words: list
    classes: list
    source: str


# ---- one file ----


@cache
def parts(name):
    "The words of 3 letters or more in a name: 'to_CSRTensor' -> ['csr', 'tensor']."
    return [part.lower() for part in PART.findall(name) if len(part) > 2]


def names_in(nodes):
    "Counter of the words in the names of a syntax tree; import lines do not count."
    named = (getattr(node, NAMED[type(node)]) for node in nodes if type(node) in NAMED)
    words = Counter()
    for name, times in Counter(named).items():
        for part in parts(name or ""):  # f(**options) has a keyword without a name
            words[part] += times
    return words


def imports_in(nodes, module, package):
    """The dotted names that a file asks for, the most precise first: -> list of lists.

    module: the file's own dotted name; package: whether it is an __init__.py.
    """
    asked = []
    for node in nodes:
        if isinstance(node, ast.Import):
            asked += [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: None if package else -1]
            above = above[: len(above) + 1 - node.level] if node.level else []
            base = ".".join(above + [node.module] * bool(node.module))
            asked += [[f"{base}.{alias.name}", base] for alias in node.names]
    return asked


# ---- all files ----


@contextlib.contextmanager
def _collector_paused():
    "A syntax tree is thousands of objects: looking for circles takes 2/3 of the time."
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def files_of(package):
    "{dotted name: path} of the .py files of an installed package, tests left out."
    try:
        spec = util.find_spec(package) if package.isidentifier() else None
    except (AttributeError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package!r:.60} is no installed package, such as 'sklearn'")
    root = Path(spec.submodule_search_locations[0])
    found = {}
    for path in sorted(root.rglob("*.py")):
        here = path.relative_to(root.parent).with_suffix("").parts
        if not LEFT_OUT & set(here) and not path.stem.startswith("test_"):
            here = here[:-1] if path.stem == "__init__" else here
            found[".".join(here)] = path
    return found


def read(package):
    "-> {file: Counter of words}, {(importer, imported)}: every file of a package."
    files, words, edges = files_of(package), {}, set()
    with _collector_paused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a strange escape in somebody else's string
        for name, path in files.items():
            try:
                nodes = list(ast.walk(ast.parse(path.read_bytes())))
            except SyntaxError:  # a template, or a newer Python's
                continue
            words[name] = names_in(nodes)
            for asked in imports_in(nodes, name, path.stem == "__init__"):
                hit = next((target for target in asked if target in files), name)
                edges.add((name, hit))
    return words, {(a, b) for a, b in edges if a != b and b in words}


def imports_of(package, classes=10, words=1000):
    """The import graph of an installed package, among its largest sub-packages.

    classes: how many of them; words: how many words at most, the most common of those
    that 5 files or more have, and at most half of all. -> Graph. ValueError where the
    package is not there or has fewer than two sub-packages.
    """
    if not isinstance(package, str):
        raise TypeError(f"package is a name, such as 'sklearn', not {package!r:.60}")
    classes = given.whole("classes", classes, least=2)
    words = given.whole("words", words)
    counted, edges = read(package)
    home = {name: name.split(".")[1] for name in counted if "." in name}
    folders = {name.split(".")[1] for name in counted if name.count(".") > 1}
    sizes = Counter(where for where in home.values() if where in folders)
    kept = [where for where, _ in sorted(sizes.items(), key=lambda x: (-x[1], x[0]))]
    kept = sorted(kept[:classes])
    if len(kept) < 2:
        raise ValueError(f"{package} has fewer than two sub-packages to tell apart")
    names = sorted(name for name, where in home.items() if where in kept)
    row = {name: i for i, name in enumerate(names)}
    files = Counter(word for name in names for word in counted[name])
    common = [word for word, n in files.items() if 5 <= n <= len(names) / 2]
    common = sorted(sorted(common, key=lambda word: (-files[word], word))[:words])
    column = {word: i for i, word in enumerate(common)}
    counts_NV = np.zeros((len(names), len(common)), np.uint8)
    for name, i in row.items():
        for word, times in counted[name].items():
            if word in column:
                counts_NV[i, column[word]] = min(times, 255)
    pairs = sorted((row[a], row[b]) for a, b in edges if a in row and b in row)
    return Graph(
        np.array(pairs, np.int64).reshape(-1, 2), counts_NV,
        np.array([kept.index(home[name]) for name in names]), names, common, kept,
        f"{package} {version(package)}",
    )  # fmt: skip


def version(package):
    "The version of an installed package, without what stands behind a +; or ''."
    homes = metadata.packages_distributions().get(package, [package])
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(homes[0]).partition("+")[0]
    return ""


# ---- the file ----


def save(graph, path):
    "Write a graph as a small .npz of plain numbers (texts as bytes), no pickle."
    rows, columns = graph.counts_NV.nonzero()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, edges=graph.edges_E2.astype(np.uint16), y=graph.y_N.astype(np.uint8),
        lengths=np.bincount(rows, minlength=len(graph.y_N)).astype(np.uint16),
        columns=columns.astype(np.uint16), counts=graph.counts_NV[rows, columns],
        **{key: _as_bytes(getattr(graph, key)) for key in ("names", "words", "classes")},
        source=_as_bytes([graph.source]),
    )  # fmt: skip
    write_whole(path, buffer.getvalue())


def load(path):
    "Read what `save` wrote: -> Graph."
    with np.load(path, allow_pickle=False) as file:
        part = {name: file[name] for name in file.files}
    names, words, classes, (source,) = (
        _as_texts(part[key]) for key in ("names", "words", "classes", "source")
    )
    counts_NV = np.zeros((len(names), len(words)), np.uint8)
    rows = np.repeat(np.arange(len(names)), part["lengths"])
    counts_NV[rows, part["columns"]] = part["counts"]
    edges_E2, y_N = part["edges"].astype(np.int64), part["y"].astype(np.int64)
    return Graph(edges_E2, counts_NV, y_N, names, words, classes, source)


def _as_bytes(texts):
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _as_texts(stored):
    return stored.tobytes().decode().split("\n") if stored.size else []


def main(package, path):
    graph = imports_of(package)
    save(graph, path)
    size = Path(path).stat().st_size / 1000
    print(
        f"{graph.source}: {len(graph.names)} files, {len(graph.edges_E2)} imports, "
        f"{len(graph.words)} words, {len(graph.classes)} classes; {path}: {size:.0f} kB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
