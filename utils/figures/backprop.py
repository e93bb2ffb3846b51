"""The figures of chapter 03: graphs with values and gradients, the ladder, the tape."""

import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from utils import plots

WIDTH, HEIGHT = 1.36, 0.74  # of a node's box
GREY, PALE = "#767676", "#f4f4f4"


def _places(graph):
    "{name: (column, row)}: users to the right of what they use, sharing rows evenly."
    column = {}
    for name, parents in graph.items():
        column[name] = 1 + max((column[p] for p, _ in parents), default=-1)
    for name, parents in reversed(graph.items()):
        if not parents:  # a leaf stands beside its first user
            users = [column[u] for u, made in graph.items() if name in dict(made)]
            column[name] = min(users, default=1) - 1
    row, free = {}, iter(range(len(graph)))

    def place(name):
        if name not in row:
            parents = list(dict(graph[name]))
            for parent in parents:
                place(parent)
            mine = [row[p] for p in parents if column[p] == column[name] - 1]
            row[name] = (
                float(np.mean(mine or [row[p] for p in parents]))
                if parents
                else (-next(free))
            )

    for name in reversed(graph):
        place(name)
    return {name: (1.95 * column[name], row[name]) for name in graph}


def _number(x):
    return (
        f"{x + 0.0:g}".replace("-", "−") if x is not None else "?"
    )  # exact: they multiply


def _draw(ax, graph, values, grads, text, current=None, passed=()):
    "Boxes with name, value and gradient; arrows with their slopes."
    places = _places(graph)
    for name, parents in graph.items():
        for i, (parent, slope) in enumerate(parents):
            twins = [p for p, _ in parents].count(parent) > 1
            hot, cold = name == current, name in passed
            colour = plots.ORANGE if hot else plots.BLUE if cold else GREY
            (x0, y0), (x1, y1) = places[parent], places[name]
            bend = (0.55 if i else -0.55) if twins else 0.0
            ax.add_patch(FancyArrowPatch(
                (x0 + WIDTH / 2, y0), (x1 - WIDTH / 2, y1), color=colour,
                arrowstyle="-|>", mutation_scale=9, lw=2 if hot else 1.1,
                connectionstyle=f"arc3,rad={bend}", shrinkA=1, shrinkB=1,
            ))  # fmt: skip
            middle = (x0 + x1) / 2, (y0 + y1) / 2
            shift = (0.3 if bend < 0 else -0.3) if twins else 0.0
            ax.annotate(
                f"×{_number(slope)}", (middle[0], middle[1] + shift * 0.75), ha="center",
                va="center", fontsize=8, color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
    for name, (x, y) in places.items():
        hot = name == current
        ax.add_patch(FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.12", lw=2 if hot else 1,
            edgecolor=plots.ORANGE if hot else plots.BLACK,
            facecolor=PALE if graph[name] else "white",
        ))  # fmt: skip
        known = grads.get(name) is not None
        ax.text(
            x, y + 0.22, text.get(name, name), ha="center", va="center", fontsize=8.5
        )
        ax.text(x, y - 0.01, _number(values[name]), ha="center", va="center", fontsize=9.5,
                fontweight="bold", color=plots.BLACK)  # fmt: skip
        ax.text(x, y - 0.24, f"slope {_number(grads.get(name))}", ha="center",
                va="center", fontsize=8.5,
                color=plots.RED if known else GREY)  # fmt: skip
    xs, ys = zip(*places.values())
    ax.set_xlim(min(xs) - WIDTH, max(xs) + WIDTH)
    ax.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    ax.axis("off")


def _slopes(graph, last, steps=None):
    "Gradients after `steps` nodes have passed theirs on, and who has."
    grads, passed = {last: 1.0}, []
    waiting = [n for n in reversed(graph) if graph[n]]
    for name in waiting[: len(waiting) if steps is None else steps]:
        passed.append(name)
        for parent, slope in graph[name]:
            grads[parent] = grads.get(parent, 0.0) + slope * grads.get(name, 0.0)
    return grads, passed


