"""Figures and labs: one style, labels on the lines, one sentence for every picture.

`show` displays a figure with the sentence that is its alt text and its caption.
`explore` puts controls over a function that draws; without a kernel its picture stays.
`Live` shows a run of chapter 05's `train.fit` while it goes on.
"""

import base64
import contextlib
import html
import inspect
import io
import os
import pkgutil
import re
import sys
import textwrap
import time

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import Markdown, display

from utils import given

# After Okabe and Ito's palette for colour-blind readers (2008), darkened to be read as text.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = PALETTE = (
    "#0072B2", "#B87400", "#007A5A", "#C44E00", "#A8518A", "#3E8DC4", "#333333",
)  # fmt: skip
STYLE = {
    "axes.prop_cycle": plt.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 10,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "lines.linewidth": 2,
    "font.size": 10,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}
DPI = 110


def subplots(rows=1, columns=1, size=(6.6, 3.6), **options):
    "A figure of `size`, (wide, high) in inches, and its axes, in the course's style."
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size is (wide, high) in inches, not {size!r:.60}")
    for name, inches in zip(("wide", "high"), size):
        given.number(f"size, {name} in inches,", inches, above=0)
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=size, **options)


def title(ax, finding):
    "Write what the figure shows over its axes."
    _axes(ax)
    ax.set_title(finding, loc="left", fontsize=11.5, fontweight="bold")


def heading(fig, finding, x=0.01):
    "Write what the figure shows over several axes; x: where it begins, 0 to 1."
    fig.suptitle(finding, x=x, ha="left", fontsize=11.5, fontweight="bold")


def lines(ax, series, x=None, **style):
    """Plot {label: values}; each label stands at the end of its line, not in a legend.

    x: where the values stand, one for all lines; 0, 1, 2 ... without it.
    """
    _axes(ax)
    if not hasattr(series, "items"):
        raise TypeError(f"series is {{label: values}}, not {type(series).__name__}")
    for label, ys in series.items():
        if np.ndim(ys) != 1 or not len(ys):
            raise ValueError(f"{label!r} is a line of numbers, not {ys!r:.60}")
        xs = range(len(ys)) if x is None else x
        (line,) = ax.plot(xs, ys, **style)
        label_end(ax, line, label)


def _axes(ax):
    if not hasattr(ax, "annotate"):
        kind = type(ax).__name__
        raise TypeError(f"ax is one pair of axes, such as axes[0], not {kind}")


def label_end(ax, line, label):
    "Write `label` beside the last point of `line`, in its colour."
    x, y = line.get_xdata()[-1], line.get_ydata()[-1]
    ax.annotate(
        label, (x, y), xytext=(5, 0), textcoords="offset points",
        color=line.get_color(), va="center", annotation_clip=False,
    )  # fmt: skip


def png(fig):
    "Figure -> PNG bytes; the figure is closed."
    _figure(fig)
    buffer = io.BytesIO()
    try:
        with plt.rc_context(STYLE):
            fig.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    finally:
        plt.close(fig)
    return buffer.getvalue()


def _figure(fig):
    if not hasattr(fig, "savefig"):
        hint = ": plots.show(*figures.NAME(...))" if isinstance(fig, tuple) else ""
        kind = type(fig).__name__
        raise TypeError(
            f"fig is a figure, what plots.subplots gives first, not {kind}{hint}"
        )


def show(fig, says):
    """Display `fig` with one sentence: its alt text, its text fallback and its caption.

    The sentence has at least 8 words, or ValueError. The figure is closed.
    """
    drawn, caption = picture(fig, says), _caption(says)
    display(drawn["data"], metadata=drawn["metadata"], raw=True)
    display(caption)


def picture(fig, says):
    "{'data', 'metadata'} of a display: PNG, alt text and fallback. Closes the figure."
    _figure(fig)
    if not isinstance(says, str) or len(says.split()) < 8:
        plt.close(fig)
        raise ValueError(
            "plots.show(fig, says): `says` is the sentence that tells a reader who "
            f"cannot see the figure what it shows (8 words or more), not {says!r}"
        )
    data = {"image/png": base64.b64encode(png(fig)).decode(), "text/plain": says}
    return {"data": data, "metadata": {"image/png": {"alt": says}}}


