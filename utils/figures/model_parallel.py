"""The figures of chapter 19."""

import numpy as np
from matplotlib.patches import Patch

from utils import plots
from utils.built import pipeline
from utils.built.tensor_parallel import zigzag

KIND = {"F": plots.BLUE, "B": plots.ORANGE, "W": plots.GREEN}
RANK = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE)
SAID = {"F": "forward", "B": "backward", "W": "weights' gradient"}


# ---- Gantt charts ----


def _gantt(ax, spans, numbers=True):
    "One row per rank, rank 0 on top; a later stage of the same rank is paler."
    p = len(spans)
    first = min(s[0][0] for s in spans)
    whole = max(s[-1][1] for s in spans) - first
    for rank, row in enumerate(spans):
        for start, end, (kind, i, stage) in row:
            pale = 0.6 if stage // p else 1.0
            ax.barh(rank, end - start, left=start - first, height=0.86, lw=0.4,
                    color=KIND[kind], alpha=pale, edgecolor="white")  # fmt: skip
            if numbers and (end - start) / whole > 0.017:
                ax.text((start + end) / 2 - first, rank, i, ha="center", va="center",
                        color="white" if pale == 1 else plots.BLACK, fontsize=7)  # fmt: skip
    ax.set(ylim=(p - 0.5, -0.5), xlim=(0, whole), yticks=range(p))
    ax.set_yticklabels([f"rank {rank}" for rank in range(p)], fontsize=8)
    ax.set_facecolor("#ececec")
    ax.grid(False)


def _key(fig, kinds, idle=True, **place):
    "What the colours mean, in one line."
    parts = [Patch(color=KIND[kind], label=SAID[kind]) for kind in kinds]
    parts += [Patch(color="#ececec", label="idle")] * idle
    fig.legend(handles=parts, ncols=len(parts), frameon=False, fontsize=9, **place)


def _percent(share):
    return f"{100 * share:.0f} %"


def four_schedules(p=4, m=8):
    "Four orders of the same work on p stages, simulated."
    spans = {
        name: pipeline.simulate(orders, pipeline.seconds_of(name))
        for name, orders in pipeline.schedules(p, m).items()
    }
    idle = {name: pipeline.idle_share(s) for name, s in spans.items()}
    ends = [max(row[-1][1] for row in s) for s in spans.values()]
    fig, axes = plots.subplots(4, 1, size=(8.4, 6.2), sharex=True)
    for ax, (name, s) in zip(axes, spans.items()):
        _gantt(ax, s)
        ax.set_xlim(0, max(ends))
        plots.title(ax, f"{name}: {_percent(idle[name])} of the chips' time is idle")
    axes[-1].set_xlabel("time, in forward passes of one stage")
    _key(fig, "FBW", loc="outside lower center")
    shares = ", ".join(f"{name} {_percent(share)}" for name, share in idle.items())
    return fig, (
        f"{m} micro-batches through {p} stages in four orders, simulated; a number is a "
        f"micro-batch, paler bars are a rank's second stage. Idle: {shares}."
    )


def played(measured, unit):
    "{name: (spans on processes, predicted idle share)}; unit: seconds of a forward pass."
    fig, axes = plots.subplots(len(measured), 1, size=(8.4, 1.5 * len(measured) + 0.7),
                               sharex=True)  # fmt: skip
    said, longest = [], 0
    for ax, (name, (spans, predicted)) in zip(np.atleast_1d(axes), measured.items()):
        share = pipeline.idle_share(spans)
        _gantt(ax, [[(a * 1e3, b * 1e3, action) for a, b, action in s] for s in spans])
        longest = max(longest, ax.get_xlim()[1])
        plots.title(ax, f"{name}: {_percent(share)} idle on processes, {_percent(predicted)} predicted")  # fmt: skip
        said.append(f"{name} {_percent(share)} (predicted {_percent(predicted)})")
    for ax in np.atleast_1d(axes):
        ax.set_xlim(0, longest)
    np.atleast_1d(axes)[-1].set_xlabel("milliseconds on the wall clock")
    _key(fig, "FBW", loc="outside lower center")
    return fig, (
        f"Four processes play the orders, each action a sleep (a forward pass {unit * 1e3:.0f} "
        f"ms). Measured idle share: {'; '.join(said)}."
    )


# ---- who looks at whom ----


def causal_work(T=16, n=4):
    "The causal triangle of T positions, its rows in the colours of n ranks."
    ways = {
        "neighbours": [np.arange(T).reshape(n, -1)[r] for r in range(n)],
        "zigzag": [zigzag(T, n, r).numpy() for r in range(n)],
    }
    fig, axes = plots.subplots(1, 2, size=(8.4, 4))
    said = []
    for ax, (name, places) in zip(axes, ways.items()):
        counts = []
        for rank, mine in enumerate(places):
            for q in mine:
                ax.barh(q, q + 1, height=0.9, color=RANK[rank])
            counts.append(int(sum(q + 1 for q in mine)))
        for rank, mine in enumerate(places):
            rows = [mine] if name != "zigzag" else np.split(mine, 2)
            for row in rows:
                ax.text(T + 0.4, np.mean(row), f"rank {rank}", color=RANK[rank],
                        va="center", fontsize=9)  # fmt: skip
        ax.set(ylim=(T - 0.5, -0.5), xlim=(0, T + 3.4), xticks=range(0, T + 1, 4))
        ax.set(xlabel="positions that it looks at", yticks=range(0, T, 4))
        ax.grid(False)
        plots.title(ax, f"{name}: {', '.join(map(str, counts))}")
        said.append(f"{name} {', '.join(map(str, counts))}")
    axes[0].set_ylabel("position that looks")
    return fig, (
        f"Causal attention over {T} positions, a row per position, coloured by its rank; "
        f"pairs per rank: {'; '.join(said)}."
    )


