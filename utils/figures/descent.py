"""The figures of chapter 01."""

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from utils import plots

_plain = FuncFormatter(lambda value, _: f"{value:,.10g}")

KINDS = {
    "CPU": (plots.BLUE, "o"),
    "GPU": (plots.GREEN, "s"),
    "TPU": (plots.RED, "^"),
    "FPGA": (plots.PURPLE, "D"),
    "ASIC": (plots.ORANGE, "v"),
}


def growth(chips):
    "Peak fp32 compute of every chip against its year, and the line that polyfit finds."
    chips = [c for c in chips if c["fp32_tflops"]]
    year = np.array([c["year"] for c in chips], dtype=float)
    peak = np.array([c["fp32_tflops"] for c in chips])
    slope, start = np.polyfit(year, np.log2(peak), 1)
    fig, ax = plots.subplots(size=(7, 3.8))
    ends = np.array([year.min(), year.max()])
    ax.plot(ends, 2 ** (slope * ends + start), color=plots.BLACK, lw=1.5)
    for kind, (colour, marker) in KINDS.items():
        mine = np.array([c["kind"] == kind for c in chips])
        if mine.any():
            ax.scatter(
                year[mine], peak[mine], s=26, color=colour, marker=marker, label=kind
            )
    ax.set_yscale("log")
    ax.set_xlabel("year of introduction")
    ax.set_ylabel("peak fp32, TFLOP/s")
    ax.legend(frameon=False, loc="upper left", ncols=len(KINDS), handletextpad=0.1)
    months = 12 / slope
    plots.title(ax, f"Peak compute of a chip doubled every {months:.0f} months")
    says = (
        f"Peak fp32 compute of {len(chips)} chips from {ends[0]:.0f} to {ends[1]:.0f} on a "
        f"logarithmic axis: the fitted line doubles every {months:.0f} months."
    )
    return fig, says


def tangent(loss, numeric_gradient):
    "The loss along w (b = 1) and its measured slope at three points."
    w = np.linspace(-1, 5, 121)
    fig, ax = plots.subplots(size=(6.4, 3.4))
    ax.plot(w, [loss(np.array([v, 1.0])) for v in w], color=plots.BLUE)
    for at in (0.5, 2.0, 3.5):
        point = np.array([at, 1.0])
        height, slope = loss(point), numeric_gradient(loss, point)[0]
        ends = np.array([at - 0.7, at + 0.7])
        ax.plot(ends, height + slope * (ends - at), color=plots.RED)
        ax.plot(at, height, "o", color=plots.RED)
        side = {0.5: "right", 2.0: "center", 3.5: "left"}[at]
        shift = {"right": (-10, 0), "center": (0, 10), "left": (10, 0)}[side]
        ax.annotate(
            f"slope {round(slope, 1) + 0.0:+.3g}".replace("+0", "0"), (at, height), xytext=shift,
            textcoords="offset points", color=plots.RED, ha=side,
        )  # fmt: skip
    ax.set_ylim(bottom=-2)
    ax.set_xlabel("weight w (b = 1)")
    ax.set_ylabel("loss")
    plots.title(ax, "The sign of the slope says on which side the bottom lies")
    return fig, (
        "The loss as a function of w is a parabola with its bottom at w = 2; the measured "
        "slope is negative to the left, zero at the bottom and positive to the right."
    )