def _bytes(drawn):
    return base64.b64decode(drawn["data"]["image/png"])


def _caption(says):
    plain = re.sub(r"([\\*`$<])", r"\\\1", " ".join(says.split()))
    return Markdown(f"*{plain}*")


def explore(draw, **controls):
    """Controls over `draw(**values) -> (figure, sentence)`: a lab.

    Each keyword is a control in ipywidgets' short forms: (low, high[, step]) a slider,
    a list a menu, a bool a check box, or a widget; `draw`'s default is where it starts.
    The picture is an ordinary output that the controls replace, so that it stays
    visible where no kernel runs (GitHub, a printout, a notebook opened again).
    ValueError for what is no control, or does not offer `draw`'s default.
    """
    import ipywidgets as widgets

    given.function("draw", draw)
    knobs = {name: _knob(widgets, draw, name, c) for name, c in controls.items()}
    values = lambda: {name: knob.value for name, knob in knobs.items()}  # noqa: E731
    # in Colab a callback cannot replace an output: there the panel holds the picture
    stage = _in_the_panel if "google.colab" in sys.modules else _below_the_panel
    put = stage(knobs, *_drawn(draw(**values())))

    def redraw(_):
        before = plt.get_fignums()
        try:
            put(*_drawn(draw(**values())))
        except Exception as error:  # a callback's error would vanish into a log
            put(*_failure(error))
        finally:
            for number in set(plt.get_fignums()) - set(before):
                plt.close(number)

    for knob in knobs.values():
        knob.observe(redraw, "value")
    if ahead := os.environ.get("COURSE_LABS"):  # an author's run draws it for the book
        pkgutil.resolve_name(ahead)(draw, knobs)


def _in_the_panel(knobs, fig, says):
    "Show controls, picture and sentence as one panel; -> what replaces the last two."
    import ipywidgets as widgets

    from utils import panels

    image = widgets.Image(value=_bytes(picture(fig, says)), format="png")
    text = widgets.HTML(value=html.escape(says))
    panels.display_widget(panels.column(*knobs.values(), image, text), says)

    def put(fig, says):
        image.value = _bytes(picture(fig, says))
        text.value = html.escape(says)

    return put


def _below_the_panel(knobs, fig, says):
    "Show controls, and picture and sentence as outputs; -> what replaces the last two."
    from utils import panels

    drawn, again = picture(fig, says), panels.again()
    again.put(_face(drawn, says))
    panel = panels.column(*knobs.values(), again)
    panels.display_widget(panel, "controls: " + ", ".join(knobs))
    panels.display_asleep()
    seen = display(drawn["data"], metadata=drawn["metadata"], raw=True, display_id=True)
    told = display(_caption(says), display_id=True)

    def put(fig, says):
        drawn = picture(fig, says)
        seen.update(drawn["data"], metadata=drawn["metadata"], raw=True)
        told.update(_caption(says))
        again.put(_face(drawn, says))

    return put


def _face(drawn, says):
    "A picture and its sentence as HTML."
    alt, png64 = html.escape(says), drawn["data"]["image/png"]
    fits = 'style="max-width:100%"'  # as JupyterLab has it for a picture in an output
    image = f'<img alt="{alt}" {fits} src="data:image/png;base64,{png64}">'
    return f'<div class="course-again">{image}<p><em>{alt}</em></p></div>'


def _drawn(pair):
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"draw returns (figure, sentence), not {type(pair).__name__}")
    return pair


def _failure(error):
    "(figure, sentence) in place of what a lab could not draw."
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    except Exception:
        text = type(error).__name__
    fig, ax = subplots(size=(6.6, 1))
    # wrap=True would read $ as mathematics again, and could fail on it
    ax.text(0, 0.5, textwrap.fill(text, 80), va="center", parse_math=False)
    ax.axis("off")
    return fig, f"The lab could not draw these values, it met a {text}"


