"""The figures of chapter 05."""

import numpy as np
import torch
from matplotlib.patches import Rectangle

from utils import plots

PER_CENT = 100


def first_look(steps=100):
    "Chapter 03's engine and PyTorch train one network; the chapter then writes it out."
    from utils.built.nn import MLP, cross_entropy
    from utils.data import digits

    X_ND, y_N, _, _ = digits()
    losses = {}
    for dtype in ("float32", "float64"):
        X = X_ND.astype(dtype)
        own = MLP([64, 32, 10], np.random.default_rng(0), dtype=np.dtype(dtype).type)
        p = [torch.tensor(w.data, requires_grad=True) for w in own.parameters()]

        def twin(X_BD, p=p):
            return (X_BD @ p[0] + p[1]).relu() @ p[2] + p[3]

        losses[dtype] = [
            _descend(own.parameters(), own, cross_entropy, X, y_N, steps),
            _descend(
                p, twin, torch.nn.functional.cross_entropy,
                torch.tensor(X), torch.tensor(y_N), steps,
            ),
        ]  # fmt: skip
    gaps = {dtype: np.abs(np.subtract(*pair)) for dtype, pair in losses.items()}
    assert gaps["float32"].max() < 1e-5 and gaps["float64"].max() < 1e-12
    return twins(*losses["float32"], gaps)


def _descend(parameters, net, cross_entropy, X, y, steps, lr=0.1):
    rng, losses = np.random.default_rng(1), []
    for _ in range(steps):
        rows = rng.integers(0, len(y), 64)
        loss = cross_entropy(net(X[rows]), y[rows])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data -= lr * p.grad
        losses.append(loss.item())
    return losses


def twins(own, theirs, gaps):
    "Two loss curves on each other, and {dtype: gap at each step} below them."
    fig, (top, low) = plots.subplots(
        2, 1, size=(6.8, 4.6), sharex=True, height_ratios=[3, 2]
    )
    top.plot(own, color=plots.SKY, lw=7, alpha=0.5)
    top.plot(theirs, color=plots.BLACK, lw=1.2)
    at = len(own) // 3
    top.annotate("our engine (wide)", (at, own[at]), xytext=(14, 22),
                 textcoords="offset points", color=plots.SKY)  # fmt: skip
    top.annotate("PyTorch (thin)", (at, own[at]), xytext=(14, 8),
                 textcoords="offset points", color=plots.BLACK)  # fmt: skip
    top.set_ylabel("loss")
    for (name, gap), colour in zip(gaps.items(), (plots.ORANGE, plots.GREEN)):
        low.plot(np.maximum(gap, 1e-17), ".", ms=4, color=colour)
        low.annotate(
            name, (len(gap) - 1, max(np.median(gap), 1e-17)), xytext=(8, 0), color=colour,
            textcoords="offset points", va="center", annotation_clip=False,
        )  # fmt: skip
    low.axhline(1e-5, color=plots.RED, lw=1, ls=":")
    low.annotate("allowed: 1e-5", (0, 1e-5), xytext=(0, 3), textcoords="offset points",
                 color=plots.RED, fontsize=9)  # fmt: skip
    low.set(yscale="log", ylim=(2e-18, 3e-3), xlabel="step", ylabel="gap of the losses")
    low.set_yticks([1e-17, 1e-13, 1e-9, 1e-5], ["0", "1e-13", "1e-9", "1e-5"])
    plots.title(top, "Two engines, one curve: they differ in the last digits only")
    return fig, (
        f"The loss over {len(own)} steps of our engine and of PyTorch lie on each other; "
        "their gap stays below 1e-5 in float32 and below 1e-12 in float64."
    )


VIEWS = {
    "x": lambda x: x,
    "x.T": lambda x: x.T,
    "x[:, ::2]": lambda x: x[:, ::2],
    "x[1:, 2:]": lambda x: x[1:, 2:],
    "x[2].expand(4, 6)": lambda x: x[2].expand(4, 6),
    "x.flatten().unfold(0, 6, 3)": lambda x: x.flatten().unfold(0, 6, 3),
    "x.T.contiguous()": lambda x: x.T.contiguous(),
}


