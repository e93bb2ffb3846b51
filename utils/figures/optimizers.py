"""The figures of chapter 04."""

import numpy as np
from matplotlib.ticker import NullLocator

from utils import plots
from utils.built import optim

COLOURS = {
    "descent": plots.BLACK,
    "momentum": plots.BLUE,
    "adagrad": plots.PURPLE,
    "rmsprop": plots.GREEN,
    "adam": plots.RED,
}
HOUSES = np.array(  # chapter 01's claim check: rooms, area, year, price in dollars
    [
        [3, 1200, 1990, 300_000],
        [4, 1500, 1995, 320_000],
        [2, 900, 1990, 240_000],
        [5, 1800, 2000, 350_000],
        [3, 1100, 1995, 270_000],
    ],
    dtype=float,
)


def _walk(rule, slope, w, steps, **options):
    path, state = [w], {}
    for _ in range(steps):
        w, state = rule(w, slope(w), state, **options)
        path.append(w)
    return np.array(path)


def house_race(goal=1e-6):
    "Excess loss of descent and momentum, each at its best, on chapter 01's house valley."
    rooms, price = HOUSES[:, :3], HOUSES[:, 3]
    A = np.c_[(rooms - rooms.mean(0)) / rooms.std(0), np.ones(len(price))]
    H = 2 * A.T @ A / len(A)
    low, *_, high = np.linalg.eigvalsh(H)
    best = np.linalg.solve(H, 2 * A.T @ price / len(A))
    root = np.sqrt(high / low)
    ways = {
        "descent": {"lr": 2 / (low + high)},
        "momentum": {
            "lr": (2 / (np.sqrt(low) + np.sqrt(high))) ** 2,
            "beta": ((root - 1) / (root + 1)) ** 2,
        },
    }
    fig, ax = plots.subplots(size=(6.8, 3.5))
    took = {}
    for name, options in ways.items():
        rule = optim.RULES[name]
        path = _walk(rule, lambda w: H @ (w - best), np.zeros(4), 2600, **options)
        away = path - best
        excess = np.einsum("ti,ij,tj->t", away, H, away)
        excess = np.maximum(excess / excess[0], 1e-12)
        took[name] = int(np.argmax(excess < goal))
        seen = took[name] + 1
        ax.plot(np.arange(1, seen + 1), excess[:seen], color=COLOURS[name])
        ax.plot(seen, excess[took[name]], "o", color=COLOURS[name])
        ax.annotate(
            f"{name}\n{took[name]:,} steps", (seen, excess[took[name]]),
            xytext=(-23, -2), textcoords="offset points", ha="right", va="bottom",
            color=COLOURS[name],
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="step")
    ax.set_ylabel("what is left of the loss\nabove the best line")
    times = took["descent"] / took["momentum"]
    plots.title(
        ax, f"A memory of past slopes: the same valley in 1/{times:.0f} of the steps"
    )
    return fig, (
        f"Loss above the best line for chapter 01's houses, both axes logarithmic: down to "
        f"a millionth, descent at its best rate takes {took['descent']:,} steps and "
        f"momentum at its best {took['momentum']:,}."
    )


