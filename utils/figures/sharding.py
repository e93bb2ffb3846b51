"""The figures of chapter 18."""

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from utils import data, plots
from utils.built import budget, sharding
from utils.built.collectives import links
from utils.built.live import Live, held

THINGS = {
    "parameters": plots.BLUE, "gradients": plots.ORANGE, "Adam's moments": plots.GREEN,
}  # fmt: skip
WIDTH, LAYERS, ROWS = 256, 6, 4
GB = 1e9


# ---- the first look ----


def _tower():
    layers = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _average(p):
    dist.all_reduce(p.grad)
    p.grad /= dist.get_world_size()


def _lives(kind, rank=1, n=4):
    "Words per parameter after each operator of a step's three phases: [(T,)] * 3."
    with sharding.pretend(rank, n):
        model = _tower()
        P = sum(p.numel() for p in model.parameters())
        if kind == "whole":
            net = model
            for p in net.parameters():
                p.register_post_accumulate_grad_hook(_average)
        else:
            layers = [sharding.Zero3(x) if list(x.parameters()) else x for x in model]
            net = nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        X, curves = torch.randn(ROWS, WIDTH), []
        for _ in range(2):  # the first step makes the moments
            optimizer.zero_grad()
            with Live(X, net.parameters(), held(optimizer), keep=True) as live:
                loss = net(X).square().mean()
                curves = [live.curve]
                live.restart()
                loss.backward()
                curves.append(live.curve)
                live.restart()
                optimizer.step()
                curves.append(live.curve)
    return [np.array(curve) / 4 / P for curve in curves]


def two_lives():
    "Words that one of four ranks holds during a step: all of everything, or a share."
    fig, ax = plots.subplots(size=(7.4, 3.5))
    peaks = {}
    for kind, label, colour in (
        ("whole", "everything on every rank", plots.ORANGE),
        ("parts", "shared out; a layer is\nwhole only while needed", plots.BLUE),
    ):
        curves = _lives(kind)
        x = np.concatenate([
            phase + np.arange(len(c)) / len(c) for phase, c in enumerate(curves)
        ])  # fmt: skip
        y = np.concatenate(curves)
        ax.plot(x, y, color=colour, lw=1.6)
        ax.fill_between(x, y, color=colour, alpha=0.12, lw=0)
        peaks[kind] = y.max()
        ax.text(0.06, y[0] + (0.22 if kind == "whole" else 0.45), label, color=colour)
    for phase, name in enumerate(("forward", "backward", "optimiser")):
        ax.text(phase + 0.5, 6.05, name, ha="center", va="top", color=plots.BLACK)
        if phase:
            ax.axvline(phase, color=plots.BLACK, lw=0.8, ls="--")
    ax.set(ylim=(0, 6.1), xlim=(0, 3), xticks=[])
    ax.set_ylabel("words alive per parameter")
    ax.set_xlabel("one training step")
    plots.title(
        ax,
        f"One of 4 ranks: {peaks['whole']:.1f} words per parameter, or {peaks['parts']:.1f}",
    )
    return fig, (
        "Numbers alive on one of four ranks per parameter of the model, through forward, "
        "backward and optimiser of one step: with everything on every rank they reach "
        f"{peaks['whole']:.1f}; sharded, with one layer whole at a time, "
        f"{peaks['parts']:.1f}."
    )


# ---- the formula ----


def shares(words, counts=(2, 4, 64)):
    "Stacked bars of words(stage, n): a group of four stages for each number of ranks."
    fig, axes = plots.subplots(1, len(counts), size=(8.2, 2.9), sharey=True)
    for ax, n in zip(axes, counts):
        for stage in range(4):
            bottom = 0.0
            for size, colour in zip(words(stage, n), THINGS.values()):
                ax.bar(stage, size, bottom=bottom, color=colour, width=0.75)
                bottom += size
            ax.text(stage, bottom + 0.06, f"{bottom:.3g}", ha="center")
        ax.set(xticks=range(4), xlabel="stage", ylim=(0, 4.5))
        ax.grid(axis="x", visible=False)
        ax.text(1.5, 4.42, f"{n} ranks", ha="center", va="top")
    for line, (name, colour) in enumerate(THINGS.items()):
        axes[-1].text(3.4, 2.6 + 0.4 * line, name, color=colour, ha="right")
    axes[0].set_ylabel("words per parameter")
    plots.heading(  # over all three: over the first alone it would push the others away
        fig, "What a rank stores: each stage shares out one thing more", x=0.065
    )
    return fig, (
        "Words per parameter that one rank stores at stages 0 to 3, stacked: parameters, "
        f"gradients, Adam's moments, for {', '.join(map(str, counts))} ranks. Stages 1 and "
        "2 end at floors of 2 and 1 words; only stage 3 goes on falling."
    )


