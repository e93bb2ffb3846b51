"""Figures and labs: a sentence for each, controls that redraw, nothing left open."""

import base64
import sys
import types

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.test_exercise_contract import run_cells
from utils import panels, plots
from utils.built.train import History

SAYS = "The line rises from zero to one in ten equal steps."
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    left = plt.get_fignums()
    plt.close("all")
    assert left == []


def line(height=1.0):
    fig, ax = plots.subplots(size=(1, 1))
    ax.plot([0, height])
    return fig


def draw(height=2, dashed=False, where="left"):
    says = f"A line of height {height} that ends {where}, dashed or not: {dashed}."
    return line(height), says


# ---- show ----


@pytest.mark.parametrize("says", ["", "too short", None, 3, " ".join("a" * 7)])
def test_a_figure_needs_its_sentence(says, shown):
    with pytest.raises(ValueError, match="8 words or more"):
        plots.show(line(), says)
    assert shown == []


def test_a_picture_comes_with_alt_text_fallback_and_caption(shown):
    plots.show(line(), SAYS)
    (data, metadata), (caption, _) = shown
    assert set(data) == {"image/png", "text/plain"}
    assert png_of(data).startswith(PNG)
    assert data["text/plain"] == SAYS
    assert metadata == {"image/png": {"alt": SAYS}}
    assert caption == {"text/markdown": f"*{SAYS}*"}


def png_of(data):
    return base64.b64decode(data["image/png"])


def test_the_same_figure_gives_the_same_bytes():
    assert plots.png(line()) == plots.png(line())


def test_a_figure_that_cannot_be_drawn_is_closed():
    fig = line()
    fig.axes[0].set_title("$\\nonsense{$")
    with pytest.raises(ValueError):
        plots.png(fig)


@pytest.mark.parametrize(
    ("says", "caption"),
    [
        ("w*x*y is a product of three numbers, not two.", r"w\*x\*y is a"),
        ("It costs $5 here and $7 there, a day each.", r"costs \$5 here and \$7"),
        ("The tag <b> stands where no tag should stand here.", r"tag \<b> stands"),
        ("The name `w` is in code, and so is `b`.", r"name \`w\` is"),
        ("Two\n\nparagraphs would end the emphasis of a caption here.", "*Two para"),
    ],
)
def test_a_caption_is_plain_text(says, caption, shown):
    plots.show(line(), says)
    assert caption in shown.of("text/markdown")[0]
    assert shown.of("text/plain")[0] == says


def test_labels_stand_at_the_ends_of_lines():
    fig, ax = plots.subplots()
    plots.lines(ax, {"one": [1, 2], "two": [3, 5]})
    plots.title(ax, "Two lines")
    assert [(t.get_text(), t.xy) for t in ax.texts] == [
        ("one", (1, 2)),
        ("two", (1, 5)),
    ]
    assert ax.texts[0].get_color() == ax.lines[0].get_color() == plots.BLUE
    assert ax.get_title(loc="left") == "Two lines" and ax.get_legend() is None
    plt.close(fig)