def steps_needed(table):
    "{rule: {condition number: steps}} on logarithmic axes, with the slope of each line."
    fig, ax = plots.subplots(size=(6.4, 3.4))
    told = []
    for name, steps in table.items():
        k, n = np.array(list(steps), float), np.array(list(steps.values()), float)
        slope = np.polyfit(np.log(k), np.log(n), 1)[0]
        (line,) = ax.plot(k, n, "o-", color=COLOURS[name])
        plots.label_end(ax, line, f"{name}\nslope {slope:.2f}")
        told.append(f"{name} with slope {slope:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="condition number", ylabel="steps needed")
    ax.set_ylim(top=1e5)
    plots.title(ax, "Momentum pays the root of the condition number")
    return fig, (
        "Steps to a thousandth of the distance against the condition number, both axes "
        f"logarithmic: straight lines, {' and '.join(told)}."
    )


def _ravine(condition, degrees):
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    H = turn @ np.diag([1.0, condition]) @ turn.T

    def height(x, y):
        return (H[0, 0] * x * x + 2 * H[0, 1] * x * y + H[1, 1] * y * y) / 2

    return height, lambda w: H @ w, turn @ [1.0, 1.0]


def _saddle(condition, degrees):
    "Two hollows at -1 and 1 along v, a saddle between them; the walk starts near its ridge."
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

    def height(x, y):
        u, v = turn[0, 0] * x + turn[1, 0] * y, turn[0, 1] * x + turn[1, 1] * y
        return (condition * u * u - v * v) / 2 + v**4 / 4 + 0.25

    def slope(w):
        u, v = turn.T @ w
        return turn @ [condition * u, v**3 - v]

    return height, slope, turn @ [1.0, 1e-3]


def race(
    surface="ravine", condition=100, turned=0, share_of_the_cliff=0.9, adaptive_rate=0.1
):
    "The lab: five rules from one start on one surface, and the height of every step."
    height, slope, start = {"ravine": _ravine, "saddle": _saddle}[surface](
        condition, turned
    )
    cliff = 2 / condition
    ways = {
        "descent": {"lr": share_of_the_cliff * cliff},
        "momentum": {"lr": share_of_the_cliff * cliff, "beta": 0.9},
        "adagrad": {"lr": adaptive_rate},
        "rmsprop": {"lr": adaptive_rate, "beta": 0.9},
        "adam": {"lr": adaptive_rate},
    }
    fig, (left, right) = plots.subplots(1, 2, size=(9.6, 3.9))
    fig.set_layout_engine(None)  # twice as quick, and a lab is redrawn often
    fig.subplots_adjust(left=0.07, right=0.87, bottom=0.13, wspace=0.28)
    side = np.linspace(-1.6, 1.6, 81)
    levels = np.log(height(*np.meshgrid(side, side)) + 1e-3)
    left.contourf(side, side, levels, levels=12, cmap="Greys_r", alpha=0.55)
    ends = {}
    for name, options in ways.items():
        with np.errstate(all="ignore"):
            path = _walk(optim.RULES[name], slope, start, 100, **options)
            heights = height(*path.T)
        broken = ~np.isfinite(heights) | (heights > 1e3 * heights[0])
        last = int(np.argmax(broken)) if broken.any() else len(heights)
        heights = np.maximum(heights[:last] / heights[0], 1e-12)
        left.plot(*path[:last].T, ".-", color=COLOURS[name], ms=3, lw=1)
        right.plot(heights, color=COLOURS[name], lw=1.8, label=name)
        ends[name] = np.inf if broken.any() else heights[-1]
    left.plot(*start, "o", color=plots.BLACK, ms=6)
    left.annotate("start", start, xytext=(6, 6), textcoords="offset points")
    left.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xlabel="weight 1", ylabel="weight 2")
    left.set_aspect("equal")
    left.grid(False)
    right.set(yscale="log", xlabel="step", ylabel="height / height at the start")
    right.set_ylim(1e-12 if min(ends.values()) < 1e-6 else 1e-6, 1e2)
    right.yaxis.set_minor_locator(NullLocator())
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    first = min(ends, key=ends.get)
    how = f"turned by {turned}°" if turned else "along the axes"
    plots.title(left, f"A {surface} {how}")
    plots.title(right, f"Lowest after 100 steps: {first}")
    order = ", ".join(
        f"{name} {'leaves' if np.isinf(end) else f'{end:.1g}'}"
        for name, end in sorted(ends.items(), key=lambda item: item[1])
    )
    return fig, (
        f"Five rules on a {surface} of condition {condition}, {how}, 100 steps, at "
        f"{share_of_the_cliff:.2f} of the cliff and an adaptive rate of {adaptive_rate:g}; "
        f"height left over: {order}."
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
race.book = {
    "turned": [0, 45],
    "share_of_the_cliff": [0.3, 0.9],
    "adaptive_rate": [0.1, 0.3],
}


def sweep(scores, rates):
    "{rule: losses (rate, seed)}: validation loss against the rate, with the spread."
    fig, ax = plots.subplots(size=(7.4, 4))
    for name, losses in scores.items():
        losses = np.minimum(losses, 3)
        ax.fill_between(
            rates, losses.min(1), losses.max(1), color=COLOURS[name], alpha=0.15
        )
        ax.plot(
            rates, losses.mean(1), "o-", color=COLOURS[name], ms=4, lw=1.6, label=name
        )
    floor = {name: losses.mean(1).min() for name, losses in scores.items()}
    ax.axhline(min(floor.values()), color=plots.BLACK, lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="validation loss")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(1, 0.3))
    low, high = min(floor.values()), max(floor.values())
    best = [rates[int(losses.mean(1).argmin())] for losses in scores.values()]
    plots.title(
        ax,
        f"Best losses within a factor {high / low:.1f}, "
        f"at rates up to {max(best) / min(best):.0f} times apart",
    )
    at = ", ".join(f"{n} {rates[int(s.mean(1).argmin())]:g}" for n, s in scores.items())
    return fig, (
        f"Validation loss of a digits network against the learning rate for five rules, "
        f"mean and range over {next(iter(scores.values())).shape[1]} seeds: the lowest "
        f"means lie between {low:.2f} and {high:.2f}, at the rates {at}."
    )


