"""What the README's test command runs, stage by stage, offline, several at a time.

unit       pytest over tests/: utils, checks and slips, structure, a browser
solutions  nbval: every stored output of every solution is compared
chapters   nbval-lax: every cell of every chapter runs as a reader gets it
NN ...     what these chapters need: their checks and slips, modules, two notebooks each

Notebooks are run two at a time (three gain nothing on two cores), files of unit tests three
at a time, for a third of them wait (for ranks, servers, a browser); with one core, one at a
time. Each file's tests run in order in one process. Every stage says what took longest.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from utils.course import author, running

ROOT = author.ROOT
AT_A_TIME = min(2, os.cpu_count() or 1)
NBVAL = (
    "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "tests.nbval_fixes",
    "-p", "tests.notebook_costs", "-p", "no:hypothesispytest",
    "-W", "ignore::DeprecationWarning",
)  # fmt: skip
STAGES = {
    "unit": ["tests", "--durations=12", "--durations-min=2", "-p", "no:nbval"],
    "solutions": ["--nbval", *NBVAL, "--nbval-sanitize-with=tests/sanitize.cfg"],
    "chapters": ["--nbval-lax", *NBVAL],
}
NBVAL_STAGES = ("solutions", "chapters")


def command(stage, extra=()):
    "The pytest command of a stage. `extra`: notebooks of it, or pytest's own options."
    extra = [str(e) for e in extra]
    named = [e for e in extra if e.endswith(".ipynb")]
    files = named or sorted(map(str, (ROOT / stage).glob("*.ipynb")))
    if stage == "unit":
        files, several = [], not any(".py" in e for e in extra)
    else:
        files = [] if named else files
        several = len(named or files) > 1
    workers = AT_A_TIME + (stage == "unit" and AT_A_TIME > 1)
    split = ["-n", str(workers), "--dist", "loadfile"] if several else []
    if split and stage == "unit":
        split.append(
            "--no-loadscope-reorder"
        )  # tests/conftest.py has put slow ones first
    return [sys.executable, "-m", "pytest", *STAGES[stage], *split, *extra, *files]


def of_chapters(names):
    "{stage: what to run} for some chapters: ['03_backprop', ...]."
    from tests.test_earned import EARNED

    files, words = ["test_exercises", "test_structure", "test_earned"], []
    for name in names:
        slug = name[3:]
        modules = {slug, *(m.rpartition(".")[2] for m in EARNED.get(slug, ()))}
        source = (ROOT / "solutions" / f"{name}.ipynb").read_text(encoding="utf-8")
        modules |= {"practice"} & set(re.findall(r"from utils\.(\w+)", source))
        words += [name, f"solutions/{name}", slug]
        for module in sorted(modules):
            if (ROOT / "tests" / f"test_{module}.py").exists():
                files.append(f"test_{module}")
                words.append(f"test_{module}")
    tests = [f"tests/{file}.py" for file in dict.fromkeys(files)]
    return {
        "unit": [*tests, "-n", str(AT_A_TIME), "-k", " or ".join(dict.fromkeys(words))],
        "solutions": [f"solutions/{name}.ipynb" for name in names],
        "chapters": [f"chapters/{name}.ipynb" for name in names],
    }


def plan(words, extra=()):
    """What the words on the command line ask for: [(stage, what else pytest is told)].

    Stages, chapters' numbers, files of tests or notebooks; ValueError for another word.
    """
    files = [w for w in words if "." in w and Path(w.partition("::")[0]).exists()]
    chapters = [w for w in words if re.match(r"\d\d", w)]
    stages = [w for w in words if w in STAGES]
    for word in words:
        if word not in (*files, *chapters, *stages):
            raise ValueError(
                f"No stage {word!r}; there are: {', '.join(STAGES)}, a chapter's number"
            )
    named = [path.stem for path in author.named(chapters)] if chapters else []
    steps = [(s, [*more, *extra]) for s, more in of_chapters(named).items() if named]
    if steps and not stages and not files:
        return steps
    return steps + [(stage, [*files, *extra]) for stage in stages or STAGES]


def run_stages(words=(), extra=()):
    "Run the stages (all when none is named); the number that failed."
    try:
        steps = plan(list(words), extra)
    except ValueError as error:
        print(error)
        return 1
    totals, failed, took = dict.fromkeys(("passed", "failed", "skipped"), 0), 0, []
    for stage, more in steps:
        print(f"\n==== {stage} ====", flush=True)
        began = time.perf_counter()
        code, counts, outbound = run_stage(stage, more)
        if outbound:
            print(
                f"{stage}: connections that would have left this machine:\n{outbound}"
            )
        failed += bool(code or outbound)
        counts["failed"] += bool(outbound)
        totals = {name: totals[name] + counts[name] for name in totals}
        took.append(f"{stage} {time.perf_counter() - began:.0f} s")
        print(f"==== {took[-1]}, exit code {code} ====")
    line = ", ".join(f"{number} {name}" for name, number in totals.items())
    print(f"\n{', '.join(took)}\n{line}", flush=True)
    return failed


def run_stage(stage, extra=()):
    "One stage: pytest's exit code, the counts, and what tried to leave this machine."
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, **running.environment(folder)}
        environ["OMP_NUM_THREADS"] = os.environ.get("COURSE_THREADS", "1")
        # Else each of some hundreds of processes compiles the course's modules anew.
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        report = Path(folder) / "report.xml"
        arguments = [*command(stage, extra), f"--junitxml={report}"]
        if stage == "unit" and any(".py" in str(e) for e in extra):
            arguments.remove("tests")  # the files that were named, not all of tests/
        code = subprocess.call(arguments, cwd=ROOT, env=environ)
        outbound = Path(environ["COURSE_OUTBOUND"])
        said = outbound.read_text(encoding="utf-8") if outbound.exists() else ""
        return code, _counts(report), said


def _counts(report):
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    suite = ET.parse(report).getroot().find("testsuite")
    number = {k: int(suite.get(k)) for k in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    return {"passed": passed, "failed": failed, "skipped": number["skipped"]}
