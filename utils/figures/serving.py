"""The figures of chapter 28."""

import numpy as np
from matplotlib.colors import ListedColormap

from utils import plots
from utils.built import engine

POLICIES = {"static": engine.static, "continuous": engine.continuous}


def lengths(spread=1.0, N=48, seed=0, mean=40):
    "How many steps each of N requests runs: about `mean`, more or less alike."
    if not spread:
        return [mean] * N
    shape = spread**-2  # a gamma law: spread 1 is the exponential one
    drawn_N = np.random.default_rng(seed).gamma(shape, mean / shape, N)
    return np.clip(drawn_N, 4, 5 * mean).astype(int).tolist()


def _gantt(ax, rows, steps):
    "Slots downwards, steps to the right, a colour per request, white where nobody is."
    grid_ST = np.array(rows).T
    colours = [*plots.PALETTE[:6], "#9cc9e8", "#e3b04b", "#7fbfa5", "#d9a0d6"]
    shown = np.where(grid_ST >= 0, grid_ST % len(colours), np.nan)
    ax.imshow(
        shown, aspect="auto", cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1,
        interpolation="nearest", extent=(0, len(rows), len(grid_ST), 0),
    )  # fmt: skip
    ax.set(xlim=(0, steps), ylabel="slot", yticks=[])
    ax.grid(False)


def _both(wants, slots):
    rows = {name: engine.count_steps(wants, slots, p) for name, p in POLICIES.items()}
    filled = {n: sum(wants) / (slots * len(r)) for n, r in rows.items()}
    return rows, filled


def first_look():
    "Static over continuous: slots times steps."
    wants = lengths()
    rows, filled = _both(wants, 8)
    steps = len(rows["static"])
    fig, axes = plots.subplots(2, 1, size=(8.6, 4.2), sharex=True)
    for ax, (name, own) in zip(axes, rows.items()):
        _gantt(ax, own, steps)
        told = (
            f"{name}: {len(own)} steps, {100 * filled[name]:.0f} % of the slots filled"
        )
        ax.set_title(told, loc="left", fontsize=10)
    axes[1].set_xlabel("step (a token for everybody who runs)")
    ratio = steps / len(rows["continuous"])
    plots.heading(
        fig,
        f"The same 48 answers in {ratio:.1f} times fewer steps: no slot waits for another",
    )
    return fig, (
        f"Two charts of 8 slots against steps, a colour per request and white where a slot is "
        f"idle. Static batches need {steps} steps and are mostly white behind their short "
        f"requests; continuous batching needs {len(rows['continuous'])} and is full almost "
        "to its end."
    )


def lab(slots=8, spread=1.0, block=16):
    "Both schedulers, and the memory that the continuous one holds."
    wants = lengths(spread)
    rows, filled = _both(wants, slots)
    steps = max(map(len, rows.values()))
    fig, axes = plots.subplots(3, 1, size=(8.6, 6.4), sharex=True)
    for ax, (name, own) in zip(axes, rows.items()):
        _gantt(ax, own, steps)
        told = (
            f"{name}: {len(own)} steps, {100 * filled[name]:.0f} % of the slots filled"
        )
        ax.set_title(told, loc="left", fontsize=10)
    held, lent, kept = _memory(rows["continuous"], wants, block)
    longest = 5 * 40
    for label, series, colour, height in (
        (f"blocks of {block}", lent, plots.BLUE, 0.78),
        ("tokens held", held, plots.ORANGE, 0.62),
    ):
        axes[2].plot(series, color=colour)
        axes[2].text(0.99, height, label, color=colour, ha="right", va="center",
                     transform=axes[2].transAxes)  # fmt: skip
    axes[2].plot([longest * slots] * len(held), color=plots.RED, lw=1.2)
    axes[2].text(0.01 * steps, longest * slots * 0.95, f"{longest} reserved for each slot",
                 color=plots.RED, va="top", fontsize=9)  # fmt: skip
    axes[2].set(xlabel="step", ylabel="tokens", ylim=(0, longest * slots * 1.05))
    axes[2].set_title(
        f"continuous, memory: {100 * kept:.0f} % of what the blocks can hold is in use, "
        f"{100 * sum(held) / (longest * slots * len(held)):.0f} % of what would be reserved",
        loc="left", fontsize=10,
    )  # fmt: skip
    ratio = len(rows["static"]) / len(rows["continuous"])
    gain = f"needs {ratio:.2f} times fewer steps" if ratio > 1 else "gains nothing"
    plots.heading(
        fig,
        f"{slots} slots: continuous batching {gain}",
    )
    return fig, (
        f"48 requests of about 40 steps, spread {spread:g}, in {slots} slots: static batching "
        f"takes {len(rows['static'])} steps, continuous {len(rows['continuous'])}; of the "
        f"tokens that blocks of {block} can hold, {100 * kept:.0f} % are in use."
    )


