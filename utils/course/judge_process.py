"""Inside the process of one answer: the submission's cells, then the course's check.

utils.course.judge starts it. The check and what it stands on are loaded first and then
taken out of the modules that an `import` finds, so that a line which replaces them there
replaces nothing. The verdict goes out with a key and by a way of its own, not by what is
printed. After a right answer, wrong ones must still fail: else the check was changed.
"""

import ast
import builtins
import importlib
import linecache
import os
import re
import symtable
import sys
import textwrap
import time
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from utils.course import judge_fence, judge_orphans
from utils.limits import TimeLimit, time_limit

OURS = ("utils.exercises", "utils.checks", "utils.slips", "utils.course")
CELL_SECONDS = 30  # of computing, for one cell
TAMPERED = (
    "With these cells the check takes wrong answers for right ones, too: they change what "
    "it is made of."
)


class SetUpError(Exception):
    "A set-up cell or a reference of the course's own failed."


class Silent(ModuleType):
    "Stands for `ex` and for what is taken away: whatever is called gives its argument."

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, answer=None, *_, **__):
        return answer


def main(job, out):
    "Judge one answer; the verdict is written to the file number `out`. Never returns."
    say, leave = _voice(job.pop("key"), out), os._exit
    judge_orphans.die_with_judge()
    judge_fence.confine([os.getcwd(), os.environ["TMPDIR"], "/dev"])
    exercise = _exercise(job["chapter"], job["name"])
    judge, caught = exercise.judge, _catcher(exercise)
    _silence()
    os.write(out, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    os.dup2(2, 1)
    os.dup2(2, 0)
    try:
        answer, raised = run(job["cells"], job["name"], vars(sys.modules["__main__"]))
        verdict, report = judge(answer)
        if verdict != "right":
            verdict = "endless" if TimeLimit.__name__ in raised else verdict
            report += raised
        elif caught():
            verdict, report = "tampered", TAMPERED
    except SetUpError as error:
        verdict, report = "no set-up", str(error)
    say(verdict, report)
    leave(0)


def _voice(key, out):
    "-> say(verdict, report), which calls nothing that a cell can replace."
    write = os.write

    def say(verdict, report):
        text = f"{key}\n{verdict}\n{report[:20_000]}"
        write(out, text.encode("utf-8", "replace"))

    return say


def load(chapter):
    "Load the check of a chapter such as 01_descent, and its slips."
    for wing in ("checks", "slips"):
        module = f"utils.{wing}.{chapter[3:]}"
        if find_spec(module) is not None:
            importlib.import_module(module)


def _exercise(chapter, name):
    load(chapter)
    return getattr(sys.modules[f"utils.checks.{chapter[3:]}"], name)


def _catcher(exercise, budget=3.0):
    "-> caught(): whether the check takes what is surely wrong: nothing, or a slip."
    from utils.exercises.slips import attempt

    judge, clock = exercise.judge, time.perf_counter
    wrong, seconds = [slip.answer for slip in exercise.slips], min(exercise.seconds, 1)

    def caught():
        if "right" in (judge(None)[0], judge(object())[0]):
            return True
        end = clock() + budget
        for answer in wrong:
            if clock() < end and attempt(exercise, answer, seconds, 1)[0] is None:
                return True
        return False

    return caught


def _silence():
    "From here on an import of the check, or of what it stands on, finds nothing of it."
    for name in [n for n in sys.modules if n.startswith(OURS)]:
        package, _, last = name.rpartition(".")
        silent = Silent(name)
        silent.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = silent
        if package == "utils":
            setattr(sys.modules["utils"], last, silent)


# ---- cells ----


def run(cells, name, scope):
    """Run [(kind, exercise or cell, source)]: -> what `name` is, what its cells raised.

    kind: "set-up" and "reference" are the course's own and must not fail; "answer" runs
    as it would in a notebook; "other" runs where it speaks of the exercise that it stands
    before, or binds a name that an answer uses.
    """
    scope.clear()
    scope.update(__name__="__main__", __builtins__=builtins, display=Silent("display"))
    cells = [(kind, label, plain(source)) for kind, label, source in cells]
    needed, raised = helpers(cells, scope), ""
    for number, (kind, label, source) in enumerate(cells):
        if kind == "other" and number not in needed:
            continue
        error = _run_cell(source, f"<{kind} cell {number}: {label}>", scope)
        if error and kind in ("set-up", "reference"):
            raise SetUpError(f"{kind} cell {label}: {error}")
        if error and label == name:
            raised += f"\nIts cell raised {error}"
    return scope.get(name), raised


def _run_cell(source, file, scope):
    "-> '' or what the cell raised."
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    try:
        with time_limit(CELL_SECONDS, 4):
            exec(compile(source, file, "exec", dont_inherit=True), scope)
    except BaseException as error:
        try:
            return f"{type(error).__name__}: {str(error)[:600]}"
        except BaseException:
            return "an error whose text cannot be shown"
    return ""


def plain(source):
    "A cell without what only a notebook reads: magics, shell lines, questions, an indent."
    if _is_python(source):
        return source
    lines = textwrap.dedent(source).split("\n")
    kept = [line for line in lines if not re.match(r"\s*([%!?].*|.*\?)\s*$", line)]
    return "\n".join(kept)


def _is_python(source):
    try:
        ast.parse(source)
        return True
    except Exception:  # also: a nul character, brackets without end
        return False


def helpers(cells, scope):
    "The numbers of the cells that must run: all but the other ones that nobody asks for."
    names = [names_of(source) for _, _, source in cells]
    running = {
        i for i, (kind, label, _) in enumerate(cells)
        if kind != "other" or label in names[i][0] | names[i][1]
    }  # fmt: skip
    asks = {i for i in running if cells[i][0] in ("answer", "other")}
    while True:
        bound = set(scope) | set(dir(builtins)).union(*(names[i][0] for i in running))
        missing = set().union(*(names[i][1] for i in asks)) - bound
        new = {i for i in range(len(cells)) if names[i][0] & missing} - running
        if not new:
            return running
        running |= new
        asks |= new


def names_of(source):
    "-> the names that a cell binds, the names of other cells that it uses."
    try:
        top = symtable.symtable(source, "cell", "exec")
    except Exception:
        return set(), set()
    bound, used, tables = set(), set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            here = table is top or symbol.is_declared_global()
            if here and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                used.add(symbol.get_name())
    return bound, used - bound
