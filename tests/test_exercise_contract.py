"""The exercise contract: three verdicts, the reference on a miss, nothing raises."""

import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from utils.exercises import Chapter, Miss, progress, same, slips, telling

CELLS = {
    "tools": (
        "import numpy as np\ndef twice(x):\n    return np.asarray(x) * 2",
        ["setup"],
    ),
    "double": (
        "def double(x_N):\n    ### BEGIN SOLUTION\n    return twice(x_N)\n"
        "    ### END SOLUTION",
        [],
    ),
    "Point": (
        "class Point:\n    def __init__(self, x):\n        ### BEGIN SOLUTION\n"
        "        self.x = x\n        ### END SOLUTION",
        [],
    ),
}


def toy(name="double", seconds=2.0, **options):
    "A chapter's exercise `name` over CELLS, with a check of its own."
    chapter = Chapter("90_toy")
    chapter.cells = dict(CELLS)

    def double(answer):
        "Twice every value."
        x, want = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
        same("double([1, 2, 3])", answer(x), want, "Two of each.")

    def Point(answer):
        same("Point(3).x", answer(3).x, 3)

    hints = ("Add it to itself.", "Twice <each>.")
    chapter.exercise(*hints, seconds=seconds, **options)(double)
    chapter.exercise(*hints, kind="class", seconds=seconds)(Point)
    double, squared = chapter.exercises["double"], lambda x_N: x_N**2
    double.slip("You squared: add x to itself.")(squared)
    double.slip("x came back.")(lambda x_N: x_N.copy())
    double.slip("Three columns are asked for.")(lambda x_N: x_N @ np.ones((4, 3)))
    return chapter.exercises[name]


def value(reference, check=None):
    "An exercise whose answer is a plain value; `reference` is Python text."
    chapter = Chapter("90_toy")
    source = f"import numpy as np\n### BEGIN SOLUTION v = None\nv = {reference}"
    chapter.cells = {"v": (source + "\n### END SOLUTION", [])}

    def v(answer):
        assert repr(answer) == reference

    chapter.exercise("one", "two", kind="value")(check or v)
    return chapter.exercises["v"]


# ---- the three verdicts ----


def test_a_right_answer_comes_back_as_it_is(shown):
    def mine(x):
        return x + x

    assert toy().check(mine) is mine
    assert shown.of("text/plain") == ["✓ right: double"]


def test_a_wrong_answer_is_told_with_case_values_and_slip(shown):
    assert toy().check(lambda x: x**2)(4) == 8
    (text,) = shown.of("text/plain")
    assert text.startswith("✗ wrong: You squared: add x to itself.")
    for part in ("double([1, 2, 3])", "[1., 4., 9.]", "[2., 4., 6.]", "reference"):
        assert part in text


def test_the_rule_of_the_case_stands_where_no_slip_fits():
    verdict, report = toy().judge(lambda x: x + 7)
    assert verdict == "wrong" and report.startswith("Two of each.")


# ---- slips ----


def test_another_program_that_fails_alike_made_the_same_slip():
    for answer in (lambda x: x * x, lambda y: np.square(y), lambda z: [1, 4, 9]):
        assert toy().judge(answer)[1].startswith("You squared: add x to itself.")


def cell(source, name="mine"):
    "What a cell of the reader's defines."
    scope = {"np": np}
    exec(compile(source, "<cell>", "exec"), scope)
    return scope[name]


def test_an_answer_that_raises_like_a_slip_is_named_and_shown_with_its_call():
    mine = "def mine(numbers):\n    return np.matmul(numbers, np.ones(({}, 3)))"
    verdict, report = toy().judge(cell(mine.format(4)))
    assert verdict == "wrong"
    first, second, *rest = report.split("\n")
    assert first == "Three columns are asked for."
    assert second.startswith("It raised ValueError: matmul")
    assert rest[-1] == "case      double(numbers (3,))"
    other = toy().judge(cell(mine.format(5)))[1]
    assert other.startswith("It raised ValueError"), "another error, another slip"


