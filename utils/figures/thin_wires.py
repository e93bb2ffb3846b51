"""The figures of chapter 20."""

import numpy as np
import torch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from utils import plots
from utils.built import fleet

COLOUR = (
    plots.BLACK, plots.BLUE, plots.SKY, plots.GREEN, plots.RED, plots.ORANGE, plots.PURPLE,
)  # fmt: skip


def _size(size, _=None):
    "Bytes in words: 30.2 kB."
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"


def _time(seconds, _=None):
    "Seconds in words."
    for unit, factor in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{1e3 * seconds:.3g} ms"


def _apart(ys, gap, top):
    "Heights of labels wanted at ys: moved down until none touches another, or `top`."
    order = np.argsort(ys, kind="stable")[::-1]
    places = np.empty(len(ys))
    for number in order:
        places[number] = top = min(ys[number], top)
        top -= gap
    return places


TIMES = [10.0**k for k in range(-6, 2)] + [60, 600, 3600]
TIMES += [86_400 * 10.0**k for k in range(7)]


# ---- the first look ----


def _learn(every, bits, seeds, steps=450, workers=4, looks=15):
    "Bytes sent by a rank so far and mean test accuracy, at some of the steps."
    start_SP = fleet.start(seeds)
    w_SRP = start_SP[:, None].repeat(1, workers, 1)
    m_SRP, s_SRP, rest = torch.zeros_like(w_SRP), torch.zeros_like(w_SRP), 0.0
    letter = (workers - 1) * (-(-fleet.P // 8) + 4)  # gathered
    if bits != 1:  # a ring's sum
        letter = 2 * (workers - 1) / workers * 4 * fleet.P
    sent, seen = 0, []
    for step, rows in enumerate(fleet.batches(seeds, workers, steps), 1):
        grad = fleet.gradients(w_SRP, rows)
        m_SRP.mul_(0.9).add_(grad, alpha=0.1)
        s_SRP.mul_(0.99).addcmul_(grad, grad, value=0.01)
        size = (s_SRP / (1 - 0.99**step)).sqrt_().add_(1e-8)
        lr = 0.01 * (1 - (step - 1) / steps) / (1 - 0.9**step)
        w_SRP.addcdiv_(m_SRP, size, value=-lr)
        if step % every == 0:
            owed = start_SP[:, None] - w_SRP + rest
            said = owed
            if bits == 1:
                said = torch.where(owed > 0, 1.0, -1.0) * owed.abs().mean(-1, True)
                rest = owed - said
            start_SP = start_SP - said.mean(1)
            w_SRP.copy_(start_SP[:, None].expand_as(w_SRP))
            sent += letter
            if every > 1 or step in (1, 2, 4, 8, 16) or step % (steps // looks) == 0:
                seen.append((sent, fleet.accuracy(start_SP).mean().item()))
    return np.array(seen)


def few_bytes(seed=0):
    """Test accuracy against bytes sent, in 6 letters of bits and talking at every step.

    -> ((bytes, accuracy) at the end of the first, and of the second), (figure, sentence).
    """
    often, seldom = _learn(1, 32, [seed]), _learn(75, 1, [seed])
    fewer = often[-1, 0] / seldom[-1, 0]
    fig, ax = plots.subplots(size=(7.6, 3.5))
    ax.semilogx(*seldom.T, "o-", color=plots.BLUE, ms=4)
    ax.semilogx(*often.T, "o-", color=plots.BLACK, ms=4)
    for line, text, colour, side in (
        (seldom, "6 letters per rank,\n1 bit per number", plots.BLUE, "left"),
        (often, "every step,\n32 bits per number", plots.BLACK, "left"),
    ):
        middle = line[len(line) // 3]
        ax.annotate(
            text, middle, xytext=(12, -26), textcoords="offset points", color=colour,
            ha=side, va="top",
        )  # fmt: skip
    ax.set(
        xlabel="bytes that each of four ranks has sent so far",
        ylabel="test accuracy, %",
    )
    ax.set_ylim(min(seldom[0, 1], often[0, 1], 60) - 5, 103)
    ax.xaxis.set_major_formatter(FuncFormatter(_size))
    ax.xaxis.set_minor_locator(NullLocator())
    more = often[-1, 1] - seldom[-1, 1]
    end = f"{more:.1f} points lower" if more > 0.15 else "as many digits right"
    plots.title(ax, f"1/{fewer:,.0f} of the bytes sent, and {end}")
    ends = tuple(seldom[-1]), tuple(often[-1])
    return ends, (
        fig,
        (
            f"Four workers train a network of {fleet.P:,} parameters on the digits (one "
            f"seed, float32). Talking at every step ends at {often[-1, 1]:.1f} "
            f"percent after {_size(often[-1, 0])} sent by each; six letters of one bit per "
            f"number end at {seldom[-1, 1]:.1f} percent after {_size(seldom[-1, 0])}."
        ),
    )


# ---- bytes against accuracy ----


def frontier(ways, alone_S, talk_seconds, ranks=4):
    """{name: (accuracy by seed, bytes brought)} and the control's accuracies.

    talk_seconds(call, n, size, rate) says how many bytes are sent for those brought.
    """
    ways = {
        name: (right, talk_seconds(_call(name), ranks, size, 1.0))
        for name, (right, size) in ways.items()
    }
    fig, ax = plots.subplots(size=(8.4, 4.2))
    floor = float(alone_S.mean())
    ax.axhline(floor, color=plots.RED, lw=1.2, ls="--")
    means = {name: float(right.mean()) for name, (right, _) in ways.items()}
    best = max(means.values())
    low = min(*(float(right.min()) for right, _ in ways.values()), floor)
    span = best - low
    places = _apart(list(means.values()), 0.075 * span, best)
    for (name, (right_S, size)), place, colour in zip(ways.items(), places, COLOUR):
        ax.plot([size] * 2, [right_S.min(), right_S.max()], color=colour, lw=1.5)
        ax.plot(size, means[name], "o", color=colour, ms=7)
        ax.annotate(
            f"{name}: {means[name]:.1f} %, {_size(size)}", (size, means[name]),
            xytext=(1.03, place), textcoords=("axes fraction", "data"), color=colour,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 5,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
    ax.text(
        0.12, floor - 0.015 * span, f"a quarter of the data, alone: {floor:.1f} %",
        color=plots.RED, va="top", transform=ax.get_yaxis_transform(),
    )  # fmt: skip
    ax.set(
        xscale="log", xlabel="bytes that each of four ranks sends in the whole training"
    )
    ax.set(ylabel="test accuracy, %", ylim=(low - 0.08 * span, best + 0.1 * span))
    ax.xaxis.set_major_formatter(FuncFormatter(_size))
    ax.xaxis.set_minor_locator(NullLocator())
    plots.title(
        ax,
        "Fewer talks and fewer bits cost next to nothing here; fewer numbers cost points",
    )
    told = ", ".join(f"{name} {means[name]:.1f} percent" for name in ways)
    return fig, (
        f"Test accuracy (mean and range of {len(alone_S)} seeds) against the bytes that each "
        f"of four ranks sends, logarithmic: {told}; a worker that hears nothing, with a quarter of "
        f"the data, {floor:.1f} percent."
    )


# ---- the lab ----

CODES = "8 bits", "1 bit", "top 1 %"


def _code(name):
    "The code that a way's name tells of, or None: floats."
    return next((word for word in CODES if word in name), None)


def _call(name):
    "Codes are gathered, floats are summed."
    return "all_gather" if _code(name) else "all_reduce"


def which_way(ways, coding, wires, talk_seconds, steps, P):
    """draw(link, compute_ms, parameters, ranks): seconds of each way against accuracy.

    ways: {name: (accuracy by seed, bytes brought)}; coding: {code: seconds per number}; wires:
    {name: (alpha, beta)}; talk_seconds(call, n, size, rate).
    """

    def seconds(name, size, link, compute_ms, parameters, n):
        alpha, beta = wires[link]
        talks = steps if name == "every step" else 1 if "average" in name else 6
        code, call = _code(name), _call(name)
        messages = n - 1 if code else 2 * (n - 1)
        letter = size / talks * parameters / P
        talk = messages * alpha + talk_seconds(call, n, letter, 1 / beta)
        work = coding[code] * parameters if code else 0.0
        return steps * compute_ms / 1e3 + talks * (talk + work)

    first = next(iter(wires))

    def draw(link=first, compute_ms=1, parameters=P, ranks=2):
        at = {
            name: (seconds(name, size, link, compute_ms, parameters, ranks), right)
            for name, (right, size) in ways.items()
        }
        return _race(at, steps * compute_ms / 1e3, link, compute_ms, parameters, ranks)

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    ends = [name for name in wires if name.split()[0] not in ("PCIe", "InfiniBand")]
    draw.book = {"link": ends, "ranks": [2, 64]}
    return draw


def _race(at, bare, link, compute_ms, parameters, ranks):
    means = {name: float(right.mean()) for name, (_, right) in at.items()}
    good = [name for name in at if means[name] > max(means.values()) - 0.5]
    first = min(good, key=lambda name: at[name][0])
    fig, ax = plots.subplots(size=(8.4, 3.9))
    ax.axvline(bare, color=plots.BLACK, lw=1, ls=":")
    span = max(means.values()) - min(means.values())
    places = _apart(list(means.values()), 0.085 * span, max(means.values()))
    for (name, (seconds, _)), place, colour in zip(at.items(), places, COLOUR):
        ax.plot(seconds, means[name], "D" if name == first else "o", color=colour,
                ms=10 if name == first else 7)  # fmt: skip
        ax.annotate(
            f"{name}: {_time(seconds)}", (seconds, means[name]), xytext=(1.03, place),
            textcoords=("axes fraction", "data"), color=colour, va="center",
            annotation_clip=False, fontweight="bold" if name == first else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 5,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
    ax.text(
        bare, 0.02, " computing alone", fontsize=9, transform=ax.get_xaxis_transform()
    )
    ax.set(
        xscale="log",
        xlabel="predicted time of the whole training",
        xlim=(bare * 0.7, None),
    )
    ax.set(ylabel="test accuracy, %", ylim=(min(means.values()) - 0.15 * span, None))
    if ax.get_xlim()[1] < 20 * bare:
        ax.set_xlim(bare * 0.7, 20 * bare)
    ax.xaxis.set_major_locator(FixedLocator(TIMES))
    ax.xaxis.set_major_formatter(FuncFormatter(_time))
    ax.xaxis.set_minor_locator(NullLocator())
    plots.title(ax, f'{link}, {ranks} ranks: "{first}" is quickest of the good ones')
    slow = max(at, key=lambda name: at[name][0])
    return fig, (
        f"Predicted time of 450 steps of {compute_ms} ms with {parameters:,} parameters on "
        f"{ranks} ranks over {link}, against the test accuracy of section 7: of those "
        f"within half a point of the best, {first} is quickest, {_time(at[first][0])}; "
        f"slowest of all is {slow}, {_time(at[slow][0])}."
    )