def line_graph(w=2.0, x=3.0, b=1.0, y=5.0):
    "The graph of (w x + b - y)^2 with its values and the slope of L along each."
    p, s, e = w * x, w * x + b, w * x + b - y
    graph = {
        "w": [], "x": [], "p": [("w", x), ("x", w)], "b": [], "s": [("p", 1.0), ("b", 1.0)],
        "y": [], "e": [("s", 1.0), ("y", -1.0)], "L": [("e", e), ("e", e)],
    }  # fmt: skip
    values = {"w": w, "x": x, "p": p, "b": b, "s": s, "y": y, "e": e, "L": e * e}
    text = {"p": "p = w · x", "s": "s = p + b", "e": "e = s − y", "L": "L = e · e"}
    grads, _ = _slopes(graph, "L")
    fig, ax = plots.subplots(size=(9, 3.4))
    _draw(ax, graph, values, grads, text, passed=graph)
    plots.title(ax, "One walk from right to left fills in every slope of L")
    return fig, (
        f"The graph of L = (w x + b - y)^2 at w = {w:g}, x = {x:g}, b = {b:g}, y = {y:g}: "
        f"each box holds a value and the slope of L along it, {grads['w']:g} along w, "
        f"{grads['x']:g} along x, {grads['b']:g} along b."
    )


def _alive(*inputs):
    "Which ReLU lets something through, in words."
    open_ones = [str(i + 1) for i, a in enumerate(inputs) if a > 0]
    if len(open_ones) == len(inputs):
        return "Both units are alive."
    if not open_ones:
        return "Both units are off: nothing flows back through them."
    return f"Only unit {open_ones[0]} is alive: nothing flows back through the other."


def two_units(step=5, x=2.0, w2=1.5):
    "A lab: the backward pass of two ReLU units that share an input, node by node."
    w1, v1, v2, y = 1.0, 2.0, -1.0, -4.0
    a1, a2 = w1 * x, w2 * x
    h1, h2 = max(a1, 0.0), max(a2, 0.0)
    q1, q2 = v1 * h1, v2 * h2
    s = q1 + q2
    e = s - y
    graph = {
        "x": [], "w1": [], "a1": [("w1", x), ("x", w1)], "h1": [("a1", float(a1 > 0))],
        "v1": [], "q1": [("v1", h1), ("h1", v1)],
        "w2": [], "a2": [("x", w2), ("w2", x)], "h2": [("a2", float(a2 > 0))],
        "v2": [], "q2": [("h2", v2), ("v2", h2)],
        "s": [("q1", 1.0), ("q2", 1.0)], "y": [], "e": [("s", 1.0), ("y", -1.0)],
        "L": [("e", e), ("e", e)],
    }  # fmt: skip
    values = {
        "x": x, "w1": w1, "a1": a1, "h1": h1, "v1": v1, "q1": q1, "w2": w2, "a2": a2,
        "h2": h2, "v2": v2, "q2": q2, "s": s, "y": y, "e": e, "L": e * e,
    }  # fmt: skip
    text = {
        "a1": "a1 = w1 · x", "h1": "h1 = relu(a1)", "q1": "q1 = v1 · h1",
        "a2": "a2 = w2 · x", "h2": "h2 = relu(a2)", "q2": "q2 = v2 · h2",
        "s": "s = q1 + q2", "e": "e = s − y", "L": "L = e · e",
    }  # fmt: skip
    grads, passed = _slopes(graph, "L", step)
    current = passed[-1] if passed else None
    fig, ax = plots.subplots(size=(11.5, 5.0))
    _draw(ax, graph, values, grads, text, current, passed)
    full, _ = _slopes(graph, "L")
    users = [name for name, made in graph.items() if "x" in dict(made)]
    heard = sum(name in passed for name in users)
    if current is None:
        finding = "Before the first step: L's slope along itself is 1"
    else:
        finding = f"Step {step}: {current} hands its slope to what it was made from"
    told = f"x has heard from {heard} of its {len(users)} users"
    plots.title(ax, f"{finding}; {told}")
    return fig, (
        f"After {step} of {sum(map(bool, graph.values()))} backward steps {told}; its "
        f"slope stands at {_number(grads.get('x'))} and ends at {_number(full['x'])}. "
        f"{_alive(a1, a2)}"
    )


# the steps of its controls that the book shows (utils/course/book/frames.py)
two_units.book = {"step": range(10), "x": [-3.0, -1.0, 1.0, 2.0]}


