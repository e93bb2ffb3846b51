"The figures of chapter 22."

import functools
import math

import numpy as np
import torch

from utils import plots


def _digit(ax, x_D, frame=None):
    "One digit, dark on white."
    pixels = np.clip(np.asarray(x_D), 0, 1).reshape(8, 8)
    ax.imshow(pixels, cmap="gray_r", vmin=0, vmax=1)
    _bare(ax)
    for side in ax.spines.values():
        side.set(visible=frame is not None, color=frame or "white", lw=1.5)


def _bare(ax):
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


# ---- the first look ----


def first_look(bins=512, clients=8, rows=8):
    "The imprint attack through secure aggregation, with the functions of utils.built."
    from utils.built import private, secure
    from utils.data import digits

    X_ND, y_N, X_test, _ = (torch.tensor(part) for part in digits())
    X_ND, X_test = X_ND.float(), X_test.float()
    layer = private.imprint(X_test, bins, 10)
    generator = torch.Generator().manual_seed(0)
    mine = torch.randperm(len(X_ND), generator=generator)[: clients * rows]
    slopes = [
        private.crafted_slope(layer, X_ND[r], y_N[r]).double().numpy()
        for r in mine.view(clients, rows)
    ]
    total_P, sent = secure.secure_sum(slopes)
    found = private.read_imprint(torch.tensor(total_P).float(), 64, 3 / secure.SCALE)
    return through_masks(sent, found, X_ND[mine])


def through_masks(sent, found_MD, rows_ND):
    "What each client sent, as grey pixels, and the rows that came out of the sum."
    gap_MN = torch.cdist(found_MD, rows_ND, p=torch.inf)
    hits, whose = gap_MN.min(1)
    right = {}  # each of the clients' rows once, its best copy
    for m in hits.argsort().tolist():
        if hits[m] < 0.05 and whose[m].item() not in right:
            right[whose[m].item()] = m
    fig, (above, below) = plots.subplots(2, 1, size=(8.6, 3.7), height_ratios=(1, 1.7))
    side = min(math.isqrt(len(next(iter(sent.values())))), 64)
    noise = [sent_P[: side**2].reshape(side, side) / 2**32 for sent_P in sent.values()]
    _mosaic(above, noise, len(noise), gap=8, cmap="gray")
    order = sorted(right)
    shown = order[
        : len(order) // 16 * 16
    ]  # whole rows: their number is asked for later
    digits = [found_MD[right[row]].view(8, 8).clamp(0, 1).numpy() for row in shown]
    _mosaic(below, digits, 16, gap=2, cmap="gray_r")
    plots.title(above, "What each of the clients sent: noise")
    plots.title(below, "What the sum gives away")
    assert len(order) > len(rows_ND) / 2, "the attack fails"
    return fig, (
        f"Above, the first numbers that each of {len(sent)} clients sent, as grey pixels: "
        f"noise. Below, {len(shown)} of the clients' {len(rows_ND)} digits, read out of the "
        "exact sum of these messages, right to 0.05 in every pixel."
    )


