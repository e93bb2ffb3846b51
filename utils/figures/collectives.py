"""The figures and the lab of chapter 16."""

import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from utils import plots
from utils.built.collectives import cost

_plain = FuncFormatter(lambda value, _: f"{value:,g}")
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY, plots.RED)
STRIPES = (*COLOURS[:4], "#EFD52E", plots.BLACK)  # areas: blue and sky are too near


def _bytes(value, _=None):
    "1000 -> 1 kB."
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"


def _seconds(value, _=None):
    "0.001 -> 1 ms."
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9999:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _log_axis(axis, form):
    axis.set_major_formatter(FuncFormatter(form))
    axis.set_minor_formatter(NullFormatter())


def busiest(most=64):
    "Bytes that the busiest rank sends: through rank 0, everything round a ring, in chunks."
    n = np.arange(2, most + 1)
    fig, ax = plots.subplots(size=(6.8, 3.6))
    ax.plot(n, n - 1, color=plots.RED)
    ax.annotate("by way of rank 0", (n[-1], n[-1] - 1), xytext=(-95, 0), ha="right",
                textcoords="offset points", color=plots.RED)  # fmt: skip
    ax.plot(n, 2 * (n - 1) / n, color=plots.BLUE)
    ax.annotate("what this chapter builds", (n[-1], 2), xytext=(0, 8), ha="right",
                textcoords="offset points", color=plots.BLUE)  # fmt: skip
    ax.set(yscale="log", xlabel="number of ranks", ylabel="buffers sent, busiest rank")
    ax.set_xticks([2, *range(8, most + 1, 8)])
    ax.set_yticks([1, 2, 4, 8, 16, 32, 64])
    _log_axis(ax.yaxis, _plain)
    plots.title(
        ax, "With a ring, nobody sends more than two buffers, however many ranks"
    )
    return fig, (
        f"Buffers sent by the busiest rank against the number of ranks, logarithmic: by way "
        f"of rank 0 it grows to {n[-1] - 1} at {n[-1]} ranks, round a ring it stays below 2."
    )


def ring(before, after):
    "Ranks on a circle: what each held, what each holds after one step."
    n = len(before)
    fig, axes = plots.subplots(1, 2, size=(7.6, 3.3))
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    x, y = np.cos(angle), np.sin(angle)
    for ax, held, name in zip(axes, (before, after), ("before", "after one step")):
        ax.set(xlim=(-1.6, 1.6), ylim=(-1.5, 1.5), aspect="equal")
        ax.axis("off")
        for r in range(n):
            source = held[r] if held is before else before[r - 1]
            colour = COLOURS[before.index(source) % len(COLOURS)]
            ax.add_patch(Circle((x[r], y[r]), 0.33, color=colour))
            ax.text(x[r], y[r], f"{held[r]:g}", color="white", ha="center", va="center",
                    fontweight="bold")  # fmt: skip
            out = 1.48 if abs(x[r]) < 0.5 else 1.42
            ax.text(out * x[r], out * y[r] - 0.02, f"rank {r}", ha="center", va="center",
                    fontsize=9) if abs(x[r]) < 0.5 else ax.text(
                x[r], y[r] - 0.5, f"rank {r}", ha="center", va="center", fontsize=9)  # fmt: skip
            to = (r + 1) % n
            if held is before:
                ax.add_patch(FancyArrowPatch(
                    (x[r], y[r]), (x[to], y[to]), arrowstyle="-|>", mutation_scale=14,
                    shrinkA=27, shrinkB=27, color=plots.BLACK, lw=1.2,
                ))  # fmt: skip
        plots.title(ax, name)
    return fig, (
        f"{n} ranks on a circle; every arrow points to the right-hand neighbour, and after "
        "one step each number lies one place further, the last rank's on rank 0."
    )


