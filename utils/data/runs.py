"""Published training runs of language models, each figure with its source."""

import csv
from pathlib import Path

NUMBERS = {"weights", "tokens", "chip_hours", "mwh"}


def runs() -> list[dict]:
    """Runs: weights that a token uses, tokens read, chip (a name in accelerators.csv),
    chip_hours, mwh (None where not published), source, note.
    """
    path = Path(__file__).with_name("runs.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {
                column: (float(text) if text else None) if column in NUMBERS else text
                for column, text in row.items()
            }
            for row in csv.DictReader(file)
        ]