def test_colours_can_be_read_as_text_on_white():
    "Contrast of at least 3:1, which large text and lines need."
    for colour in plots.PALETTE:
        r, g, b = matplotlib.colors.to_rgb(colour)
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (r, g, b)
        ]
        luminance = np.dot(linear, [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) >= 3, colour


# ---- explore ----


@pytest.fixture
def lab(shown, monkeypatch):
    "Starts a lab: the controls by name, and what is shown."
    made = []
    monkeypatch.setattr(panels, "display_widget", lambda *w: made.append(w))
    monkeypatch.setattr(panels, "display_asleep", lambda: None)

    def start(function=draw, **controls):
        plots.explore(function, **controls)
        panel, _ = made[-1]
        knobs = {child.description: child for child in panel.children if knob(child)}
        return types.SimpleNamespace(panel=panel, knobs=knobs, shown=shown)

    return start


def knob(widget):
    return bool(getattr(widget, "description", ""))


def test_a_control_redraws_picture_and_caption(lab):
    it = lab(height=(1, 5), dashed=False)
    before = png_of(it.shown[0][0])
    assert "height 2 " in it.shown.of("text/markdown")[0]
    it.knobs["height"].value = 4
    (data, metadata), (caption, _) = it.shown
    assert png_of(data) != before and png_of(data).startswith(PNG)
    assert "height 4 " in data["text/plain"] == metadata["image/png"]["alt"]
    assert "height 4 " in caption["text/markdown"]


def test_thirty_redraws_leave_nothing_open(lab):
    it = lab(height=(1, 40))
    for height in range(3, 33):
        it.knobs["height"].value = height
    assert "height 32 " in it.shown.of("text/plain")[0]
    assert plt.get_fignums() == [] and len(it.shown) == 2


def test_a_figure_of_the_reader_stays_open_while_a_lab_redraws(lab):
    it = lab(height=(1, 40))
    mine = line()
    it.knobs["height"].value = 7
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


@pytest.mark.parametrize(
    ("control", "start"),
    [
        ({"height": (0, 9)}, 2),
        ({"height": (0, 9, 0.5)}, 2),
        ({"height": [1, 2, 3]}, 2),
        ({"where": ["right", "left"]}, "left"),
        ({"dashed": True}, False),
        ({"dashed": [True, False]}, False),
    ],
)
def test_the_default_is_where_a_control_starts(lab, control, start):
    it = lab(**control)
    (widget,) = it.knobs.values()
    assert widget.value == start
    assert widget.style.description_width == "initial"
    assert widget.layout.max_width == "100%", "a narrow window"
    assert not getattr(widget, "continuous_update", False)


def test_a_widget_may_be_given_and_names_are_read_as_words(lab):
    import ipywidgets

    def show_it(learning_rate=0.1):
        return line(), f"A line after a step whose rate is {learning_rate} here."

    slider = ipywidgets.FloatLogSlider(min=-3, max=0)
    it = lab(show_it, learning_rate=slider)
    assert it.knobs["learning rate"] is slider and slider.value == 0.1


def test_without_a_default_the_control_decides(lab):
    def show_it(height):
        return draw(height)

    assert (
        lab(show_it, height=[5, 6])
        .shown.of("text/plain")[0]
        .startswith("A line of height 5")
    )

    def takes_all(**values):
        return draw(**values)

    assert "height 5" in lab(takes_all, height=[5, 6]).shown.of("text/plain")[-1]


@pytest.mark.parametrize(
    ("controls", "says"),
    [
        ({"height": None}, "is no control"),
        ({"height": (1, 2, 3, 4)}, "is no control"),
        ({"height": object()}, "is no control"),
        ({"height": (5, 9)}, "height starts at 2"),
        ({"height": [1, 3]}, "height starts at 2"),
        ({"where": ["up", "down"]}, "where starts at 'left'"),
        ({"height": (9, 1)}, "min and max|less than"),
    ],
)
def test_a_bad_control_is_refused(lab, controls, says):
    with pytest.raises(ValueError, match=says):
        lab(**controls)


def test_a_control_that_draw_does_not_take_is_refused(lab):
    with pytest.raises(TypeError, match="width"):
        lab(width=(1, 3))


def fails_at_three(height=2):
    fig, says = draw(height)
    if height == 3:
        raise ZeroDivisionError("$x_{$ is <no> picture* at 3")
    return (fig, says) if height < 4 else (fig, "short")


def test_an_error_while_redrawing_is_shown(lab):
    it = lab(fails_at_three, height=(1, 5))
    good = png_of(it.shown[0][0])
    it.knobs["height"].value = 3
    (data, metadata), (caption, _) = it.shown
    assert "ZeroDivisionError: $x_{$ is <no> picture* at 3" in data["text/plain"]
    assert png_of(data) != good and "alt" in metadata["image/png"]
    assert (
        r"ZeroDivisionError: \$x_{\$ is \<no> picture\* at 3"
        in caption["text/markdown"]
    )
    it.knobs["height"].value = 4
    assert "8 words or more" in it.shown.of("text/plain")[0]
    it.knobs["height"].value = 1
    assert it.shown.of("text/plain")[0].startswith("A line of height 1 ")


def test_an_error_whose_text_raises_is_shown_too(lab):
    class Mute(Exception):
        def __str__(self):
            raise ValueError

    def show_it(height=2):
        if height > 2:
            raise Mute
        return draw(height)

    it = lab(show_it, height=(1, 5))
    it.knobs["height"].value = 3
    assert "it met a Mute" in it.shown.of("text/plain")[0]


def test_an_error_in_the_first_picture_stops_the_cell(lab):
    with pytest.raises(ZeroDivisionError):
        lab(lambda height=3: 1 / 0, height=(1, 5))


def test_in_colab_one_panel_holds_picture_and_caption(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))

    def show_it(height=2):
        return line(height), f"A line < {height} that is drawn & shown in a panel."

    it = lab(show_it, height=(1, 5))
    slider, image, text = it.panel.children
    assert it.panel._dom_classes == ("course-panel",)
    before = bytes(image.value)
    assert before.startswith(PNG) and image.format == "png"
    slider.value = 5
    assert bytes(image.value).startswith(PNG) and bytes(image.value) != before
    assert text.value == "A line &lt; 5 that is drawn &amp; shown in a panel."
    assert it.shown == []