def messages(net, finding):
    "A network's log: time from left to right, a line per rank, an arrow per message."
    n = net.n
    fig, ax = plots.subplots(size=(7.2, 0.42 * n + 1.4))
    last = max((m.arrived for m in net.log), default=1)
    for rank in range(n):
        ax.plot([0, last], [rank, rank], color="#bbbbbb", lw=1, zorder=0)
    for m in net.log:
        ax.add_patch(FancyArrowPatch(
            (m.left, m.source), (m.arrived, m.to), arrowstyle="-|>", mutation_scale=12,
            shrinkA=3, shrinkB=3, lw=1.4, color=COLOURS[m.source % len(COLOURS)],
        ))  # fmt: skip
    ax.set(xlim=(-0.05 * last, 1.05 * last), ylim=(n - 0.4, -0.6), xlabel="round")
    ax.set_yticks(range(n), [f"rank {r}" for r in range(n)])
    if last <= 20 and last == round(last):
        ax.set_xticks(range(int(last) + 1))
    ax.grid(axis="y", visible=False)
    plots.title(ax, finding)
    return fig, (
        f"A line for each of {n} ranks, an arrow for each of {net.messages} messages, over "
        f"{net.steps} rounds. {finding}."
    )


# ---- the lab ----


def schedule(algorithm, n):
    "Rounds of an all-reduce: [[(source, to, chunks, adds)]]; a star sends one at a time."
    every = list(range(n))
    if algorithm == "ring":
        first = [[(r, (r + 1) % n, [(r - 1 - s) % n], True) for r in every] for s in range(n - 1)]  # fmt: skip
        then = [[(r, (r + 1) % n, [(r - s) % n], False) for r in every] for s in range(n - 1)]  # fmt: skip
        return first + then
    if algorithm == "through rank 0":
        return [[(r, 0, every, True)] for r in every[1:]] + [
            [(0, r, every, False)] for r in every[1:]
        ]
    if algorithm == "doubling":
        if n & (n - 1):
            return None
        rounds = range(n.bit_length() - 1)
        return [[(r, r ^ (1 << s), every, True) for r in every] for s in rounds]
    raise ValueError(f"no such algorithm: {algorithm!r}")


def play(algorithm, n, steps):
    "State after `steps` rounds: held[rank][chunk] = ranks in it, bytes sent (buffers)."
    held = [[{r} for _ in range(n)] for r in range(n)]
    sent = [0.0] * n
    for moves in schedule(algorithm, n)[:steps]:
        before = [[set(c) for c in row] for row in held]
        for source, to, chunks, adds in moves:
            sent[source] += len(chunks) / n
            for c in chunks:
                held[to][c] = before[source][c] | (before[to][c] if adds else set())
    return held, sent


def stepper(buffer_mb=100):
    "The lab: who holds which chunk after each step, and how much each rank has sent."

    def draw(algorithm="ring", ranks=4, step=1):
        rounds = schedule(algorithm, ranks)
        if alone := _without_partner(ranks) if rounds is None else None:
            algorithm, rounds = "doubling", []
        step = min(step, len(rounds))
        held, sent = play(algorithm, ranks, step) if rounds else play("ring", ranks, 0)
        fig, (ax, bars) = plots.subplots(
            1, 2, size=(9.4, 0.62 * ranks + 1.6), width_ratios=(3, 1.3)
        )
        moves = rounds[step - 1] if step else []
        new = {(to, c) for _, to, chunks, _ in moves for c in chunks}
        for r in range(ranks):
            for c in range(ranks):
                _cell(ax, r, c, held[r][c], ranks, (r, c) in new)
        ax.set(xlim=(-0.1, ranks + 0.02), ylim=(ranks + 0.02, -0.1), aspect="auto")
        ax.set_xticks(np.arange(ranks) + 0.5, [f"chunk {c}" for c in range(ranks)])
        ax.set_yticks(np.arange(ranks) + 0.5, [f"rank {r}" for r in range(ranks)])
        ax.tick_params(length=0, pad=16)
        ax.tick_params(axis="x", pad=3)
        for r in range(ranks):  # the colour of its stripes
            ax.add_patch(Rectangle((-0.14, r + 0.36), 0.08, 0.28, lw=0, clip_on=False,
                                   color=STRIPES[r]))  # fmt: skip
        ax.xaxis.tick_top()
        ax.grid(False)
        for side in ax.spines.values():
            side.set_visible(False)
        done = sum(len(held[r][c]) == ranks for r in range(ranks) for c in range(ranks))
        ax.set_xlabel(
            "stripes: whose numbers are in the sum; framed: just arrived", fontsize=9
        )
        bars.barh(
            np.arange(ranks) + 0.5,
            [buffer_mb * s for s in sent],
            0.62,
            color=plots.BLUE,
        )
        for r, s in enumerate(sent):
            bars.text(
                buffer_mb * s, r + 0.5, f" {buffer_mb * s:.0f}", va="center", fontsize=9
            )
        bars.set(ylim=(ranks + 0.02, -0.1), xlim=(0, 1.25 * buffer_mb * max(2, *sent)))
        bars.set_yticks([])
        bars.set_xlabel(f"MB sent so far, buffer of {buffer_mb} MB")
        if alone:
            plots.title(
                ax,
                f"Doubling needs 2, 4, 8 ... ranks: here rank {alone[0]} has no partner",
            )
            return fig, (
                f"Doubling on {ranks} ranks cannot be played: it needs a power of two. "
                f"Rank {alone[0]} would have to swap with rank {alone[1]}, which is not "
                "there. Choose 2 or 4 ranks, or another algorithm."
            )
        plots.title(
            ax,
            f"Step {step} of {len(rounds)}: {done} of {ranks**2} chunks are complete",
        )
        return fig, (
            f"All-reduce on {ranks} ranks, {algorithm}, after step {step} of "
            f"{len(rounds)}: {done} of {ranks**2} chunks hold everybody's numbers; the "
            f"busiest rank has sent {buffer_mb * max(sent):.0f} MB, the laziest "
            f"{buffer_mb * min(sent):.0f} MB."
        )

    # the steps of its controls that the book shows (utils/course/book/frames.py)
    draw.book = {"ranks": [3, 4], "step": range(11)}
    return draw


