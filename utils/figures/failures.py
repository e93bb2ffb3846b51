"""The figures of chapter 21."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils import data, plots, ranks
from utils.built import failures as course

RANK = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY)
V, P = 12, 640
YEAR = 365 * 24 * 3600.0
WHAT = {
    "work": plots.BLUE, "checkpoint": plots.GREEN, "lost": plots.RED,
    "restart": plots.BLACK,
}  # fmt: skip
SAID = {"work": "work", "checkpoint": "saving", "lost": "lost", "restart": "restarting"}


# ---- the first look ----


class Disturbed(NamedTuple):
    same_bits: bool
    figure: tuple


def _loss(w_P, X_ND, y_N, step, v):
    order_N = torch.randperm(len(y_N), generator=torch.Generator().manual_seed(step))
    rows = order_N[8 * v : 8 * v + 8]
    return F.cross_entropy(X_ND[rows] @ w_P.view(64, 10), y_N[rows])


def _step(state, digits, step, place, n, add_up):
    "-> (state after the step, loss of the rank's own rows before it)."
    w_P, m_P = state.chunk(2)
    mine, losses = {}, []
    for v in range(place, V, n):
        w = w_P.clone().requires_grad_()
        loss = _loss(w, *digits, step, v)
        mine[v], losses = torch.autograd.grad(loss, w)[0], [*losses, loss.item()]
    m_P = 0.9 * m_P + course.ordered_mean(mine, V, add_up)
    return torch.cat([w_P - 0.1 * m_P, m_P]), float(np.mean(losses))


def _digits():
    X_ND, y_N = (torch.tensor(part) for part in data.digits()[:2])
    return X_ND.float(), y_N


def goes_on(n=3, victim=1, at=14, steps=40):
    "Real ranks, one of them killed; the others go on. -> whether bits are equal, figure."
    digits = _digits()

    def fn(me, n):
        k, alive, step, losses = 0, list(range(n)), 0, [None] * steps
        state = torch.zeros(2 * P)
        while step < steps:
            if (me, step) == (victim, at):
                course.die()
            try:
                add_up = course.add_up_or_notice(k)
                place = alive.index(me)
                state, losses[step] = _step(
                    state, digits, step, place, len(alive), add_up
                )
                step += 1
            except RuntimeError:
                k, alive = course.meet_again(k + 1, me)
                step, state = course.catch_up(step, state)
        return state, losses

    made = ranks.run(fn, n, may_die=True)
    state, alone = torch.zeros(2 * P), []
    for step in range(steps):
        state, loss = _step(state, digits, step, 0, 1, lambda x: None)
        alone.append(loss)
    same = all(torch.equal(one[0], state) for one in made if one)
    fig, ax = plots.subplots(size=(7.4, 3.4))
    for rank, one in enumerate(made):
        if one:
            losses = [np.nan if x is None else x for x in one[1]]
            ax.plot(losses, color=RANK[rank], lw=1.2)
    ax.plot(alone, color=plots.BLACK, lw=2, ls=(0, (2, 1)))
    ax.axvline(at - 0.5, color=plots.RED, lw=1.2)
    top = ax.get_ylim()[1]
    ax.text(
        at, 0.98 * top, f"rank {victim} is killed (signal 9)", color=plots.RED, va="top"
    )
    ax.text(at, 0.84 * top, "coloured: losses of the two survivors' own rows\n"
            "dashed: one process with all rows, undisturbed", va="top")  # fmt: skip
    ax.set(
        xlabel="step", ylabel="loss before the step", ylim=(0, None), xlim=(0, steps)
    )
    bits = "the bits of an undisturbed run" if same else "OTHER bits than undisturbed"
    plots.title(ax, f"{n - 1} of {n} processes live on and end with {bits}")
    return Disturbed(same, (fig, (
        f"Loss over {steps} steps on the digits. Of {n} real processes rank {victim} is "
        f"killed before step {at}; the others share its rows and go on, and their weights "
        "at the end are compared bit for bit with one undisturbed process."
    )))  # fmt: skip


# ---- resharding ----


def reshard(total, n, m, pieces):
    "n old shards over m new ones; each piece is drawn where it lies."
    fig, ax = plots.subplots(size=(7.4, 2.3))
    for old in range(n):
        a, b = course.bounds(total, n, old)
        ax.barh(1, b - a, left=a, height=0.55, color=RANK[old], edgecolor="white")
        ax.text((a + b) / 2, 1, f"old {old}", ha="center", va="center", color="white")
    for new in range(m):
        for old, a, b in pieces(total, n, new, m):
            start = course.bounds(total, n, old)[0]
            ax.barh(
                0,
                b - a,
                left=start + a,
                height=0.55,
                color=RANK[old],
                edgecolor="white",
            )
        low, high = course.bounds(total, m, new)
        ax.plot(
            [low, low, high, high],
            [-0.35, -0.45, -0.45, -0.35],
            color=plots.BLACK,
            lw=1,
        )
        ax.text((low + high) / 2, -0.55, f"new {new}", ha="center", va="top")
    ax.set(
        ylim=(-1.0, 1.45), yticks=[], xticks=range(total + 1), xlim=(-0.1, total + 0.1)
    )
    ax.set_xlabel("number")
    ax.spines["left"].set_visible(False)
    plots.title(ax, f"{n} shards read as {m}: every number once")
    return fig, (
        f"{total} numbers in {n} old shards, and below the {m} new ones, each coloured by "
        "the old shards that its pieces are read from; the borders fall inside old shards."
    )


# ---- how often ----


def flat(useful, work, C, R, M):
    "{tau: (simulated, exact)} on the exact curve, over tau."
    fig, ax = plots.subplots(size=(6.8, 3.3))
    taus = np.geomspace(min(useful), max(useful), 100)
    ax.plot(taus / 60, work / course_expected(work, taus, C, R, M), color=plots.BLUE)
    ax.plot(
        [t / 60 for t in useful],
        [s for s, _ in useful.values()],
        "o",
        color=plots.ORANGE,
    )
    young = course.interval(C, M, 1)
    ax.axvline(young / 60, color=plots.BLACK, lw=1, ls="--")
    ax.text(young / 60 * 1.03, 0.06, f"Young:\n{young / 60:.0f} min", va="bottom")
    ax.text(0.04, 0.06, "line: Daly's formula\ndots: simulated", transform=ax.transAxes)
    ax.set(xscale="log", xlabel="minutes of work between two checkpoints", ylim=(0, 1))
    ax.set_ylabel("goodput")
    ax.set_xticks([10, 20, 30, 60, 120, 240], [10, 20, 30, 60, 120, 240])
    ax.minorticks_off()
    exact = [useful[young * k][1] for k in (0.5, 1, 2)]
    costs = sorted(100 * (exact[1] / e - 1) for e in (exact[0], exact[2]))
    plots.title(ax, f"Flat on top: half or twice Young's interval costs {costs[0]:.0f} to "
                f"{costs[1]:.0f} %")  # fmt: skip
    at = {t: s for t, (s, _) in useful.items()}
    return fig, (
        f"Goodput over the interval, a failure every {M / 3600:.0f} hours, checkpoints of "
        f"{C / 60:.0f} and restarts of {R / 60:.0f} minutes: {at[min(at)]:.2f} at 10 "
        f"minutes, {at[young]:.2f} at Young's hour, {at[max(at)]:.2f} at 4 hours."
    )


def course_expected(work, taus, C, R, M):
    "Daly's seconds for each tau."
    return np.array([course.expected(work, float(t), C, R, M) for t in taus])


def _setting(machines, checkpoint_seconds, restart, save_every):
    M = 5 * YEAR / machines
    R = {"elastic: 30 s": 30.0, "restart all: 10 min": 600.0}.get(restart, restart)
    fixed = {"5 min": 300.0, "4 h": 4 * 3600.0}
    tau = fixed.get(save_every) or course.interval(checkpoint_seconds, M, 1)
    return M, R, tau


def goodput(machines, checkpoint_seconds, restart, save_every):
    "The expected share of time that becomes saved work."
    M, R, tau = _setting(machines, checkpoint_seconds, restart, save_every)
    return tau / course.expected(tau, tau, checkpoint_seconds, R, M)


def theatre(machines=1024, checkpoint_seconds=60, restart="restart all: 10 min",
            save_every="Young"):  # fmt: skip
    "A lab: two days of machines that fail once in 5 years each, and the goodput curve."
    C = float(checkpoint_seconds)
    M, R, tau = _setting(machines, C, restart, save_every)
    rng = np.random.default_rng(3)
    failures = np.cumsum(rng.exponential(M, 400)).tolist()
    day = 48 * 3600.0
    spans = course.stretches(10 * day, tau, C, R, failures, until=day)
    fig, (top, low) = plots.subplots(2, 1, size=(7.6, 4.2), height_ratios=(1, 2))
    edges, bottom, share = np.linspace(0, day, 2 * 48 + 1), 0.0, {}
    for what, colour in WHAT.items():
        part = _shares(spans, what, edges)
        share[what] = part.mean()
        top.stairs(bottom + part, edges / 3600, baseline=bottom, fill=True, color=colour,
                   lw=0, label=SAID[what])  # fmt: skip
        bottom = bottom + part
    hit = sum(f < day for f in failures)
    top.set(xlim=(0, 48), ylim=(0, 1), yticks=[])
    top.set_xlabel("hours; a column: 30 minutes", loc="left")
    top.legend(ncols=4, loc="upper right", bbox_to_anchor=(1.0, -0.22), handlelength=1,
               columnspacing=1.2, borderaxespad=0.4, frameon=False)  # fmt: skip
    top.set_xticks(range(0, 49, 6))
    plots.title(top, f"Two days, {hit} failure{'s' * (hit != 1)}: {share['work']:.0%} work, "
                f"{share['checkpoint']:.0%} saving, {share['lost']:.0%} lost, "
                f"{share['restart']:.0%} restarting")  # fmt: skip
    taus = np.geomspace(60, 24 * 3600, 120)
    curve = taus / np.array([course.expected(t, t, C, R, M) for t in taus.tolist()])
    low.plot(taus / 60, curve, color=plots.BLUE)
    here = goodput(machines, C, restart, save_every)
    low.plot([tau / 60], [here], "o", color=plots.ORANGE, ms=9, clip_on=False)
    low.set(xscale="log", xlim=(1, 1440), ylim=(0, 1.05), ylabel="goodput (mean)")
    hours = {1: "1 min", 5: "5 min", 15: "15 min", 60: "1 h", 240: "4 h", 1440: "24 h"}
    low.set_xticks(list(hours), list(hours.values()))
    low.minorticks_off()
    low.set_xlabel("work between two checkpoints (dot: yours)")
    rate = f"{M / 3600:,.1f} hours" if M < 1000 * 3600 else f"{M / 86400:,.0f} days"
    return fig, (
        f"{machines:,} machines, a failure every {rate} on average, saved every "
        f"{tau / 60:,.0f} minutes in {C:.0f} s: two simulated days above, and below the mean "
        f"goodput over the interval, {here:.2f} at yours, {curve.max():.2f} at best."
    )


def _shares(spans, what, edges):
    "The share of each column that goes into `what`."
    total = np.zeros(len(edges))
    for name, a, b in spans:
        if name == what:
            total += np.clip(edges - a, 0, b - a)
    return np.diff(total) / np.diff(edges)


theatre.book = {"machines": [8, 1024, 16384], "checkpoint_seconds": [10, 60, 300]}


# ---- a queue ----


def queue(jobs, speeds, played):
    "{rule: [(start, end), ...]}: machines in use over time, and who waits, for each rule."
    fig, axes = plots.subplots(
        len(played), 1, size=(7.6, 1.25 * len(played) + 0.9), sharex=True
    )
    last = max(end for found in played.values() for _, end in found)
    for (rule, found), ax in zip(played.items(), np.atleast_1d(axes)):
        moments = sorted({t for pair in found for t in pair})
        busy = [
            sum(j.size for j, (a, b) in zip(jobs, found) if a <= t < b) for t in moments
        ]
        ax.fill_between(moments, busy, step="post", color=plots.SKY, alpha=0.7, lw=0)
        wait = np.mean([a - j.arrive for j, (a, _) in zip(jobs, found)])
        end = max(b for _, b in found)
        ax.set(ylim=(0, len(speeds)), yticks=[0, len(speeds) // 2, len(speeds)])
        ax.axvline(end, color=plots.BLACK, lw=1)
        plots.title(ax, f"{rule}: mean wait {wait:.0f} h, done after {end:.0f} h")
    np.atleast_1d(axes)[-1].set(xlabel="hours", xlim=(0, 1.02 * last))
    np.atleast_1d(axes)[len(played) // 2].set_ylabel("machines in use")
    return fig, (
        f"{len(jobs)} jobs on {len(speeds)} unequal machines under "
        f"{', '.join(played)}: machines in use over the hours. White below "
        f"{len(speeds)} is idle."
    )