def test_an_error_is_compared_without_the_answers_own_name():
    exercise = toy()

    def slip(x_N):
        return slip(x_N, 3)

    def another(x_N):
        return another(x_N, 3)

    exercise.slip("It calls itself.")(slip)
    assert exercise.judge(another)[1].startswith("It calls itself.")


def test_a_slow_slip_is_passed_over_and_how_each_fails_is_kept():
    exercise, calls = toy(seconds=5), []

    def slow(x_N):
        calls.append("slow")
        time.sleep(30)
        return x_N + 9

    exercise.slips.insert(0, slips.Slip(slow, "Nobody waits for this."))
    began = time.perf_counter()
    report = exercise.judge(lambda x: x + 9)[1]
    assert report.startswith("Two of each.") and time.perf_counter() - began < 15
    assert exercise.judge(lambda x: x**2)[1].startswith("You squared")
    assert exercise.judge(lambda x: x**2)[1].startswith("You squared")
    assert calls == ["slow"]


def test_a_slip_is_not_told_of_a_right_answer_and_never_runs_for_it():
    exercise = toy()
    exercise.slip("It is called.")(
        lambda x: pytest.fail("a right answer needs no slip")
    )
    assert exercise.judge(lambda x: x + x)[0] == "right"


def test_an_error_inside_a_slips_module_is_no_missing_module(monkeypatch):
    monkeypatch.setattr(slips, "find_spec", lambda name: object())

    def broken(name):
        raise ModuleNotFoundError("No module named 'thing'")

    monkeypatch.setattr(slips, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="thing"):
        slips.named(toy(), slips.Failure("miss"))


def stub(x_N):
    raise NotImplementedError


def inner_stub(x_N):
    return stub(x_N)


def lazy_stub(x_N):
    raise NotImplementedError
    yield


@pytest.mark.parametrize("answer", [stub, None, ..., NotImplemented, inner_stub])
def test_not_yet(answer, shown):
    reference = toy().check(answer)
    assert reference(3) == 6
    (text,) = shown.of("text/plain")
    assert text.startswith("… not yet: double") and "reference" in text


def test_only_the_readers_own_stub_is_not_yet():
    torch = pytest.importorskip("torch")

    def swapped(x_N):  # torch raises NotImplementedError for reasons of its own
        return torch.nn.functional.cross_entropy(torch.tensor([1]), torch.ones(1, 3))

    verdict, report = toy().judge(swapped)
    assert verdict == "wrong" and "It raised " in report, report

    class Layer(torch.nn.Module):
        pass

    verdict, report = toy().judge(lambda x_N: Layer()(x_N))
    assert verdict == "wrong" and "NotImplementedError" in report, report


def test_a_stub_that_yields_is_not_yet():
    exercise = toy()
    test = exercise.test
    exercise.test = lambda answer: test(lambda x: list(answer(x)))
    assert exercise.judge(lazy_stub)[0] == "not yet"


def test_no_answer_at_all_is_not_yet(shown):
    assert toy().check()(1) == 2


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("double", 3, "should be a function; it is 3 (int)"),
        ("double", [1, 2], "should be a function"),
        ("Point", lambda x: x, "should be a class; it is a function"),
        ("Point", SimpleNamespace(x=3), "should be a class"),
        ("v", lambda: 3, "should be a value; it is a function: call it?"),
        ("v", int, "should be a value"),
    ],
)
def test_the_wrong_kind(name, answer, says):
    exercise = value("3") if name == "v" else toy(name)
    verdict, report = exercise.judge(answer)
    assert verdict == "wrong" and says in report, report


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'function', 'class' or 'value'"):
        toy(kind="number")


# ---- the reference ----


def test_a_reference_class_can_be_used(shown):
    point = toy("Point").check(None)(5)
    assert (point.x, type(point).__name__) == (5, "Point")


