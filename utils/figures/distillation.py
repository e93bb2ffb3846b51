"""The figures of chapter 25."""

import functools
from statistics import mean

import torch

from utils import plots
from utils.built import distill

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.PURPLE)


# ---- a digit never seen ----


def never_saw_3(X_ND, y_N, X_test, y_test):
    "{what a student learnt from: what finds_3 says of it}, without an image of a 3."
    labels = distill.by_labels(y_N)
    teacher = distill.learn(distill.mlp(128, 0), X_ND, labels, 500)
    seen_ND, seen_N = X_ND[y_N != 3], y_N[y_N != 3]
    lessons = {
        "the labels": distill.by_labels(seen_N),
        "the teacher": distill.by_teacher(teacher(seen_ND).detach(), 4),
    }
    found = {}
    for name, lesson in lessons.items():
        net = distill.learn(distill.mlp(64, 9), seen_ND, lesson, 500)
        found[name] = distill.finds_3(net, X_ND, X_test, y_test)
    return found


def first_look(found):
    "{what the student learnt from: (raw, raised, all)}."
    fig, ax = plots.subplots(1, 1, size=(5.2, 2.6))
    values = [raw for raw, _, _ in found.values()]
    ax.bar(range(len(values)), values, width=0.5, color=COLOURS[: len(values)])
    for x, value in enumerate(values):
        ax.annotate(f"{value:.0f} %", (x, value), (0, 2), textcoords="offset points",
                    ha="center", va="bottom", fontsize=9)  # fmt: skip
    ax.set_xticks(range(len(found)), [f"learnt from {name}" for name in found])
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel="3s read (%)", ylim=(0, 105), xlim=(-0.6, len(found) - 0.4))
    plots.title(
        ax, f"Never shown a 3: {found['the teacher'][0]:.0f} % of them are read"
    )
    told = ", ".join(f"learnt from {n} {a:.0f} %" for n, (a, _, _) in found.items())
    return fig, f"The share of the 3s read by students that never saw one: {told}."


# ---- few labels ----


def few_labels(folds):
    "[{how it learnt: accuracy}], one for each fold."
    fig, ax = plots.subplots(1, 1, size=(7.4, 3.2))
    names = list(folds[0])
    for k, name in enumerate(names):
        values = [f[name] for f in folds]
        ax.plot(values, [k] * len(values), "o", color=COLOURS[k % 5], ms=8, alpha=0.8)
        ax.plot([mean(values)] * 2, [k - 0.25, k + 0.25], color=COLOURS[k % 5], lw=2)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("digits right (%); a dot per fold, the line is the mean")
    ahead = mean(f[names[2]] - f[names[1]] for f in folds)
    plots.title(ax, f"All images and no more labels: {ahead:+.1f} points")
    told = "; ".join(f"{n} {mean(f[n] for f in folds):.1f} %" for n in names)
    return (
        fig,
        f"A student 64-16-10 with 100 labels, means of {len(folds)} folds: {told}.",
    )


# ---- wrong labels ----


def suspects(X_ND, y_N, logits_NC, wrong_N, caught):
    "The eight labels believed least that were planted, and the eight that were not."
    belief_N = logits_NC.softmax(1)[torch.arange(len(y_N)), y_N]
    fig, axes = plots.subplots(2, 8, size=(8.6, 3.3))
    for row, group_N, colour, head in (
        (0, wrong_N, plots.BLUE, "planted"),
        (1, ~wrong_N, plots.ORANGE, "the data's own"),
    ):
        places = group_N.nonzero()[:, 0]
        places = places[belief_N[places].argsort()][:8]
        for ax, i in zip(axes[row], places.tolist()):
            ax.imshow(X_ND[i].reshape(8, 8).numpy(), cmap="gray_r")
            ax.axis("off")
            says = logits_NC[i].argmax().item()
            ax.set_title(f"label {int(y_N[i])}\nnet {says}", fontsize=9, color=colour)
        axes[row][0].annotate(head, (-0.3, 0.5), xycoords="axes fraction", fontsize=10,
                              fontweight="bold", color=colour, rotation=90, ha="center",
                              va="center")  # fmt: skip
    recall = caught["out of fold"][1]
    plots.heading(
        fig,
        f"Out of fold: {100 * recall:.0f} % of the wrong labels are suspected",
        x=0.02,
    )
    told = "; ".join(
        f"{n} {100 * p:.0f} and {100 * r:.0f} %" for n, (p, r) in caught.items()
    )
    return fig, (
        "The labels believed least: above, planted errors; below, labels of the data itself "
        f"(label, and what the network says). Precision and recall: {told}."
    )


