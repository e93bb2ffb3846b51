"""Published figures of two training runs of 65 and 70 billion weights, with sources."""

import json
from pathlib import Path


def seventy() -> dict[str, dict[str, float]]:
    "{run: {what: number}}; the source of each stands in seventy.json."
    found = {}
    for row in rows():
        found.setdefault(row["run"], {})[row["what"]] = row["value"]
    return found


def rows() -> list[dict]:
    "[{run, what, value, source}], as they stand in the file."
    path = Path(__file__).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8"))["figures"]
