"""Measure this machine, once, and keep every sample: python3 start.py measure [NAME]

Writes utils/data/measurements/NAME.json: matrix products and copies in each number
format, the naive and the right timer, transfers, training steps, memory, the cost of a
launch, the loader; streams, operators, attention, our Triton kernels and a ladder of
training steps of GPT-2; beside them the machine, the versions, the date, the commit and
the command. What a machine lacks is left out, with a line that says why. Chapter 13 shows
every such file beside the machine it runs on.

  NAME          of the file, in a-z, 0-9 and - (default: from the chip's name)
  --device D    cuda, mps or cpu (default: the fastest here)
  --only WHAT   one kind of measurement; may be given several times
  --minutes M   stop after so many; the kinds come in the order of importance
  --apart       the riskier kinds in processes of their own: one that hangs is ended
  --quick       small sizes, a few seconds
  --out FILE    write there instead
  --commit HASH of the course, where the machine has no git to ask
  --print       write to standard output, no file
"""

import argparse
import datetime
import json
import math
import os
import re
import shlex
import sys
import time
from pathlib import Path

from utils.bench import apart, findings, machine, recordings
from utils.bench.kinds import ALL
from utils.bench.kinds.device import Device, left_out
from utils.files import ROOT, write_whole

EVERY = 3  # seconds, at most, of rows that a killed run loses


def chosen(only=None):
    "Names of the kinds that are asked for, in order; ValueError for an unknown one."
    unknown = set(only or ()) - set(ALL)
    if unknown:
        raise ValueError(
            f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}"
        )
    return [name for name in ALL if not only or name in only]


def record(dev=None, only=None, quick=False, tell=lambda text: None, minutes=None,
           keep=None, commit=None):  # fmt: skip
    """Measure -> the dictionary that the file holds.

    minutes: kinds and parts that no longer fit are left out. keep: called with the
    dictionary as it grows, at the latest after each kind; a kind that fails is then left
    out instead of raising its error.
    """
    dev = dev or Device()
    kinds = chosen(only)
    dev.deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    data = {
        "format": recordings.FORMAT,
        "machine": machine.machine(dev),
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "commit": commit or machine.commit(),
        "quick": quick,
        "load_before": load and round(load, 1),  # who wanted a core: others' too
        "took": {}, "clocks": [], "left_out": [], "rows": [],
    }  # fmt: skip
    kept = time.monotonic()
    for name in kinds:
        if dev.left() <= 0:
            data["left_out"].append(left_out(name, "no time was left"))
            continue
        tell(f"{name} ...")
        start = time.monotonic()
        try:
            for row in ALL[name](dev, quick):
                if row is None:  # a good moment to keep what is there
                    kept = -math.inf
                else:
                    data["left_out" if "why" in row else "rows"].append(row)
                if keep and time.monotonic() > kept + EVERY:
                    keep(data)
                    kept = time.monotonic()
        except Exception as error:
            if not keep:
                raise
            data["left_out"].append(left_out(name, error))
        data["took"][name] = round(time.monotonic() - start, 2)
        clocks = machine.clocks() if dev.kind == "cuda" else None
        data["clocks"] += [{"after": name, **clocks}] if clocks else []
        if keep:
            keep(data)
    if "matmul" in kinds and not quick:
        data["clocks_under_load"] = dev.loaded_clocks()
    return data


def _options(arguments):
    "Arguments of the command, parsed."
    parser = argparse.ArgumentParser(
        "measure", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", nargs="?")
    parser.add_argument("--device")
    parser.add_argument("--only", action="append", choices=list(ALL))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--commit")
    parser.add_argument("--print", action="store_true")
    options = parser.parse_args(arguments)
    if options.name and not re.fullmatch(r"[a-z0-9-]+", options.name):
        parser.error(f"a name has a-z, 0-9 and - only, not {options.name!r}")
    if options.minutes is not None and not options.minutes > 0:
        parser.error("--minutes is a number above 0")
    if options.apart and not options.out:
        parser.error("--apart wants --out FILE")
    if not options.apart:
        try:
            options.dev = Device(options.device)
        except (ValueError, RuntimeError) as error:
            parser.error(str(error))
    return options


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    told = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    path = options.out
    plain = [a if a != str(path) else path.name for a in arguments]  # no folder's name
    command = shlex.join(["python3", "start.py", "measure", *plain])
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)

    def keep(data):
        write_whole(path, recordings.text_of({**data, "command": command}))

    if options.apart:
        data = apart.run(options, chosen(options.only), path, keep, told)
        if data is None:
            told("nothing was measured: see the lines above")
            return 1
    else:
        data = record(options.dev, options.only, options.quick, told, options.minutes,
                      keep if path else None, options.commit)  # fmt: skip
    data["command"] = command
    if options.print:
        print(json.dumps(data, indent=1))
        return 0
    if not path:
        path = recordings.FOLDER / f"{options.name or recordings.name_of(data)}.json"
        path.parent.mkdir(exist_ok=True)
    write_whole(path, recordings.text_of(data))
    print("\n".join(findings.lines(data)))
    near = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    print(f"{recordings.describe(data)}\nwritten: {near}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
