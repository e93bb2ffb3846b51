"""Measure in several processes: a kernel that hangs or faults takes only its own along."""

import json
import os
import signal
import subprocess
import sys
import time

from utils.bench.kinds import GROUPS
from utils.bench.kinds.device import left_out
from utils.files import ROOT

GRACE = 25  # seconds beyond its share before a process is ended: imports, a compilation


def run(options, kinds, path, keep, tell):
    """Every group of kinds in its own process -> the merged recording, or None.

    options: as measure's; kinds: that are asked for; keep(data): after each group. Its
    rows so far lie beside `path` while a group runs, as NAME.part.json.
    """
    total = 60 * options.minutes if options.minutes else None
    start, whole, lost = time.monotonic(), None, []
    part = path.with_name(f"{path.stem}.part.json")
    for group, share in GROUPS:
        asked = [name for name in group if name in kinds]
        if not asked:
            continue
        part.unlink(missing_ok=True)
        seconds = None
        if total:
            seconds = min(share * total, total - (time.monotonic() - start))
            if seconds < 10:
                lost += [left_out(name, "no time was left") for name in asked]
                continue
        why = _process(_command(options, asked, part, seconds), seconds, tell)
        data = _read(part)
        if why:
            tell(f"{', '.join(asked)}: {why}")
            done = set(data["took"]) if data else set()
            lost += [left_out(name, why) for name in asked if name not in done]
        whole = merged(whole, data)
        if whole:
            keep({**whole, "left_out": whole["left_out"] + lost})
    part.unlink(missing_ok=True)
    return whole and {**whole, "left_out": whole["left_out"] + lost}


def merged(whole, data):
    "Two recordings of one machine as one; either may be None."
    if whole is None or data is None:
        return whole or data
    more = {name: whole[name] + data[name] for name in ("clocks", "left_out", "rows")}
    return {**whole, **more, "took": {**whole["took"], **data["took"]}}


def _command(options, kinds, part, seconds):
    command = [sys.executable, "-m", "utils.bench.measure", "--out", str(part)]
    for name in kinds:
        command += ["--only", name]
    for name in ("device", "commit"):
        if getattr(options, name):
            command += [f"--{name}", getattr(options, name)]
    command += ["--quick"] if options.quick else []
    return command + (["--minutes", f"{seconds / 60:.4f}"] if seconds else [])


def _process(command, seconds, tell):
    "Run it, and end it with all its children when it is late -> what went wrong, or ''."
    late = seconds + GRACE if seconds else None
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=os.name != "nt",
                             stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        code = child.wait(late)
    except subprocess.TimeoutExpired:
        return f"ended after {late:.0f} s"
    finally:  # late, or Ctrl-C, which does not reach a session of its own
        if child.poll() is None:
            if os.name == "nt":
                child.kill()
            else:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return f"its process ended with code {code}" if code else ""


def _read(part):
    "What a group has written; None when it wrote nothing whole."
    try:
        return json.loads(part.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
