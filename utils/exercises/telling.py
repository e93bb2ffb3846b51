"""What a reader sees of an exercise: verdicts, values, errors, hints, buttons."""

import dis
import html
import io
import sys
import traceback
from pathlib import Path

import numpy as np

from utils import panels
from utils.check import as_array
from utils.exercises import progress
from utils.files import ROOT

LOOKS = {
    "right": ("✓", "#1a7f37"),
    "not yet": ("…", "#9a6700"),
    "wrong": ("✗", "#cf222e"),
    "hint": ("?", "#0969da"),
    "solution": ("=", "#6e7781"),
}


WHOLE = 24  # as many numbers of an array are shown whole


def _ink(colour):
    "A colour as a style: drawn to the theme's own text colour, to be read on its page."
    return f"color:{colour};color:color-mix(in srgb,{colour} 60%,currentcolor)"


class Capped(io.TextIOBase):
    "A stream that keeps the first characters and counts the rest."

    def __init__(self, limit=600):
        self.limit, self.text, self.size = limit, "", 0

    def writable(self):
        return True

    def write(self, text):
        self.size += len(text)
        self.text += text[: self.limit - len(self.text)]
        return len(text)

    def __str__(self):
        more = self.size - len(self.text)
        return self.text.rstrip() + (
            f" ... and {more:,} characters more" if more else ""
        )


def kind(value):
    "What somebody handed in, in a few words."
    return (
        "a function" if callable(value) else f"{_brief(value)} ({type(value).__name__})"
    )


def _brief(value, limit=240):
    "A short text of any value, whatever its repr does."
    try:
        if hasattr(value, "detach"):
            value = as_array(value)
        if isinstance(value, np.ndarray):
            few = value if value.ndim < 4 else value.reshape(-1)
            with np.printoptions(
                precision=5, threshold=WHOLE, edgeitems=3, suppress=True
            ):
                text = np.array2string(few, separator=", ")
            if value.size > WHOLE:
                return f"{_cut(text, limit)}  shape {value.shape}"
        elif isinstance(value, (float, np.floating)):
            text = f"{float(value):.6g}"
        else:
            with np.printoptions(legacy="1.25"):  # 2.5, not np.float64(2.5)
                text = repr(_rounded(value))
    except BaseException as error:
        text = f"an object whose text raises {type(error).__name__}"
    return _cut(text, limit)


def _rounded(value):
    "A plain list or tuple with its floats to 6 digits, as an array shows them."
    if type(value) in (list, tuple):
        return type(value)(map(_rounded, value))
    return float(f"{value:.6g}") if type(value) is float else value


def _cut(text, limit):
    return text if len(text) <= limit else text[:limit] + " ..."


def text_of(error):
    "What an exception says, even where its own text raises."
    try:
        return _cut(str(error), 600)
    except BaseException:
        return "(its message cannot be shown)"


def of_failure(exercise, failure, sentence):
    "A wrong answer: the slip or the rule, the case, what came out, what was expected."
    if failure.way == "slow":
        return _slow(exercise, *failure.case)
    if failure.way == "interrupted":
        return f"{exercise.name} was interrupted before it had an answer."
    if failure.way == "miss":
        miss = failure.error
        lines = [sentence or failure.text]
        if miss.case:
            lines += [
                _row("case", miss.case),
                _row("came out", _brief(miss.got)),
                _row("expected", _brief(miss.want)),
                *_farthest(miss.got, miss.want),
            ]
        return "\n".join(lines)
    raised = of_error(failure.error, exercise.test.__code__.co_filename)
    case = [_row("case", failure.call)] if failure.call else []
    return "\n".join([*([sentence] if sentence else []), raised, *case])


def _farthest(got, want):
    "The place where two arrays differ most, a row of the report, where they are not shown whole."
    try:
        got, want = as_array(got), as_array(want)
        if got.shape != want.shape or got.size <= WHOLE:
            return []
        place = np.unravel_index(np.nanargmax(abs(got * 1.0 - want)), got.shape)
        place = tuple(map(int, place))
        if _brief(got[place]) == _brief(want[place]):
            return []
        return [
            _row("at", f"{list(place)} {_brief(got[place])}, not {_brief(want[place])}")
        ]
    except Exception:  # of other kinds, or with nan everywhere
        return []