def _knob(widgets, draw, name, control):
    empty = inspect.Parameter.empty
    default = getattr(inspect.signature(draw).parameters.get(name), "default", empty)
    knob = control
    if not isinstance(control, widgets.Widget):
        knob = widgets.interactive.widget_from_abbrev(control, default)
    if not hasattr(knob, "value"):
        raise ValueError(
            f"explore: {name}={control!r} is no control; "
            "try (low, high, step), a list, a bool or a widget"
        )
    if default is not empty:
        with contextlib.suppress(Exception):
            knob.value = default
        if knob.value != default:
            raise ValueError(
                f"explore: {name} starts at {default!r}, which {control!r} does not "
                f"offer (it would start at {knob.value!r})"
            )
    knob.description = name.replace("_", " ")
    knob.style.description_width = "initial"
    if not isinstance(knob.value, bool):
        knob.layout.width = "440px"
    knob.layout.max_width = "100%"
    if hasattr(knob, "continuous_update"):
        knob.continuous_update = False
    return knob


class Live:
    """A progress bar and a curve that are redrawn in place while `train.fit` runs.

    Outside a notebook it shows nothing. A cell with it carries nbval-ignore-output.
    """

    def __init__(self, batches, epochs, every=0.5):
        self.batches, self.epochs, self.every = batches, epochs, every
        self.next, self.shown = 0.0, None
        self.here = hasattr(get_ipython(), "kernel")

    def __call__(self, history, epoch, last=False):
        now = time.monotonic()
        if not self.here or not (last or now >= self.next):
            return
        bundles = self._bundles(history, epoch)
        if self.shown is None:
            self.shown = [display(data, metadata=meta, raw=True, display_id=True)
                          for data, meta in bundles]  # fmt: skip
        else:
            for shown, (data, meta) in zip(self.shown, bundles):
                shown.update(data, metadata=meta, raw=True)
        self.next = time.monotonic() + self.every

    def _bundles(self, history, epoch):
        fig, says = live_curve(history, self.batches)
        drawn = picture(fig, says)
        bar = progress_line(history, self.batches * self.epochs, epoch, self.epochs)
        caption = {"text/markdown": f"*{says}*", "text/plain": says}
        return [({"text/plain": bar}, {}), (drawn["data"], drawn["metadata"]),
                (caption, {})]  # fmt: skip


def progress_line(history, total, epoch, epochs, width=24):
    "One line: how far, and how well; epoch: the one that runs or ran last, from 1."
    done = len(history.losses)
    full = width * done // max(total, 1)
    line = f"epoch {epoch}/{epochs} {'█' * full}{'░' * (width - full)} "
    line += f"loss {np.mean(history.losses[-20:]):.3f}" if done else ""
    if history.scores:
        line += f"  validation {100 * history.accuracy[-1]:.1f} %"
    return line + ("  stopped early" if history.stopped else "")


def live_curve(history, batches):
    "Loss of every step, and validation loss of every epoch."
    fig, ax = subplots(size=(6.6, 2.8))
    losses = np.array(history.losses)
    ax.plot(losses, color=SKY, lw=0.8, alpha=0.7)
    width = min(batches, max(len(losses), 1))
    if len(losses) > width:
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        steps = np.arange(len(smooth)) + width - 1
        (line,) = ax.plot(steps, smooth, color=BLUE)
        label_end(ax, line, "training")
    says = f"Training loss over {len(losses)} steps"
    if history.scores:
        scores = np.array(history.scores)[:, 0]
        ends = batches * (np.arange(len(scores)) + 1)
        (line,) = ax.plot(ends, scores, ".-", color=RED, lw=1.2)
        label_end(ax, line, "validation")
        says += f" and validation loss over {len(scores)} epochs"
        if history.best_epoch is not None:
            at = history.best_epoch
            ax.plot(ends[at], scores[at], "o", ms=10, mfc="none", mec=RED)
            says += f"; the best epoch is number {at + 1}, at {scores[at]:.2g}"
    ax.set(yscale="log", xlabel="step", ylabel="loss")
    title(ax, "Loss of each batch, and of rows the model does not train on")
    return fig, says + ", drawn while it ran."
