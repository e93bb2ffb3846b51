"""The figures and the lab of chapter 29."""

import statistics
import time

import numpy as np

from utils import plots
from utils.built import budget
from utils.built.plan import HOUR, Shape, fit_machine, size_up
from utils.data import accelerators
from utils.data.runs import runs
from utils.figures.budget import hours

GB, TERA = 1e9, 1e12
SMALL = Shape(63, 64, 2, 4, 4, 256)  # the model that this chapter builds


def first_guess(steps=120, rows=32, tokens=64):
    """Chip-hours of the chapter's run on this machine, from three measured passes.

    CPU seconds of forward and backward at three sizes, five times in turns; no optimizer,
    so the chapter's own plan is the better one.
    """
    import torch
    import torch.nn.functional as F

    from utils.built.gpt import GPT

    with torch.random.fork_rng(devices=[]):
        model = GPT(SMALL.V, tokens, SMALL.L, SMALL.H, SMALL.E)
        sizes, taken = (2, 6, 12), {}
        for turn in range(6):
            for size in sizes:
                ids = torch.randint(SMALL.V, (size, tokens))
                begin = time.process_time()
                F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
                if turn:
                    taken.setdefault(size, []).append(time.process_time() - begin)
    measured = [(size_up(SMALL, s, tokens)[1], t) for s, t in taken.items()]
    if statistics.median(measured[0][1]) >= statistics.median(measured[-1][1]):
        work, taken = measured[-1]  # a busy moment: no line can be drawn
        rate, overhead = work / statistics.median(taken), 0.0
    else:
        rate, overhead = fit_machine(measured)
    seconds = steps * (2 * overhead + size_up(SMALL, rows, tokens)[1] / rate)
    return seconds / HOUR


def one_line(own):
    "Published chip-hours over predicted ones, and a ring where this machine's run may land."
    found = hours()
    fig, ax = plots.subplots(size=(6.8, 4.2))
    ends = np.array([own / 30, 3e8])
    ax.plot(ends, ends, color=plots.BLACK, lw=1)
    for _, told, guess in found:
        ax.plot(guess, told, "x", color=plots.BLUE, ms=8, mew=2)
    ax.axvline(own, color=plots.RED, lw=1, ls=":")
    ax.plot(own, own, "o", ms=12, mfc="white", mec=plots.RED, mew=2)
    ax.annotate(f"yours, 120 steps: {own * HOUR:.0f} chip-seconds\nif the guess is right",
                (own, own), xytext=(14, -4), textcoords="offset points",
                color=plots.RED, va="top")  # fmt: skip
    largest = max(found, key=lambda row: row[1])
    ax.annotate(f"{len(found)} published runs,\nup to {largest[0]['name']}",
                (largest[2], largest[1]), xytext=(-110, 0), textcoords="offset points",
                ha="right", va="center", color=plots.BLUE)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends,
           xlabel="chip-hours, predicted", ylabel="chip-hours, measured")  # fmt: skip
    decades = np.log10(largest[1] / own)
    plots.title(ax, f"One planner, {decades:.0f} powers of ten")
    return fig, (
        f"Measured chip-hours over predicted ones: {len(found)} published runs lie along the "
        f"line of equality; a ring at {own * HOUR:.0f} chip-seconds marks where 120 "
        "steps on this machine land if the guess is right."
    )