def engine():
    "The nodes of (X @ W + b).relu().sum(): arrays, births, and what each rule hands back."
    graph = {  # name: what it was made from, and what its rule hands back there
        "X": [], "W": [], "P": [("X", "G @ W.T"), ("W", "X.T @ G")], "b": [],
        "S": [("P", "G"), ("b", "G, rows added")], "H": [("S", "G where S > 0")],
        "L": [("H", "G, copied")],
    }  # fmt: skip
    text = {"P": "P = X @ W", "S": "S = P + b", "H": "H = S.relu()", "L": "L = H.sum()"}
    shapes = {"X": (32, 64), "W": (64, 10), "b": (10,), "L": ()}
    places = {name: (1.45 * x, 1.15 * y) for name, (x, y) in _places(graph).items()}
    fig, ax = plots.subplots(size=(9.6, 3.6))
    for name, made in graph.items():
        for parent, hands in made:
            (x0, y0), (x1, y1) = places[name], places[parent]
            ax.add_patch(FancyArrowPatch(
                (x0 - WIDTH / 2, y0), (x1 + WIDTH / 2, y1), color=plots.RED,
                arrowstyle="-|>", mutation_scale=10, lw=1.2, shrinkA=1, shrinkB=1,
            ))  # fmt: skip
            ax.annotate(
                hands, ((x0 + x1) / 2, (y0 + y1) / 2), ha="center", va="center", fontsize=8,
                color=plots.RED, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
    for birth, (name, (x, y)) in enumerate(places.items()):
        ax.add_patch(FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, lw=1, edgecolor=plots.BLACK,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=PALE if graph[name] else "white",
        ))  # fmt: skip
        shape = str(shapes.get(name, (32, 10))).replace(" ", "")
        for dy, line, style in (
            (0.23, text.get(name, name), {"fontweight": "bold"}),
            (0.0, f"born {birth}, {shape}", {}),
            (-0.23, f"grad {shape}", {"color": plots.RED}),
        ):
            ax.text(x, y + dy, line, ha="center", va="center", fontsize=8.5, **style)
    xs, ys = zip(*places.values())
    ax.set_xlim(min(xs) - 0.8, max(xs) + 0.8)
    ax.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    ax.axis("off")
    walk = [b for b, name in enumerate(graph) if graph[name]][::-1]
    plots.title(
        ax,
        f"Backward visits the results by age, youngest first: {walk}"[:-1].replace(
            "[", ""
        ),
    )
    return fig, (
        "The nodes of L = sum(relu(X @ W + b)) with birth number and shape; arrows point "
        "back to what a node was made from and say what its rule makes of the gradient G "
        "that it holds. Every gradient has the shape of its array."
    )


def paths(depths, path_counts, edge_counts):
    "Paths and edges of a chain of diamonds."
    fig, ax = plots.subplots(size=(6.6, 3.3))
    ax.plot(depths, path_counts, color=plots.RED)
    ax.plot(depths, edge_counts, color=plots.BLUE)
    at = len(depths) // 2
    ax.annotate("paths: all visited by\nsum_over_paths", (depths[at], path_counts[at]),
                xytext=(-8, 4), textcoords="offset points", color=plots.RED, ha="right")  # fmt: skip
    ax.annotate("edges: all visited by reverse_pass", (depths[at], edge_counts[at]),
                xytext=(0, 8), textcoords="offset points", color=plots.BLUE, ha="center")  # fmt: skip
    ax.set(yscale="log", xlabel="diamonds in a row", ylabel="visits")
    plots.title(ax, "Paths double with every diamond, edges grow by four")
    return fig, (
        f"Visits against the number of diamonds, logarithmic: {path_counts[-1]:,} paths but "
        f"only {edge_counts[-1]} edges at {depths[-1]} diamonds."
    )


def moons_border(score, X_ND, labels_N):
    "The network's border between the two moons."
    fig, ax = plots.subplots(size=(6.0, 3.6))
    (left, low), (right, high) = X_ND.min(0) - 0.4, X_ND.max(0) + 0.4
    grid = np.meshgrid(np.linspace(left, right, 160), np.linspace(low, high, 120))
    heights = score(np.stack([g.ravel() for g in grid], 1)).reshape(grid[0].shape)
    reach = np.abs(heights).max()
    ax.contourf(*grid, heights, levels=np.linspace(-reach, reach, 21), cmap="RdBu",
                alpha=0.35)  # fmt: skip
    ax.contour(*grid, heights, levels=[0], colors=plots.BLACK, linewidths=1.5)
    for label, marker, colour in ((0, "o", plots.RED), (1, "^", plots.BLUE)):
        mine = labels_N == label
        ax.plot(*X_ND[mine].T, marker, color=colour, ms=5)
    right_share = np.mean((score(X_ND) > 0) == labels_N)
    ax.grid(False)
    ax.set(xlabel="first coordinate", ylabel="second coordinate")
    plots.title(
        ax, f"{100 * right_share:.0f} % of the {len(X_ND)} points on their own side"
    )
    return fig, (
        f"Two interleaved half moons and the curve where the network's score is zero: "
        f"{100 * right_share:.0f} % of the {len(X_ND)} points lie on their own side."
    )


