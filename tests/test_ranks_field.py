"""ranks.run where it is used: odd folders, starved ranks, interrupts, killed kernels.

Each test is of a fault that was found in the field, and fails on it.
"""

import functools
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import psutil
import pytest
import torch
from torch import distributed as dist

from tests.test_ranks import (
    add_up,
    failure,
    gone,
    kernel,  # noqa: F401  a fixture
    linux,
    nothing_stays,  # noqa: F401  a fixture
    path_with_course,
    posix,
)
from tests.two_machines import free_port
from utils import ranks
from utils.built.collectives import shared_folder
from utils.files import temporary
from utils.ranks import crew, left, meeting, still

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def server_that(monkeypatch):
    "Call it with a line of Python: the next server runs that line before it serves."

    def make(line):
        boot = crew._boot

        def with_line(call):
            *command, code = boot(call)
            first, last = code.rsplit("; ", 1)
            return [*command, f"{first}\n{line}\n{last}"]

        if crew._server is not None:
            crew._server.close()
        monkeypatch.setattr(crew, "_boot", with_line)

    yield make
    if crew._server is not None:
        crew._server.close()


def script(code, **environ):
    "A fresh Python that runs `code` and knows the course: a process with pipes."
    return subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path_with_course(), **environ},
    )  # fmt: skip


# ---- what the notebook has loaded ----


def test_what_the_notebook_has_loaded_is_loaded_once_for_all_ranks():
    program = (
        "import sys\nfrom utils import ranks\n{}\n"
        "print(ranks.run(lambda r, n: 'torch._dynamo' in sys.modules, 2))"
    )
    for line, found in ("import torch._dynamo", "[True, True]"), ("", "[False, False]"):
        process = script(program.format(line))
        assert process.communicate(timeout=120)[0].strip() == found


# ---- a temporary folder that C++ cannot name ----

MEET = (
    "import torch; from torch import distributed as dist; from utils import ranks\n"
    "from utils.built.data_parallel import SharedMemoryStep\n"
    "def fn(rank, n):\n"
    "    x = torch.ones(1); dist.all_reduce(x)\n"
    "    model = torch.nn.Linear(2, 1); step = SharedMemoryStep(model)\n"
    "    step.backward(model(torch.ones(1, 2)).sum())\n"
    "    return x.item()\n"
    "print(ranks.run(fn, 3, timeout=40))"
)


def test_a_folder_whose_name_is_not_ascii(tmp_path, monkeypatch):
    folder = tmp_path / "张伟 Müller"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert [r[2] for r in ranks.run(add_up, 3)] == [6.0] * 3
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.parametrize("locale", ["C", "zh_CN.gbk"])
def test_a_folder_whose_name_is_not_utf8(locale, tmp_path):
    known = subprocess.run(["locale", "-a"], capture_output=True, check=False).stdout
    if locale not in known.decode(errors="replace").split():
        pytest.skip(f"this machine has no locale {locale}")
    folder = os.path.join(os.fsencode(tmp_path), "张伟".encode("gbk"))
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this system wants UTF-8 in names")
    process = script(MEET, LC_ALL=locale, TMPDIR=os.fsdecode(folder))
    said, error = process.communicate(timeout=100)
    assert said == "[3.0, 3.0, 3.0]\n", error
    assert os.listdir(folder) == []