def killed(whole, kill, again, back, every):
    """Losses of the unbroken run, and of the other: the first attempt, and `again` from `back`.

    The first attempt dies in step `kill`; its losses are the unbroken run's.
    """
    fig, ax = plots.subplots(size=(6.8, 3.4))
    ax.plot(range(1, len(whole) + 1), whole, color="#c8c8c8", lw=6)
    ax.plot(range(1, kill + 1), whole[:kill], color=plots.BLUE, lw=1.3)
    steps = range(back + 1, back + 1 + len(again))
    ax.plot(steps, again, color=plots.RED, lw=2, ls=(0, (2, 2)))
    ax.axvspan(back, kill, color=plots.ORANGE, alpha=0.25, lw=0)
    ax.plot(kill, whole[kill - 1], "X", color=plots.BLUE, ms=10)
    ax.annotate(f"step {kill}:\nsignal 9", (kill, whole[kill - 1]), xytext=(6, 10),
                textcoords="offset points", color=plots.BLUE, fontsize=9,
                bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    for height, text, colour in (
        (0.2, f"dashed: again from {back}, on one rank", plots.RED),
        (0.12, f"thin: until step {kill}, on two", plots.BLUE),
        (0.04, "grey: nobody disturbs it", "#777777"),
    ):
        ax.text(0.01, height, text, color=colour, fontsize=9, transform=ax.transAxes)
    for step in range(every, len(whole) + 1, every):
        ax.axvline(step, color="#bbbbbb", lw=0.7, ls=":")
    ax.set(xlabel="step (dotted: checkpoints)", ylabel="loss, nats per character",
           xlim=(0, len(whole) + 2))  # fmt: skip
    low, high = min(whole), max(whole)
    ax.set_ylim(low - 0.5 * (high - low), high + 0.05 * (high - low))  # room for words
    ax.grid(False)
    plots.title(ax, f"One kill costs {kill - back} steps; not one loss differs")
    return fig, (
        f"Training loss over {len(whole)} steps: the run was killed in step {kill}, went on "
        f"from the checkpoint at {back}, and its second attempt lies on the undisturbed run."
    )


DECIDED = "seconds", "tokens per second", "dollars"  # by a machine, not by arithmetic


def report(ratios, factor):
    "{prediction: measured / predicted} as dots around 1."
    names = list(ratios)
    fig, ax = plots.subplots(size=(6.8, 0.36 * len(names) + 1.1))
    worst = max(max(r, 1 / r) for r in ratios.values())
    limit = max(2.0, 1.5 * worst)
    ax.axvline(1, color=plots.BLACK, lw=1)
    ax.axvspan(1 / 1.1, 1.1, color=plots.SKY, alpha=0.18, lw=0)
    for place, name in enumerate(names):
        ratio = ratios[name]
        colour = plots.GREEN if 1 / 1.1 <= ratio <= 1.1 else plots.RED
        ax.plot([1, ratio], [place, place], color=colour, lw=1.5)
        ax.plot(ratio, place, "o", color=colour, ms=7)
        side, ha = (8, "left") if ratio >= 1 else (-8, "right")
        ax.annotate(f"{ratio:.3g}", (ratio, place), xytext=(side, 0), ha=ha, va="center",
                    textcoords="offset points", color=colour, fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", xlim=(1 / limit, limit), ylim=(len(names) - 0.4, -0.6),
           xlabel="measured / predicted (shaded: within 10 %)")  # fmt: skip
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10) if 1 / limit <= t <= limit]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.grid(False, axis="y")
    measured = [abs(np.log(ratios[name])) for name in DECIDED if name in ratios]
    plots.title(
        ax, f"{len(names)} numbers off by {factor:.2f}; the {len(measured)} that a machine "
        f"decides, by {np.exp(np.mean(measured)):.2f}"
    )  # fmt: skip
    told = ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items())
    return fig, f"Measured over predicted for {len(names)} numbers: {told}."


WEIGHTS = {"100 thousand": 1e5, "10 million": 1e7, "1 billion": 1e9, "7 billion": 7e9,
           "70 billion": 7e10, "1 trillion": 1e12}  # fmt: skip
CHIPS = ("A100 80GB SXM", "H100 SXM")
COUNTS = (1, 8, 256, 4096)
BITS = (16, 8, 4)
PER_WEIGHT = (20, 200)
PRICE = 2.0  # dollars per chip-hour, an assumption


