"""Chapter 00: one toy exercise, to show how exercises work."""

import numpy as np

from utils.exercise import Chapter, same

chapter = Chapter("00_start_here")


@chapter.exercise(
    "A mean is a sum shared out evenly.",
    "sum(values) adds them up, len(values) counts them.",
    "return sum(values) / len(values)",
)
def mean(answer):
    "The arithmetic mean."
    same(
        "mean([2, 4, 9])",
        answer([2, 4, 9]),
        5.0,
        slips={
            "This is the sum: divide it by how many there are.": 15,
            "This is the middle value, the median: add up and divide.": 4,
            "Whole-number division `//` drops what is behind the point, or you divided "
            "by 2: divide by len(values).": 7.5,
        },
    )
    same(
        "mean([1, 2])",
        answer([1, 2]),
        1.5,
        slips={"Whole-number division `//` drops the half: use `/`.": 1},
    )
    same("mean([7.5])", answer([7.5]), 7.5, slip="One value is its own mean.")
    values = np.array([0.5, 0.25, 3.0])
    same("three values that are no whole numbers", answer(values), 1.25)