def _slow(exercise, cpu, wall):
    if cpu >= exercise.seconds:
        return (
            f"{exercise.name} was still running after {exercise.seconds:g} s and was "
            "stopped. Does a loop never end, or visit one row at a time what one array "
            "operation could do?"
        )
    return (
        f"{exercise.name} was still running after {wall:.0f} s, of which it computed "
        f"{cpu:.1f} s, and was stopped. Does it wait for something (a sleep, an input, "
        "an answer that never comes)? If not, this machine is busy: check again."
    )


def _row(label, text):
    "A label and a value whose further lines stand below its first."
    return f"{label:<10}" + text.replace("\n", "\n" + " " * 10)


def is_stub(error):
    "Whether an error is the reader's own `raise NotImplementedError`, not a library's."
    if not isinstance(error, NotImplementedError):
        return False
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raises = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raises and not _is_library(code.co_filename)


def of_error(error, check_file):
    "An exception of the reader's own code: what it says and on which of their lines."
    if isinstance(error, AssertionError) and _from_check(error, check_file):
        return text_of(error) or "A check failed."
    text = text_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    said = f"It raised {type(error).__name__}: {text}".rstrip(": ")
    if _from_check(error, check_file):
        said = (
            f"The check cannot use what it returned ({type(error).__name__}: {text})."
        )
    if isinstance(error, SystemExit):
        said = "It called exit(): a function returns, it does not leave the program."
    if isinstance(error, RecursionError):
        said += ". Does it call itself without end, or too deep?"
    mine = [
        f for f in frames if f.filename != check_file and not _is_library(f.filename)
    ]
    for number, frame in enumerate(mine):
        if frame.line and number in (0, len(mine) - 1):
            said += f"\nin `{frame.name}`, line {frame.lineno}: {frame.line.strip()}"
    return said


def _from_check(error, check_file):
    "Whether the last frame of an error is a check's own."
    frames = traceback.extract_tb(error.__traceback__)
    last = Path(frames[-1].filename) if frames else Path()
    return last == Path(check_file) or last.parent == ROOT / "utils" / "checks"


def _is_library(filename):
    path = Path(filename)
    return (
        "site-packages" in path.parts
        or path.is_relative_to(ROOT / "utils")
        or path.is_relative_to(sys.base_prefix)
        or filename.startswith(("<frozen", "<__array_function__"))
    )


def _html(verdict, text, code="", note=""):
    mark, colour = LOOKS[verdict]
    head, _, rest = text.partition("\n")
    return (
        f'<div class="course-verdict" role="status" style="border-left:4px solid {colour};'
        f'padding:.2em .8em;margin:.2em 0"><b style="{_ink(colour)}">{mark} {verdict}</b> '
        f"{html.escape(head)}"
        + "".join(
            f'<pre style="margin:.3em 0;white-space:pre-wrap">{html.escape(block)}</pre>'
            for block in (rest, code)
            if block
        )
        + (f"<div><i>{html.escape(note)}</i></div>" if note else "")
        + "</div>"
    )


def show(verdict, text, code="", note=""):
    "Display a verdict, a hint or a solution, with a block of code and a note."
    head = f"{LOOKS[verdict][0]} {verdict}: {text}"
    plain = "\n".join(part for part in (head, code, note) if part)
    style = panels.BUTTONS if verdict in ("not yet", "wrong") else ""
    progress.tell(plain, style + _html(verdict, text, code, note))


def show_buttons(exercise):
    "Hint and solution as buttons, where a notebook and ipywidgets are there."
    try:
        from IPython import get_ipython

        if not hasattr(get_ipython(), "kernel"):
            return
        import ipywidgets as widgets
    except ImportError:
        return
    hint = widgets.Button(description="Hint", tooltip="The next hint of the ladder")
    answer = widgets.Button(description="Solution", tooltip="Show an answer")
    told = widgets.HTML()

    def next_hint(_):
        told.value += _html("hint", exercise._next_hint())
        hint.disabled = exercise.hinted == len(exercise.hints)

    def show_answer(_):
        progress.record(exercise.chapter.name, exercise.name, "solution")
        source = exercise.chapter.source(exercise.name)
        told.value += _html("solution", exercise.name, source)
        answer.disabled = True

    hint.on_click(next_hint)
    answer.on_click(show_answer)
    hint.disabled = exercise.hinted == len(exercise.hints)
    column = panels.column(widgets.HBox([hint, answer]), told)
    panels.display_widget(column, exercise.calls)