def lab(own_flops, own_hours):
    "The lab: a planner whose axes hold the reader's own run and the published ones."

    def planner(weights="70 billion", tokens_per_weight=20, chip="A100 80GB SXM",
                chips=256, bits=16):  # fmt: skip
        return _plan(
            own_flops, own_hours, weights, tokens_per_weight, chip, chips, bits
        )

    planner.book = {
        "weights": ["1 billion", "7 billion", "70 billion", "1 trillion"],
        "tokens_per_weight": [20, 200], "chips": [8, 256], "bits": [16, 4],
    }  # fmt: skip
    return planner


def _plan(own_flops, own_hours, weights, per_weight, chip, chips, bits):
    row = {row["name"]: row for row in accelerators()}[chip]
    N = WEIGHTS[weights]
    spent = budget.chip_hours(N, per_weight * N, row["bf16_tflops"] * TERA)
    mwh, dollars = budget.bill(spent, row["watts"], PRICE)
    flops = 6 * N * per_weight * N
    fig, ax = plots.subplots(size=(7.2, 4.3))
    xs = np.array([1e9, 1e28])
    rate = 0.4 * row["bf16_tflops"] * TERA * HOUR
    ax.plot(xs, xs / rate, color=plots.SKY, lw=1.2)
    for run in runs():
        x = 6 * run["weights"] * run["tokens"]
        ax.plot(x, run["chip_hours"], "x", color=plots.BLUE, ms=7, mew=1.8)
    ax.plot(own_flops, own_hours, "o", color=plots.RED, ms=9)
    ax.annotate("yours, measured", (own_flops, own_hours), xytext=(-5, 13), ha="left",
                textcoords="offset points", color=plots.RED)  # fmt: skip
    ax.annotate("x  published runs", (0.04, 0.92), xycoords="axes fraction",
                color=plots.BLUE)  # fmt: skip
    ax.annotate(f"line: {chip} at 40 % of its peak", (0.04, 0.85),
                xycoords="axes fraction", color=plots.SKY)  # fmt: skip
    ax.annotate("diamond: your plan", (0.04, 0.78), xycoords="axes fraction",
                color=plots.ORANGE)  # fmt: skip
    ax.plot(flops, spent, "D", color=plots.ORANGE, ms=10)
    ax.set(xscale="log", yscale="log", xlim=(1e9, 1e28), ylim=(1e-9, 1e11),
           xlabel="FLOPs of the training", ylabel="chip-hours")  # fmt: skip
    train = budget.TRAINING * N / chips / GB
    fits = "fits" if train <= row["memory_gb"] else "does not fit"
    plots.title(ax, f"{weights} weights on {chips:,} chips: {_days(spent / chips)}, "
                f"{_money(dollars)}")  # fmt: skip
    served = N * bits / 8
    needed = budget.chips_for(served, row["memory_gb"])
    line = (f"training state {_short(train)} GB on each chip of {row['memory_gb']:g} GB: {fits}.  "
            f"Energy {_short(mwh)} MWh.\nServed in {bits} bits: {_short(served / GB)} GB, "
            f"on at least {needed:,} chip{'s' if needed > 1 else ''}")  # fmt: skip
    fig.supxlabel(line, fontsize=9.5)
    return fig, (
        f"{weights} weights, {per_weight} tokens per weight, {chips:,} {chip}: "
        f"{_days(spent / chips)}, {_money(dollars)}; {' '.join(line.split())}."
    )


def _days(hours_):
    if hours_ < 1 / 60:
        return f"{hours_ * HOUR:.2g} seconds"
    if hours_ < 2:
        return f"{hours_ * 60:.2g} minutes"
    if hours_ < 48:
        return f"{hours_:.2g} hours"
    days = hours_ / 24
    return f"{days:,.0f} days" if days < 1000 else f"{days / 365.25:,.0f} years"


def _money(dollars):
    if dollars < 0.01:
        return f"{100 * dollars:.1g} cents"
    return f"{dollars:,.0f} dollars" if dollars >= 10 else f"{dollars:.2g} dollars"


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
