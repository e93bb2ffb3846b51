"""Chapter 00: one toy exercise, to show how exercises work."""

import numpy as np

from utils.exercises import Chapter, same

chapter = Chapter("00_start_here")


@chapter.exercise(
    "A mean is a sum shared out evenly.",
    "sum(values) adds them up, len(values) counts them.",
    "return sum(values) / len(values)",
)
def mean(answer):
    "The arithmetic mean."
    rule = "Add up all the values, then divide by how many there are."
    same("mean([2, 4, 9])", answer([2, 4, 9]), 5.0, rule)
    same("mean([1, 2, 5, 3])", answer([1, 2, 5, 3]), 2.75, rule)
    same(
        "mean([3, 3, 6])",
        answer([3, 3, 6]),
        4.0,
        "A value that comes twice counts twice.",
    )
    same("mean([7.5])", answer([7.5]), 7.5, "One value is its own mean.")
    values = np.array([0.5, 0.25, -3.0, 1.0])
    same("mean of the array [0.5, 0.25, -3, 1]", answer(values), -0.3125, rule)