# ---- five into one ----


def fused(table):
    "{name: (accuracy, bytes, microseconds)}."
    fig, axes = plots.subplots(1, 3, size=(9.6, 2.9), sharey=True)
    names = list(table)
    for ax, k, label, form in zip(
        axes, range(3), ("digits right (%)", "kilobytes", "microseconds per image"),
        ("{:.1f}", "{:.0f}", "{:.0f}"),
    ):  # fmt: skip
        values = [row[k] / (1000 if k == 1 else 1) for row in table.values()]
        ax.barh(range(len(names)), values, color=COLOURS[k], height=0.6)
        for y, value in enumerate(values):
            ax.annotate(form.format(value), (value, y), (3, 0), textcoords="offset points",
                        va="center", fontsize=9)  # fmt: skip
        ax.set(xlabel=label, xlim=(0, 1.25 * max(values)))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    lost = table["averaged, one start"][0] - table["averaged, five starts"][0]
    plots.title(axes[0], f"Averaged weights: from five starts {lost:.0f} points worse")
    told = "; ".join(
        f"{n} {a:.1f} %, {b / 1000:.0f} kB, {c:.0f} us"
        for n, (a, b, c) in table.items()
    )
    return fig, f"Five networks 64-64-10, fused in several ways: {told}."


# ---- forgetting ----


def _matrix(ax, matrix_TT, label=True):
    ax.imshow(matrix_TT.numpy(), cmap="cividis", vmin=0, vmax=100)
    for i, row in enumerate(matrix_TT.tolist()):
        for j, value in enumerate(row):
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8.5,
                    color="black" if value > 55 else "white")  # fmt: skip
    ax.set_xticks(range(5), [str(j + 1) for j in range(5)])
    ax.set_yticks(range(5), [str(j + 1) for j in range(5)])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.set_xlabel("read: task")
    if label:
        ax.set_ylabel("after task")


def fading(matrices):
    "{cure: {scenario: accuracy (5, 5)}}: a column that fades is forgotten."
    scenarios = list(next(iter(matrices.values())))
    fig, axes = plots.subplots(2, len(matrices), size=(9.6, 5.4))
    for row, scenario in zip(axes, scenarios):
        for k, (ax, (name, by)) in enumerate(zip(row, matrices.items())):
            _matrix(ax, by[scenario], label=not k)
            ax.set_title(
                f"{name}: {by[scenario][-1].mean():.0f} % at the end", fontsize=10
            )
        row[0].annotate(scenario, (0, 1.16), xycoords="axes fraction", fontsize=11,
                        fontweight="bold", va="bottom")  # fmt: skip
    told = "; ".join(
        f"{s}: "
        + ", ".join(f"{n} {by[s][-1].mean():.0f} %" for n, by in matrices.items())
        for s in scenarios
    )
    return fig, (
        "Accuracy (%) on each of five tasks (columns) after each task (rows); yellow is read, "
        "dark is forgotten or, right of the diagonal, not yet learnt. Mean of the last row: "
        f"{told}."
    )


def lab(measure):
    "draw(scenario, cure, images, strength): the matrix of one run."
    measure = functools.cache(measure)

    def draw(scenario="new classes", cure="nothing", images=100, strength=30):
        key = (images if cure == "replay" else 100, strength if cure == "EWC" else 30)
        matrix = measure(scenario, cure, *key)
        fig, (left, right) = plots.subplots(1, 2, size=(8.6, 3.6))
        _matrix(left, matrix)
        extra = {"replay": f" {images} images", "EWC": f" {strength}"}.get(cure, "")
        plots.title(left, f"{cure}{extra}: {matrix[-1].mean():.0f} % at the end")
        for j in range(5):
            right.plot(range(j + 1, 6), matrix[j:, j], "o-", color=COLOURS[j], ms=4)
            right.annotate(f"{j + 1}", (j + 1, matrix[j, j]), (-9, -3),
                           textcoords="offset points", fontsize=9, color=COLOURS[j])  # fmt: skip
        right.set(ylim=(-4, 106), xlim=(0.6, 5.2), xlabel="after task",
                  ylabel="task read right (%)", xticks=range(1, 6))  # fmt: skip
        plots.title(right, f"{scenario}: a line per task")
        ends = ", ".join(f"{v:.0f}" for v in matrix[-1].tolist())
        return fig, (
            f"{scenario}, {cure}{extra}: after all five tasks, {ends} % of tasks 1 to 5 are "
            "read right. Left: each task's accuracy after each task; right: the same as lines."
        )

    draw.book = {"images": [10, 100, 500], "strength": [30, 3000]}
    return draw
