"""Chapter 10: figures whose drawing is not the lesson, and its lab."""

from functools import cache

import numpy as np

from utils import plots
from utils.built import scaling

PER_HIDDEN = 191  # weights that multiply, per hidden unit: 128 in, 63 out


@cache
def grid():
    "Mean recorded loss over the seeds: {(hidden, steps): (N, D, loss)}."
    found = {}
    for run in scaling.recorded():
        place = found.setdefault((run["hidden"], run["steps"]), [])
        place.append((run["N"], run["D"], run["loss"]))
    return {key: tuple(np.mean(runs, 0)) for key, runs in found.items()}


@cache
def budgets():
    "{C: rows (N, D, loss)} of the recorded runs: sizes and steps both double."
    found = {}
    for N, D, loss in grid().values():
        found.setdefault(round(6 * N * D), []).append((N, D, loss))
    return {C: np.array(sorted(runs)) for C, runs in sorted(found.items())}


@cache
def surface():
    "The law through all recorded runs: E, A, alpha, B, beta."
    return scaling.fit_surface(*np.array([*grid().values()]).T)


def told(law, N, D):
    "The loss that a law tells."
    E, A, alpha, B, beta = law
    return E + A / N**alpha + B / D**beta


def first_look():
    "Five budgets, each spent on networks of several sizes."
    fig, ax = plots.subplots(size=(7, 3.7))
    inside = [C for C, runs in budgets().items() if len(runs) > 4]
    for number, C in enumerate(inside[::2]):
        runs = budgets()[C]
        colour = plots.PALETTE[number % 6]
        ax.plot(runs[:, 0] / PER_HIDDEN, runs[:, 2], ".-", color=colour, ms=9, lw=1.2)
        low = runs[runs[:, 2].argmin()]
        ax.plot(low[0] / PER_HIDDEN, low[2], "o", ms=13, mfc="none", mec=colour)
        place = runs[-1]
        ax.annotate(
            f"{C / 1e9:.0f} GFLOP", (place[0] / PER_HIDDEN, place[2]), xytext=(7, 0),
            textcoords="offset points", color=colour, va="center",
        )  # fmt: skip
    ax.set(xscale="log", xlabel="hidden units", ylabel="loss, nats per character")
    _powers(ax, 8, 1024)
    ax.set_xlim(7, 2600)
    plots.title(ax, "Each budget has its best size, neither smallest nor largest")
    lines = len(inside[::2])
    return fig, (
        f"Loss over the size of the network: {lines} curves, each with one budget of "
        "arithmetic for all its networks. Every curve is a valley; with more budget its "
        "bottom, circled, moves down and to larger networks."
    )


def _powers(ax, low, high):
    ticks = [2**k for k in range(16) if low <= 2**k <= high]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()


def envelope(N_H, loss_SH, line, law, N_big, loss_big):
    "Small runs, two laws through them, and the large run that came after."
    mean_H = loss_SH.mean(0)
    fig, ax = plots.subplots(size=(7, 3.7))
    many = np.geomspace(N_H[0] * 0.9, N_big * 1.15, 100)
    A, slope = line
    E, A2, alpha = law
    ax.plot(many, A / many**slope, "--", color=plots.ORANGE, lw=1.4)
    ax.plot(many, E + A2 / many**alpha, color=plots.BLUE, lw=1.6)
    for losses in loss_SH:
        ax.plot(N_H, losses, ".", color=plots.BLACK, ms=7)
    ax.plot(many[[0, -1]], 2 * [mean_H[-1]], color=plots.SKY, lw=1, ls=":")
    ax.plot(N_big, loss_big, "*", color=plots.RED, ms=15)
    miss = {
        "law with a floor": (E + A2 / N_big**alpha) / loss_big - 1,
        "straight line": A / N_big**slope / loss_big - 1,
        "like the last run": mean_H[-1] / loss_big - 1,
    }
    for (label, part), y, colour in zip(
        miss.items(),
        (E + A2 / N_big**alpha, A / N_big**slope, mean_H[-1]),
        (plots.BLUE, plots.ORANGE, plots.SKY),
    ):
        ax.annotate(
            f"{label}: {100 * part:+.1f} %", (N_big * 1.15, y), xytext=(6, 0),
            textcoords="offset points", va="center", color=colour,
        )  # fmt: skip
    ax.annotate("the envelope's run", (N_big, loss_big), xytext=(-38, -42), ha="right",
                textcoords="offset points", color=plots.RED,
                arrowprops={"arrowstyle": "-", "color": plots.RED, "shrinkB": 6})  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="weights N",
           ylabel="loss, nats per character")  # fmt: skip
    ticks = np.arange(2.0, loss_SH.max() + 0.1, 0.1)
    ax.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    ax.minorticks_off()
    best = 100 * abs(miss["law with a floor"])
    plots.title(ax, f"Told before it was trained, and missed by {best:.1f} %")
    return fig, (
        f"Losses of five small sizes, two seeds each, and two curves through them, drawn on "
        f"to a network {N_big / N_H[-1]:.0f} times as large as the last. The law with a "
        f"floor misses its loss by {best:.1f} %, the straight line is too low and the last "
        "small run too high."
    )