def cliff(below, above):
    "Loss against steps for a rate just below and one just above the bound."
    fig, ax = plots.subplots(size=(6.6, 3.4))
    for losses, colour, name in (
        (below, plots.BLUE, "0.99 of the bound"),
        (above, plots.RED, "1.01 of the bound"),
    ):
        steps = np.arange(len(losses)) + 1
        ax.plot(steps, losses, color=colour)
        at = len(losses) * 2 // 3
        ax.annotate(
            name, (steps[at], losses[at]), color=colour, textcoords="offset points",
            xytext=(10, -4) if losses is above else (0, 8),
            ha="left" if losses is above else "center",
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    plots.title(
        ax, "Two per cent of learning rate between standing still and exploding"
    )
    return fig, (
        f"Loss on a logarithmic axis: at 0.99 of the computed bound it stays below its "
        f"start for {len(below):,} steps, at 1.01 it grows a billionfold in {len(above):,}."
    )


def overshoot(rates=(0.3, 1.7, 2.1), steps=8):
    "One direction of the bowl, u * u / 2, and the walk down it at three rates."
    fig, axes = plots.subplots(1, len(rates), size=(9.2, 3.1), sharey=True)
    u = np.linspace(-2.6, 2.6, 101)
    told = []
    for ax, rate in zip(axes, rates):
        walk = (1 - rate) ** np.arange(steps + 1)
        ax.plot(u, u**2 / 2, color=plots.BLUE)
        ax.plot(walk, walk**2 / 2, "o-", color=plots.RED, ms=4, lw=1)
        ax.plot(walk[0], walk[0] ** 2 / 2, "o", color=plots.BLACK, ms=6)
        ax.annotate(
            "start",
            (walk[0], walk[0] ** 2 / 2),
            xytext=(9, -6),
            textcoords="offset points",
        )
        ax.set(xlabel="distance u from the bottom", xlim=(-2.7, 2.7), ylim=(-0.2, 3.3))
        factor = round(1 - rate, 3)
        way = "walks down" if factor > 0 else "nearer" if factor > -1 else "further"
        way = way if factor > 0 else f"across, {way}"
        plots.title(ax, f"times {factor:g}: {way}")
        told.append(f"{factor:g} ({way})")
    axes[0].set_ylabel("loss above the bottom")
    return fig, (
        f"A parabola and {steps} steps of descent from the same start for three learning "
        f"rates: each step multiplies the distance u from the bottom by {', '.join(told)}."
    )


def _rough(ratio):
    "A ratio in words that need no exponent."
    if ratio < 1.005:
        return "1.00"
    return f"{ratio:.2f}" if ratio < 100 else f"{float(f'{ratio:.2g}'):,.0f}"


def descent_path(X_N1, y_N, stable_rate):
    "A lab on one feature: the loss surface, the path down it, and the loss of each step."

    def draw(share_of_the_cliff=0.9, steps=30, standardised=False):
        x = X_N1[:, 0]
        if standardised:
            x = (x - x.mean()) / x.std()
        A = np.c_[x, np.ones(len(x))]
        rate = share_of_the_cliff * stable_rate(x[:, None])
        best = np.linalg.lstsq(A, y_N, rcond=None)[0]
        path = [np.zeros(2)]
        for _ in range(steps):
            path.append(path[-1] - rate * 2 * A.T @ (A @ path[-1] - y_N) / len(y_N))
        path = np.array(path)
        losses = ((path @ A.T - y_N) ** 2).mean(1)
        floor = ((A @ best - y_N) ** 2).mean()

        fig, (left, right) = plots.subplots(1, 2, size=(9, 4.0), width_ratios=[1, 1.15])
        reach = 1.5 * np.abs(best).max()  # the same on both axes: a round bowl is round
        w, b = (np.linspace(at - reach, at + reach, 90) for at in best)
        W, B = np.meshgrid(w, b)
        surface = sum((W * a + B - y) ** 2 for a, y in zip(x, y_N)) / len(x)
        left.contourf(W, B, np.log(surface), levels=14, cmap="Blues", alpha=0.75)
        left.plot(*path.T, "o-", color=plots.RED, ms=3, lw=1.2)
        left.plot(*best, "*", color=plots.BLACK, ms=12)
        paper = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1}
        for text, at, side in (("best line", best, 1), ("start", (0, 0), -1)):
            left.annotate(
                text, at, xytext=(10 * side, 6), textcoords="offset points", bbox=paper,
                ha="left" if side > 0 else "right",
            )  # fmt: skip
        left.set(xlim=w[[0, -1]], ylim=b[[0, -1]], xlabel="weight w", ylabel="b")
        left.set_aspect("equal")
        left.grid(False)
        right.plot(losses / floor, color=plots.RED)
        right.axhline(1, color=plots.BLACK, lw=1, ls=":")
        right.annotate(
            "best line", (steps, 1), xytext=(0, -12), textcoords="offset points",
            fontsize=9, ha="right",
        )  # fmt: skip
        right.set(yscale="log", xlabel="step", ylabel="loss / loss of the best line")
        top = 1.3 * (losses / floor).max()
        right.set_ylim(top**-0.16, top)
        ticks = LogLocator(subs=(1, 2, 5) if top < 200 else (1,), numticks=12)
        right.yaxis.set_major_locator(ticks)
        right.yaxis.set_major_formatter(_plain)
        right.yaxis.set_minor_formatter(NullFormatter())
        ends, grew = losses[-1] / floor, losses[-1] > losses[0]
        how = "standardised years" if standardised else "decades since 2000"
        plots.title(left, f"Path on {how}")
        told = f"{_rough(ends)} times the loss of the best line"
        if grew:
            plots.title(
                right,
                f"Explodes: the loss grew {_rough(ends * floor / losses[0])}-fold",
            )
        elif ends < 1.005:
            plots.title(right, "Arrives at the best line")
            told = "that of the best line"
        else:
            plots.title(right, f"Still {_rough(ends)} times the best line's loss")
        return fig, (
            f"Path and loss of {steps} steps at {share_of_the_cliff:.2f} of the largest "
            f"stable rate (lr = {rate:.2g}) on {how}: the loss ends at {told}."
        )

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {
        "share_of_the_cliff": [0.05, 0.25, 0.5, 0.75, 0.9, 1.0, 1.05],
        "steps": [5, 30, 100],
    }
    return draw


