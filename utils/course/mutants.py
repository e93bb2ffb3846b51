"""Mutants: a chapter's references, wrong in one place, held against their checks.

`author mutants NN` changes each reference in one place at a time (an operator, a
constant, an argument, a dropped line, a loop that misses its last turn) and runs the
exercise's check on every one. A mutant that the check calls right has survived: it is
equivalent, and tests/mutants/NN_slug.json says why, or the check has a hole.

    {"mse": {"the lines before => the lines after": "why this changes nothing"}}
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from importlib import import_module

from utils.course.mutations import mutants
from utils.files import ROOT

JUDGED = ROOT / "tests" / "mutants"
STALLED = 60  # seconds without a word from a worker: its mutant is stuck in C
MEMORY = 12 << 30  # bytes of addresses a worker may have, of which torch takes some

# ---- in a process of its own, which a mutant may break ----


def work(slug, name, first):
    "Judge the mutants of one exercise from the first on: one line of JSON each."
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chapter = import_module(f"utils.checks.{slug}").chapter
    exercise, scope = chapter.exercises[name], {"__name__": "__main__"}
    before, cells = list(chapter.cells), chapter.exercises
    for cell in before[: before.index(name)]:
        if cell in cells:
            exec(compile(chapter.source(cell), f"<{cell}>", "exec"), scope)
        elif "setup" in chapter.cells[cell][1]:
            exec(compile(chapter.cells[cell][0], f"<{cell}>", "exec"), scope)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a mutant prints goes elsewhere
    exercise.slips.clear()  # which slip it resembles is of no interest
    for what, source in list(mutants(chapter.source(name)).items())[first:]:
        own = dict(scope)
        try:
            exec(compile(source, "<mutant>", "exec"), own)
            verdict = exercise.judge(own[name])[0]
        except BaseException:
            verdict = "fails at once"
        print(json.dumps([what, verdict]), file=told, flush=True)


class Worker:
    "A process that judges one exercise's mutants, begun again behind one that broke it."

    def __init__(self, slug, name, changes):
        self.slug, self.name, self.changes, self.verdicts = slug, name, changes, {}
        self.start()

    def start(self):
        command = [sys.executable, "-m", "utils.course.mutants", self.slug, self.name]
        self.heard = time.monotonic()
        self.process = subprocess.Popen(
            [*command, str(len(self.verdicts))], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "COURSE_PROGRESS": "off", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def hear(self):
        "Take a verdict; False when the last has come, or nothing can come any more."
        line = self.process.stdout.readline()
        if line:
            what, self.verdicts[what] = (pair := json.loads(line))[0], pair[1]
            self.heard = time.monotonic()
            return True
        return self.broken("broke its process")

    def broken(self, how):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        left = [what for what in self.changes if what not in self.verdicts]
        if left:
            self.verdicts[left[0]] = how
        if left[1:]:
            self.start()
        return bool(left[1:])


def judge(slug, names=(), workers=None, tell=lambda text: None):
    "Judge all mutants of a chapter's references: {exercise: {what changed: verdict}}."
    chapter = import_module(f"utils.checks.{slug}").chapter
    names = list(names) or list(chapter.exercises)
    waiting = deque((name, list(mutants(chapter.source(name)))) for name in names)
    found, ready, busy = {}, selectors.DefaultSelector(), 0

    def begin():
        name, changes = waiting.popleft()
        worker = Worker(slug, name, changes)
        ready.register(worker.process.stdout, selectors.EVENT_READ, worker)

    try:
        while waiting or ready.get_map():
            busy = len(ready.get_map())
            if waiting and busy < (workers or os.cpu_count() or 1):
                begin()
                continue
            events = [key for key, _ in ready.select(timeout=5)]
            stalled = [
                key
                for key in ready.get_map().values()
                if time.monotonic() - key.data.heard > STALLED
            ]
            for key in {k.fd: k for k in (*events, *stalled)}.values():
                worker = key.data
                late = key in stalled and key not in events
                if late:
                    ready.unregister(key.fileobj)
                    goes_on = worker.broken("never ended")
                else:
                    pipe = key.fileobj
                    goes_on = worker.hear()
                    if goes_on and worker.process.stdout is pipe:
                        continue
                    ready.unregister(pipe)
                if goes_on:
                    ready.register(worker.process.stdout, selectors.EVENT_READ, worker)
                else:
                    found[worker.name] = worker.verdicts
                    tell(f"{worker.name}: {len(worker.verdicts)} mutants")
    finally:
        for key in list(ready.get_map().values()):
            key.data.process.kill()
            key.data.process.wait()
            key.fileobj.close()
        ready.close()
    return {name: found[name] for name in names}


# ---- what was judged before ----


def equivalent(chapter):
    "{exercise: {what changed: why it changes nothing}} of a chapter, from its file."
    path = JUDGED / f"{chapter}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def report(chapter, verdicts):
    "Lines to print, and the number of mutants that survived without a judgement."
    known, lines, open_ends = equivalent(chapter), [], 0
    for name, mutants_of in verdicts.items():
        judged = known.get(name, {})
        survived = [what for what, verdict in mutants_of.items() if verdict == "right"]
        left = [what for what in survived if what not in judged]
        stale = [what for what in judged if what not in survived]
        open_ends += len(left)
        lines.append(
            f"{name}: {len(mutants_of)} mutants, {len(mutants_of) - len(survived)} rejected, "
            f"{len(survived) - len(left)} equivalent, {len(left)} survived"
        )
        lines += [f"    SURVIVED  {what}" for what in left]
        lines += [f"    judged equivalent, but gone or rejected: {w}" for w in stale]
    return lines, open_ends


def command(names, exercises=()):
    "The author's command: every named chapter's mutants; the number left unjudged."
    open_ends = 0
    for path in names:
        chapter = path.stem
        if not (ROOT / "utils" / "checks" / f"{chapter[3:]}.py").exists():
            continue
        began = time.perf_counter()
        verdicts = judge(chapter[3:], exercises)
        lines, left = report(chapter, verdicts)
        count = sum(map(len, verdicts.values()))
        seconds = time.perf_counter() - began
        print(f"{chapter}: {count} mutants in {seconds:.0f} s", *lines, sep="\n  ")
        open_ends += left
    if open_ends:
        print(
            f"{open_ends} survived: a case for each, or a line in "
            f"{JUDGED.relative_to(ROOT)}/NN_slug.json that says why it is equivalent."
        )
    return open_ends


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
