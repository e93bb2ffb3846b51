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
    same(
        "mean([2, 4, 9])",
        answer([2, 4, 9]),
        5.0,
    )
    same(
        "mean([1, 2])",
        answer([1, 2]),
        1.5,
    )
    same("mean([7.5])", answer([7.5]), 7.5, rule="One value is its own mean.")
    values = np.array([0.5, 0.25, 3.0])
    same("three values that are no whole numbers", answer(values), 1.25)