# ---- plans ----

PART = {
    "compute": (plots.BLUE, "computing"),
    "bubble": ("#b9b9b9", "bubble"),
    "tensor": (plots.ORANGE, "sums inside layers"),
    "data": (plots.GREEN, "weights and gradients of copies"),
}


def plan_bars(table):
    "{chips: {plan: {part: seconds}}}: stacked bars, the best plan first."
    fig, axes = plots.subplots(1, len(table), size=(8.8, 3.8))
    said = []
    for ax, (chips, by_plan) in zip(np.atleast_1d(axes), table.items()):
        for place, parts in enumerate(by_plan.values()):
            left = 0.0
            for part, (colour, _) in PART.items():
                ax.barh(place, parts[part], left=left, color=colour, height=0.8)
                left += parts[part]
        ax.set_yticks(range(len(by_plan)), [" x ".join(map(str, p)) for p in by_plan])
        ax.invert_yaxis()
        ax.set_xlabel("predicted seconds per step")
        ax.grid(axis="y", visible=False)
        best, parts = next(iter(by_plan.items()))
        useful = parts["compute"] / sum(parts.values())
        name = " x ".join(map(str, best))
        plots.title(ax, f"{chips:,} chips: {name}, {_percent(useful)} computing")
        said.append(f"{chips:,} chips {name} ({_percent(useful)} computing)")
    np.atleast_1d(axes)[0].set_ylabel("tp x pp x dp")
    parts = [Patch(color=colour, label=label) for colour, label in PART.values()]
    fig.legend(
        handles=parts, ncols=4, frameon=False, fontsize=9, loc="outside lower center"
    )
    return fig, (
        "Predicted seconds of one step for the plans that fit, the quickest on top and the "
        f"slowest at the bottom: {'; '.join(said)}."
    )


# ---- the lab ----


def bubble():
    """draw(schedule, ranks, micro_batches, backward, slow): the chart of one step.

    backward: how many times as long as forward; slow: how many times as long rank 1
    takes for everything.
    """

    def draw(schedule="1F1B", ranks=4, micro_batches=8, backward=2.0, slow=1.0):
        p, m = ranks, micro_batches
        if schedule == "interleaved":
            m = max(p, m // p * p)
        orders = pipeline.schedules(p, -(-m // p) * p)[schedule]
        if m % p:  # not interleaved: any number will do
            order = {"GPipe": pipeline.gpipe, "1F1B": pipeline.order_1f1b,
                     "zero bubble": pipeline.zero_bubble}[schedule]  # fmt: skip
            orders = [order(p, m, rank) for rank in range(p)]
        chunks = 2 if schedule == "interleaved" else 1
        seconds = pipeline.seconds_of(schedule, backward, chunks)
        spans = pipeline.simulate(orders, seconds, {min(1, p - 1): slow})
        held = [pipeline.in_flight(order) / chunks for order in orders]
        return _lab(schedule, p, m, spans, held, slow)

    draw.book = {
        "micro_batches": [4, 8, 16],
        "ranks": [4],
        "backward": [2.0],
        "slow": [1.0, 1.5, 2.0],
    }
    return draw


def _lab(schedule, p, m, spans, held, slow):
    fig, (ax, below) = plots.subplots(
        2, 1, size=(8.6, 0.36 * p + 2.9), height_ratios=(0.36 * p + 0.8, 1.1)
    )
    _gantt(ax, spans)
    ax.set_xlabel("time, in forward passes of one stage")
    share, whole = pipeline.idle_share(spans), max(s[-1][1] for s in spans)
    plots.title(
        ax, f"{schedule}, {m} micro-batches: {_percent(share)} idle, {whole:.3g} long"
    )
    below.bar(range(p), held, color=plots.PURPLE, width=0.6)
    for rank, count in enumerate(held):
        below.text(rank, count, f" {count:g}", ha="center", va="bottom", fontsize=8,
                   color=plots.PURPLE)  # fmt: skip
    below.set(ylim=(0, 1.3 * max(held)), xticks=range(p), ylabel="micro-batches")
    below.set_xticklabels([f"rank {rank}" for rank in range(p)], fontsize=8)
    below.grid(axis="x", visible=False)
    plots.title(below, f"held for backward at one time: at most {max(held):g}")
    kinds = "FBW" if schedule == "zero bubble" else "FB"
    _key(fig, kinds, loc="outside lower center")
    weak = "" if slow == 1 else f" Rank {min(1, p - 1)} takes {slow:g} times as long."
    return fig, (
        f"{schedule} on {p} ranks with {m} micro-batches, simulated: {_percent(share)} of "
        f"the ranks' time is idle, the step is {whole:.3g} forward passes long, and a rank "
        f"holds at most {max(held):g} micro-batches.{weak}"
    )