def _mosaic(ax, pictures, columns, gap, cmap):
    "Pictures of one size in rows of `columns`, white between them."
    high, wide = pictures[0].shape
    rows = -(-len(pictures) // columns)
    shape = rows * (high + gap) - gap, columns * (wide + gap) - gap
    canvas = np.full(shape, np.nan)
    for n, picture in enumerate(pictures):
        y, x = n // columns * (high + gap), n % columns * (wide + gap)
        canvas[y : y + high, x : x + wide] = picture
    ax.imshow(canvas, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    _bare(ax)
    for edge in ax.spines.values():
        edge.set_visible(False)


# ---- clients ----


def holdings(splits):
    "{name: labels of each client}: how many rows of each digit every client has."
    fig, axes = plots.subplots(1, len(splits), size=(8.6, 2.9), sharey=True)
    for ax, (name, labels) in zip(np.atleast_1d(axes), splits.items()):
        for k, y in enumerate(labels):
            counts, below = np.bincount(np.asarray(y), minlength=10), 0
            for digit, count in enumerate(counts):
                ax.bar(k, count, bottom=below, width=0.9, color=_shade(digit), lw=0)
                if count > 45:
                    ax.text(k, below + count / 2, digit, ha="center", va="center",
                            fontsize=8.5, color="white" if digit < 6 else plots.BLACK)  # fmt: skip
                below += count
        ax.set(xlabel="client", xticks=range(len(labels)))
        ax.tick_params(labelsize=8)
        ax.grid(axis="x", visible=False)
        plots.title(ax, name[0].upper() + name[1:])
    np.atleast_1d(axes)[0].set_ylabel("rows, a shade per digit")
    names = "; ".join(splits)
    return fig, (
        f"Rows of each digit at every client, in {len(splits)} splits ({names}): from equal "
        "shares of all ten digits to a single digit per client."
    )


def _shade(digit):
    return np.array([0.05, 0.25, 0.45]) + (np.array([0.9, 0.93, 0.97]) - [0.05, 0.25, 0.45]) * digit / 9  # fmt: skip


def curves(series):
    "{way: [accuracy after each round, of each seed]}: all runs, and where they end."
    fig, ax = plots.subplots(size=(7.4, 3.7))
    colours = dict(zip(series, (plots.BLUE, plots.ORANGE, plots.GREEN)))
    ends = {}
    for name, runs in series.items():
        for scores in runs:
            ax.plot(
                range(1, len(scores) + 1), scores, color=colours[name], lw=1, alpha=0.5
            )
        mean = np.mean(runs, axis=0)
        ax.plot(range(1, len(mean) + 1), mean, color=colours[name])
        ends[name] = (len(mean), mean[-1])
    for name, (x, y) in ends.items():
        ax.annotate(f"{name}: {y:.0f} %", (x, y), xytext=(6, 0),
                    textcoords="offset points", color=colours[name], va="center",
                    annotation_clip=False)  # fmt: skip
    ax.set(xlabel="round, 60 steps of every client", ylabel="test accuracy, %")
    ax.set(ylim=(0, 100), xlim=(0, None))
    best = max(ends, key=lambda name: np.mean([run[29] for run in series[name]]))
    plots.title(ax, f"One digit per client: {best} is ahead after 30 rounds")
    told = ", ".join(
        f"{name} {y:.0f} percent after {x}" for name, (x, y) in ends.items()
    )
    return fig, (
        "Test accuracy over the rounds with one digit per client, two seeds each (thin) and "
        f"their mean (thick): {told} rounds."
    )


# ---- leaks ----


def pairs(true_ND, rebuilt, alike):
    "True digits above, rebuilt ones below."
    fig, axes = plots.subplots(2, len(rebuilt), size=(5.4, 3.3))
    for n, (x_D, guess_D, like) in enumerate(zip(true_ND, rebuilt, alike)):
        _digit(axes[0, n], x_D, plots.BLACK)
        _digit(axes[1, n], guess_D, plots.RED)
        axes[1, n].set_xlabel(f"correlation {like:.3f}", fontsize=9)
    axes[0, 0].set_ylabel("the client's", fontsize=9)
    axes[1, 0].set_ylabel("from its gradient", fontsize=9, color=plots.RED)
    plots.heading(fig, "A search finds the digit behind a gradient", x=0.02)
    return fig, (
        f"{len(rebuilt)} digits and what a search for an input with the same gradient finds, "
        f"through two convolutions: correlations {'above 0.99' if min(alike) > 0.99 else f'from {min(alike):.2f}'}."
    )


# ---- the lab ----


def dissolve(attack, X_ND, scores, budgets):
    """draw(sigma, digit): the rebuilt digit, and this sigma on accuracy and budget.

    attack(sigma, row) -> (64,); scores: {sigma: percent}; budgets: {sigma: epsilon}.
    """
    attack = functools.lru_cache(128)(attack)
    sigmas = list(scores)

    def draw(sigma=0.1, digit=17):
        guess_D = attack(sigma, digit)
        like = np.corrcoef(np.asarray(guess_D), np.asarray(X_ND[digit]))[0, 1]
        fig, (left, middle, right) = plots.subplots(
            1, 3, size=(8.8, 3.2), width_ratios=(1, 1, 2.1)
        )
        _digit(left, X_ND[digit], plots.BLACK)
        _digit(middle, guess_D, plots.RED)
        plots.title(left, "The client's")
        plots.title(middle, "Rebuilt")
        middle.set_xlabel(f"correlation {like:.2f}")
        places = range(len(sigmas))
        right.plot(places, [scores[s] for s in sigmas], "o-", color=plots.BLUE)
        at = sigmas.index(sigma)
        right.plot(at, scores[sigma], "o", ms=13, mfc="none", mec=plots.RED, mew=2)
        for place, s in zip(places, sigmas):
            right.text(place, 47, _short(budgets[s]), ha="center", fontsize=8.5,
                       color=plots.RED if s == sigma else plots.BLACK)  # fmt: skip
        right.text(-0.4, 52, "epsilon", fontsize=8.5)
        right.set(ylim=(44, 102), xlim=(-0.6, len(sigmas) - 0.4), xlabel="sigma")
        right.set_ylabel("test accuracy, %")
        right.set_xticks(places, [f"{s:g}" for s in sigmas])
        told = (
            "no promise" if budgets[sigma] > 1000 else f"epsilon {budgets[sigma]:.2g}"
        )
        plots.title(right, f"sigma {sigma:g}: {scores[sigma]:.0f} %, {told}")
        return fig, (
            f"With noise {sigma:g} the digit rebuilt from one private gradient correlates "
            f"{like:.2f} with the true one; training with it reaches {scores[sigma]:.0f} "
            f"percent, and the privacy budget is {_words(budgets[sigma])}."
        )

    draw.book = {"digit": [17, 18, 19]}
    return draw


def _words(epsilon):
    return (
        "infinite"
        if math.isinf(epsilon)
        else f"{epsilon:,.2g}"
        if epsilon < 100
        else f"{epsilon:,.0f}"
    )


def _short(epsilon):
    if math.isinf(epsilon):
        return "∞"
    if epsilon < 1000:
        return f"{epsilon:.2g}" if epsilon < 100 else f"{epsilon:.0f}"
    power = math.floor(math.log10(epsilon))
    return f"{epsilon / 10**power:.0f}·10$^{power}$"