@pytest.mark.parametrize("name", ["double", "Point"])
def test_the_reference_never_becomes_a_pass(name, shown):
    exercise, bound = toy(name), None
    for _ in range(30):
        bound = exercise.check(bound)
    verdicts = {text.split(":")[0] for text in shown.of("text/plain")}
    assert verdicts == {"… not yet"}


VALUES = (
    "7", "0", "10**30", "2.5", "float('nan')", "'adam'", "''", "1j", "(3, 4)", "()",
    "[1, 2]", "{'a': 1}", "{1, 2}", "np.arange(3)", "np.float64(2.5)", "np.int64(3)",
    "np.float32(0.5)", "b'x'",
)  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_a_value_is_told_from_the_reference(text, shown):
    def v(answer):
        same_kind = isinstance(answer, type(eval(text)))
        assert same_kind and repr(answer) == repr(eval(text))

    exercise, bound = value(text, v), None
    for _ in range(5):
        bound = exercise.check(bound)
        assert repr(bound) == repr(eval(text)), "prints as the plain value does"
        assert isinstance(bound, type(eval(text)))
    assert exercise.judge(bound)[0] == "not yet"
    assert exercise.judge(eval(text)) == ("right", "v")


def test_a_tensor_that_the_reference_only_names_is_told_from_the_readers(shown):
    torch = pytest.importorskip("torch")
    chapter = Chapter("90_toy")
    chapter.cells = {"v": ("### BEGIN SOLUTION v = None\nv = w\n### END SOLUTION", [])}

    def v(answer):
        assert answer.sum() == 3

    chapter.exercise("one", "two", kind="value")(v)
    exercise = chapter.exercises["v"]
    scope = {"w": torch.ones(3, requires_grad=True), "exercise": exercise}
    exec("v = exercise.check(None)", scope)
    assert scope["v"].requires_grad and scope["v"] is not scope["w"]
    assert exercise.judge(scope["w"])[0] == "right"


@pytest.mark.parametrize("text", ["True", "False", "None", "np.bool_(True)"])
def test_true_and_none_are_no_reference(text, shown):
    def v(answer):
        assert repr(answer) == repr(eval(text))

    with pytest.raises(TypeError, match="too easy"):
        value(text, v).check(...)


def _in(scope, code="double = exercise.check(double)", **options):
    "The answer bound after `code` ran in a namespace of its own."
    scope.update(exercise=toy(**options))
    exec(code, scope)
    return scope["double"]


def test_the_reference_uses_the_notebooks_own_helpers_where_they_work(shown):
    calls = []

    def twice(x):
        calls.append(x)
        return x * 2

    assert _in({"twice": twice, "double": None})(2) == 4
    assert calls[-1] == 2


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"np": 3},
        {"np": None, "twice": 7},
        {"twice": lambda x: x},
        {"twice": lambda x: 1 / 0},
        {"twice": lambda x: exit()},
        {"__builtins__": {}},
    ],
)
def test_the_reference_survives_a_broken_namespace(broken, shown):
    scope = {**broken, "double": None}
    scope.update(exercise=toy(), answer=None)
    scope["answer"] = eval("exercise.check(double)", scope)
    assert list(scope["answer"](np.array([1, 2]))) == [2, 4]


def test_the_reference_survives_a_helper_that_never_ends(shown):
    def twice(x):
        while True:
            pass

    assert _in({"twice": twice, "double": None}, seconds=0.1)(2) == 4


def test_check_from_inside_a_function(shown):
    def run():
        return toy().check(None)

    assert run()(2) == 4


# ---- nothing raises ----


class BadText(Exception):
    def __str__(self):
        raise ValueError("no text")


class BadAssertion(AssertionError):
    __str__ = BadText.__str__


class BadStub(NotImplementedError):
    __str__ = BadText.__str__


class Rude:
    "An object whose every text and comparison raises."

    def __eq__(self, other):
        raise ZeroDivisionError

    def __repr__(self):
        raise KeyError("no repr")

    __hash__ = None


def raises(error):
    def answer(x):
        raise error

    return answer


def recursion(x):
    return recursion(x)