def houses(raw, scaled, best):
    "Typical error of the house prices against steps, raw and standardised."
    fig, ax = plots.subplots(size=(6.6, 3.4))
    for losses, colour, name in (
        (raw, plots.RED, "raw features"),
        (scaled, plots.BLUE, "standardised"),
    ):
        ax.plot(np.arange(len(losses)) + 1, np.sqrt(losses), color=colour)
        ax.annotate(
            name, (2000, np.sqrt(losses[2000])), xytext=(0, 6),
            textcoords="offset points", color=colour,
        )  # fmt: skip
    ax.axhline(np.sqrt(best), color=plots.BLACK, lw=1, ls=":")
    ax.annotate(
        "best line", (1.1, np.sqrt(best)), xytext=(0, 5), textcoords="offset points"
    )
    ax.set(xscale="log", yscale="log", xlabel="step", ylabel="typical error, dollars")
    plots.title(
        ax, "Each at 0.9 of its bound: only scaled features reach the best line"
    )
    return fig, (
        f"Typical error in dollars against steps, both axes logarithmic: standardised "
        f"features end at {np.sqrt(scaled[-1]):,.0f}, raw ones at "
        f"{np.sqrt(raw[-1]):,.0f} after {len(raw):,} steps."
    )


def noise(runs):
    "{batch size: final loss over the best loss, one per seed}: the spread for each size."
    fig, ax = plots.subplots(size=(6.6, 3.2))
    rng = np.random.default_rng(0)
    for place, ratios in enumerate(runs.values()):
        spots = place + rng.uniform(-0.12, 0.12, len(ratios))
        ax.plot(spots, ratios, "o", color=plots.PALETTE[place], ms=5, alpha=0.7)
        ax.annotate(
            f"mean {np.mean(ratios):.3f}", (place + 0.18, np.mean(ratios)),
            color=plots.PALETTE[place], va="center",
        )  # fmt: skip
    ax.axhline(1, color=plots.BLACK, lw=1, ls=":")
    ax.set_xticks(range(len(runs)), [f"{size} rows per step" for size in runs])
    ax.set_xlim(-0.5, len(runs) - 0.3)
    ax.set_ylabel("final loss / best loss")
    plots.title(ax, "Few rows per step: a dance. All rows: no dance, few steps")
    means = ", ".join(f"{size} rows {np.mean(r):.3f}" for size, r in runs.items())
    return fig, (
        f"Final loss over the best loss for {len(next(iter(runs.values())))} shuffles of "
        f"each batch size; the means are {means}. The largest batch holds all rows: its "
        "excess is no noise but unfinished descent."
    )
