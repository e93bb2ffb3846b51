"""The code of somebody else's folder, imported without a trace: known.py stands on it.

While it works it is in sys.path and sys.modules and the course is not, so that a folder
`utils` of the peer's is found by the peer only; afterwards both are as before. Nothing
is written into the peer's folder.
"""

import sys
import traceback
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from utils.files import ROOT

OURS = {path.stem for path in ROOT.iterdir()}  # utils, tests, start, ...


class Peer:
    "The code below one folder: inside `at_work` imports find it, not the course's."

    def __init__(self, folder, package):
        "package: the folder or file to import; what it is a part of is found here."
        root, parts = package.parent, [package.stem]
        while (root / "__init__.py").exists():
            root, parts = root.parent, [root.name, *parts]
        self.folder, self.modules, self.name = folder, {}, ".".join(parts)
        above = [root.parent] if folder in root.parents else []
        others = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
        self.path = [*map(str, [root, *above, folder]), *others]

    def owns(self, module):
        "Was this module read from the peer's folder?"
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
        paths = [Path(place) for place in places if place]
        return any(self.folder in (path, *path.parents) for path in paths)

    @contextmanager
    def at_work(self):
        modules, path = dict(sys.modules), sys.path[:]
        no_cache, depth = sys.dont_write_bytecode, sys.getrecursionlimit()
        mine = OURS | {self.name.partition(".")[0]}
        hidden = {n: m for n, m in modules.items() if n.partition(".")[0] in mine}
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(self.modules)
        sys.path[:], sys.dont_write_bytecode = self.path, True
        sys.setrecursionlimit(max(depth, 10_000))
        try:
            with redirect_stdout(sys.stderr):  # stdout is the table's
                yield
        finally:
            new = [n for n, m in sys.modules.items() if modules.get(n) is not m]
            self.modules = {n: sys.modules[n] for n in new if self.owns(sys.modules[n])}
            for name in self.modules:
                del sys.modules[name]
            sys.modules.update(hidden)
            sys.path[:], sys.dont_write_bytecode = path, no_cache
            sys.setrecursionlimit(depth)

    def inside(self, run):
        "`run` at work; whatever the peer's code raises becomes one sentence."

        def guarded(*arguments):
            with self.at_work():
                try:
                    return run(*arguments)
                except (Exception, SystemExit) as error:
                    raise ImportError(self.explain(error)) from error

        return guarded

    def explain(self, error):
        "What stopped the peer, and where in its folder."
        text = (str(error).splitlines() or ["no message"])[0]
        frames = [(Path(f.filename), f.lineno) for f in
                  traceback.extract_tb(error.__traceback__)]  # fmt: skip
        at = [f"{p.relative_to(self.folder)}, line {line}" for p, line in frames
              if self.folder in p.parents]  # fmt: skip
        where = f" ({at[-1]})" if at else ""
        if type(error) is ImportError and not at:
            return text  # ours, a sentence already
        if isinstance(error, ImportError) and "ndarray_backend" in text:
            return f"its compiled backend is not built here, run its make{where}"
        if isinstance(error, ModuleNotFoundError):
            return f"it needs the module {error.name}, which is not here{where}"
        if isinstance(error, NotImplementedError):
            return f"an exercise of it is not filled in{where}"
        return f"its code raises {type(error).__name__}: {text}{where}"

    def version(self):
        "-> 'commit 0123456789' from .git, else the name of the folder."
        git = self.folder / ".git"
        if git.is_file():  # a worktree: the file says where
            git = self.folder / git.read_text().partition(":")[2].strip()
        try:
            head = (git / "HEAD").read_text().strip()
            ref = head.removeprefix("ref: ")
            if ref != head and (git / ref).exists():
                head = (git / ref).read_text().strip()
            elif ref != head:
                packed = (git / "packed-refs").read_text().splitlines()
                head = next(
                    line.split()[0] for line in packed if line.endswith(" " + ref)
                )
            return f"commit {head[:10]}"
        except (OSError, StopIteration):
            return f"folder {self.folder.name}"


def need(thing, name, *parts):
    "The thing, if it has all these parts; else an ImportError that names what lacks."
    lacking = [part for part in parts if not hasattr(thing, part)]
    if lacking:
        raise ImportError(f"its {name} has no {' and no '.join(lacking)}")
    return thing
