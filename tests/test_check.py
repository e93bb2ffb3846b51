"""check.close, expect_failure and reveal: what they accept and what they say."""

import numpy as np
import pytest

from utils import check


def said(capsys):
    "The one line that was printed."
    out = capsys.readouterr().out
    assert out.count("\n") == 1, out
    return out.rstrip("\n")


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (1.0, 1, "()"),
        ([1, 2], (1.0, 2.0), "(2,)"),
        (np.ones((2, 3)), np.ones((2, 3)) + 1e-7, "(2, 3)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "(0, 4)"),
        ([], [], "(0,)"),
        (np.array([True, False]), [1, 0], "(2,)"),
        (np.array([True, False]), np.array([True, False]), "(2,)"),
        (np.uint8(3), np.uint8(3), "()"),
        (1 + 2j, 1 + 2j, "()"),
        (10**12, 10**12, "()"),
    ],
)
def test_close_says_what_it_compared(ours, theirs, shape, capsys):
    check.close("both", ours, theirs)
    assert said(capsys) == f"ok  both  shape {shape}, every value within 1e-06"


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([1.0], 1.0, "both: shape (1,), expected (). Why."),
        (np.ones((2, 1)), np.ones((1, 2)), "shape (2, 1), expected (1, 2)"),
        ([], [1.0], "shape (0,), expected (1,)"),
        ([1.0, np.nan], [1.0, 2.0], "holds nan or inf. Why."),
        ([np.inf], [np.inf], "holds nan or inf"),
        ([np.nan], [np.nan], "holds nan or inf"),
        ([1.0], [np.nan], "largest difference nan"),
        ([1.0], [np.inf], "largest difference inf"),
        ([1.0, 2.0], [1.0, 2.5], "largest difference 0.5, allowed 1e-06. Why."),
        (1.0, 1.0 + 2e-6, "largest difference 2e-06"),
        (np.array([True]), np.array([False]), "largest difference 1"),
        (1j, 1.0, "largest difference 1.4"),
    ],
)
def test_close_says_what_differs(ours, theirs, says):
    with pytest.raises(AssertionError) as error:
        check.close("both", ours, theirs, hint="Why.")
    assert says in str(error.value)


def test_close_without_a_hint_ends_with_its_sentence():
    with pytest.raises(AssertionError, match=r"expected \(1,\)\.$"):
        check.close("both", 1, [1])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int8])
def test_close_does_not_wrap_round(kind):
    low, high = np.array([np.iinfo(kind).min]), np.array([np.iinfo(kind).max])
    with pytest.raises(AssertionError, match="largest difference"):
        check.close("both", low.astype(kind), high.astype(kind), atol=1)


def test_close_has_a_tolerance():
    check.close("both", [1.0], [1.4], atol=0.5)
    with pytest.raises(AssertionError):
        check.close("both", [1.0], [1.4], atol=0.3)


def test_close_takes_tensors(capsys):
    torch = pytest.importorskip("torch")
    ones = torch.ones(2, requires_grad=True)
    for ours in (ones, ones * 2 - 1, ones.to(torch.bfloat16), ones.int(), ones.half()):
        check.close("both", ours, [1.0, 1.0])
        assert "shape (2,)" in said(capsys)
    check.close("both", [ones, ones * 1], np.ones((2, 2)))
    check.close("both", torch.tensor(2.0), 2)
    with pytest.raises(AssertionError, match="largest difference 1"):
        check.close("both", ones.to(torch.bfloat16), [1.0, 2.0])


@pytest.mark.parametrize("grid", [[1, 2.5], (1,), np.arange(3), 4, True])
def test_as_array_of_what_numpy_knows(grid):
    assert np.array_equal(check.as_array(grid), np.asarray(grid))


# ---- expect_failure ----


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("first\nsecond"), "first"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (RuntimeError("  \n"), "RuntimeError"),
        (AssertionError("off by one"), "off by one"),
        (NotImplementedError("a RuntimeError, too"), "a RuntimeError, too"),
    ],
)
def test_a_failure_that_was_hoped_for_is_told(error, says, capsys):
    with check.expect_failure("no broadcasting"):
        raise error
    assert said(capsys) == f"caught, as hoped (no broadcasting): {says}"


