"""For each exercise, answers that a reader plausibly gives and a check must reject.

A module a chapter, named as its checks:

    wrong = WrongAnswers("descent")

    @wrong("mse", says="divide by the number")
    def sum_of_squares(y_hat_N, y_N):
        return ((y_hat_N - y_N) ** 2).sum()

`says` must stand in the report: the message names the slip, not only that there is one.
"""

from importlib import import_module
from pathlib import Path

SLUGS = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


class WrongAnswers(dict):
    "{exercise: [(name, answer, says)]} of one chapter."

    def __init__(self, slug):
        super().__init__()
        self.checks = import_module(f"utils.checks.{slug}")

    def __call__(self, exercise, says):
        def keep(answer):
            self.add(exercise, answer.__name__, answer, says)
            return answer

        return keep

    def value(self, exercise, answer, says):
        "A wrong answer that is a plain value."
        self.add(exercise, repr(answer), answer, says)

    def add(self, exercise, name, answer, says):
        if exercise not in self.checks.chapter.exercises:
            raise KeyError(f"{self.checks.__name__} has no exercise {exercise!r}")
        self.setdefault(exercise, []).append((name, answer, says))


def wrong_answers(slug):
    "The wrong answers of one chapter."
    return import_module(f"tests.wrong_answers.{slug}").wrong
