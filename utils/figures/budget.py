"""The figures and the lab of chapter 12."""

import numpy as np

from utils import plots
from utils.built import budget
from utils.data import accelerators
from utils.data.runs import runs

GB, TERA = 1e9, 1e12
PRICE = 2.0  # dollars per chip-hour: an assumption, see the lab's text
PER_WEIGHT = 20  # tokens per weight that the lab trains on


def hours(mfu=0.4):
    "[(run, published chip-hours, predicted ones)] of utils/data/runs.csv."
    chips = {row["name"]: row for row in accelerators()}
    found = []
    for run in runs():
        chip = chips[run["chip"]]
        peak = (chip["bf16_tflops"] or chip["fp16_tflops"]) * TERA
        guess = budget.chip_hours(run["weights"], run["tokens"], peak, mfu)
        found.append((run, run["chip_hours"], guess))
    return found


# where a run's name stands beside its point, in points
BESIDE = {
    "GPT-3": (-10, 4, "right"), "OPT-175B": (9, -12, "left"), "BLOOM": (-10, 0, "right"),
    "PaLM": (-10, 2, "right"), "LLaMA-65B": (10, -5, "left"),
    "Llama 2 70B": (10, -6, "left"), "Llama 3.1 405B": (-10, 2, "right"),
    "DeepSeek-V3": (10, -4, "left"),
}  # fmt: skip


def published():
    "Published chip-hours over those of one formula, on two logarithmic axes."
    rows = hours()
    ratios = [told / guess for _, told, guess in rows]
    fig, ax = plots.subplots(size=(6.8, 4.2))
    ends = np.array([3.5e5, 6e7])
    ax.plot(ends, ends, color=plots.BLACK, lw=1)
    ax.fill_between(ends, ends / 2, ends * 2, color=plots.SKY, alpha=0.18, lw=0)
    for (run, told, guess), ratio in zip(rows, ratios):
        near = 0.5 <= ratio <= 2
        colour = plots.BLUE if near else plots.RED
        ax.plot(guess, told, "o", color=colour, ms=7)
        x, y, side = BESIDE.get(run["name"], (8, 0, "left"))
        ax.annotate(f"{run['name']}  {ratio:.2f}", (guess, told), xytext=(x, y), ha=side,
                    textcoords="offset points", color=colour, fontsize=9, va="center")  # fmt: skip
    ax.text(0.98, 0.05, "shaded: within a factor of two", ha="right", fontsize=9,
            color=plots.SKY, transform=ax.transAxes)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends,
           xlabel="chip-hours by 6 N tokens / (0.4 peak)",
           ylabel="chip-hours, published")  # fmt: skip
    inside = sum(0.5 <= ratio <= 2 for ratio in ratios)
    plots.title(
        ax, f"One line, {inside} of {len(rows)} published runs within a factor of two"
    )
    listed = ", ".join(f"{run['name']} {r:.2f}" for (run, _, _), r in zip(rows, ratios))
    return fig, (
        f"Published chip-hours of {len(rows)} training runs over the hours by one formula, "
        f"at 40 % of the peak; published over predicted: {listed}."
    )


def kept(parts):
    "{way: {part: bytes}} as bars side by side."
    fig, ax = plots.subplots(size=(6.8, 3.0))
    colours = dict(zip(next(iter(parts.values())), plots.PALETTE))
    whole = {way: sum(of.values()) / GB for way, of in parts.items()}
    for place, of in enumerate(parts.values()):
        left = 0.0
        for part, size in of.items():
            ax.barh(place, size / GB, left=left, color=colours[part], height=0.6)
            if size / GB > 0.07 * max(whole.values()):
                ax.text(left + size / GB / 2, place, part, ha="center", va="center",
                        color="white", fontsize=9)  # fmt: skip
            left += size / GB
        ax.text(left, place, f" {left:.1f} GB", va="center", fontsize=9)
    ax.set_yticks(range(len(parts)), list(parts))
    ax.set(xlabel="GB kept for backward", xlim=(0, 1.13 * max(whole.values())))
    ax.invert_yaxis()
    ax.grid(False, axis="y")
    least = min(whole, key=whole.get)
    plots.title(ax, f"GPT-2, 8 rows of 1,024 tokens: {least} keeps least")
    told = "; ".join(f"{way} {size:.1f} GB" for way, size in whole.items())
    return fig, f"Bytes that GPT-2 keeps for backward, 8 rows of 1,024 tokens: {told}."


