"""This course's code against the usual libraries, as ratios: start.py bench [NAMES]

Ours and theirs run in turns in one process on one thread and are timed in CPU seconds,
so that a busy machine slows both alike. Printed: the median ratio of the pairs, their
spread, the bar that the course set itself, and whether it was met.

  NAMES      only benchmarks whose name contains one of these words
  --peer DIR the course's engines against the code in another checkout as well: one in
             micrograd's style (a scalar Value) or needle's (CMU 10-414, hw1 to hw4).
             May be given again; `--peer DIR peer` runs only the peers' rows. A peer is
             imported: give only code that you would run. It never counts as missed
  --list     names and bars
  --strict   exit with 1 when a bar is missed (otherwise a miss is only printed)
  --json     one JSON object instead of the table
  --write    the table of all benchmarks as utils/bench/results.md as well
"""

import os
import sys

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    if "numpy" not in sys.modules:  # too late to matter afterwards
        os.environ.setdefault(variable, "1")

import argparse  # noqa: E402
import datetime  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402

from utils import files  # noqa: E402
from utils.bench import machine  # noqa: E402
from utils.bench.peers import known as known_peers  # noqa: E402
from utils.bench.ratio import REGISTRY  # noqa: E402

RESULTS = Path(__file__).with_name("results.md")


def discover():
    "Import utils/bench/SLUG.py of every chapter that has one, which fills the registry."
    for chapter in sorted((files.ROOT / "solutions").glob("[0-9][0-9]_*.ipynb")):
        slug, here = chapter.stem[3:], Path(__file__).parent
        if (here / f"{slug}.py").exists() or (here / slug / "__init__.py").exists():
            import_module(f"utils.bench.{slug}")
    return REGISTRY


def measure(chosen, tell=lambda text: None):
    "Run benchmarks -> one dictionary each, in order; one that raises says so."
    rows = []
    for bench in chosen:
        tell(f"{bench.name} ...")
        row = {"name": bench.name, "bar": bench.bar}
        try:
            ratio = bench.function()
            row |= {
                "ratio": ratio.median, "lowest": min(ratio.samples),
                "highest": max(ratio.samples), "pairs": len(ratio.samples),
                "met": bench.met(ratio.median), "what": ratio.what, "note": ratio.note,
            }  # fmt: skip
        except ImportError as error:
            row |= {"met": None, "error": f"not run: {error}"}
        except Exception as error:
            what = f"failed: {type(error).__name__}: {error}"
            row |= {"met": None if bench.peer else False, "error": what}
        rows.append(row)
    return rows


def _told(row):
    "-> (median, spread, what was divided by what, or why there is nothing), as texts."
    if "error" in row:
        return "-", "-", row["error"]
    spread = f"{row['lowest']:.3g} .. {row['highest']:.3g}"
    what = row["what"] + (f"; {row['note']}" if row["note"] else "")
    return f"{row['ratio']:.3g}", spread, what


def table(rows):
    "The rows of `measure` as text."
    head = ("benchmark", "ratio", "spread", "bar", "")
    body = []
    for row in rows:
        ratio, spread, what = _told(row)
        verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
        end = what if "error" in row else verdict
        body.append((row["name"], ratio, spread, row["bar"], end))
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(5)]
    text = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths)) for line in [head, *body]
    ]
    notes = [f"{row['name']}: {_told(row)[2]}" for row in rows if "error" not in row]
    return "\n".join([*(line.rstrip() for line in text), "", *notes])


def page(rows, about, seconds):
    "The rows of `measure` as a page: what was divided by what, and by how much."
    found = [row.get("met") for row in rows if row["bar"]]
    lines = [
        "# Benchmarks of one run", "",
        f"{about['machine']}, {about['date']}. One thread; CPU seconds unless a row says "
        f"otherwise. {found.count(True)} of {len(found)} bars met, {found.count(None)} not "
        f"run here, in {seconds:.0f} s.",
        "", "Made by `python3 start.py bench --write`; a row's bar stands in "
        "`utils/bench/`, beside its code. Your machine: `python3 start.py bench`.", "",
        "| benchmark | median | spread | bar | met | what |",
        "|---|---:|---:|---:|---|---|",
    ]  # fmt: skip
    for row in rows:
        ratio, spread, what = _told(row)
        met = {True: "yes", False: "**no**", None: ""}[row["met"]]
        cells = (ratio, spread.replace("..", "to"), row["bar"], met, what)
        told = [c.replace("|", "\\|").replace("\n", " ") for c in cells]
        lines.append(f"| `{row['name']}` | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def _chosen(known, names):
    "The benchmarks that the words on the command line name; without words, all."

    def named(bench, word):
        return word in bench.name or (word == "peer" and bench.peer)

    for word in names:
        if not any(named(bench, word) for bench in known.values()):
            hint = " (`peer` goes with --peer DIR)" if word == "peer" else ""
            raise ValueError(
                f"no benchmark contains {word!r}{hint}; known: {', '.join(known)}"
            )
    every = known.values()
    return [b for b in every if not names or any(named(b, word) for word in names)]


def main(arguments=None):
    began = time.perf_counter()
    parser = argparse.ArgumentParser(
        "bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--peer", action="append", default=[], metavar="DIR")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    if options.write and (options.names or options.peer):
        parser.error(
            "--write keeps the table of all our benchmarks: without names, peers"
        )
    known = dict(discover())
    for folder in options.peer:
        for bench in known_peers.benchmarks(folder, taken=known):
            known[bench.name] = bench
    try:
        chosen = _chosen(known, options.names)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        print("\n".join(f"{b.name}  {b.bar}".rstrip() for b in chosen))
        return 0
    rows = measure(chosen, tell=lambda text: print(text, file=sys.stderr, flush=True))
    about = {
        "machine": machine.in_one_line(),
        "date": f"{datetime.date.today():%Y-%m-%d}",
    }
    seconds = time.perf_counter() - began
    if options.write:
        files.write_whole(RESULTS, page(rows, about, seconds))
    if options.json:
        about["seconds"] = round(seconds, 1)
        print(json.dumps({**about, "rows": rows}, indent=1))
    else:
        print(f"{about['machine']}, {about['date']}")
        print("One thread; CPU seconds unless a row says otherwise.\n")
        print(table(rows).rstrip())
        print(f"\n{len(rows)} benchmark{'s' * (len(rows) != 1)} in {seconds:.0f} s.")
    return int(options.strict and any(row["met"] is False for row in rows))