def _without_partner(ranks):
    "The first rank whose partner in recursive doubling is not there, and that partner."
    distance = 1
    while distance < ranks:
        for rank in range(ranks):
            if rank ^ distance >= ranks:
                return rank, rank ^ distance
        distance *= 2


def _cell(ax, r, c, members, n, fresh):
    "One chunk of one rank: a stripe for each rank whose numbers are in it."
    full = len(members) == n
    for k in range(n):
        here = k in members
        ax.add_patch(Rectangle(
            (c + 0.06 + 0.88 * k / n, r + 0.1), 0.88 / n, 0.8, lw=0,
            color=STRIPES[k % len(STRIPES)] if here else "#eeeeee",
        ))  # fmt: skip
    ax.add_patch(Rectangle(
        (c + 0.06, r + 0.1), 0.88, 0.8, fill=False, lw=2.6 if fresh else 0.6,
        edgecolor=plots.BLACK if fresh else "#999999",
    ))  # fmt: skip
    text = "+".join(map(str, sorted(members)))
    if len(members) == n - 1 > 2:
        (absent,) = set(range(n)) - members
        text = f"all but {absent}"
    elif len(members) > 3:
        text = f"{len(members)} of {n}"
    text = "all" if full else text
    size = 9.5 if len(text) < 8 else 7
    ax.text(c + 0.5, r + 0.5, text, ha="center", va="center", fontsize=size,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"})  # fmt: skip


# ---- measurements ----


def fitted(sizes, seconds, held_out, alpha, beta):
    "Measured times of an exchange, the fitted line, and the sizes it never saw."
    sizes, seconds = np.asarray(sizes, float), np.asarray(seconds)
    unseen = np.isin(sizes, held_out)
    grid = np.geomspace(sizes[0] / 1.4, sizes[-1] * 1.4, 200)
    fig, ax = plots.subplots(size=(6.8, 3.8))
    ax.plot(grid, alpha + beta * grid, color=plots.BLACK, lw=1.3)
    ax.plot(sizes[~unseen], seconds[~unseen], "o", color=plots.BLUE, ms=6)
    ax.plot(sizes[unseen], seconds[unseen], "D", color=plots.ORANGE, ms=7)
    ax.axhline(alpha, color=plots.BLACK, lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="bytes in one message", ylabel="time")
    _log_axis(ax.xaxis, _bytes)
    _log_axis(ax.yaxis, _seconds)
    ax.annotate(f"alpha = {_seconds(alpha)}", (sizes[-1], alpha), xytext=(0, 5),
                textcoords="offset points", ha="right")  # fmt: skip
    low, high = seconds.min() * 0.6, seconds.max()
    ax.set_ylim(low, high * 1.8)
    ax.text(sizes[0], high * 0.9, "fitted", color=plots.BLUE)
    ax.text(sizes[0], high * 0.55, "never seen by the fit", color=plots.ORANGE)
    worst = np.abs((alpha + beta * sizes[unseen]) / seconds[unseen] - 1)
    plots.title(
        ax,
        f"Two numbers predict unseen sizes: {100 * np.median(worst):.0f} % off at the median",
    )
    return fig, (
        f"Time of one exchange between two ranks against its bytes, both logarithmic: flat "
        f"at alpha = {_seconds(alpha)} for small messages, then rising by "
        f"{1e-9 / beta:.2f} GB/s; the held-out sizes lie {100 * np.median(worst):.0f} % from the "
        "line at the median."
    )


def crossing(n, alpha, beta):
    "Predicted all-reduce time against the buffer for three algorithms on this machine."
    size = np.geomspace(100, 1e9, 200)
    fig, ax = plots.subplots(size=(6.8, 3.7))
    for name, colour in (
        ("star", plots.RED),
        ("ring", plots.BLUE),
        ("doubling", plots.GREEN),
    ):
        ax.plot(size, cost(name, n, size, alpha, beta), color=colour)
    doubling, rounds = cost("doubling", n, size, alpha, beta), np.log2(n)
    # where 2 (n - 1) (alpha + beta size / n) = rounds (alpha + beta size)
    at = (2 * (n - 1) - rounds) * alpha / ((rounds - 2 * (n - 1) / n) * beta)
    for name, colour, where, shift in (
        ("star", plots.RED, 1e8, (-6, 6)), ("ring", plots.BLUE, 3e8, (16, -12)),
        ("doubling", plots.GREEN, 2e3, (0, -15)),
    ):  # fmt: skip
        ax.annotate(name, (where, cost(name, n, where, alpha, beta)), color=colour,
                    xytext=shift, textcoords="offset points", ha="right")  # fmt: skip
    ax.set_ylim(bottom=doubling[0] / 3)
    ax.axvline(at, color=plots.BLACK, lw=1, ls=":")
    ax.annotate(f"{_bytes(float(f'{at:.2g}'))}", (at, doubling[0] / 2), xytext=(5, 0),
                textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="buffer", ylabel="predicted time")
    _log_axis(ax.xaxis, _bytes)
    _log_axis(ax.yaxis, _seconds)
    plots.title(
        ax, f"On {n} ranks like ours the ring pays from {_bytes(float(f'{at:.2g}'))} on"
    )
    return fig, (
        f"Predicted all-reduce time against buffer size on {n} ranks with the fitted alpha "
        f"and beta: recursive doubling is cheapest up to {_bytes(float(f'{at:.2g}'))}, the "
        "ring above."
    )


def networks(links, alpha, beta):
    "alpha and bandwidth of several networks, and of this machine."
    points = [
        *links,
        {"name": "this machine, between processes", "alpha": alpha, "beta": beta},
    ]
    fig, ax = plots.subplots(size=(7, 4))
    for i, link in enumerate(points):
        mine = i == len(links)
        colour = plots.BLACK if mine else COLOURS[i]
        x, y = 1 / link["beta"] / 1e9, link["alpha"]
        ax.plot(x, y, "*" if mine else "o", color=colour, ms=13 if mine else 9)
        left = x > 20
        ax.annotate(link["name"], (x, y), xytext=(-11 if left else 11, 4), color=colour,
                    textcoords="offset points", ha="right" if left else "left")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=(0.05, 1000), ylim=(1.5e-6, max(1.2e-3, 3 * alpha)),
           xlabel="bandwidth in one direction, 1 / beta, GB/s",
           ylabel="alpha, time before the first byte")  # fmt: skip
    _log_axis(ax.xaxis, _plain)
    _log_axis(ax.yaxis, _seconds)
    for n0 in (1e4, 1e6):  # size at which alpha = beta * size
        x = np.array([0.05, 1000])
        ax.plot(x, n0 / (x * 1e9), color="#999999", lw=0.9, ls="--", zorder=0)
        at = 25 if n0 > 1e5 else 3
        ax.text(at, n0 / (at * 1e9), _bytes(n0), color="#777777", fontsize=9,
                ha="center", va="center", bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    plots.title(ax, "Better networks gain more in bandwidth than in alpha")
    return fig, (
        "alpha against bandwidth, both logarithmic, for Gigabit Ethernet, PCIe, NVLink, "
        "InfiniBand and this machine; dashed lines join networks where a message of 10 kB, "
        "or of 1 MB, spends half its time on alpha."
    )


def clusters(links, sizes=(25e6, 1e9), most=1024):
    "Predicted all-reduce time against the number of ranks on sourced networks."
    n = 2 ** np.arange(3, int(np.log2(most)) + 1)
    fig, axes = plots.subplots(1, 2, size=(10, 3.9), sharey=True)
    chosen = [
        link for link in links if link["name"].startswith(("NVLink", "InfiniBand"))
    ]
    for ax, size in zip(axes, sizes):
        for link, colour in zip(chosen, (plots.GREEN, plots.PURPLE)):
            for name, style in (("ring", "-"), ("doubling", "--")):
                times = [
                    cost(name, int(k), size, link["alpha"], link["beta"]) for k in n
                ]
                ax.plot(n, times, style, color=colour, marker="o", ms=3.5)
        ax.set(xscale="log", yscale="log", xlabel="ranks")
        ax.set_xticks(n, [f"{k:,}" for k in n])
        ax.minorticks_off()
        plots.title(ax, f"Prediction: a buffer of {_bytes(size)}")
    _log_axis(axes[0].yaxis, _seconds)
    axes[0].set_ylabel("predicted time of one all-reduce")
    lines = axes[1].get_lines()
    names = [f"{link['name']}, {a}" for link in chosen for a in ("ring", "doubling")]
    axes[0].legend(lines, names, frameon=False, fontsize=9, loc="upper left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high * 4)
    ndr = chosen[-1]
    ring_, doubling = (
        cost(name, most, sizes[0], ndr["alpha"], ndr["beta"])
        for name in ("ring", "doubling")
    )
    return fig, (
        f"Prediction, not measurement: all-reduce time against 8 to {most:,} ranks. With "
        f"{_bytes(sizes[0])} on InfiniBand the ring wins on 8 ranks and needs "
        f"{_seconds(ring_)} on {most:,}, doubling {_seconds(doubling)}; with "
        f"{_bytes(sizes[1])} the ring stays ahead."
    )


def ladder(ratios):
    "{name: times over gloo's, one per repetition}: a dot each, and the median as a bar."
    fig, ax = plots.subplots(size=(6.8, 0.62 * len(ratios) + 1.5))
    every = np.concatenate(list(ratios.values()))
    ax.set(xscale="log", xlim=(min(0.1, every.min()) / 1.2, max(3, every.max()) * 1.9))
    for place, samples in enumerate(ratios.values()):
        middle = np.median(samples)
        colour = plots.BLUE if middle <= 0.8 else plots.ORANGE
        jitter = np.linspace(-0.18, 0.18, len(samples))
        ax.plot(samples, place + jitter, "o", color=colour, ms=4, alpha=0.5, mew=0)
        ax.plot([middle] * 2, [place - 0.32, place + 0.32], color=colour, lw=4)
        ax.annotate(f"{middle:.2f}", (max(samples), place), xytext=(8, 0), va="center",
                    textcoords="offset points", color=colour, fontweight="bold",
                    bbox={"fc": "white", "ec": "none", "pad": 1.5})  # fmt: skip
    ax.axvline(1, color=plots.BLACK, lw=1, ls=":")
    ax.set_yticks(range(len(ratios)), list(ratios))
    ax.set_ylim(len(ratios) - 0.5, -0.5)
    ax.set_xticks([t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10) if t < ax.get_xlim()[1]])
    _log_axis(ax.xaxis, _plain)
    ax.set_xlabel(
        "time over gloo's all_reduce (dots: repetitions; bar and number: median)"
    )
    ax.grid(axis="y", visible=False)
    fastest = min(ratios, key=lambda name: np.median(ratios[name]))
    least = np.median(ratios[fastest])
    plots.title(ax, f"{fastest[0].upper()}{fastest[1:]}: {least:.2f} of gloo's time")
    told = ", ".join(f"{name} {np.median(s):.2f}" for name, s in ratios.items())
    return (
        fig,
        f"Median time over that of gloo's all_reduce on 2 ranks of this machine: {told}.",
    )