def string(x):
    raise "a text"  # noqa: B016


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raises(SystemExit(3)), "exit()"),
        (raises(KeyboardInterrupt()), "interrupted"),
        (raises(GeneratorExit()), "GeneratorExit"),
        (raises(MemoryError()), "MemoryError"),
        (raises(StopIteration()), "StopIteration"),
        (raises(BadText()), "cannot be shown"),
        (raises(BadAssertion()), "cannot be shown"),
        (raises(KeyError("w_D")), "KeyError: 'w_D'"),
        (raises(ValueError("a\nb")), "ValueError: a\nb"),
        (recursion, "call itself without end"),
        (string, "TypeError"),
        (lambda: 3, "0 positional arguments but 1"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_an_answer_raises_is_told(answer, says):
    verdict, report = toy().judge(answer)
    assert verdict == "wrong" and says in report, report


def test_a_stub_whose_text_raises_is_not_yet():
    assert toy().judge(raises(BadStub()))[0] == "not yet"


def test_the_line_of_an_error_is_the_readers(shown):
    code = "def double(x_N):\n    y = x_N\n    return y[3, 3]\n"
    scope = {}
    from utils.exercises.exercise import _run

    _run(code, "<cell>", scope)
    _, report = toy().judge(scope["double"])
    assert "in `double`, line 3: return y[3, 3]" in report


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "is a `return` missing?"),
        (np.array([2.0, np.nan, 6.0]), "nan or inf"),
        (np.array([2.0, np.inf, 6.0]), "nan or inf"),
        (np.ones((3, 3)), "The shape is (3, 3), expected (3,)."),
        (np.ones((3, 1)), "The shape is (3, 1), expected (3,)."),
        (2.0, "The shape is (), expected (3,)."),
        ("2 4 6", "'2 4 6'"),
        ({"a": 1}, "{'a': 1}"),
        ([1, [2, 3]], "[1, [2, 3]]"),
        ([2 + 1j, 4, 6], "(2+1j)"),
        (Rude(), "an object whose text raises KeyError"),
        (np.zeros((3000, 300)), "shape (3000, 300)"),
        (np.zeros((2,) * 20), "shape (2, 2"),
        (np.full((40, 5, 5), np.pi), "shape (40, 5, 5)"),
        ("x" * 10**6, " ..."),
        (list(range(10**5)), " ..."),
        (10**5000, "an object whose text raises ValueError"),
    ],
    ids=range(17),
)
def test_what_an_answer_returns_is_told_shortly(result, says):
    began = time.process_time()
    verdict, report = toy().judge(lambda x: result)
    assert verdict == "wrong" and says in report, report
    assert len(report) < 900
    assert time.process_time() - began < 1


def test_objects_that_cannot_be_compared_differ():
    with pytest.raises(Miss, match=r"The values differ\."):
        same("case", Rude(), Rude())


def test_a_long_error_text_is_cut():
    report = toy().judge(raises(ValueError("x" * 10**6)))[1]
    assert len(report) < 900


def test_a_tensor_answers_like_an_array():
    torch = pytest.importorskip("torch")
    exercise = toy()
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
        right = torch.tensor([2, 4, 6]).to(kind)
        assert exercise.judge(lambda x, right=right: right)[0] == "right", kind
        wrong = exercise.judge(lambda x, right=right: right + 1)
        assert wrong[0] == "wrong" and "[3" in wrong[1], kind
    grad = torch.tensor([2.0, 4, 6], requires_grad=True)
    assert exercise.judge(lambda x: grad)[0] == "right"


# ---- loops, floods, changed inputs, views ----


def loop(x):
    while True:
        pass


def stubborn_loop(x):
    while True:
        try:  # noqa: SIM105
            x = x + 1
        except:  # noqa: E722
            pass


def stubborn_sleep(x):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.02)
        except:  # noqa: E722
            pass


def sleep(x):
    time.sleep(100)


def careful_loop(x):
    while True:
        try:  # noqa: SIM105
            x = x + 1
        except Exception:
            pass