@linux
def test_a_join_that_cannot_be_made_is_told_at_once(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    error = failure(add_up, 2, within=30)
    assert error.kind == "join"
    assert "could not join the others: " in str(error) and "nowhere0" in str(error)


@linux
def test_a_join_that_never_ends_is_told_as_such(server_that, monkeypatch):
    server_that(  # FileStore waits for a folder that is not there, as it did for a name
        "from torch import distributed as d; real = d.FileStore; "
        "d.FileStore = lambda path, n: real('/nowhere/at/all', n)"
    )
    monkeypatch.setattr(still, "QUIET", 0.5)
    error = failure(add_up, 2, ranks.RankTimeout, within=30, timeout=60)
    assert "ranks 0 and 1 wait in the meeting of all ranks. None of them" in str(error)
    assert "at work" not in str(error)


# ---- a rank that was starved right after its fork ----


@posix
def test_asking_for_stacks_does_not_kill_a_rank_without_a_handler(server_that):
    server_that(
        "import os, signal; real = worker.be\n"
        "def be(*a): os.kill(os.getpid(), signal.SIGUSR1); real(*a)\n"
        "worker.be = be"
    )
    assert [r[2] for r in ranks.run(add_up, 2)] == [3.0, 3.0]


# ---- an interrupt ----


@posix
def test_an_interrupted_script_shows_one_sentence(tmp_path):
    code = (
        "import time\nfrom utils import ranks\n"
        "def fn(rank, n): open('RUNS', 'w'); time.sleep(600)\n"
        "ranks.run(fn, 2)"
    ).replace("RUNS", str(tmp_path / "runs"))
    process = script(code)
    until = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.endswith(
        "KeyboardInterrupt: ranks.run was interrupted, and its 2 ranks ended\n"
    )
    assert error.count("\n") < 10 and "crew.py" not in error


@posix
def test_an_interrupt_while_the_server_is_given_its_order(monkeypatch):
    ranks.run(add_up, 2)
    server, pid = crew._server, crew._server.process.pid

    def half(self, data):
        os.write(self.fileno(), data[:20])
        raise KeyboardInterrupt

    class Torn:
        def __init__(self, pipe):
            self.pipe = pipe
            self.fileno, self.close = pipe.fileno, pipe.close

        write = half

    server.process.stdin = Torn(server.process.stdin)
    with pytest.raises(KeyboardInterrupt, match="its 2 ranks ended"):
        ranks.run(add_up, 2)
    gone([pid])
    assert [r[2] for r in ranks.run(add_up, 2)] == [3.0, 3.0]


@posix
@pytest.mark.parametrize("code", ["ranks.run(fall, 2)", "ranks.run(stay, 2)"])
def test_a_notebook_shows_the_readers_lines_only(kernel, code):  # noqa: F811
    kernel.run("def fall(rank, n):\n    raise ValueError('mine')")
    kernel.run("def stay(rank, n):\n    while True:\n        time.sleep(0.1)")
    kernel.run("ranks.run(lambda r, n: None, 2)")

    def press():
        until = time.monotonic() + 10
        while len(kernel.below()) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        pid = kernel.manager.provisioner.process.pid
        os.killpg(os.getpgid(pid), signal.SIGINT)

    then = press if "stay" in code else lambda: None
    said = kernel.run(code, then)
    shown = "\n".join(said["traceback"])
    assert code in shown and "utils/ranks" not in shown and "crew.py" not in shown
    assert "hidden" not in shown and shown.count("\n") < 20
    if "stay" in code:
        sentence = "ranks.run was interrupted, and its 2 ranks ended"
        assert said["error"] == f"KeyboardInterrupt: {sentence}" and sentence in shown
    else:
        assert "On rank" in shown and "raise ValueError('mine')" in shown


# ---- what killed processes leave ----


def kill(process, folder):
    "Kill it, wait for whatever it had started, and sweep as the next one does."
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    gone([each.pid for each in below], seconds=60)
    left.sweep(folder)


@linux
@pytest.mark.parametrize("after", [0.0, 0.2, 0.6, 1.5])
def test_a_kernel_killed_while_its_server_starts_leaves_nothing(after, tmp_path):
    tmp_path = tmp_path / "theirs"
    tmp_path.mkdir()
    process = script(
        "import time\nfrom utils import ranks\nprint('go', flush=True)\n"
        "ranks.run(lambda rank, n: time.sleep(600), 2)",
        TMPDIR=str(tmp_path), SECRET="a very secret word",
    )  # fmt: skip
    assert process.stdout.readline() == "go\n"
    until = time.monotonic() + 30
    # a folder: Python tries TMPDIR with a file of its own
    while not any(map(Path.is_dir, tmp_path.iterdir())) and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(after)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(b"a very secret word" in file.read_bytes() for file in files)
    kill(process, tmp_path)
    assert list(tmp_path.iterdir()) == []


SHARES = (
    "import os, time\nfrom pathlib import Path\nfrom utils.ranks import left\n"
    "from utils.built.collectives import shared_folder\n"
    "left.MEMORY = Path(os.environ['MEMORY'])\n"
    "folder = shared_folder(1000)\n"
    "open(folder.name + '/numbers', 'wb').write(bytes(1000))\n"
    "print(folder.name, flush=True)\ntime.sleep(600)"
)


@linux
def test_memory_shared_by_a_killed_process_is_swept_and_no_others(
    tmp_path, monkeypatch, request
):
    memory = tempfile.TemporaryDirectory(dir=left.MEMORY)  # that no other test sweeps
    request.addfinalizer(memory.cleanup)
    monkeypatch.setattr(left, "MEMORY", Path(memory.name))
    both = [script(SHARES, TMPDIR=str(tmp_path), MEMORY=memory.name) for _ in range(2)]
    killed, living = (Path(process.stdout.readline().strip()) for process in both)
    kill(both[0], tmp_path)
    assert not killed.exists() and (living / "numbers").exists()
    both[1].kill()
    both[1].communicate()
    assert living.exists()
    shared_folder(10).cleanup()  # whoever comes next
    assert not living.exists()


@linux
def test_a_call_that_fails_sweeps_what_its_ranks_left():
    def fn(rank, n):
        folder = shared_folder(1000)
        folder._finalizer.detach()
        if rank == 0:
            raise ValueError(folder.name)
        time.sleep(600)

    name = Path(str(failure(fn, 2)).split("ValueError: ")[1].splitlines()[0])
    assert name.name.startswith("gradients-") and not name.exists()


def test_a_folder_of_a_living_process_stays():
    with temporary(left.CALL) as mine:
        left.sweep(tempfile.gettempdir())
        ranks.run(lambda r, n: None, 1)
        assert os.path.isdir(mine)


# ---- slow links ----


@pytest.fixture
def impatient(monkeypatch):
    "Looks for a deadlock after half a second without work."
    monkeypatch.setattr(still, "QUIET", 0.5)
    monkeypatch.setattr(still, "HOLD", 0.3)


def slowly(rank, n, rate, N):
    x = torch.ones(N)
    dist.all_reduce(x)
    dist.barrier()
    with ranks.slow_link(rate) as link, ranks.traffic() as sent:
        began = time.perf_counter()
        dist.all_reduce(x)
        seconds = time.perf_counter() - began
    return link, seconds, sent.wire


@linux
@pytest.mark.parametrize("n", [2, 4])
def test_a_slow_link_is_no_deadlock_and_as_slow_as_the_textbook_says(n, impatient):
    rate, N = 100_000, 75_000
    made = ranks.run(functools.partial(slowly, rate=rate, N=N), n)
    book = 2 * (n - 1) / n * 4 * N / rate  # 3 s, 4.5 s
    assert max(seconds for _, seconds, _ in made) > 0.7 * book
    for link, _, wire in made:
        assert (link.rate, link.connections, link.by) == (rate, n - 1, "kernel")
        assert wire == pytest.approx(2 * (n - 1) / n * 4 * N, rel=0.02)


@linux
def test_bytes_that_wait_to_leave_have_more_time(impatient, monkeypatch):
    "Bursts further apart than HOLD: nothing moves between two looks, and all is well."
    answers = iter([(100, 50), (100, 50), (100, 50), (100, 50)])
    monkeypatch.setattr(still, "bytes_moved", lambda *_: next(answers, (200, 0)))

    def late(rank, n):
        if rank == 0:
            time.sleep(0.1)
        dist.recv(torch.ones(1), 1 - rank)

    began = time.monotonic()
    monkeypatch.setattr(still, "QUEUED", 3.0)
    failure(late, 2, ranks.RankTimeout, timeout=60, within=40)
    assert time.monotonic() - began > 3.0


@linux
def test_the_rate_is_lifted_again_and_blocks_nest():
    def rates():
        from utils.ranks import link, sockets

        same = dict.fromkeys(sockets.numbers(), 2**64 - 1)
        before = link._pace(same)
        link._pace(before)
        return set(before.values())

    def fn(rank, n):
        seen = [rates()]
        with ranks.slow_link(10**6):
            seen.append(rates())
            with ranks.slow_link(5e9):  # more than 32 bits
                seen.append(rates())
            seen.append(rates())
        with pytest.raises(KeyError), ranks.slow_link(10**6):
            raise KeyError
        seen.append(rates())
        return seen

    free = {2**64 - 1}
    want = [free, {10**6}, {5 * 10**9}, {10**6}, free]
    assert ranks.run(fn, 2) == [want, want]


@pytest.mark.parametrize(
    ("rate", "error", "says"),
    [
        ("fast", TypeError, "is a number, not 'fast'"),
        (True, TypeError, "not True"),
        (9_999, ValueError, "at least 10,000 bytes a second"),
        (float("nan"), ValueError, "not nan"),
        (float("inf"), ValueError, "not inf"),
    ],
)
def test_a_rate_that_makes_no_sense(rate, error, says):
    with pytest.raises(error, match=says), ranks.slow_link(rate):
        pass


@linux
def test_a_link_needs_somebody_at_its_other_end():
    def alone(rank, n):
        with pytest.raises(RuntimeError, match="n of at least 2"), ranks.slow_link(1e6):
            pass

    ranks.run(alone, 1)


def test_the_substitute_sleeps_as_long_as_the_textbook_says_and_says_so(capfd):
    def fn(rank, n):
        from utils.ranks import sockets

        sockets.HERE = False  # a system without the kernel's pacing
        x, seconds = torch.ones(25_000), []
        with ranks.slow_link(10**6) as link:
            for call in (
                lambda: dist.all_reduce(x),
                lambda: dist.all_gather([torch.empty_like(x) for _ in range(n)], x),
                lambda: dist.send(x, 1) if rank == 0 else dist.recv(x, 0),
            ):
                began = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - began)
        return link.by, seconds

    (by, seconds), _ = ranks.run(fn, 2)
    assert by == "sleep" and all(s >= 0.1 for s in seconds), seconds
    assert "[rank 0] (This system cannot slow a connection" in capfd.readouterr().out


