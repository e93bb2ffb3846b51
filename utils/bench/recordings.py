"""What `python3 start.py measure` recorded, read again; and the form of such a file.

A recording is {format, machine, date, commit, ..., left_out, rows}; a row is {what,
labels ..., work, unit, seconds: [...]}; left_out tells what is missing: [{what, labels
..., why}]. A recording in which kinds are missing is a valid one.
"""

import json
import re
import statistics
from pathlib import Path

from utils.files import ROOT

FOLDER = ROOT / "utils" / "data" / "measurements"
FORMAT = 1
KINDS = (
    "matmul", "copy", "timer", "transfer", "step", "memory", "launch", "loader",
    "stream", "operator", "attention", "kernel", "rung",
)  # fmt: skip
FIRST = KINDS[:8]  # chapter 13's: every recording that ships has them


def recordings(folder=FOLDER):
    "{name: recording} of every file, accelerators first; a damaged one raises ValueError."
    if not Path(folder).is_dir():
        raise ValueError(f"{str(folder)!r} is no folder of recordings")
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']}, this reads {FORMAT}")
            for row in data["rows"]:
                if row["what"] != "memory" and not all(t > 0 for t in row["seconds"]):
                    raise ValueError(f"a {row['what']} without seconds")
            data["machine"]["device"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is no recording: {error}") from None
        found[path.stem] = data
    order = ("cuda", "mps", "cpu")
    kind = lambda item: (order.index(item[1]["machine"]["device"]), item[0])  # noqa: E731
    return dict(sorted(found.items(), key=kind))


def find(recording, what, **labels):
    "The rows of one kind whose labels are these; ValueError for a kind that is not measured."
    if what not in KINDS:
        raise ValueError(f"{what!r} is not measured; known: {', '.join(KINDS)}")
    return [
        row
        for row in recording["rows"]
        if row["what"] == what and all(row.get(k) == v for k, v in labels.items())
    ]


def absent(recording):
    "{kind: why} of the kinds without a row."
    there = {row["what"] for row in recording["rows"]}
    told = {row["what"]: row["why"] for row in recording.get("left_out", ())}
    return {k: told.get(k, "not asked for") for k in KINDS if k not in there}


def rate(row):
    "Work a second, from the median sample: a row's `work` over its `seconds`."
    if "work" not in row:
        raise ValueError(f"a row of {row.get('what')!r} has no work: it has no rate")
    return row["work"] / statistics.median(row["seconds"])


def describe(recording):
    "One line: chip, versions, date, commit."
    seen = recording["machine"]
    chip = (seen["accelerator"] or {}).get("name")
    chip = chip or f"{seen['processor']}, {seen['cores']} cores"
    many = "s" if seen["threads"] != 1 else ""
    threads = f", {seen['threads']} thread{many}" if seen["device"] == "cpu" else ""
    return (
        f"{chip}{threads}, torch {seen['torch']}, {recording['date']}, "
        f"commit {recording['commit'] or 'unknown'}"
    )


def missing(found):
    "A sentence on what no recording covers yet; empty when a CUDA machine is there."
    if any(data["machine"]["device"] == "cuda" for data in found.values()):
        return ""
    return (
        "No recording of a CUDA machine ships with the course yet, so no GPU number is "
        "shown. On one, `python3 start.py measure` writes it."
    )


def name_of(recording):
    "The name of its file: the chip, in a-z, 0-9 and -."
    seen = recording["machine"]
    chip = (seen["accelerator"] or {}).get("name") or f"cpu-{seen['cores']}core"
    return re.sub(r"[^a-z0-9]+", "-", chip.lower()).strip("-")


def text_of(data):
    "JSON with one line a measurement, and one for each that was left out."
    lists = {k: v for k, v in data.items() if k in ("clocks", "left_out", "rows")}
    head = json.dumps({k: v for k, v in data.items() if k not in lists}, indent=1)
    told = [head[:-2]]
    for name, rows in lists.items():
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        told.append(f' "{name}": [\n{lines}\n ]' if rows else f' "{name}": []')
    return ",\n".join(told) + "\n}\n"