def memory(view="x.T", row=1, column=2):
    "A lab: a view of x = arange(24).view(4, 6), its memory, and the way through it."
    x = torch.arange(24).view(4, 6)
    y = VIEWS[view](x)
    shares = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    stored = (x if shares else y).as_strided((24,), (1,), 0).numpy()
    row, column = min(row, len(y) - 1), min(column, y.shape[1] - 1)
    (s0, s1), start = y.stride(), y.storage_offset()
    places = start + s0 * np.arange(len(y))[:, None] + s1 * np.arange(y.shape[1])
    here = places[row, column]

    fig = plots.subplots(size=(8.6, 4.3))[0]
    fig.clear()
    grid, order, strip = fig.subplot_mosaic(
        "AB;CC", height_ratios=[3, 1], width_ratios=[6, 5]
    ).values()
    _cells(grid, y.numpy(), (row, column))
    grid.set_xlabel("column"), grid.set_ylabel("row")
    _cells(strip, stored[None, :], (0, here), seen=np.unique(places))
    strip.set_yticks([])
    strip.set_xlabel("place in memory" + ("" if shares else " (new memory: a copy)"))
    order.plot(places.ravel(), ".-", color=plots.BLUE, lw=1)
    at = row * y.shape[1] + column
    order.plot(at, here, "o", ms=11, mfc="none", mec=plots.RED, mew=2)
    order.set(
        xlabel="reading order, row by row", ylabel="place in memory", ylim=(-1, 24)
    )
    plots.title(grid, f"{view}: strides {s0, s1}")
    whole = "contiguous" if y.is_contiguous() else "not contiguous"
    plots.title(order, f"{start} + {row}·{s0} + {column}·{s1} = {here}  ({whole})")
    return fig, (
        f"The view {view} has shape {tuple(y.shape)}, strides {s0, s1} and start {start}: "
        f"row {row}, column {column} lies at place {here} of the memory; reading it row by "
        f"row is {whole}."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
memory.book = {"row": [0, 1, 2, 5], "column": [0, 1, 2, 5]}


def _cells(ax, values, chosen, seen=None):
    pale = values.astype(float)
    ax.imshow(pale, cmap="Blues", vmin=-6, vmax=44, aspect="auto")
    for (r, c), value in np.ndenumerate(values):
        hidden = seen is not None and c not in seen
        ax.text(
            c, r, value, ha="center", va="center", fontsize=9,
            color="#b5b5b5" if hidden else plots.BLACK,
        )  # fmt: skip
        if hidden:
            ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, color="white", zorder=1))
    r, c = chosen
    frame = Rectangle(
        (c - 0.5, r - 0.5), 1, 1, fill=False, ec=plots.RED, lw=2.5, zorder=3
    )
    ax.add_patch(frame)
    ax.set_xticks(range(values.shape[1])), ax.set_yticks(range(values.shape[0]))
    ax.tick_params(length=0, labelsize=8)
    ax.grid(False)


def spread(scores, floor):
    "{seed: test accuracy} beside the accuracy that was asked for."
    fig, ax = plots.subplots(size=(6.4, 2.4))
    values = PER_CENT * np.array(list(scores.values()))
    for place, value in enumerate(values):
        ax.plot(value, place, "o", color=plots.BLUE, ms=9)
        ax.annotate(f"{value:.1f} %", (value, place), xytext=(0, 9), ha="center",
                    textcoords="offset points", color=plots.BLUE)  # fmt: skip
    ax.axvline(PER_CENT * floor, color=plots.RED, lw=1, ls=":")
    ax.annotate("asked for", (PER_CENT * floor, len(values) - 0.6), xytext=(4, 0),
                textcoords="offset points", color=plots.RED)  # fmt: skip
    ax.set_yticks(range(len(values)), [f"seed {seed}" for seed in scores])
    ax.set(ylim=(-0.5, len(values) - 0.2), xlim=(97.5, 100.2))
    ax.set_xlabel("test accuracy, %")
    plots.title(
        ax, f"{len(values)} seeds, from {values.min():.1f} % to {values.max():.1f} %"
    )
    listed = ", ".join(f"{value:.1f} %" for value in values)
    return fig, (
        f"Test accuracy of {len(values)} runs that differ in the seed alone: {listed}; "
        f"asked for were {PER_CENT * floor:.0f} %."
    )


def cut(unbroken, before, after):
    "Losses of a run, of the same run until it was cut off, and of its continuation."
    fig, ax = plots.subplots(size=(6.8, 3.2))
    ax.plot(unbroken, color=plots.SKY, lw=6, alpha=0.5)
    ax.plot(range(len(before)), before, color=plots.BLACK, lw=1)
    saved = len(unbroken) - len(after)
    ax.plot(range(saved, len(unbroken)), after, color=plots.GREEN, lw=1)
    ax.axvline(len(before), color=plots.RED, lw=1)
    ax.axvline(saved, color=plots.GREEN, lw=1, ls=":")
    top = max(unbroken)
    ax.annotate("cut off here", (len(before), top), xytext=(4, -4), color=plots.RED,
                textcoords="offset points")  # fmt: skip
    ax.annotate("last checkpoint", (saved, top), xytext=(-4, -4), ha="right",
                color=plots.GREEN, textcoords="offset points")  # fmt: skip
    ax.set(yscale="log", xlabel="step", ylabel="loss of the batch")
    plots.title(ax, "The resumed run walks the same path, bit for bit")
    return fig, (
        f"Loss of an unbroken run of {len(unbroken)} steps, of a run cut off after step "
        f"{len(before)}, and of its continuation from the checkpoint at step {saved}, "
        "which covers the unbroken one."
    )


