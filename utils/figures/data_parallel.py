"""The figures of chapter 17."""

import numpy as np
import torch
from matplotlib.ticker import FixedLocator, NullLocator
from torch import nn

from utils import plots
from utils.built.collectives import cost
from utils.built.data_parallel import Overlapped, make_buckets, synchronise, timeline
from utils.practice import rehearse

RANK = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY)
MIB = 2**20


# ---- the first look ----


def _three(x):
    "Three digits of a positive number, never as 1.98e+03."
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def _apart(ys, gap):
    "The heights of labels that are wanted at ys: moved until neighbours do not touch."
    order = np.argsort(ys)
    places = np.array(ys, float)[order]
    for _ in range(200):
        for i in range(len(places) - 1):
            push = (gap - (places[i + 1] - places[i])) / 2
            if push > 0:
                places[i : i + 2] += (-push, push)
    back = np.empty_like(places)
    back[order] = places
    return back


def _label(ax, text, x, y, place, colour):
    "A label right of the axes at the height `place`, with a thin line to (x, y)."
    ax.annotate(
        text, (x, y), xytext=(1.03, place), textcoords=("axes fraction", "data"),
        color=colour, va="center", annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 1,
                    "shrinkB": 3},
    )  # fmt: skip


def _network():
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()


def _flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _rows(step, N):
    generator = torch.Generator().manual_seed(step)
    return torch.randperm(N, generator=generator)[:64]


def _descend(model, X_ND, y_N, steps, rank=0, n=1, parallel=None):
    "Losses before each step (T,) and weights after it (T, P), with rows rank::n."
    losses, path = [], []
    for step in range(steps):
        rows = _rows(step, len(y_N))[rank::n]
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(X_ND[rows]), y_N[rows])
        loss.backward()
        if parallel is not None:
            parallel.finish()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.3 * p.grad
        losses.append(loss.item())
        path.append(_flat(model))
    return np.array(losses), torch.stack(path).numpy()


def many_hands(steps=50, n=4):
    "Four ranks, each with a quarter of every batch, beside one process with all of it."
    from utils.data import digits

    X_ND, y_N = (torch.tensor(part) for part in digits()[:2])

    def hand(rank, n):
        model = _network()
        synchronise(model)
        return _descend(model, X_ND, y_N, steps, rank, n, Overlapped(model))

    results = rehearse(hand, n)  # real processes take seconds to start
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # the seed of rank 0
        model = _network()
    alone, path = _descend(model, X_ND, y_N, steps)
    gap_T = np.max([abs(theirs - path).max(1) for _, theirs in results], 0)
    assert gap_T.max() < 1e-12, "the four ranks left the path of the one"
    fig, (left, right) = plots.subplots(1, 2, size=(8.6, 3.3), width_ratios=(3, 2))
    for rank, (losses, _) in enumerate(results):
        left.plot(losses, color=RANK[rank], lw=1, alpha=0.9)
    left.plot(alone, color=plots.BLACK, lw=2.5, ls=(0, (2, 1)))
    left.text(
        0.03, 0.06, "thin: four ranks, 16 rows each\ndashed: one process, all 64 rows",
        transform=left.transAxes,
    )  # fmt: skip
    left.set(xlabel="step", ylabel="loss before the step", ylim=(0, None))
    plots.title(left, "Four ranks see four losses ...")
    right.semilogy(np.maximum(gap_T, 1e-18), color=plots.BLACK)
    right.axhline(1e-12, color=plots.RED, lw=1, ls="--")
    right.text(0, 2e-12, "what we ask for: 1e-12", color=plots.RED)
    right.set(xlabel="step", ylabel="largest gap in any weight", ylim=(1e-18, 1e-9))
    right.yaxis.set_major_locator(FixedLocator([1e-18, 1e-16, 1e-14, 1e-12, 1e-10]))
    right.yaxis.set_minor_locator(NullLocator())
    plots.title(right, "... and keep one model")
    return fig, (
        "Fifty steps on the digits. Four ranks, rehearsed in one process, see different "
        "losses, scattered round that of one process with all 64 rows; their weights and "
        "its weights differ by less than 1e-12 (float64) at every step."
    )


# ---- what each slip does ----