def training(losses, accuracies):
    "Training loss and test accuracy of each epoch."
    fig, (left, right) = plots.subplots(1, 2, size=(8.2, 3.1))
    epochs = np.arange(len(losses)) + 1
    left.plot(epochs, losses, color=plots.BLUE)
    left.set(yscale="log", xlabel="epoch", ylabel="training loss")
    right.plot(epochs, 100 * np.array(accuracies), color=plots.GREEN)
    right.axhline(97, color=plots.BLACK, lw=1, ls=":")
    right.annotate("97 %", (epochs[-1], 97), xytext=(0, -12), textcoords="offset points",
                   ha="right")  # fmt: skip
    right.set(xlabel="epoch", ylabel="test accuracy, %")
    plots.title(left, "The loss falls")
    plots.title(right, f"{100 * accuracies[-1]:.1f} % of unseen digits read right")
    return fig, (
        f"Over {len(losses)} epochs the training loss falls from {losses[0]:.2g} to "
        f"{losses[-1]:.2g} and the test accuracy ends at {100 * accuracies[-1]:.1f} %."
    )


def ladder(seconds):
    "{rung: CPU seconds of one step}: a bar each, with the speed-up over the first."
    names, times = list(seconds), np.array(list(seconds.values()))
    fig, ax = plots.subplots(size=(7.6, 0.5 * len(names) + 1.1))
    places = np.arange(len(names))[::-1]
    ax.barh(places, times, color=plots.SKY, height=0.6)
    for place, t in zip(places, times):
        unit = f"{t:.2g} s" if t >= 0.1 else f"{1e3 * t:.2g} ms"
        ax.annotate(f"{unit}, ×{times[0] / t:,.0f}", (t, place), xytext=(5, 0),
                    textcoords="offset points", va="center")  # fmt: skip
    ax.set_yticks(places, names)
    ax.set(xscale="log", xlabel="CPU seconds per forward and backward pass")
    ax.set_xlim(times.min() / 3, times.max() * 12)
    ax.grid(axis="y", visible=False)
    best = f"{float(f'{times[0] / times.min():.2g}'):,.0f}"
    plots.title(ax, f"Same loss, same gradients, {best} times as fast")
    steps = "; ".join(f"{name}: {times[0] / t:,.0f}" for name, t in zip(names, times))
    return fig, (
        f"CPU seconds of each rung, on a logarithmic axis; so many times as fast as the "
        f"first: {steps}."
    )


def tape_memory(batches, plain, fused, parameters):
    "Bytes that the tape holds against the batch size, plain and fused nodes."
    fig, ax = plots.subplots(size=(6.6, 3.3))
    for ys, colour, name in (
        (plain, plots.RED, "a node for each operation"),
        (fused, plots.BLUE, "fused nodes"),
    ):
        ax.plot(batches, np.array(ys) / 1e6, "o-", color=colour, ms=4)
        ax.annotate(name, (batches[-1], ys[-1] / 1e6), xytext=(6, 0),
                    textcoords="offset points", color=colour, va="center",
                    annotation_clip=False)  # fmt: skip
    ax.axhline(parameters / 1e6, color=plots.BLACK, lw=1, ls=":")
    ax.annotate("the parameters themselves", (batches[-1], parameters / 1e6),
                xytext=(0, -12), textcoords="offset points", fontsize=9, ha="right")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="rows in the batch", ylabel="tape, MB")
    ax.set_xticks(batches, batches)
    ax.minorticks_off()
    plots.title(ax, "The tape grows with the batch; the parameters do not")
    return fig, (
        f"Megabytes held by the tape against the batch size, both logarithmic: at "
        f"{batches[-1]} rows {plain[-1] / 1e6:.1f} MB with plain nodes and "
        f"{fused[-1] / 1e6:.1f} MB with fused ones, beside {parameters / 1e6:.2f} MB of "
        "parameters."
    )