def bent(laws, points):
    "Tokens per weight that laws want, over the budget, beside what runs say."
    fig, ax = plots.subplots(size=(7, 3.5))
    C = np.geomspace(1e10, 3e14, 60)
    colours = (plots.BLUE, plots.ORANGE, plots.GREEN)
    ends = []
    for (label, law), colour in zip(laws.items(), colours):
        sizes = np.array([scaling.optimum(*law[1:], c) for c in C])
        wanted = sizes[:, 1] / sizes[:, 0]
        (line,) = ax.plot(C, wanted, color=colour)
        plots.label_end(ax, line, f"{label}: {wanted[-1]:.2g}")
        ends.append(wanted[-1])
    budget, ratio = np.array(points).T
    ax.plot(budget, ratio, "o", color=plots.BLACK, ms=6)
    ax.annotate("valleys of the runs", (budget[-1], ratio[-1]), xytext=(-10, -22),
                textcoords="offset points", ha="center")  # fmt: skip
    last = max(budgets())
    ax.axvline(last, color=plots.BLACK, lw=0.8, ls=":")
    ax.annotate("no run beyond", (last, 1), xycoords=("data", "axes fraction"),
                xytext=(5, -12), textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="budget C, FLOP",
           ylabel="tokens per weight")  # fmt: skip
    ax.set_yticks([3, 10, 30, 100, 300], ["3", "10", "30", "100", "300"])
    ax.minorticks_off()
    apart = max(ends) / min(ends)
    plots.title(
        ax, f"Together at the valleys, {apart:.1f} times apart at 100 times the budget"
    )
    return fig, (
        "Best tokens per weight over the budget, from laws fitted to all recorded runs and "
        "to parts of them. They agree at the valleys of the runs; a hundred times beyond the "
        f"largest budget they differ by a factor of {apart:.1f}."
    )


def rates(log2_rates, usual, scaled):
    "Loss over learning rate for several widths, in two ways of setting the rates."
    fig, axes = plots.subplots(1, 2, size=(8.6, 3.4), sharey=True)
    for ax, curves in zip(axes, (usual, scaled)):
        for losses, colour in zip(curves.values(), plots.PALETTE):
            losses = np.asarray(losses)
            ax.plot(log2_rates, losses, ".-", color=colour, lw=1.4)
        ax.set(yscale="log", xlabel="learning rate, log2")
        ax.set_yticks([0.02, 0.1, 0.5, 2], ["0.02", "0.1", "0.5", "2"])
        ax.minorticks_off()
        ax.set_xticks(log2_rates[::2], [f"{x:g}" for x in log2_rates[::2]])
    for row, (width, colour) in enumerate(zip(usual, plots.PALETTE)):
        axes[0].text(0.03, 0.2 - 0.075 * row, f"width {width}", color=colour,
                     transform=axes[0].transAxes)  # fmt: skip
    axes[0].set(ylabel="loss")
    plots.title(axes[0], "One rate: the curve moves")
    plots.title(axes[1], "muP: it stays")
    widths = ", ".join(str(width) for width in usual)
    return fig, (
        f"Two panels of loss over learning rate for the widths {widths}. With one rate for "
        "all parameters the curves of wider networks lie further to the left; with muP's "
        "rates their left sides, from small rates down to the best, lie on one another."
    )