deaf = pytest.mark.skipif(  # Ctrl-C does not end it either, nor does a thread
    sys.version_info < (3, 11),
    reason="Python 3.10 looks for no signal in a loop that is one try without a call",
)


@pytest.mark.parametrize(
    "answer",
    [
        loop, stubborn_sleep, sleep,
        pytest.param(stubborn_loop, marks=deaf), pytest.param(careful_loop, marks=deaf),
    ],
)  # fmt: skip
def test_an_answer_that_never_ends_is_stopped(answer):
    exercise = toy(seconds=0.15)
    began = time.perf_counter()
    verdict, report = exercise.judge(answer)
    assert time.perf_counter() - began < 2
    waits = answer in (sleep, stubborn_sleep)
    says = "after 1 s, of which it computed 0.0 s" if waits else "after"
    assert verdict == "wrong" and f"double was still running {says}" in report


def flood(x):
    print("y" * 50_000_000)
    return x * 2


def drizzle(x):
    for i in range(200_000):
        print(i)
    raise ValueError("after the flood")


@pytest.mark.parametrize(("answer", "verdict"), [(flood, "right"), (drizzle, "wrong")])
def test_a_flood_of_output_is_capped(answer, verdict, capsys):
    began = time.perf_counter()
    said, report = toy(seconds=20).judge(answer)
    assert said == verdict and len(report) < 1000
    assert "characters more" in report
    assert time.perf_counter() - began < 5
    assert capsys.readouterr() == ("", "")


def in_place(x):
    x *= 2
    return x


def sorts_the_list(xs):
    xs.sort()
    return xs


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (lambda xs: xs.pop(), [np.ones(2), np.zeros(2)]),
        (lambda xs: xs[0].fill(9), [np.ones(2), np.zeros(2)]),
        (lambda xs: xs.append(1), [1.5, 2.5]),
        (lambda xs: xs.sort(), [3, 1, 2]),
        (lambda xs: xs.__setitem__(0, np.ones(2)), [np.ones(2)]),
        (lambda xs: xs["w"].fill(9), {"w": np.ones(2)}),
        (lambda xs: xs.update(b=1), {"w": np.ones(2)}),
        (lambda xs: xs.update(w=np.ones(2)), {"w": np.ones(2)}),
        (lambda xs: xs.fill(np.nan), np.ones(3)),
        (lambda xs: xs[0].fill(9), (np.ones(2), 3)),
    ],
)
def test_a_changed_input_is_seen(change, given):
    def answer(x):
        change(x)

    for mutates in (False, True):
        exercise = toy(mutates=mutates)
        exercise.test = lambda answer: answer(given)
        verdict, report = exercise.judge(answer)
        assert ("changes its input" in report) != mutates
        assert verdict == ("right" if mutates else "wrong")


def test_an_input_that_is_read_is_not_changed():
    given = ([1, 2.5, np.nan, "a"], {"w": np.array([np.nan])}, np.ones(3), object())
    exercise = toy()
    exercise.test = lambda answer: answer(*given, key=given)
    assert exercise.judge(lambda *x, **y: repr((x, y)))[0] == "right"


def test_a_changed_tensor_is_seen():
    torch = pytest.importorskip("torch")
    for kind in (torch.float32, torch.bfloat16):
        exercise = toy()
        given = torch.ones(3, dtype=kind)
        exercise.test = lambda answer, given=given: answer(given)
        assert "changes its input" in exercise.judge(lambda x: x.add_(1))[1]
        assert exercise.judge(lambda x: x.add(1))[0] == "right"


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[::-1], lambda x: (1, x[:1])])
def test_a_view_is_refused_where_a_copy_is_asked_for(view):
    for fresh in (True, False):
        exercise = toy(fresh=fresh)
        exercise.test = lambda answer: answer(np.ones(3))
        assert ("returns a view" in exercise.judge(view)[1]) == fresh
        assert exercise.judge(lambda x: x.copy())[0] == "right"