def slips(gaps):
    "{way: largest gap to one process's weights, (T,)} on a logarithmic axis."
    fig, ax = plots.subplots(size=(7, 3.7))
    colours = {"right": plots.BLACK}
    named = iter((plots.RED, plots.ORANGE, plots.PURPLE, plots.BLUE))
    ends = {}
    for name, gap_T in gaps.items():
        colour = colours.get(name) or next(named)
        style = "--" if name == "no exchange" else "-"  # it may lie under another
        gap_T = np.maximum(torch.as_tensor(gap_T).numpy(), 1e-17)
        (line,) = ax.semilogy(gap_T, style, color=colour)
        ends[name] = (line, line.get_ydata()[-1])
    places = 10 ** _apart([np.log10(y) for _, y in ends.values()], 1.25)
    for (name, (line, y)), place in zip(ends.items(), places):
        _label(ax, name, len(line.get_xdata()) - 1, y, place, line.get_color())
    ax.set(
        xlabel="step",
        ylabel="largest gap to one process",
        ylim=(1e-17, 1e3),
        xlim=(0, None),
    )
    ax.yaxis.set_major_locator(FixedLocator([1e-16, 1e-12, 1e-8, 1e-4, 1]))
    ax.yaxis.set_minor_locator(NullLocator())
    plots.title(ax, "One slip, and it is another training run")
    far = [name for name in gaps if name != "right"]
    return fig, (
        "Largest difference between any rank's weights and those of one process over "
        "the steps, logarithmic: rounding only where all is right; far above it for "
        f"each slip ({', '.join(far)})."
    )


# ---- whose rows ----


def shards(N, world, orders):
    "orders[epoch][rank]: rows; a strip per epoch, a colour per rank, extensions hatched."
    fig, axes = plots.subplots(len(orders), 1, size=(7.4, 0.95 * len(orders) + 0.75))
    for epoch, (ax, by_rank) in enumerate(zip(np.atleast_1d(axes), orders)):
        order = [
            (int(row), rank) for rows in zip(*by_rank) for rank, row in enumerate(rows)
        ]
        for place, (row, rank) in enumerate(order):
            again = place >= N
            ax.bar(
                place, 1, width=0.94, color="white" if again else RANK[rank],
                edgecolor=RANK[rank], hatch="////" if again else None,
            )  # fmt: skip
            ax.text(
                place, 0.5, row, ha="center", va="center", fontsize=9, zorder=4,
                color=RANK[rank] if again else "white",
                fontweight="bold" if again else None,
                bbox={"fc": "white", "ec": "none", "pad": 3} if again else None,
            )  # fmt: skip
            if place < world:
                ax.text(place, 1.12, f"rank {rank}", ha="center", color=RANK[rank],
                        fontsize=8)  # fmt: skip
        for cut in range(world, len(order), world):
            ax.axvline(cut - 0.5, color=plots.BLACK, lw=1)
        ax.set(xlim=(-0.6, len(order) - 0.4), ylim=(0, 1.4), yticks=[], xticks=[])
        ax.set_ylabel(f"epoch {epoch}", rotation=0, ha="right", va="center")
        ax.grid(False)
        for side in ax.spines.values():
            side.set_visible(False)
    plots.title(
        np.atleast_1d(axes)[0],
        "Equal shares, every row at least once, a new deal each epoch",
    )
    return fig, (
        f"Two epochs of {N} rows dealt to {world} ranks like cards, in a shuffled order "
        "that all ranks know; where the rows run out, the first of the order are dealt "
        "once more (hatched). Black lines part the steps."
    )


# ---- one step ----