def forgetting(table):
    "{model: (loss on the plays, loss on the manual)} as points on two lines."
    fig, ax = plots.subplots(size=(7, 2.9))
    names = list(table)
    for row, name in enumerate(names):
        old, new = table[name]
        ax.plot([old, new], [row, row], color="#cccccc", lw=2, zorder=1)
        ax.plot(old, row, "o", color=plots.BLUE, ms=9)
        ax.plot(new, row, "s", color=plots.ORANGE, ms=9)
        for value, colour, other in (
            (old, plots.BLUE, new),
            (new, plots.ORANGE, old),
        ):
            side = -1 if value < other else 1
            ax.annotate(f"{value:.2f}", (value, row), xytext=(9 * side, 0), va="center",
                        ha="left" if side > 0 else "right", color=colour,
                        textcoords="offset points")  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="loss, nats per character", ylim=(len(names) - 0.5, -0.9))
    ax.margins(x=0.14)
    first = table[names[0]]
    ax.annotate("plays", (first[0], 0), xytext=(0, 10), textcoords="offset points",
                ha="center", color=plots.BLUE)  # fmt: skip
    ax.annotate("manual", (first[1], 0), xytext=(0, 10), textcoords="offset points",
                ha="center", color=plots.ORANGE)  # fmt: skip
    lost = table["fine-tuned"][0] - first[0]
    plots.title(ax, f"The manual is learnt, and {lost:.2f} nats of the plays are lost")
    return fig, (
        "Loss on the plays and on the manual of four models: before, fine-tuned, "
        "fine-tuned with old rows mixed in, and one that began from nothing. Fine-tuning "
        f"costs {lost:.2f} nats on the plays; mixed rows keep most of that."
    )


def spend(doublings=7, size=10):
    "The lab: a budget, spent on a network of 2**size hidden units."
    law, every = surface(), budgets()
    C0 = min(every)
    C, hidden = C0 * 2**doublings, 2**size
    N = PER_HIDDEN * hidden
    D = C / (6 * N)
    best_N, best_D = scaling.optimum(*law[1:], C)
    here, best = told(law, N, D), told(law, best_N, best_D)
    fig, axes = plots.subplots(1, 2, size=(8.6, 3.5))
    lN, lD = np.geomspace(1e3, 3e5, 60), np.geomspace(2e4, 1e7, 60)
    mesh = told(law, *np.meshgrid(lN, lD))
    levels = [1.7, 1.8, 1.9, 2.0, 2.2, 2.4, 2.7, 3.1]
    ax = axes[0]
    drawn = ax.contour(lN, lD, mesh, levels, colors="#999999", linewidths=0.8)
    ax.clabel(drawn, fmt="%.1f", fontsize=8)
    ax.plot(lN, C / (6 * lN), color=plots.BLUE, lw=1.6)
    ax.plot(best_N, best_D, "o", ms=11, mfc="none", mec=plots.GREEN, mew=2)
    ax.plot(N, D, "o", ms=8, color=plots.RED)
    ax.set(xscale="log", yscale="log", xlabel="weights N", ylabel="tokens D",
           ylim=(lD[0], lD[-1]), xlim=(lN[0], lN[-1]))  # fmt: skip
    ax.grid(False)
    plots.title(ax, f"{C / 1e9:.3g} GFLOP, every way to spend it")
    ax = axes[1]
    sizes = np.geomspace(1e3, 3e5, 60)
    ax.plot(sizes, told(law, sizes, C / (6 * sizes)), color=plots.BLUE, lw=1.6)
    near = min(every, key=lambda c: abs(np.log(c / C)))
    ax.plot(*every[near][:, [0, 2]].T, ".", color=plots.BLACK, ms=9)
    ax.plot(best_N, best, "o", ms=11, mfc="none", mec=plots.GREEN, mew=2)
    ax.plot(N, here, "o", ms=8, color=plots.RED)
    ax.set(xscale="log", xlabel="weights N", ylabel="loss", ylim=(1.7, 3.4))
    plots.title(ax, f"H = {hidden}: {here:.2f}; the best: {best:.2f}")
    times = N / best_N
    off = (
        f"{times:.1f} times too large"
        if times > 1
        else f"{1 / times:.1f} times too small"
    )
    return fig, (
        f"{C / 1e9:.3g} GFLOP spent on {hidden} hidden units, which leaves {D:,.0f} tokens: "
        f"the law predicts a loss of {here:.2f}. At the best size, near "
        f"{best_N / PER_HIDDEN:.0f} units, it would be {best:.2f}; this one is {off}. "
        "Black dots are recorded runs of this budget."
    )


spend.book = {"doublings": [3, 5, 7, 9, 11], "size": list(range(3, 11))}