def settle(schedule, runs):
    "The rate over time, and {batch size: {schedule: final excess losses}} for two schedules."
    fig, (left, right) = plots.subplots(1, 2, size=(9, 3.4))
    left.plot(schedule, color=plots.BLUE)
    left.set(xlabel="step", ylabel="learning rate", ylim=(0, 1.08 * max(schedule)))
    plots.title(left, "Up in a line, down in half a cosine")
    rng = np.random.default_rng(0)
    colours, side = {"constant": plots.RED, "cosine": plots.BLUE}, {"constant": -0.17}
    for place, ways in enumerate(runs.values()):
        for name, excess in ways.items():
            at = place + side.get(name, 0.17)
            spots = at + rng.uniform(-0.07, 0.07, len(excess))
            right.plot(spots, excess, "o", color=colours[name], ms=4, alpha=0.6)
            left_of = name == "constant"
            right.annotate(
                f"{name}\n{np.mean(excess):.2g}", (at, max(excess)),
                xytext=(12 if left_of else -12, 6), textcoords="offset points",
                ha="right" if left_of else "left", color=colours[name], fontsize=9,
            )  # fmt: skip
    right.set(yscale="log", ylabel="final loss / best loss - 1")
    low, high = right.get_ylim()
    right.set_ylim(low, high * 12)
    right.set_xlim(-0.6, len(runs) - 0.4)
    right.set_xticks(range(len(runs)), list(runs))
    right.set_xlabel("rows per step")
    plots.title(right, "A falling rate lets small batches settle")
    means = "; ".join(
        f"{size} rows: " + ", ".join(f"{n} {np.mean(e):.2g}" for n, e in ways.items())
        for size, ways in runs.items()
    )
    return fig, (
        "Left, the rate climbs and falls along half a cosine. Right, what is left above the "
        f"best loss after 30 epochs on the chips, means over 20 orders: {means}."
    )


def noise(sizes, spread):
    "Distance of a batch's gradient from the full one against the size of the batch."
    slope, start = np.polyfit(np.log(sizes), np.log(spread), 1)
    fig, ax = plots.subplots(size=(6.2, 3.3))
    ax.plot(
        sizes, np.exp(start) * np.array(sizes) ** -0.5, color=plots.BLACK, lw=1, ls=":"
    )
    ax.plot(sizes, spread, "o", color=plots.BLUE, ms=7)
    ax.annotate(
        "1 / root of the batch", (sizes[2], np.exp(start) * sizes[2] ** -0.5),
        xytext=(14, 8), textcoords="offset points",
    )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set(xlabel="rows in a batch", ylabel="distance from\nthe full gradient")
    plots.title(ax, "Half the noise costs four times the rows")
    return fig, (
        f"Noise of the gradient against the batch size, both axes logarithmic: the measured "
        f"points fall along a line of slope {slope:.2f}."
    )


def signal(sizes):
    "{label: root mean square of the activations, layer by layer}."
    fig, ax = plots.subplots(size=(6.8, 3.6))
    ax.plot([0, 20], [1, 1], color=plots.BLACK, lw=1, ls=":")
    for colour, (label, values) in zip(plots.PALETTE, sizes.items()):
        (line,) = ax.plot(values, "o-", color=colour, ms=3)
        plots.label_end(ax, line, label)
    ax.set(yscale="log", xlabel="layer", ylabel="size of the signal (rms)")
    ax.set_xticks(range(0, 21, 5))
    plots.title(ax, "One spread of weights carries a signal through 20 layers")
    ends = "; ".join(f"{label}: {values[-1]:.1g}" for label, values in sizes.items())
    return fig, (
        "Root mean square of the activations of a ReLU network by layer, logarithmic axis; "
        f"after 20 layers, {ends}."
    )