def claim_band(losses, claimed, titles):
    "(epochs, seeds) losses per setting as a band, and {epoch: claimed loss} as points."
    fig, axes = plots.subplots(1, len(losses), size=(9, 3.5), sharey=True)
    x, y = list(claimed), list(claimed.values())
    for ax, (name, curves), finding in zip(axes, losses.items(), titles):
        epochs = np.arange(len(curves))
        low, mid, high = np.percentile(curves, [0, 50, 100], axis=1)
        ax.fill_between(epochs, low, high, color=plots.SKY, alpha=0.3, lw=0)
        ax.plot(epochs, mid, color=plots.BLUE)
        ax.plot(x, y, "o", color=plots.RED, ms=6)
        ax.set(yscale="log", xlabel="epoch", ylim=(2e-6, 200))
        ax.annotate("claimed", (x[2], y[2]), xytext=(-2, -15), color=plots.RED,
                    textcoords="offset points")  # fmt: skip
        at = len(mid) * 35 // 100
        ax.annotate("median of the seeds", (at, mid[at]), xytext=(6, 12),
                    color=plots.BLUE, textcoords="offset points", ha="left")  # fmt: skip
        plots.title(ax, finding)
        ax.text(
            0.98, 0.97, name, transform=ax.transAxes, ha="right", va="top", fontsize=9
        )
    axes[0].set_ylabel("mean squared error")
    seeds = next(iter(losses.values())).shape[1]
    parts = "; ".join(
        f"{name}: the median starts at {np.median(c[0]):.2g} and ends at "
        f"{np.median(c[-1]):.2g}"
        for name, c in losses.items()
    )
    return fig, (
        f"The claimed loss at five epochs beside the band of {seeds} seeds, on a "
        f"logarithmic axis; {parts}."
    )


def pixels(normalised_3N, low, high):
    "Histograms of a photograph's normalised pixels, one line per channel."
    fig, ax = plots.subplots(size=(6.8, 3.2))
    bins = np.linspace(low, high, 80)
    middle = (bins[1:] + bins[:-1]) / 2
    for name, values, colour in zip(
        ("red", "green", "blue"), normalised_3N, (plots.RED, plots.GREEN, plots.BLUE)
    ):
        share = np.histogram(values, bins)[0] / values.size * PER_CENT
        ax.plot(middle, share, color=colour, lw=1.5)
        top = share.argmax()
        ax.annotate(name, (middle[top], share[top]), xytext=(3, 4), color=colour,
                    textcoords="offset points", ha="center")  # fmt: skip
    ax.axvspan(-1, 1, color="#dddddd", alpha=0.6, lw=0, zorder=0)
    ax.annotate("claimed: [-1, 1]", (0, 0.98), xycoords=("data", "axes fraction"),
                ha="center", va="top", fontsize=9)  # fmt: skip
    for at, side in ((low, "left"), (high, "right")):
        ax.axvline(at, color=plots.BLACK, lw=1, ls=":")
        ax.annotate(f"{at:.2f}", (at, 0.6), xycoords=("data", "axes fraction"),
                    xytext=(6 if side == "left" else -18, 0), ha=side,
                    textcoords="offset points")  # fmt: skip
    ax.set(xlabel="normalised pixel, standard deviations", ylabel="share of pixels, %")
    ax.margins(y=0.12)
    outside = PER_CENT * (np.abs(normalised_3N) > 1).mean()
    plots.title(ax, f"{outside:.0f} % of this photograph's pixels lie outside [-1, 1]")
    return fig, (
        f"Share of the normalised pixels of a photograph by value and channel: "
        f"{outside:.0f} % lie outside [-1, 1]; possible are {low:.2f} to {high:.2f}."
    )


def sanity(first, expected, losses, rows):
    "The first loss beside ln C, and the loss of one batch that is learnt by heart."
    fig, ax = plots.subplots(size=(6.6, 3))
    ax.plot(np.maximum(losses, 1e-9), color=plots.BLUE)
    ax.axhline(expected, color=plots.BLACK, lw=1, ls=":")
    ax.plot(0, first, "o", color=plots.RED, ms=8)
    ax.annotate(
        f"before training {first:.2f}; equal bets cost {expected:.2f}", (0, first),
        xytext=(10, 5), textcoords="offset points", color=plots.RED,
    )  # fmt: skip
    ax.annotate(f"{losses[-1]:.1g}", (len(losses) - 1, losses[-1]), xytext=(5, 0),
                textcoords="offset points", color=plots.BLUE, va="center",
                annotation_clip=False)  # fmt: skip
    ax.set(yscale="log", xlabel="step on the same batch", ylabel="loss")
    ax.set_ylim(top=5 * expected)
    plots.title(ax, f"Starts without an opinion, learns {rows} rows by heart")
    return fig, (
        f"An untrained model's loss is {first:.3g} beside ln of the classes, {expected:.3g}; "
        f"{len(losses)} steps on one batch of {rows} rows bring it below a tenth of that."
    )