def test_a_long_failure_breaks_between_words(capsys):
    words = "shapes (32,784) and (10,784) not-aligned " * 6
    with check.expect_failure("a matrix the wrong way round"):
        raise ValueError(words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 88
    assert " ".join(lines).endswith(words.strip())


def test_no_failure_is_a_failure():
    meant = pytest.raises(AssertionError, match="this was meant to fail: no reason")
    with meant, check.expect_failure("no reason"):
        pass


@pytest.mark.parametrize("error", [TypeError, KeyboardInterrupt, NameError])
def test_other_errors_pass_through(error):
    with pytest.raises(error), check.expect_failure("a shape"):
        raise error


def test_the_errors_can_be_named(capsys):
    with check.expect_failure("a type", TypeError, KeyError):
        raise KeyError("w")
    assert said(capsys).endswith("'w'")
    with pytest.raises(ValueError), check.expect_failure("a type", TypeError):
        raise ValueError


# ---- reveal ----


class Mute:
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __format__ = None


@pytest.mark.parametrize(
    ("guess", "says"),
    [
        (None, "no guess yet"),
        (..., "no guess yet"),
        (3, "you said 3 GB"),
        (0.123456, "you said 0.123 GB"),
        (np.float32(2.5), "you said 2.5 GB"),
        (np.int64(7), "you said 7 GB"),
        (float("nan"), "you said nan GB"),
        (10**400, "you said a int that cannot be shown"),
        ("about two", "you said about two"),
        ("", "you said "),
        ([1, 2], "you said [1, 2]"),
        (np.arange(3), "you said [0 1 2]"),
        ("x" * 5000, "you said " + "x" * 80 + ";"),
        (print, "you said <built-in function print>"),
        (Mute(), "you said a Mute that cannot be shown"),
        (Mute, "you said <class"),
    ],
    ids=range(16),
)
def test_any_guess_can_be_revealed(guess, says, capsys):
    check.reveal(guess, 4.0, "It had to be.", unit="GB")
    out = capsys.readouterr().out
    assert out.startswith(says), out
    assert out.endswith("; it is 4 GB. It had to be.\n")


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        (2.0, "2"),
        (np.float64(0.5), "0.5"),
        ("yes", "yes"),
        (True, "1"),
        ([1, 2], "[1, 2]"),
        ("y" * 200, "y" * 200),
        (Mute(), "a Mute that cannot be shown"),
    ],
)
def test_any_truth_can_be_revealed(truth, says, capsys):
    check.reveal(None, truth, "So.")
    assert said(capsys) == f"no guess yet; it is {says}. So."


def test_a_tensor_can_be_revealed(capsys):
    torch = pytest.importorskip("torch")
    check.reveal(torch.ones(2), torch.tensor(2.0), "So.")
    assert said(capsys) == "you said tensor([1., 1.]); it is tensor(2.). So."
    assert check.closeness(3.9, torch.tensor(4.0)) == ("within 10 %", True)
    assert check.closeness((2, 3), torch.ones(2, 3).shape) == ("right", True)


@pytest.mark.parametrize(
    ("guess", "truth", "says", "near"),
    [
        (4, 4.0, "right", True),
        (0.368, np.exp(-1), "right", True),
        (4.2, 4, "within 10 %", True),
        (-3.8, -4, "within 10 %", True),
        (3, 4, "too small by a factor of 1.3", True),
        (8, 4, "too large by a factor of 2", True),
        (100, 4, "too large by a factor of 25", False),
        (1, 2**20, "too small by a factor of 1,048,576", False),
        (1e300, 1e-300, "too large by a factor of 1,000,000,000", False),
        (-3, 4, "on the other side of zero", False),
        (0, 4, "", False),
        (4, 0.0, "", False),
        (0, 0.0, "right", True),
        (float("nan"), 4, "", False),
        (10**400, 4, "", False),
        (50_000, "50,378", "within 10 %", True),
        ("3,000", 3000, "right", True),
        (np.array([4.0]), 4, "right", True),
        ("Quiet", "the quiet group", "right", True),
        ("no", "none of them", "", False),
        ("the", "the layer", "", False),
        ("", "no", "", False),
        ((3, 4), (3, 4), "right", True),
        ([3, 4], (3, 4), "right", True),
        ((3, 4), (4, 3), "", False),
        (True, np.bool_(True), "right", True),
        (True, False, "", False),
        (print, 4, "", False),
        (Mute(), Mute(), "", False),
    ],
    ids=range(29),
)
def test_how_close_a_guess_came(guess, truth, says, near, capsys):
    assert check.closeness(guess, truth) == (says, near)
    check.reveal(guess, truth, "So.")
    assert (f", {says}; it is" if says else "; it is") in said(capsys)


def test_the_guesses_near_the_truth_are_counted(capsys, monkeypatch):
    monkeypatch.setattr(check, "_near", {})
    check.guesses()
    assert said(capsys) == "No guess was made since this notebook was started."
    for guess, why in [(1, "One."), (3, "Two."), (None, "Three."), (2, "One.")]:
        check.reveal(guess, 2, why)
    check.reveal(100, 2, "Four.")
    capsys.readouterr()
    check.guesses()
    assert said(capsys).startswith("2 of 3 guesses were right, or within a factor of")


def test_numbers_in_a_list_are_told_as_numbers(capsys):
    check.reveal([np.float64(2.5)], (np.int64(3),), "So.")
    out = said(capsys)
    assert out.startswith("you said [2.5]") and out.endswith("it is (3,). So.")