# ---- what is shown ----


def test_both_forms_are_shown_and_markup_is_escaped(shown):
    toy().check(raises(ValueError("<b>bold</b> & more\n<i>next")))
    (data, _), *_ = shown
    assert set(data) == {"text/plain", "text/html"}
    assert "<b>bold</b>" in data["text/plain"]
    assert "<b>bold" not in data["text/html"] and "<i>next" not in data["text/html"]
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in data["text/html"]
    assert 'role="status"' in data["text/html"]


@pytest.mark.parametrize("verdict", telling.LOOKS)
def test_a_verdicts_word_can_be_read_in_a_light_and_a_dark_theme(verdict):
    "The browser's test measures it as drawn; here are all five, by the same formula."
    colour = telling.LOOKS[verdict][1]
    assert f"color-mix(in srgb,{colour} 60%,currentcolor)" in telling._html(verdict, "")
    for text, page in ("#212121", "#ffffff"), ("#dedede", "#111111"):
        parts = [
            np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (colour, text)
        ]
        assert contrast(0.6 * parts[0] + 0.4 * parts[1], page) >= 4.5, page


def contrast(rgb, page):
    "The contrast of a colour with a page, as WCAG defines it."
    both = [np.asarray(rgb) / 255, np.array([int(page[1:3], 16) / 255] * 3)]
    linear = [
        np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92) for c in both
    ]
    low, high = sorted(c @ [0.2126, 0.7152, 0.0722] for c in linear)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("answer", [stub, lambda x: x])
def test_the_calls_stand_in_the_verdict_as_text(answer, shown):
    toy().check(answer)
    for kind in ("text/plain", "text/html"):
        assert "ex.double.hint()  ex.double.solution()" in shown.of(kind)[0]
    assert shown.of("text/html")[0].startswith("<style>"), "buttons without a kernel go"
    toy().check(lambda x: x * 2)
    assert "hint" not in shown.of("text/plain")[1]
    assert "<style>" not in shown.of("text/html")[1]


def test_further_lines_of_a_value_stand_below_its_first():
    exercise = toy()
    exercise.test = lambda answer: same("case", answer(3), np.eye(3))
    report = exercise.judge(lambda n: np.ones((3, 3)))[1]
    begin = report.index("came out")
    first, *others = report[begin:].split("\nexpected")[0].split("\n")
    assert len(others) == 2 and first.startswith("came out  [[")
    assert all(line.startswith(" " * 11 + "[") for line in others), report


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([np.float64(2.5), np.int64(3)], "[2.5, 3]"),
        ((np.float32(0.5),), "(0.5,)"),
        ({"w": [np.float64(1.5)]}, "{'w': [1.5]}"),
        ({np.str_("a"): np.bool_(True)}, "{'a': True}"),
    ],
)
def test_numpy_scalars_are_told_as_numbers(result, says):
    report = toy().judge(lambda x: result)[1]
    assert says in report and "np." not in report, report


def test_in_a_script_the_plain_text_is_printed(capsys):
    toy().check(None)
    assert capsys.readouterr().out.startswith(
        "… not yet: double is still to be written"
    )


def test_the_ladder_of_hints_and_its_end(shown):
    exercise = toy()
    for _ in range(4):
        exercise.hint()
    texts = shown.of("text/plain")
    assert texts[:2] == [
        "? hint: 1 of 2: Add it to itself.",
        "? hint: 2 of 2: Twice <each>.",
    ]
    assert texts[2] == texts[3] and "ex.double.solution()" in texts[2]
    assert "Twice &lt;each&gt;." in shown.of("text/html")[1]


def test_the_solution_has_no_marks_and_runs(shown):
    toy().solution()
    (text,) = shown.of("text/plain")
    assert "SOLUTION" not in text and "return twice(x_N)" in text
    value("3").solution()
    assert shown.of("text/plain")[1].endswith("v = 3")