# ---- measured ----


def ways(table, formula):
    "{way: {'stored', 'peak': words}} as bars, and the formula as lines on them."
    fig, ax = plots.subplots(size=(7.2, 3.2))
    table = {name: (row["stored"], row["peak"]) for name, row in table.items()}
    for place, (name, (stored, peak)) in enumerate(table.items()):
        ax.bar(place, peak, color=plots.SKY, alpha=0.35, width=0.7)
        ax.bar(place, stored, color=plots.BLUE, width=0.7)
        ax.hlines(formula[name], place - 0.42, place + 0.42, color=plots.RED, lw=2)
        ax.text(place, stored / 2, f"{stored:.3g}", ha="center", va="center",
                color="white", fontweight="bold")  # fmt: skip
        ax.text(place, peak + 0.08, f"{peak:.2g}", ha="center", color=plots.SKY)
    top = max(peak for _, peak in table.values())
    ax.set_xticks(range(len(table)), [name.replace("_", " ") for name in table])
    ax.set(ylim=(0, 1.16 * top), ylabel="words per parameter")
    ax.grid(axis="x", visible=False)
    ax.text(0.99, 0.95, "dark: stored between steps\npale: at most within a step\n"
            "red line: formula", transform=ax.transAxes, ha="right", va="top")  # fmt: skip
    plots.title(ax, "Counted on 4 real ranks: what is stored matches the formula")
    said = "; ".join(
        f"{name.replace('_', ' ')} {stored:.3g} and {peak:.2g}"
        for name, (stored, peak) in table.items()
    )
    return fig, (
        "Words per parameter counted on one of four processes, stored between steps and "
        f"at most within one: {said}. The stored ones lie on the formula's lines."
    )


def sent(table):
    "{way: {road: units}}: bytes per rank and step, by the library's sums and on the ring."
    fig, ax = plots.subplots(size=(7.2, 3.0))
    for place, roads in enumerate(table.values()):
        for shift, (road, colour) in zip(
            (-0.19, 0.19), zip(roads, (plots.SKY, plots.BLUE))
        ):
            units = roads[road]
            ax.bar(place + shift, units, width=0.36, color=colour)
            ax.text(
                place + shift, units + 0.06, f"{units:.2f}", ha="center", fontsize=9
            )
            if place == 0:
                ax.text(place + shift, 0.1, road, ha="center", va="bottom", rotation=90,
                        color="white", fontsize=9)  # fmt: skip
    ax.axhline(2, color=plots.RED, lw=1, ls="--", zorder=0)
    ax.set_xticks(range(len(table)), [name.replace("_", " ") for name in table])
    top = max(max(roads.values()) for roads in table.values())
    ax.set(ylim=(0, 1.15 * top), ylabel="units of (n - 1)/n P words")
    ax.grid(axis="x", visible=False)
    ring = {name: list(roads.values())[1] for name, roads in table.items()}
    low, high = ring["stage_2"], ring["stage_3"]
    plots.title(
        ax, f"On the ring, stages 0 to 2 send {low:.2f} units, stage 3 sends {high:.2f}"
    )
    said = "; ".join(
        f"{name.replace('_', ' ')} {units:.2f}" for name, units in ring.items()
    )
    return fig, (
        "Bytes that one of four ranks hands to its sockets per step, in units of what one "
        f"all-gather of the model sends, on the ring: {said}. With the library's own sums "
        "the sharded ones send more."
    )


# ---- the lab ----

SHAPES = {  # V, C, E, H, L of GPTs
    "1.3B": (32_000, 4096, 2048, 16, 24), "6.6B": (32_000, 4096, 4096, 32, 32),
    "65B": (32_000, 4096, 8192, 64, 80),
}  # fmt: skip
TOKENS = 4096  # of one row per rank