# ---- ranks that may die ----


def survive(rank, n, victims, steps=6):
    """Add up 1 + rank in every step; {step: ranks that are killed before it}.

    As chapter 21 does: poll, regroup among the members, compare steps, go on.
    """
    k, step, sums, alive = 0, 0, [], ranks.members(0)
    while step < steps:
        if rank in victims.get(step, ()):
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.tensor([1.0 + rank])
        work = dist.all_reduce(x, async_op=True)
        try:
            while not work.is_completed():
                if ranks.members(k + 1, wait=False):
                    raise RuntimeError("somebody died")
                time.sleep(0.001)
            work.wait()
        except RuntimeError:
            ranks.leave()
            while True:
                k += 1
                alive = ranks.members(k)
                try:
                    store = ranks.store(k)
                except RuntimeError:  # another one has died
                    continue
                break
            place = {"rank": alive.index(rank), "world_size": len(alive)}
            dist.init_process_group("gloo", store=store, **place)
            least = torch.tensor([step])
            dist.all_reduce(least, op=dist.ReduceOp.MIN)
            step = int(least)
            del sums[step:]
            continue
        sums.append(x.item())
        step += 1
    dist.barrier()
    return sums, alive


def possible_sums(n, victims, steps=6):
    """All that survivors may have added up.

    Who has its own sum of a step may die before the others have theirs: then they, who
    all compare steps, take that step again without it.
    """
    deaths = [(at, rank) for at, dead in victims.items() for rank in dead]
    return [
        [
            sum(1 + r for r in range(n) if first.get(r, steps) > step)
            for step in range(steps)
        ]
        for early in itertools.product((0, 1), repeat=len(deaths))
        for first in [{r: at - e for (at, r), e in zip(deaths, early, strict=True)}]
    ]