def votes(rows_R):
    "What each row weighs in the step: ranks that take means, and ranks that take sums."
    n, N = len(rows_R), sum(rows_R)
    owner = [rank for rank, rows in enumerate(rows_R) for _ in range(rows)]
    means = [1 / (n * rows_R[rank]) for rank in owner]
    fig, axes = plots.subplots(1, 2, size=(8.2, 2.9), sharey=True)
    for ax, weights in zip(axes, (means, [1 / N] * N)):
        for row, (rank, weight) in enumerate(zip(owner, weights)):
            ax.bar(row, weight, width=0.9, color=RANK[rank])
            ax.text(row, weight, f"1/{round(1 / weight)}", ha="center", va="bottom",
                    color=RANK[rank])  # fmt: skip
        for rank in range(n):
            mine = [row for row, other in enumerate(owner) if other == rank]
            ax.text(np.mean(mine), -0.08 * max(means), f"rank {rank}", ha="center",
                    va="top", color=RANK[rank])  # fmt: skip
        ax.set(xticks=[], ylim=(0, 1.2 * max(means)))
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("weight of a row in the step")
    plots.title(axes[0], "Ranks take means: unequal votes")
    plots.title(axes[1], f"Sums, times {n}/{N}: equal votes")
    high, low = round(1 / max(means)), round(1 / min(means))
    shards = " and ".join(map(str, rows_R))
    return fig, (
        f"{N} rows on {n} ranks with {shards} rows, and what each row weighs after the "
        f"average over ranks: with means 1/{high} for some and 1/{low} for others, with "
        f"sums times {n}/{N} always 1/{N}."
    )


# ---- the bill ----


def bill(table):
    "{n: dict(wall=, device=, cpu=)}: seconds on the clock and seconds that are paid for."
    counts = list(table)
    fig, ax = plots.subplots(size=(6.8, 3.4))
    for name, colour in (
        ("device", plots.RED), ("cpu", plots.ORANGE), ("wall", plots.BLUE),
    ):  # fmt: skip
        ax.plot(
            range(len(counts)), [table[n][name] for n in counts], "o-", color=colour
        )
    label = {
        "device": "device-seconds:\nranks x wall clock", "cpu": "CPU seconds\nof all ranks",
        "wall": "wall clock",
    }  # fmt: skip
    ends = {name: table[counts[-1]][name] for name in label}
    top = max(row["device"] for row in table.values())
    places = _apart(list(ends.values()), 0.17 * top)
    colours = {"device": plots.RED, "cpu": plots.ORANGE, "wall": plots.BLUE}
    for (name, y), place in zip(ends.items(), places):
        _label(ax, label[name], len(counts) - 1, y, place, colours[name])
    ax.set(ylim=(0, 1.1 * top), xlabel="ranks, for the same rows per step")
    ax.set_ylabel("seconds for the same work")
    ax.set_xticks(range(len(counts)), counts)
    more = table[counts[-1]]["device"] / table[counts[0]]["device"]
    plots.title(ax, f"The same training, {more:.1f} times the device-seconds")
    return fig, (
        f"Seconds for the same training on {', '.join(map(str, counts))} ranks: the wall "
        f"clock, the CPU seconds of all ranks, and ranks times wall clock, which ends at "
        f"{more:.1f} times that of one rank on this machine."
    )


# ---- the lab ----


def overlap(ready, sizes, links):
    """draw(bucket_KiB, link, ranks, chip, overlapped): the Gantt chart of one step.

    ready: seconds after which backward has each parameter's gradient, in the model's
    order; sizes: bytes; links: {name: (alpha seconds, beta seconds per byte)}.
    """

    first = next((name for name in links if "InfiniBand" in name), next(iter(links)))

    def draw(bucket_KiB=20500, link=first, ranks=8, chip=4, overlapped=True):
        alpha, beta = links[link]
        cap = bucket_KiB * 1024
        buckets = make_buckets(sizes, cap)
        full = [max(ready[i] for i in b) / chip for b in buckets]
        bytes_ = [sum(sizes[i] for i in b) for b in buckets]
        takes = [cost("ring", ranks, size, alpha, beta) for size in bytes_]
        over = max(ready) / chip
        start = full if overlapped else [over] * len(full)
        trips = timeline(start, takes)
        end = max(over, trips[-1][1])
        busy = sum(takes)
        bare = end - over
        return _gantt(full, bytes_, trips, over, end, busy, bare, link, ranks)

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {"ranks": [8, 512], "chip": [4, 100, 1000], "overlapped": [True]}
    return draw


def _size(size):
    return f"{size / MIB:.1f} MiB" if size > MIB / 20 else f"{size / 1024:.0f} KiB"