def _needs(name, n, stage, recompute):
    "Bytes of one rank in mixed precision: {what: bytes}; and P, numbers of the model."
    V, C, E, H, L = SHAPES[name]
    P = budget.parameters(V, C, E, L)
    share = [a * b for a, b in zip(sharding.words(stage, n), (2, 2, 6))]
    kept = budget.activation_bytes(V, E, H, L, 1, TOKENS, checkpointing=recompute) / 2
    block = 12 * E * E + 13 * E
    if recompute:  # one block's, while it is made again
        kept += TOKENS * (16 * E + 4 + H) * 2
    return {
        "parameters": P * share[0], "gradients": P * share[1],
        "moments, master weights": P * share[2], "gathered layer": 4 * block * (stage == 3),
        "activations": kept,
    }, P  # fmt: skip


def _said(x):
    "A positive number in few digits, never as 1.12e+03."
    return f"{x:,.0f}" if x >= 100 else f"{x:.2g}"


def memory():
    "draw(model, ranks, stage, recompute): bytes of one rank, and seconds on links."
    h100 = next(row for row in data.accelerators() if row["name"] == "H100 SXM")
    speed = 0.4 * h100["bf16_tflops"] * 1e12
    wires = {
        x["name"].split(",")[0]: x["beta"] for x in links() if "PCIe" not in x["name"]
    }

    def draw(model="6.6B", ranks=64, stage=2, recompute=False):
        need, P = _needs(model, ranks, stage, recompute)
        units = 3 if stage == 3 else 2
        moved = units * (ranks - 1) / ranks * 2 * P
        times = {"computing": (8 if recompute else 6) * P * TOKENS / speed}
        times |= {name: moved * beta for name, beta in wires.items()}
        fig, (left, right) = plots.subplots(1, 2, size=(9.6, 2.9), width_ratios=(5, 4))
        total = _rows_of_memory(left, need)
        _bars(right, times, 1e-3, [plots.GREEN] + [plots.SKY] * 3, "s")
        right.set(xlim=(1e-3, 5e5), xlabel="seconds per step (logarithmic)")
        plots.title(right, f"{_said(moved / GB)} GB sent per rank and step")
        many = f"{ranks} rank{'s' * (ranks > 1)}"
        return fig, (
            f"A GPT of {P / 1e9:.1f} billion parameters at stage {stage} on {many}: "
            f"{_said(total)} GB on each, of which activations "
            f"{_said(need['activations'] / GB)}; {_said(times['computing'])} seconds of "
            f"computing per step, and {_said(times['InfiniBand NDR'])} on InfiniBand."
        )

    draw.book = {"model": ["1.3B", "6.6B"]}
    return draw


def _rows_of_memory(ax, need):
    "A bar for each thing and for all, and the memories of three kinds of card: -> GB."
    total = sum(need.values()) / GB
    sizes = {name: size / GB for name, size in need.items()} | {"together": total}
    colours = [*THINGS.values(), plots.PURPLE, plots.RED, plots.BLACK]
    _bars(ax, sizes, 1e-2, colours, "")
    cards = (24, 80, 141)
    for place, side in zip(cards, ("right", "right", "left")):
        ax.axvline(place, ymax=0.87, color=plots.BLACK, lw=1, ls="--", zorder=0)
        ax.text(place, 0.45, f"{place} GB" if side == "left" else place, fontsize=9,
                ha=side, va="bottom")  # fmt: skip
    ax.set(xlim=(1e-2, 2e4), ylim=(-5.6, 1.3), xlabel="GB on one rank (logarithmic)")
    fits = [place for place in cards if total <= place]
    fits = f"fits {fits[0]} GB" if fits else f"does not fit {cards[-1]} GB"
    plots.title(ax, f"{_said(total)} GB: {fits}")
    return total


def _bars(ax, sizes, least, colours, unit):
    for i, (size, colour) in enumerate(zip(sizes.values(), colours)):
        ax.barh(-i, max(size, least), color=colour, height=0.62)
        said = f"{_said(size)} {unit}" if size else "0"
        ax.text(max(size, least) * 1.25, -i, said, va="center", fontsize=9,
                bbox={"fc": "white", "ec": "none", "pad": 1.2})  # fmt: skip
    ax.set(
        xscale="log", yticks=[-i for i in range(len(sizes))], yticklabels=list(sizes)
    )
    ax.grid(axis="y", visible=False)