def test_possible_sums():
    assert possible_sums(3, {}, 2) == [[6, 6]]
    assert possible_sums(3, {2: [0]}, 3) == [[6, 6, 5], [6, 5, 5]]


@linux
@pytest.mark.parametrize(
    "victims",
    [
        {3: [2]},
        {1: [0]},  # who hosts the first meeting
        {2: [1], 4: [3]},
        {2: [0, 3]},
        {},
    ],
)
def test_survivors_go_on(victims):
    made = ranks.run(functools.partial(survive, victims=victims), 4, may_die=True)
    dead = {rank for each in victims.values() for rank in each}
    assert {rank for rank, result in enumerate(made) if result is None} == dead
    (sums, alive), *others = filter(None, made)
    assert all(other == (sums, alive) for other in others)
    assert sums in possible_sums(4, victims) and alive == sorted({0, 1, 2, 3} - dead)


@linux
def test_survivors_meet_in_a_folder_that_is_not_ascii(tmp_path, monkeypatch):
    (tmp_path / "ü").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "ü"))
    victims = {2: [0]}
    made = ranks.run(functools.partial(survive, victims=victims), 3, may_die=True)
    assert made[1][0] in possible_sums(3, victims)


@linux
def test_who_does_not_cope_with_a_death_is_told_of_it():
    def fn(rank, n):
        dist.barrier()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.members(1)
        raise KeyError("mine")

    error = failure(fn, 3, may_die=True)
    assert error.kind == "raised" and error.rank in (0, 2)
    assert "raised KeyError: 'mine'" in str(error)
    assert "rank 1 had died, and fn does not go on without" in str(error)


@linux
def test_when_all_have_died_nobody_goes_on():
    error = failure(lambda r, n: os._exit(3), 2, may_die=True)
    assert error.kind == "died" and "exit code 3" in str(error)


