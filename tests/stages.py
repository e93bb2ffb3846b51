"""What the README's test command runs, stage by stage, offline.

unit       pytest over tests/: utils, wrong answers, structure, a browser
solutions  nbval: every stored output of every solution is compared
chapters   nbval-lax: every cell of every chapter runs as a reader gets it
"""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from utils.course import author

ROOT = author.ROOT
NBVAL = (
    "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "tests.nbval_fixes",
    "-p", "tests.notebook_costs", "-p", "no:hypothesispytest",
    "-W", "ignore::DeprecationWarning",
)  # fmt: skip
STAGES = {
    "unit": ["tests"],
    "solutions": ["--nbval", *NBVAL, "--nbval-sanitize-with=tests/sanitize.cfg"],
    "chapters": ["--nbval-lax", *NBVAL],
}
NBVAL_STAGES = ("solutions", "chapters")


def command(stage, extra=()):
    "The pytest command of a stage. `extra`: notebooks of it, or pytest's own options."
    arguments = [sys.executable, "-m", "pytest", *STAGES[stage], *extra]
    if stage != "unit" and not any(str(e).endswith(".ipynb") for e in extra):
        arguments += map(str, sorted((ROOT / stage).glob("*.ipynb")))
    return arguments


def run_stages(stages=(), extra=()):
    "Run the stages (all when none is named); the number that failed."
    if stages and extra and "unit" in stages:
        STAGES["unit"] = []  # the files that were named, not all of tests/
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        print(f"No stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
        return 1
    totals, failed = dict.fromkeys(("passed", "failed", "skipped"), 0), 0
    for stage in stages or STAGES:
        print(f"\n==== {stage} ====", flush=True)
        began = time.perf_counter()
        code, counts, outbound = run_stage(stage, extra)
        if outbound:
            print(
                f"{stage}: connections that would have left this machine:\n{outbound}"
            )
        failed += bool(code or outbound)
        counts["failed"] += bool(outbound)
        totals = {name: totals[name] + counts[name] for name in totals}
        print(
            f"==== {stage}: {time.perf_counter() - began:.0f} s, exit code {code} ===="
        )
    line = ", ".join(f"{number} {name}" for name, number in totals.items())
    print(f"\n{line}", flush=True)
    return failed


def run_stage(stage, extra=()):
    "One stage: pytest's exit code, the counts, and what tried to leave this machine."
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, **author.environment(folder)}
        environ["OMP_NUM_THREADS"] = os.environ.get("COURSE_THREADS", "1")
        report = Path(folder) / "report.xml"
        arguments = [*command(stage, extra), f"--junitxml={report}"]
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