def live(curves, forward_ends):
    "{way: live bytes after each operator} over the course of one step."
    fig, ax = plots.subplots(size=(6.8, 3.4))
    for (way, curve), colour in zip(curves.items(), (plots.BLUE, plots.ORANGE)):
        share = np.linspace(0, 100, len(curve))
        values = np.array(curve) / 1e6
        ax.plot(share, values, color=colour, lw=1.5)
        top = int(values.argmax())
        ax.plot(share[top], values[top], "o", color=colour, ms=6)
        first = way == next(iter(curves))
        x, side = (share[top] + 1.5, "left") if first else (45, "center")
        ax.text(x, 1.05 * values[top] + 0.3, f"{way}: {values[top]:.1f} MB", color=colour,
                ha=side)  # fmt: skip
        at = 100 * forward_ends[way] / len(curve)
        ax.axvline(at, color=colour, lw=1, ls=":")
    earliest = min(100 * forward_ends[way] / len(curves[way]) for way in curves)
    ax.text(earliest - 1, 0.9, "forward ends", transform=ax.get_xaxis_transform(),
            ha="right", fontsize=9)  # fmt: skip
    tops = [max(curve) for curve in curves.values()]
    ax.set(xlabel="operators done, % of the step", ylabel="live megabytes",
           ylim=(0, 1.18 * max(tops) / 1e6))  # fmt: skip
    plots.title(
        ax, f"Checkpointing: the step's peak falls {tops[0] / tops[1]:.1f} times"
    )
    told = "; ".join(f"{way} {max(c) / 1e6:.1f} MB" for way, c in curves.items())
    return fig, (
        f"Live bytes over one forward and backward pass; the peaks: {told}. The dotted "
        "lines are the ends of the forward passes."
    )


MODELS = {  # V, C, E, H, L
    "GPT-2": (50257, 1024, 768, 12, 12),
    "GPT-2 XL": (50257, 1024, 1600, 25, 48),
    "7 billion": (50257, 2048, 4096, 32, 32),
    "GPT-3": (50257, 2048, 12288, 96, 96),
}
CHIPS = ("GeForce RTX 4090", "A100 80GB SXM", "H100 SXM", "B200 SXM")
COUNTS = (1, 8, 64, 1024)
SHADES = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY)


def plan(model="7 billion", chip="A100 80GB SXM", chips=8, checkpointing=True):
    "A lab: bytes on each chip against its memory; days, MWh and dollars below."
    V, C, E, H, L = MODELS[model]
    row = {row["name"]: row for row in accelerators()}[chip]
    N = budget.parameters(V, C, E, L)
    each = budget.TRAINING * N / chips
    acts = budget.activation_bytes(V, E, H, L, 1, C, checkpointing=checkpointing)
    parts = {"weights": each / 4, "gradients": each / 4, "Adam's moments": each / 2,
             "activations": acts, "loss": 8 * C * V}  # fmt: skip
    total, room = sum(parts.values()) / GB, row["memory_gb"]
    spent = budget.chip_hours(N, PER_WEIGHT * N, row["bf16_tflops"] * TERA)
    mwh, dollars = budget.bill(spent, row["watts"], PRICE)
    fig, ax = plots.subplots(size=(7.6, 2.9))
    left, right = 0.0, 1.25 * max(total, room)
    for place, ((part, size), colour) in enumerate(zip(parts.items(), SHADES)):
        ax.barh(0, size / GB, left=left, color=colour, height=0.5)
        ax.text((place + 0.5) / len(parts), 0.04, f"{part} {size / GB:,.3g}", color=colour,
                ha="center", fontsize=9, transform=ax.transAxes,
                bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
        left += size / GB
    ax.axvline(room, color=plots.RED, lw=2)
    ax.annotate(f" memory: {room:g} GB", (room, 0.42), color=plots.RED, va="center",
                ha="right" if room > 0.8 * right else "left")  # fmt: skip
    ax.set(yticks=[], ylim=(-0.5, 0.55), xlim=(0, right), xlabel="GB on each chip")
    ax.grid(False)
    days = spent / chips / 24
    length = f"{days:,.0f} days" if days < 1000 else f"{days / 365.25:,.0f} years"
    length = length if days >= 2 else f"{24 * days:,.2g} hours"
    verdict = "fits" if total <= room else "does not fit"
    many = "chips" if chips > 1 else "chip"
    plots.title(ax, f"{model} on {chips:,} {many} {verdict}: {total:,.1f} GB on each")
    need = budget.chips_for(budget.TRAINING * N, room)
    line = (f"{PER_WEIGHT * N / GB:,.0f} billion tokens: {length}, {_short(mwh)} MWh, "
            f"{dollars:,.0f} dollars. Its 16 N bytes alone need {need:,} of this chip")  # fmt: skip
    fig.supxlabel(line, fontsize=9.5)
    return fig, (
        f"{model} on {chips:,} {many} of the kind {chip} {verdict}, {total:,.1f} of {room:g} "
        f"GB on each. {line}."
    )


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


# the steps of its controls that the book shows (utils/course/book/frames.py)
plan.book = {"chip": list(CHIPS[:3]), "chips": [1, 8, 1024]}