class DiesOnTheWay:
    "A function whose arrival kills rank 1, before the ranks have met."

    def __setstate__(self, state):
        if os.environ.get("RANK") == "1":
            os._exit(3)

    def __getstate__(self):
        return {"any": "state"}

    def __call__(self, rank, n):
        return rank


@linux
def test_who_dies_before_they_meet_is_the_cause(impatient):
    error = failure(DiesOnTheWay(), 3, may_die=True, within=40)
    assert (error.kind, error.rank) == ("died", 1)
    assert str(error).startswith("rank 1 ended with exit code 3 before it returned")


@linux
def test_a_survivor_that_waits_for_the_dead_is_told_so(impatient):
    def fn(rank, n):
        dist.barrier()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.members(2)  # a loss that never comes

    error = failure(fn, 3, ranks.RankTimeout, may_die=True, within=40)
    first = str(error).splitlines()[0]
    assert "ranks 0 and 2 wait in members, rank 1 has died. Who talks" in first


@linux
def test_a_loss_while_they_meet_is_told_to_all_who_came():
    def fn(rank, n):
        dist.barrier()
        ranks.leave()
        if rank == 0:
            os._exit(1)
        ranks.members(1)
        if rank == 1:
            time.sleep(0.3)  # the others are there
            os._exit(1)
        with pytest.raises(
            RuntimeError, match=r"a rank died while \[1, 2, 3\] met: try"
        ):
            ranks.store(1)
        store = ranks.store(2)
        store.set(str(rank), "came")
        return store.get("2"), store.get("3"), ranks.members(2)

    want = b"came", b"came", [2, 3]
    assert ranks.run(fn, 4, may_die=True) == [None, None, want, want]


def test_nobody_leaves_a_group_that_is_none():
    with pytest.raises(RuntimeError, match="this is in none"):
        ranks.leave()


def test_members_are_for_calls_in_which_ranks_may_die():
    for call in (lambda: ranks.members(0), lambda: ranks.store(0)):
        with pytest.raises(RuntimeError, match="may_die=True"):
            call()

    def fn(rank, n):
        seen = ranks.members(0), ranks.members(1, wait=False)
        for k in (-1, 1.0, True, None):
            with pytest.raises(ValueError, match="whole number from 0"):
                ranks.members(k)
        return seen

    assert ranks.run(fn, 2, may_die=True) == [([0, 1], None)] * 2
    with pytest.raises(ranks.RankError, match="may_die=True"):
        ranks.run(lambda r, n: ranks.members(0), 1)


def test_who_has_returned_is_no_later_member():
    def fn(rank, n):
        if rank == 0:
            return "early"
        time.sleep(0.5)
        if rank == 1:
            os._exit(1)
        return ranks.members(1)

    assert ranks.run(fn, 3, may_die=True) == ["early", None, [2]]


# ---- one store, kept over restarts ----


def meet(server, rank, n, seconds=20):
    client = dist.TCPStore("127.0.0.1", server.port, n, False, wait_for_workers=False)
    return meeting.afresh(client, rank, n, seconds)


def test_ranks_that_begin_anew_meet_each_other_and_not_the_dead():
    server = dist.TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
    with pytest.raises(RuntimeError, match=r"0 of 2 waited 0\.2 s for the others"):
        meet(server, 0, 2, 0.2)
    parts = []
    for order in ((1, 2, 0), (0, 2, 1)):
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda rank: meet(server, rank, 3), order))
        made[0].set("here", "")
        assert all(part.check(["here"]) for part in made), "one part for all"
        assert not any(part.check(["here"]) for part in parts), "and no earlier one"
        parts += made
        made[0].delete_key("here")


@linux
def test_machines_may_count_restarts_differently(tmp_path):
    """torchrun counts a restart after a failure of its own ranks, and none because
    another machine began anew: ranks of one start may be told different counts."""
    (tmp_path / "script.py").write_text(
        "from utils import ranks\nfrom torch import distributed as dist\n"
        "ranks.main(lambda rank, n: dist.barrier(), timeout=60)\n"
    )
    environ = {
        **os.environ, "PYTHONPATH": path_with_course(), "WORLD_SIZE": "2",
        "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    both = [
        subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path,
            env={**environ, "RANK": r, "TORCHELASTIC_RESTART_COUNT": r},
        )
        for r in "01"
    ]  # fmt: skip
    try:
        assert [rank.wait(60) for rank in both] == [0, 0]
    finally:
        for rank in both:
            rank.kill()