def test_a_missing_cell_is_named():
    exercise = toy()
    del exercise.chapter.cells["double"]
    for ask in (exercise.chapter.source, exercise.chapter.reference):
        with pytest.raises(
            KeyError, match=r"90_toy\.ipynb has no cell with the id 'double'"
        ):
            ask("double")


def _buttons(monkeypatch, kernel=True):
    "The widgets of a check under a kernel: (exercise, hint, solution, what they told)."
    pytest.importorskip("ipywidgets")
    from utils import panels

    built = []
    shell = SimpleNamespace(kernel=1) if kernel else SimpleNamespace()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(panels, "display_widget", lambda *w: built.append(w))
    exercise = toy()
    exercise.check(None)
    if not built:
        return None
    ((panel, calls),) = built
    assert calls == "ex.double.hint()  ex.double.solution()"
    row, told = panel.children
    return exercise, *row.children, told


def test_no_buttons_without_a_kernel(shown, monkeypatch):
    assert _buttons(monkeypatch, kernel=False) is None


def test_buttons_show_hints_and_the_solution(shown, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "p.json"))
    _, hint, solution, told = _buttons(monkeypatch)
    assert told.value == ""
    hint.click()
    assert "1 of 2: Add it to itself." in told.value and not hint.disabled
    hint.click()
    assert "Twice &lt;each&gt;." in told.value and hint.disabled
    solution.click()
    assert "return twice(x_N)" in told.value and solution.disabled
    assert "SOLUTION" not in told.value
    entry = progress.load()["exercises"]["90_toy/double"]
    assert entry == {"hint": 2, "solution": 1}


def test_buttons_that_fail_do_not_stop_a_chapter(shown, monkeypatch):
    def fail(_):
        raise RuntimeError("no comm")

    monkeypatch.setattr("utils.exercises.telling.show_buttons", fail)
    assert toy().check(None)(2) == 4


def test_no_buttons_on_a_right_answer(shown, monkeypatch):
    built = []
    monkeypatch.setattr("utils.exercises.telling.show_buttons", built.append)
    toy().check(lambda x: x * 2)
    assert built == []


def test_verdicts_are_recorded_and_not_yet_is_not(shown, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "p.json"))
    exercise = toy()
    exercise.check(None)
    assert not (tmp_path / "p.json").exists()
    exercise.check(lambda x: x)
    exercise.check(lambda x: x * 2)
    entry = progress.load()["exercises"]["90_toy/double"]
    assert (entry["wrong"], entry["right"]) == (1, 1)


KERNEL = """
import json, os, sys
sys.path.insert(0, os.environ["COURSE_ROOT"])
from utils.checks import start_here as ex
def mean(values):
    raise NotImplementedError
mean = ex.mean.check(mean)
""", """
from ipywidgets import Button
from ipywidgets.widgets.widget import _instances
buttons = [w for w in _instances.values() if isinstance(w, Button)]
next(b for b in buttons if b.description == "Hint").click()
told = [w.value for w in _instances.values() if type(w).__name__ == "HTML"]
print(json.dumps([len(buttons), mean([1, 2]), *told]))
"""  # fmt: skip


def test_a_real_kernel_builds_the_buttons(tmp_path):
    outputs = run_cells(tmp_path, *KERNEL)
    data = [output["data"] for output in outputs[0]]
    assert data[0]["text/plain"].startswith("… not yet: mean is still to be written")
    assert "application/vnd.jupyter.widget-view+json" in data[1]
    number, mean, told = json.loads(outputs[1][0]["text"])
    assert (number, mean) == (2, 1.5)
    assert "A mean is a sum shared out evenly." in told


def run_cells(folder, *sources):
    "The outputs of cells in a real kernel, started as the author starts one."
    import nbformat
    from nbclient import NotebookClient

    from utils.course import author, running

    environ = {**running.environment(folder), "COURSE_ROOT": str(author.ROOT)}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", coalesce_streams=True
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, text in environ.items():
            patch.setenv(name, text)
        client.execute()
    return [cell.outputs for cell in notebook.cells]