lab.book = {
    "slots": [2, 4, 8, 16],
    "spread": [0.0, 0.5, 1.0, 1.5],
    "block": [1, 16, 64],
}


def _memory(rows, wants, block):
    "Tokens held and lent at each step of a timetable, and the share of the two."
    seen, held, lent = dict.fromkeys(range(len(wants)), 0), [], []
    for row in rows:
        own = []
        for number in row:
            if number >= 0:
                seen[number] += 1
                own.append(seen[number])
        held.append(sum(own))
        lent.append(sum(-(-n // block) * block for n in own))
    return held, lent, sum(held) / sum(lent)


def company(milliseconds):
    "{batch: milliseconds of a step}: what company costs, and what it brings."
    fig, ax = plots.subplots(size=(6.6, 3.4))
    one = milliseconds[1]
    batches = list(milliseconds)
    cost = [ms / one for ms in milliseconds.values()]
    plots.lines(
        ax,
        {
            "time of a step": cost,
            "tokens per second": [b / c for b, c in zip(batches, cost)],
            "if company were free": batches,
        },
        x=batches,
    )
    ax.set(
        xscale="log", yscale="log", xlabel="rows in the batch", ylabel="times one row"
    )
    ax.set_xticks(batches, [str(b) for b in batches])
    ax.minorticks_off()
    ax.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    last = batches[-1]
    gain = last / cost[-1]
    plots.title(ax, f"{last} rows cost {cost[-1]:.1f} times one row: "
                    f"{gain:.1f} times the tokens")  # fmt: skip
    return fig, (
        f"A decoding step against the rows in its batch, both axes logarithmic: its time "
        f"grows to {cost[-1]:.1f} times that of one row at {last} rows, so tokens per second "
        f"grow {gain:.1f} times."
    )


def stalls(whole, cut, budget):
    "Tokens read in each step, where a long prompt arrives: in one go, and in pieces."
    fig, axes = plots.subplots(1, 2, size=(8.6, 3.0), sharey=True)
    for ax, (name, steps), colour in zip(
        axes,
        {"in one go": whole, f"at most {budget} a step": cut}.items(),
        (plots.RED, plots.BLUE),
    ):
        ax.bar(range(len(steps)), steps, width=1.0, color=colour)
        ax.set(xlabel="steps after the letter came", xlim=(-0.5, len(cut) + 0.5))
        ax.set_title(f"{name.replace(' a step', ' per step')}: the largest step reads "
                     f"{max(steps)}", loc="left", fontsize=10)  # fmt: skip
    axes[0].set_ylabel("tokens read in the step")
    plots.heading(
        fig,
        f"Writers wait for a step of {max(whole)} tokens, or for steps of {max(cut)}",
    )
    return fig, (
        f"Bars of tokens read per step: read in one go, a long prompt makes one step of "
        f"{max(whole)} tokens; cut up, no step reads more than {max(cut)}."
    )


def guesses(rows):
    "{K: (tokens per call, the formula's, times as fast)}."
    K = list(rows)
    per_call, formula, speed = zip(*rows.values())
    fig, ax = plots.subplots(size=(6.6, 3.4))
    plots.lines(ax, {"tokens per call": per_call, "times as fast": speed}, x=K)
    ax.plot(K, formula, "k--", lw=1.2)
    ax.annotate(
        "formula", (K[1], formula[1]), xytext=(-6, 12), textcoords="offset points",
        ha="right",
    )  # fmt: skip
    ax.axhline(1, color="#999999", lw=1)
    ax.set(xlabel="proposals per call, K", ylabel="times plain decoding", xticks=K)
    best = max(rows, key=lambda k: rows[k][2])
    plots.title(ax, f"The counter's guesses pay: {rows[best][2]:.2f} times as fast at "
                    f"K = {best}")  # fmt: skip
    return fig, (
        f"Tokens per call and speed against plain decoding for {K[0]} to {K[-1]} proposals "
        f"of a counted draft: up to {max(per_call):.2f} tokens per call and "
        f"{rows[best][2]:.2f} times the speed; the formula of equal chances lies close."
    )