def test_in_colab_the_sentence_is_checked_too(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    with pytest.raises(ValueError, match="8 words"):
        lab(lambda height=2: (line(), "short"), height=(1, 5))


def reload(widget):
    "What a page asks for when it is loaded again: the whole state of a widget."
    return widget.get_state()


def test_after_a_reload_the_picture_is_in_the_panel(lab):
    it = lab(height=(1, 5))
    again = it.panel.children[-1]
    it.knobs["height"].value = 3
    assert again.value == "", "the outputs are enough as long as they are reached"
    assert "A line of height 3 " in reload(again)["value"]
    assert "A line of height 3 " in reload(again)["value"], "a second reload"
    before = reload(again)["value"]
    it.knobs["height"].value = 5
    assert '<img alt="A line of height 5 ' in again.value != before
    assert "<p><em>A line of height 5 " in again.value
    assert "height 5 " in it.shown.of("text/plain")[0], "what is saved follows too"


KERNEL = """
import os, sys
sys.path.insert(0, os.environ["COURSE_ROOT"])
from utils import plots
def draw(height=2):
    fig, ax = plots.subplots(size=(1, 1))
    return fig, f"A line of height {height} that is drawn in a kernel."
plots.explore(draw, height=(1, 5))
""", """
from ipywidgets.widgets.widget import _instances
slider = next(w for w in _instances.values() if type(w).__name__ == "IntSlider")
slider.value = 4
""", "import matplotlib.pyplot as plt\nprint(plt.get_fignums())"  # fmt: skip


def test_a_real_kernel_updates_what_was_shown(tmp_path):
    first, second, last = run_cells(tmp_path, *KERNEL)
    assert [output.output_type for output in first] == ["display_data"] * 4
    panel, asleep, picture, caption = (output["data"] for output in first)
    assert panel["text/plain"] == "controls: height"
    assert "need a running kernel" in asleep["text/html"]
    assert (
        "height 4 " in picture["text/plain"] and "height 4 " in caption["text/markdown"]
    )
    assert second == [] and last[0]["text"] == "[]\n"


# ---- a run, while it goes on ----


def test_progress_line_and_curve():
    history = History(losses=[2.0] * 30, scores=[[1.5, 0.5], [1.2, 0.75]], best_epoch=1)
    assert plots.progress_line(History(), 40, 1, 4).startswith("epoch 1/4 ░")
    line = plots.progress_line(history, 40, 3, 4)
    assert line.count("█") == 18 and line.endswith("validation 75.0 %")
    fig, says = plots.live_curve(history, 10)
    assert "number 2" in says and plots.png(fig)
    assert plots.png(plots.live_curve(History(losses=[1.0]), 10)[0])