def zeros(weights, true):
    "{method: weights}: every weight as a stem, exact zeros as open circles."
    fig, axes = plots.subplots(1, len(weights), size=(9.4, 3.1), sharey=True)
    counts = {name: np.count_nonzero(w == 0) for name, w in weights.items()}
    for ax, (name, w) in zip(axes, weights.items()):
        place, gone = np.arange(len(w)), w == 0
        ax.plot(place[true != 0], true[true != 0], "_", color=plots.BLACK, ms=9)
        ax.vlines(place[~gone], 0, w[~gone], color=plots.BLUE, lw=1.5)
        ax.plot(place[~gone], w[~gone], "o", color=plots.BLUE, ms=3.5)
        ax.plot(place[gone], w[gone], "o", color=plots.RED, ms=4, mfc="white")
        ax.set_xlabel("weight number")
        plots.title(ax, f"{name}: {counts[name]} zeros")
    axes[0].set_ylabel("weight (dash: true value)")
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    return fig, (
        f"{len(true)} fitted weights for three methods, exact zeros as open circles; the "
        f"number of exact zeros: {told}. {np.count_nonzero(true)} true weights are not 0."
    )


def stopping(train_losses, valid_losses, best, stop):
    "Loss on the training and the validation rows, the epoch that is kept and the stop."
    fig, ax = plots.subplots(size=(6.8, 3.5))
    for losses, name, colour in (
        (train_losses, "training rows", plots.BLUE),
        (valid_losses, "validation rows", plots.RED),
    ):
        (line,) = ax.plot(losses, color=colour)
        plots.label_end(ax, line, name)
    ax.plot(best, valid_losses[best], "o", color=plots.BLACK, ms=8)
    ax.annotate(
        f"kept: epoch {best}", (best, valid_losses[best]), xytext=(2, 30),
        textcoords="offset points",
    )  # fmt: skip
    ax.axvline(stop, color=plots.BLACK, lw=1, ls=":")
    ax.annotate(
        "patience ends", (stop, max(valid_losses)), xytext=(5, 0),
        textcoords="offset points", va="top",
    )  # fmt: skip
    ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    plots.title(ax, "Past the best epoch the network learns the wrong labels by heart")
    return fig, (
        f"Loss by epoch with a fifth of the labels drawn at random: the training loss keeps "
        f"falling, the validation loss is lowest at epoch {best} ({valid_losses[best]:.2f}) "
        f"and ends at {valid_losses[-1]:.2f}."
    )


def shifts(image_D, moved_9D, plain_9, augmented_9):
    "One digit moved nine ways, and the accuracy of two networks on each move."
    fig, axes = plots.subplots(1, 3, size=(9.2, 3.3))
    canvas = np.full((28, 28), 0.6)  # grey frames
    for k, image in enumerate(moved_9D):
        row, column = divmod(k, 3)
        top, left = 1 + 9 * row, 1 + 9 * column
        canvas[top : top + 8, left : left + 8] = 1 - image.reshape(8, 8)
    axes[0].imshow(canvas, cmap="gray", vmin=0, vmax=1)
    axes[0].axis("off")
    plots.title(axes[0], "One digit, nine places")
    for ax, share, name in (
        (axes[1], plain_9, "trained as they are"),
        (axes[2], augmented_9, "trained on shifts"),
    ):
        grid = np.reshape(share, (3, 3))
        ax.imshow(grid, cmap="Blues", vmin=0, vmax=1.7)
        for (r, c), value in np.ndenumerate(grid):
            ax.text(c, r, f"{100 * value:.0f} %", ha="center", va="center")
        ax.set_xticks(range(3), ["left", "stay", "right"])
        ax.set_yticks(range(3), ["up", "stay", "down"])
        ax.grid(False)
        plots.title(ax, name)
    rest = [k for k in range(9) if k != 4]
    return fig, (
        "Validation accuracy on digits moved by one pixel: trained as they are "
        f"{100 * plain_9[4]:.0f} % in place and {100 * np.mean(np.array(plain_9)[rest]):.0f} % moved, "
        f"trained on shifts {100 * augmented_9[4]:.0f} % and "
        f"{100 * np.mean(np.array(augmented_9)[rest]):.0f} %."
    )
