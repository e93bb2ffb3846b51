"""Chapter 21 where it is real: kills at every moment of a checkpoint, two agents of
torchrun, and queues beside bounds and rules that must hold for any of them."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time

import cloudpickle
import numpy as np
import pytest
import torch
from torch import distributed as dist

from tests.two_machines import command, slurm_job, text_of
from utils import ranks
from utils.built import failures as course
from utils.built import pool
from utils.practice import rehearse

posix = pytest.mark.skipif(os.name == "nt", reason="signals, bash")
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Deadly(course.Folder):
    "Kills this process before, or right after, it writes a file of that name."

    def __init__(self, path, name, before):
        super().__init__(path)
        self.name, self.before = name, before

    def write(self, name, data):
        if name == self.name and self.before:
            course.die()
        super().write(name, data)
        if name == self.name:
            course.die()


@posix
@pytest.mark.parametrize(
    ("victim", "name", "before", "want"),
    [(1, "2.1-of-2", True, 1), (0, "2.0-of-2", False, 1), (0, "manifest.2", True, 1),
     (0, "manifest.2", False, 2)],
)  # fmt: skip
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path, victim, name, before, want
):
    def fn(rank, n):
        course.save_sharded(course.Folder(tmp_path), 1, rank, n, b"old%d" % rank)
        folder = Deadly(tmp_path, name if rank == victim else "", before)
        course.save_sharded(folder, 2, rank, n, b"new%d" % rank)

    with pytest.raises(ranks.RankError) as caught:
        ranks.run(fn, 2)
    assert (caught.value.kind, caught.value.rank) == ("died", victim)
    step, shards = course.newest(course.Folder(tmp_path))
    word = {1: b"old%d", 2: b"new%d"}[want]
    assert (step, shards) == (want, [word % 0, word % 1])


@posix
def test_survivors_of_two_deaths_have_the_bits_of_nobody_disturbed():
    def walk(me, n, kills):
        k, alive, step, x = 0, list(range(n)), 0, torch.zeros(5)
        while step < 12:
            if kills.get(me) == step:
                course.die()
            try:
                place, m = alive.index(me), len(alive)
                mine = {v: torch.sin(x * v + step) / 3 for v in range(place, 7, m)}
                up = course.add_up_or_notice(k) if kills else dist.all_reduce
                x = x - 0.3 * course.ordered_mean(mine, 7, up)
                step += 1
            except RuntimeError:
                k, alive = course.meet_again(k + 1, me)
                step, x = course.catch_up(step, x)
        return x

    (alone,) = rehearse(lambda r, n: walk(r, n, {}), 1)
    made = ranks.run(lambda r, n: walk(r, n, {0: 4, 2: 9}), 4, may_die=True)
    assert [x is None for x in made] == [True, False, True, False]
    assert torch.equal(made[1], alone) and torch.equal(made[3], alone)


def test_the_exact_formula_and_the_simulation():
    rng = np.random.default_rng(1)
    for tau in (20.0, 60.0):
        took = [course.simulate(2000.0, tau, 3.0, 9.0, np.cumsum(rng.exponential(100, 300)))
                for _ in range(100)]  # fmt: skip
        assert np.mean(took) / course.expected(2000.0, tau, 3.0, 9.0, 100.0) == (
            pytest.approx(1, abs=0.05)
        )


def test_stretches_touch_and_add_up():
    found = course.stretches(10.0, 4.0, 1.0, 2.0, [3, 4, 6.5])
    assert found[0][1] == 0
    assert all(a[2] == b[1] for a, b in itertools.pairwise(found))
    assert sum(b - a for what, a, b in found if what == "work") == 10


# ---- queues ----


def a_queue(seed):
    rng = random.Random(seed)
    jobs = [(rng.uniform(0, 9), rng.choice([1, 1, 2, 3, 5]), rng.choice([0.5, 2.0, 6.0]))
            for _ in range(30)]  # fmt: skip
    return jobs, [2.0, 2.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rule", pool.RULES)
def test_no_machine_does_two_jobs_and_no_bound_is_beaten(rule, seed):
    jobs, speeds = a_queue(seed)
    found = pool.play(jobs, speeds, rule)
    for moment, _ in found:
        busy = sum(j[1] for j, (a, b) in zip(jobs, found) if a <= moment < b)
        assert busy <= len(speeds)
    assert all(start >= job[0] for job, (start, _) in zip(jobs, found))
    use, wait = pool.judge(jobs, speeds, found)
    assert 0 < use <= 1 and wait >= pool.least_wait(jobs, speeds) - 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_the_least_wait_is_none_of_smallest_first(seed):
    jobs, speeds = a_queue(seed)

    def smallest(rule, waiting, free, running, now):
        fits = [i for i, job in enumerate(waiting) if job.size <= len(free)]
        return min(fits, key=lambda i: waiting[i].size * waiting[i].hours, default=None)

    found = pool.play(jobs, speeds, "", smallest)
    assert pool.judge(jobs, speeds, found)[1] >= pool.least_wait(jobs, speeds) - 1e-9


def test_the_bound_is_reached_where_nothing_can_be_better():
    jobs, speeds = [(0.0, 1, 3.0), (0.0, 1, 1.0)], [1.0]
    assert pool.least_wait(jobs, speeds) == pytest.approx(0.5)  # the short one first


# ---- the chapter's own texts: a script, a Slurm file, two "machines" ----


@posix
def test_the_slurm_file_goes_back_into_the_queue_when_its_time_is_nearly_over(tmp_path):
    (tmp_path / "job.sh").write_text(text_of("21_failures", "slurm", "bash"))
    command(tmp_path, "scontrol", 'echo "$@" >> said; echo machine')
    command(tmp_path, "srun", "touch started; exec sleep 60")
    env = {
        **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "machines",
    }  # fmt: skip
    job = subprocess.Popen(
        ["bash", "job.sh"], cwd=tmp_path, env=env, start_new_session=True
    )
    try:
        for _ in range(1000):
            if (tmp_path / "started").exists():
                break
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)  # to the shell alone, as B: says
        job.wait(20)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert (tmp_path / "said").read_text().splitlines()[-1] == "requeue 7"


@posix
def test_torchrun_restarts_a_killed_run_on_two_machines_and_the_bits_are_equal(
    tmp_path,
):
    (folder := tmp_path / "killed").mkdir()
    said = slurm_job(
        folder, "21_failures", "elastic.py", "--monitor-interval 0.1", KILL="yes"
    )
    disturbed = re.findall(r"began at (\d+), ended with ([0-9a-f]{64})", said)
    assert [began for began, _ in disturbed] == ["10", "10"], "a kill at step 12"
    # ranks.main joins by itself; one process without torchrun makes the same bits
    scope = {"__name__": "elastic"}
    exec(text_of("21_failures", "script", "python"), scope)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        ((began, bits),) = rehearse(scope["train"], 1)
    finally:
        os.chdir(before)
    assert began == 0 and {b for _, b in disturbed} == {bits}