def _gantt(full, bytes_, trips, over, end, busy, bare, link, ranks):
    unit, factor = "ms", 1e3  # always: the titles of two choices are compared
    fig, ax = plots.subplots(size=(8, 2.9))
    before = 0.0
    for number, (ready, size, (start, stop)) in enumerate(zip(full, bytes_, trips)):
        colour = RANK[number % len(RANK)]
        for y, a, b in ((1, before, ready), (0, start, stop)):
            ax.barh(y, (b - a) * factor, left=a * factor, height=0.55, color=colour,
                    edgecolor="white", lw=0.6 if len(full) < 40 else 0)  # fmt: skip
            if y == 0 and (b - a) / end > 0.08:
                ax.text((a + b) / 2 * factor, y, _size(size), ha="center",
                        va="center", color="white", fontsize=8.5)  # fmt: skip
        before = ready
    ax.vlines(over * factor, -0.4, 1.75, color=plots.BLACK, lw=1.2, ls="--")
    side = "left" if over < 0.3 * end else "right"
    ax.text(over * factor, 1.42, " backward is over ", ha=side, va="bottom", fontsize=9)
    if bare > 0.02 * end:
        ax.annotate("", (end * factor, -0.46), (over * factor, -0.46),
                    arrowprops={"arrowstyle": "<->", "color": plots.RED})  # fmt: skip
        x, side = ((over + end) / 2, "center") if bare > 0.3 * end else (end, "right")
        ax.text(x * factor, -0.52, f"the step waits {_three(bare * factor)} {unit}",
                color=plots.RED, ha=side, va="top", fontsize=9)  # fmt: skip
    ax.set(yticks=[0, 1], yticklabels=["link", "backward"], ylim=(-0.95, 1.75))
    ax.set(xlabel=f"{unit} since backward began", xlim=(0, end * factor * 1.02))
    ax.grid(axis="y", visible=False)
    hidden = round(100 * (1 - bare / busy)) if busy else 100
    hidden = max(hidden, 0)  # rounding may leave -0.0000001
    count = f"{len(full)} bucket{'s' * (len(full) != 1)}"
    plots.title(
        ax,
        f"{count}: {_three(end * factor)} {unit}, {hidden} % of the travel is hidden",
    )
    return fig, (
        f"{ranks} ranks over {link}, {count}: gradients travel {_three(busy * factor)} {unit} "
        f"in all, of which {hidden} percent hide under a backward pass of "
        f"{_three(over * factor)} {unit}; the step's second half ends at {_three(end * factor)} {unit}."
    )


# ---- predicted, not measured ----


def predicted(table, setting):
    "{link: {n: efficiency}} by the model, for chips that nobody here has."
    fig, ax = plots.subplots(size=(7, 3.7))
    told, in_box = [], 0
    for (link, by_n), colour in zip(table.items(), RANK):
        ns, shares = list(by_n), [100 * e for e in by_n.values()]
        low = next((i for i, share in enumerate(shares) if share < 50), None)
        boxed = low is None  # ends inside one box, on top of the longer lines
        style, width = ((0, (2, 2 + 2 * in_box)), 3) if boxed else ("-", 1.8)
        ax.plot(ns, shares, ls=style, lw=width, marker="" if boxed else "o", ms=4,
                color=colour, zorder=3 + boxed)  # fmt: skip
        if boxed:
            link += f", to {ns[-1]}"
            at, shift = (ns[-1], shares[-1]), (4, -16 - 15 * in_box)
            in_box += 1
        else:
            at, shift = (ns[low], shares[low]), (8, 6)
            told.append(f"below half at {ns[low]:,} chips on {link}")
        ax.annotate(link, at, xytext=shift, textcoords="offset points", color=colour,
                    va="center", annotation_clip=False)  # fmt: skip
    ax.set(xscale="log", xlabel="chips", ylabel="efficiency, % (predicted)")
    ax.set_ylim(0, 108)
    ticks = sorted({n for by_n in table.values() for n in by_n})[::2]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    plots.title(ax, "A prediction for one flat ring: the wire sets the number of chips")
    return fig, (
        f"Predicted share of each chip's time that is useful, against the number of chips: "
        f"{setting}, one flat ring. It falls once travel outlasts backward: "
        f"{', '.join(told)}."
    )
