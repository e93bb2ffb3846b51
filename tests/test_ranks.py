"""ranks.run under abuse: every way in which a rank can fail, and that nothing stays.

The functions travel by value, as those of a notebook do, so no rank imports pytest.
"""

import contextlib
import ctypes
import gc
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
import torch
from torch import distributed as dist

from utils import ranks
from utils.ranks import crew, shown, stacks, still, verdict

ROOT = Path(ranks.__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="signals and forks")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters")
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path, monkeypatch):
    "After every test: no process of a rank, no file of a call."
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []
    assert children() == []


def children():
    "Processes below the one that hands out ranks."
    if crew._server is None:
        return []
    return psutil.Process(crew._server.process.pid).children(recursive=True)


def started(seconds=5):
    "Wait until ranks run, then a little, so that they are at work."
    until = time.monotonic() + seconds
    while not children() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)


def add_up(rank, n):
    x = torch.tensor([float(rank + 1)])
    dist.all_reduce(x)
    return rank, n, x.item(), os.getpid()


def nothing(rank, n):
    pass


# ---- what it is for ----


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_results_come_by_rank_from_real_processes(n):
    results = ranks.run(add_up, n)
    assert [r[:3] for r in results] == [(r, n, n * (n + 1) / 2) for r in range(n)]
    assert len({r[3] for r in results} | {os.getpid()}) == n + 1


def test_eight_ranks_on_two_cores():
    assert [r[2] for r in ranks.run(add_up, 8)] == [36.0] * 8


@posix
def test_the_first_call_is_quick_and_later_ones_quicker():
    script = (
        "import time, torch\nfrom utils import ranks\n"
        "def fn(rank, n): pass\n"
        "def call():\n began = time.perf_counter(); ranks.run(fn, 4)\n"
        " return time.perf_counter() - began\n"
        "print(call(), min(call() for _ in range(5)))"
    )
    first, later = map(float, python(script).split())
    assert first < 20 and later < 2, (first, later)  # 2.5 and 0.2 on a quiet machine


def test_ranks_have_one_thread_or_as_many_as_asked_for():
    def threads(rank, n):
        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    assert ranks.run(threads, 2) == [(1, "1")] * 2
    assert ranks.run(threads, 2, threads=2) == [(2, "2")] * 2


def test_ranks_are_seeded_and_differ():
    def draw(rank, n):
        return torch.rand(1).item(), np.random.rand(), random.random()

    first, again, other = (ranks.run(draw, 3, seed=s) for s in (0, 0, 3))
    assert first == again
    assert len({x for r in first for x in r}) == 9
    assert not {x for r in first for x in r} & {x for r in other for x in r}


def test_a_rank_knows_the_notebooks_folder_path_and_environment(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SAID_LATER", "yes")

    def look(rank, n):
        import only_here

        env = os.environ
        return only_here.answer, os.getcwd(), env["SAID_LATER"], env["RANK"]

    assert ranks.run(look, 2) == [(42, str(tmp_path), "yes", r) for r in "01"]


def test_a_rank_imports_what_was_edited_since(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def value(rank, n):
        import edited

        return edited.value

    for number in (1, 22):
        (tmp_path / "edited.py").write_text(f"value = {number}\n")
        assert ranks.run(value, 1) == [number]


def test_classes_come_home_as_themselves():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(2))

    forward = Net.__init__
    made = ranks.run(lambda rank, n: Net(), 2)
    assert type(made[1]) is Net and Net.__init__ is forward
    assert (made[1].w == 1).all()


def test_tensors_arrays_and_nothing_come_home():
    def fn(rank, n):
        return {"x": torch.arange(3) + rank, "y": np.ones(2), "none": None}

    made = ranks.run(fn, 2)[1]
    assert made["x"].tolist() == [1, 2, 3] and made["y"].sum() == 2


def test_data_parallel_works_and_its_slow_imports_are_paid_once():
    def train(rank, n):
        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
        optimizer = torch.optim.AdamW(model.parameters())
        torch.manual_seed(rank)
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        return model.module.weight.tolist()

    made = ranks.run(train, 2)
    assert made[0] == made[1]
    ranks.run(nothing, 1)  # waits for the import
    assert ranks.run(lambda r, n: "torch._dynamo" in sys.modules, 1) == [True]


# ---- prints ----


def test_prints_come_in_the_order_of_ranks(capfd):
    def talk(rank, n):
        time.sleep(0.05 * (n - rank))
        print("I am", rank)
        print("of", n, end="")
        os.system("echo; echo from a child")

    ranks.run(talk, 2)
    lines = ["I am 0", "of 2", "from a child"]
    said = "".join(f"[rank 0] {line}\n" for line in lines)
    said += "".join(f"[rank 1] {line}\n" for line in ["I am 1", *lines[1:]])
    assert capfd.readouterr() == (said, "")


def test_stderr_and_warnings_are_labelled_too(capfd):
    def talk(rank, n):
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
        print("half a line", end="", file=sys.stderr)

    ranks.run(talk, 2)
    out, err = capfd.readouterr()
    assert out == "" and err.count("UserWarning: careful") == 2
    assert all(line.startswith("[rank ") for line in err.splitlines())
    assert "[rank 1] half a line\n" in err


def test_an_error_of_the_notebooks_filters_is_one_in_a_rank():
    def warn(rank, n):
        warnings.warn("careful", stacklevel=1)

    with pytest.raises(ranks.RankError, match="raised UserWarning: careful"):
        ranks.run(warn, 1)


def test_a_filter_of_the_notebooks_does_not_make_ranks_import_its_package():
    from scipy.special import SpecialFunctionWarning

    def loaded(rank, n):
        return "scipy" in sys.modules

    with warnings.catch_warnings():
        warnings.simplefilter("always", SpecialFunctionWarning)
        assert ranks.run(loaded, 1) == [False]


def test_show_false_shows_nothing(capfd):
    ranks.run(lambda rank, n: print("hello"), 2, show=False)
    assert capfd.readouterr() == ("", "")


def test_megabytes_are_cut_and_odd_characters_kept(capfd, monkeypatch):
    def shout(rank, n):
        print("first é 中")
        for number in range(200_000):
            print("line", number)
        sys.stdout.buffer.write(b"\xff\n")
        print("50 %\r100 %")

    ranks.run(shout, 2)
    out, _ = capfd.readouterr()
    assert len(out) < 4 * shown.MOST
    assert out.startswith("[rank 0] first é 中\n[rank 0] line 0\n")
    assert "bytes are left out here" in out
    assert out.endswith("[rank 1] line 199999\n[rank 1] �\n[rank 1] 100 %\n")


def test_prints_before_a_failure_are_shown(capfd):
    def fail(rank, n):
        print("before", end="")
        dist.barrier()  # else rank 0 may be ended before it has printed
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    with pytest.raises(ranks.RankError):
        ranks.run(fail, 2)
    assert capfd.readouterr().out == "[rank 0] before\n[rank 1] before\n"


def test_an_endless_print_fills_no_disk(monkeypatch, capfd):
    def flood(rank, n):
        line = "x" * 100_000
        for _ in range(400):
            print(line)
        return os.fstat(1).st_size

    assert ranks.run(flood, 1)[0] < 17 * 2**20


# ---- a rank fails ----


def failure(fn, n=3, error=ranks.RankError, within=20.0, **options):
    "The error of a call that must fail, and in time."
    began = time.monotonic()
    with pytest.raises(error) as caught:
        ranks.run(fn, n, **options)
    assert time.monotonic() - began < within
    return caught.value


def test_a_rank_raises_and_is_the_cause():
    def fail(rank, n):
        dist.barrier()
        if rank == 1:
            raise ValueError("bad shard")
        dist.all_reduce(torch.ones(2))

    error = failure(fail)
    assert (error.rank, error.kind) == (1, "raised")
    assert str(error).startswith("rank 1 raised ValueError: bad shard\n")
    assert error.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert 'raise ValueError("bad shard")' in error.traceback
    assert "worker.py" not in error.traceback and "Connection" not in str(error)
    assert isinstance(error, RuntimeError)


def test_the_first_by_the_clock_is_the_cause_and_echoes_are_none():
    def failed(when, what, kind="raised"):
        return {"kind": kind, "what": what, "traceback": "in torch", "when": when}

    reports = {
        0: failed(3.0, "raised KeyError: 0"),
        1: failed(2.0, "raised ValueError: bad\nshard"),
        2: failed(1.0, "raised RuntimeError: Connection closed by peer"),
        3: failed(4.0, "was killed", kind="died"),
    }
    error = verdict._cause(reports, None, None, 4)
    assert (error.rank, error.kind) == (1, "raised")
    assert "ranks 0 and 3 failed too; rank 0 raised KeyError: 0\n" in str(error)
    del reports[0], reports[1], reports[3]
    assert verdict._cause(reports, None, None, 1).rank == 2


def test_several_fail_at_once():
    def fail(rank, n):
        dist.barrier()
        raise KeyError(rank)

    error = failure(fail)
    assert error.kind == "raised" and f"KeyError: {error.rank}" in str(error)


def test_a_lost_connection_is_not_the_cause():
    def fail(rank, n):
        dist.barrier()
        if rank == 2:
            time.sleep(0.2)
            os._exit(7)
        dist.all_reduce(torch.ones(2))

    error = failure(fail)
    assert (error.rank, error.kind) == (2, "died") and "exit code 7" in str(error)


@pytest.mark.parametrize("code", [None, 0, 3, "a word"])
def test_sys_exit(code):
    def leave(rank, n):
        if rank == 1:
            sys.exit(code)
        dist.barrier()

    error = failure(leave)
    assert (error.rank, error.kind) == (1, "exited")
    assert f"rank 1 left by sys.exit({code!r})" in str(error)


@posix
def test_killed():
    def die(rank, n):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    error = failure(die)
    assert (error.rank, error.kind) == (1, "died")
    assert "killed by the signal SIGKILL" in str(error)


@posix
def test_a_crash_in_c_shows_where():
    def crash(rank, n):
        if rank == 1:
            ctypes.string_at(0)
        dist.barrier()

    error = failure(crash)
    assert (error.rank, error.kind) == (1, "died") and "SIGSEGV" in str(error)
    assert " in crash" in error.traceback and "worker.py" not in error.traceback


def test_a_bare_except_cannot_hold_a_rank():
    def stubborn(rank, n):
        if rank == 0:
            raise ValueError("end")
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(60)

    assert failure(stubborn).rank == 0


@posix
def test_what_a_rank_started_ends_with_it():
    def parent(rank, n):
        started = [subprocess.Popen(["sleep", "600"]).pid for _ in range(2)]
        if os.fork() == 0:
            time.sleep(600)
        return started

    pids = [pid for pids in ranks.run(parent, 2) for pid in pids]
    assert not any(psutil.pid_exists(pid) for pid in pids)


@posix
def test_a_fork_that_comes_back_is_no_second_rank():
    def twice(rank, n):
        return os.fork() == 0 and "the copy"

    assert ranks.run(twice, 2) == [False, False]


# ---- a rank does not end ----


def test_a_hanging_rank_is_shown():
    def hang(rank, n):
        while rank == 1:
            pass
        dist.barrier()

    error = failure(hang, error=ranks.RankTimeout, timeout=1.5, within=8)
    assert (error.rank, error.kind) == (1, "hung")
    first = str(error).splitlines()[0]
    assert "time-out of 1.5 s" in first and "rank 1 is still at work" in first
    assert "ranks 0 and 2 wait in barrier" in first
    assert "while rank == 1" in str(error) or "pass" in str(error)
    assert " in hang" in error.traceback


@pytest.fixture
def impatient(monkeypatch):
    "Looks for a deadlock after half a second without work."
    monkeypatch.setattr(still, "QUIET", 0.5)
    monkeypatch.setattr(still, "HOLD", 0.3)


def test_a_sleeping_rank_is_no_deadlock(impatient):
    def sleep(rank, n):
        time.sleep(2 if rank == 0 else 0)
        dist.barrier()
        return rank

    assert ranks.run(sleep, 2) == [0, 1]


def test_a_second_thread_may_still_send(impatient):
    def later(rank, n):
        def send():
            time.sleep(2)
            dist.send(torch.ones(1), 0)

        if rank == 1:
            threading.Thread(target=send).start()
        dist.barrier() if rank == 1 else dist.recv(torch.ones(1), 1)
        return dist.barrier() if rank == 0 else None

    assert ranks.run(later, 2) == [None, None]


TORCH = f"{os.sep}lib{os.sep}torch{os.sep}"
COLLECTIVE = (f"{TORCH}distributed{os.sep}distributed_c10d.py", 9, "all_reduce")
WRAPPER = (f"{TORCH}distributed{os.sep}c10d_logger.py", 9, "wrapper")
PARALLEL = (f"{TORCH}nn{os.sep}parallel{os.sep}distributed.py", 9, "forward")
LINEAR = (f"{TORCH}nn{os.sep}modules{os.sep}linear.py", 9, "forward")
MINE = ("mine.py", 9, "train")


@pytest.mark.parametrize(
    ("frames", "call"),
    [
        ([COLLECTIVE, WRAPPER, MINE], "all_reduce"),
        ([COLLECTIVE, WRAPPER, PARALLEL, MINE], "forward"),
        ([LINEAR, PARALLEL, MINE], None),  # computes, within DDP
        ([(f"{TORCH}_ops.py", 9, "__call__"), MINE], None),  # any operator
        ([MINE], None),
        ([], None),
        (None, None),
    ],
)
def test_waiting_is_told_from_working(frames, call):
    assert stacks.waits_in(frames) == call


class Late:
    "Takes an hour to arrive in rank 1."

    def __reduce__(self):
        return _arrive, ()


def _arrive():
    time.sleep(3600 * (os.environ["RANK"] == "1"))


def test_the_time_out_bounds_the_meeting_too():
    late = Late()
    error = failure(lambda r, n: late, error=ranks.RankTimeout, timeout=2, within=9)
    first = str(error).splitlines()[0]
    assert "rank 1 is still at work" in first
    assert "ranks 0 and 2 wait in init_process_group" in first


def unequal(rank, n):
    if rank != 1:
        dist.all_reduce(torch.ones(3))


def other_order(rank, n):
    calls = [lambda: dist.all_reduce(torch.ones(3)), dist.barrier]
    for call in calls if rank else reversed(calls):
        call()


def other_shapes(rank, n):
    dist.all_reduce(torch.ones(3 + rank))


def all_send_first(rank, n):
    dist.send(torch.ones(10**6), (rank + 1) % n)
    dist.recv(torch.ones(10**6), (rank - 1) % n)


def nobody_sends(rank, n):
    work = dist.irecv(torch.ones(3), (rank + 1) % n)
    work.wait()


def not_everyones_group(rank, n):
    if rank == 0:
        dist.new_group([0, 1])
    dist.barrier()


def one_batch_more(rank, n):
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    for _ in range(2 + (rank == 0)):
        model(torch.ones(1, 2)).sum().backward()


@linux
@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (unequal, "ranks 0 and 2 wait in all_reduce, rank 1 has finished. Does every"),
        (other_order, "rank 0 waits in barrier, ranks 1 and 2 wait in all_reduce"),
        (other_shapes, "with the same shapes"),
        (all_send_first, "ranks 0, 1 and 2 wait in send. Is there a recv for"),
        (nobody_sends, r"wait in wait\(\). Is there a recv"),
        (not_everyones_group, "rank 0 waits in new_group, ranks 1 and 2 wait in"),
        (one_batch_more, r"rank 0 waits in backward\(\), ranks 1 and 2 have finished"),
    ],
)  # fmt: skip
def test_a_deadlock_ends_with_a_hint(fn, says, impatient):
    error = failure(fn, error=ranks.RankTimeout, within=15, timeout=60)
    first = str(error).splitlines()[0]
    assert error.kind == "deadlock" and first.startswith("no rank can go on: ")
    assert re.search(says, first), first
    assert f" in {fn.__name__}" in error.traceback
    assert "site-packages" not in str(error)


@linux
def test_a_deadlock_ends_in_seconds():
    error = failure(unequal, error=ranks.RankTimeout, timeout=60)  # 3 s when quiet
    assert error.kind == "deadlock"


@posix
def test_interrupted():
    def forever(rank, n):
        while True:
            time.sleep(1)

    main, ended = os.getpid(), threading.Event()

    def press():
        "The stop button: pressed again where Python loses a signal in a callback."
        started()
        while not ended.is_set():
            os.kill(main, signal.SIGINT)
            ended.wait(5)

    interrupt = threading.Thread(target=press)
    interrupt.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            ranks.run(forever, 3)
    finally:
        ended.set()
    assert time.monotonic() - began < 25
    interrupt.join()
    assert children() == []
    assert [r[2] for r in ranks.run(add_up, 2)] == [3.0, 3.0]


# ---- what cannot travel, arguments that make no sense ----


def test_a_result_that_cannot_travel():
    def lock(rank, n):
        return threading.Lock() if rank == 1 else rank

    error = failure(lock)
    assert (error.rank, error.kind) == (1, "result")
    assert "rank 1 returned a lock that cannot be pickled" in str(error)


HELD = threading.Lock()


def uses_helper(rank, n):
    return helper()


def helper():
    return HELD


def test_a_function_that_cannot_travel_names_the_culprit():
    generator = (i for i in range(3))
    with pytest.raises(TypeError, match=r"cannot travel.*through: generator\. Make"):
        ranks.run(lambda rank, n: next(generator), 2)
    with pytest.raises(TypeError, match="through: helper -> HELD"):
        ranks.run(uses_helper, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((5,), TypeError, "fn is a function, not 5"),
        ((lambda rank: 0, 2), TypeError, r"called as <lambda>\(rank, n\)"),
        ((nothing, 0), ValueError, "1 to 64, not 0"),
        ((nothing, 65), ValueError, "1 to 64, not 65"),
        ((nothing, 2.0), TypeError, "n is a whole number"),
        ((nothing, True), TypeError, "n is a whole number"),
        ((nothing, 2, 0), ValueError, "timeout is a number of seconds"),
        ((nothing, 2, float("nan")), ValueError, "timeout is a number of seconds"),
        ((nothing, 2, 9, 0), ValueError, "at least one thread"),
        ((nothing, 2, 9, 1, "mpi"), ValueError, "'gloo' or 'nccl'"),
        ((nothing, 64, 9, 1, "nccl"), ValueError, "a GPU for each of 64 ranks"),
    ],
)
def test_bad_arguments_start_nothing(arguments, error, says):
    with pytest.raises(error, match=says):
        ranks.run(*arguments)


# ---- many calls, and the process that hands out ranks ----


@linux
def test_fifty_calls_leave_no_process_no_file_and_no_memory():
    def busy(rank, n):
        x = torch.ones(1000)
        dist.all_reduce(x)
        return x

    for _ in range(5):
        ranks.run(busy, 2)
    server = psutil.Process(crew._server.process.pid)
    here = psutil.Process()

    def state():
        gc.collect()
        fds = here.num_fds(), server.num_fds(), here.num_threads(), server.num_threads()
        return fds, here.memory_info().rss + server.memory_info().rss

    before = state()
    for _ in range(50):
        ranks.run(busy, 2)
        assert server.children() == []
    after = state()
    assert after[0] == before[0] and before[0][3] == 1
    assert after[1] - before[1] < 8 * 2**20


@posix
def test_warm_up_does_not_wait():
    script = (
        "import sys, time, torch\nfrom utils import ranks\n"
        "t = time.perf_counter(); ranks.warm_up(); now = time.perf_counter() - t\n"
        "print(now, ranks.run(lambda r, n: 'torch._dynamo' in sys.modules, 2))"
    )
    seconds, known = python(script).split(" ", 1)
    assert float(seconds) < 1 and known == "[True, True]\n"


@posix
def test_a_new_server_when_the_old_one_was_killed():
    ranks.run(nothing, 2)
    old = crew._server.process.pid
    os.kill(old, signal.SIGKILL)
    assert [r[2] for r in ranks.run(add_up, 2)] == [3.0, 3.0]
    assert crew._server.process.pid != old


@linux
def test_a_server_killed_during_a_call_takes_its_ranks_along(tmp_path):
    def kill_parent(rank, n):
        (tmp_path / f"{rank}").write_text(str(os.getpid()))
        dist.barrier()
        if rank == 0:
            os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    error = failure(kill_parent, 2)
    assert error.kind == "lost" and "starts a new one" in str(error)
    gone([int((tmp_path / name).read_text()) for name in "01"])
    assert len(ranks.run(nothing, 2)) == 2


def gone(pids, seconds=5):
    "Assert that these processes end."
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_calls_of_two_threads_take_turns():
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(ranks.run(add_up, 2)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[r[2] for r in results] for results in made] == [[3.0, 3.0]] * 3


@posix
def test_a_rank_can_run_ranks():
    def outer(rank, n):
        return ranks.run(lambda r, m: 10 * rank + r, 2)

    assert ranks.run(outer, 2, timeout=120) == [[0, 1], [10, 11]]


def test_spawned_ranks_do_the_same(monkeypatch, capfd):
    monkeypatch.setattr(crew, "new", crew.Spawned)

    def fn(rank, n):
        print("hello")
        return add_up(rank, n)[:3]

    assert ranks.run(fn, 2, timeout=120) == [(0, 2, 3.0), (1, 2, 3.0)]
    assert capfd.readouterr().out == "[rank 0] hello\n[rank 1] hello\n"

    def fail(rank, n):
        if rank == 1:
            os._exit(4)
        dist.barrier()

    assert failure(fail, 2, within=100, timeout=120).rank == 1


def python(script, *arguments, timeout=120):
    "What a script prints, run by a fresh Python that knows the course."
    environ = {**os.environ, "PYTHONPATH": path_with_course()}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environ, timeout=timeout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def path_with_course():
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@posix
def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from utils import ranks\n"
        "print('once')\n"
        "class Pair:\n    def __init__(self, a): self.a = a\n"
        "made = ranks.run(lambda rank, n: Pair(rank), 2)\n"
        "print([p.a for p in made], all(type(p) is Pair for p in made))\n"
    )
    environ = {**os.environ, "PYTHONPATH": path_with_course()}
    said = subprocess.check_output(
        [sys.executable, script], env=environ, text=True, timeout=60
    )
    assert said == "once\n[0, 1] True\n"


@linux
def test_a_killed_notebook_leaves_nothing(tmp_path):
    script = (
        "import os, sys, time\nfrom utils import ranks\n"
        "def fn(rank, n):\n"
        "    print('at work', file=open(sys.argv[1], 'a'), flush=True)\n"
        "    time.sleep(600)\n"
        "ranks.run(fn, 2)"
    )
    (tmp_path / "tmp").mkdir()
    environ = {
        **os.environ, "PYTHONPATH": path_with_course(), "TMPDIR": str(tmp_path / "tmp"),
    }  # fmt: skip
    notebook = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "said"], env=environ
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (tmp_path / "said").exists() and len(
            (tmp_path / "said").read_text().splitlines()
        ) == 2:
            break
        time.sleep(0.05)
    below = psutil.Process(notebook.pid).children(recursive=True)
    assert len(below) == 3
    notebook.kill()
    notebook.wait()
    gone([process.pid for process in below])
    assert list((tmp_path / "tmp").iterdir()) == []


# ---- a real kernel ----


class Kernel:
    "A Jupyter kernel: execute a cell, get (stdout, stderr, value, error)."

    def __init__(self, folder):
        from jupyter_client.manager import start_new_kernel

        environ = {**os.environ, "PYTHONPATH": path_with_course()}
        environ["IPYTHONDIR"] = str(folder)
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", env=environ, cwd=str(ROOT / "solutions")
        )

    def run(self, code, then=lambda: None, timeout=60):
        said = {"stdout": "", "stderr": "", "value": None, "error": ""}
        plain = re.compile(r"\x1b\[[\d;]*m")

        def hear(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                said[content["name"]] += content["text"]
            elif message["msg_type"] == "execute_result":
                said["value"] = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                said["error"] = f"{content['ename']}: {content['evalue']}"
                said["traceback"] = [plain.sub("", t) for t in content["traceback"]]

        helper = threading.Thread(target=then)
        helper.start()
        self.client.execute_interactive(code, output_hook=hear, timeout=timeout)
        helper.join()
        return said

    def below(self):
        "The server of this kernel and its ranks."
        pid = self.manager.provisioner.process.pid
        return psutil.Process(pid).children(recursive=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = Kernel(tmp_path_factory.mktemp("ipython"))
        said = kernel.run("import time, torch\nfrom utils import ranks\nscale = 2")
        assert not said["error"]
        yield kernel
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)
        kernel.manager.cleanup_resources()


@posix
def test_cells_define_redefine_and_close_over(kernel):
    kernel.run("class Net:\n    def __init__(self, x): self.x = x\n"
               "    def value(self): return scale * self.x")  # fmt: skip
    kernel.run("def fn(rank, n):\n    print('rank', rank)\n    return Net(rank + 1)")
    said = kernel.run("made = ranks.run(fn, 2)\n[m.value() for m in made]")
    assert said["value"] == "[2, 4]" and not said["stderr"]
    assert said["stdout"] == "[rank 0] rank 0\n[rank 1] rank 1\n"
    said = kernel.run("scale = 5\n[type(m) is Net for m in made], made[0].value()")
    assert said["value"] == "([True, True], 5)"  # still the notebook's own class
    kernel.run("old = Net\nclass Net(old):\n    def value(self): return -scale")
    code = "made = ranks.run(fn, 2)\n[m.value() for m in made], type(made[0]) is Net"
    assert kernel.run(code)["value"] == "([-5, -5], True)"
    kernel.run(
        "def swap(rank, n):\n    made = [None] * n\n"
        "    torch.distributed.all_gather_object(made, Net(rank))\n"
        "    return [(m.x, type(m) is Net) for m in made]"
    )
    said = kernel.run("ranks.run(swap, 2)[1]")
    assert said["value"] == "[(0, True), (1, True)]", said
    code = "ranks.run(lambda rank, n: Net(0).value() + scale, 2)"
    assert kernel.run(code)["value"] == "[0, 0]"


@posix
def test_a_cells_traceback_quotes_the_cell(kernel):
    kernel.run(
        "def bad(rank, n):\n    if rank:\n        raise ValueError('oh')  # here"
    )
    said = kernel.run("ranks.run(bad, 2)")["error"]
    assert said.startswith("RankError: rank 1 raised ValueError: oh")
    assert "Cell, line 3, in bad\n    raise ValueError('oh')  # here" in said
    assert "ipykernel" not in said
    kernel.run("def slow(rank, n):\n    while True:\n        time.sleep(0.1)  # zzz")
    said = kernel.run("ranks.run(slow, 2, timeout=1)")["error"]
    assert "rank 0 is at line 3 of slow: time.sleep(0.1)  # zzz" in said
    assert "ipykernel" not in said


@posix
def test_a_kernel_is_interrupted(kernel):
    kernel.run("def slow(rank, n):\n    while True:\n        time.sleep(0.1)")
    kernel.run("ranks.run(lambda r, n: None, 2)")
    pressed = []

    def press():
        until = time.monotonic() + 10
        while len(kernel.below()) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        pressed.append(time.monotonic())
        pid = kernel.manager.provisioner.process.pid
        os.killpg(os.getpgid(pid), signal.SIGINT)  # as Jupyter does

    said = kernel.run("ranks.run(slow, 2)", press)
    assert said["error"].startswith("KeyboardInterrupt")
    assert time.monotonic() - pressed[0] < 4  # 0.1 s on a quiet machine
    assert len(kernel.below()) == 1
    assert kernel.run("ranks.run(lambda r, n: r, 2)")["value"] == "[0, 1]"


@posix
def test_a_restarted_kernel_leaves_no_orphan(kernel):
    kernel.run("ranks.run(lambda r, n: r, 2)")
    old = [process.pid for process in kernel.below()]
    assert old
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    gone(old)
    kernel.run("from utils import ranks")
    assert kernel.run("ranks.run(lambda r, n: r, 2)")["value"] == "[0, 1]"


# ---- traffic ----


def test_point_to_point_is_counted_exactly():
    def ring(rank, n):
        right, left = (rank + 1) % n, (rank - 1) % n
        x, y = torch.ones(1000), torch.ones(1000)
        with ranks.traffic() as all_of_it:
            with ranks.traffic() as first:
                sending = dist.isend(x, right)
                dist.recv(y, left)
                sending.wait()
            batch = [
                dist.P2POp(dist.isend, x.half(), right),
                dist.P2POp(dist.irecv, y.half(), left),
            ]
            for work in dist.batch_isend_irecv(batch):
                work.wait()
        dist.all_reduce(x)
        counted = first.messages, first.bytes, first.received, first.to
        return counted, (all_of_it.messages, all_of_it.bytes, all_of_it.received)

    made = ranks.run(ring, 3)
    assert [m[0] for m in made] == [
        (1, 4000, 4000, {(r + 1) % 3: 4000}) for r in range(3)
    ]
    assert [m[1] for m in made] == [(2, 6000, 6000)] * 3


def test_a_send_after_the_block_works_and_is_not_counted():
    def twice(rank, n):
        x = torch.ones(10)
        swap = (lambda: dist.send(x, 1)) if rank == 0 else (lambda: dist.recv(x, 0))
        with ranks.traffic() as first:
            swap()
        swap()
        with ranks.traffic() as second:
            swap()
        return first.bytes, second.bytes

    assert ranks.run(twice, 2) == [(40, 40), (0, 0)]


def test_ranks_of_a_subgroup_are_counted_by_their_global_number():
    def pair(rank, n):
        group = dist.new_group([1, 2])
        with ranks.traffic() as sent:
            if rank == 1:
                dist.send(torch.ones(2), 2, group=group)
            if rank == 2:
                dist.recv(torch.ones(2), 1, group=group)
        return sent.to

    assert ranks.run(pair, 3) == [{}, {2: 8}, {}]


@linux
@pytest.mark.parametrize("n", [2, 4])
def test_the_kernel_counts_the_collectives(n):
    def reduce(rank, n):
        x = torch.ones(10**6)
        dist.all_reduce(x)
        dist.barrier()
        with ranks.traffic() as sent:
            dist.all_reduce(x)
        return sent.messages, sent.bytes, sent.wire, sent.wire_received

    book = 2 * (n - 1) / n * 4 * 10**6
    for messages, payload, wire, received in ranks.run(reduce, n):
        assert (messages, payload) == (0, 0)
        assert wire == pytest.approx(book, rel=0.01)
        assert received == pytest.approx(book, rel=0.01)


@linux
def test_the_wire_agrees_with_what_was_counted():
    def send(rank, n):
        x = torch.ones(300_000)
        dist.barrier()
        with ranks.traffic() as sent:
            dist.send(x, 1) if rank == 0 else dist.recv(x, 0)
        return sent.bytes, sent.received, sent.wire, sent.wire_received

    (out, _, wire, _), (_, into, _, received) = ranks.run(send, 2)
    assert out == into == 1_200_000
    assert 0 <= wire - out < 500 and 0 <= received - into < 500


def test_traffic_leaves_torch_as_it_was():
    before = dist.ProcessGroup.send, dist.ProcessGroup.recv
    with pytest.raises(ValueError), ranks.traffic():
        raise ValueError
    assert (dist.ProcessGroup.send, dist.ProcessGroup.recv) == before


# ---- under torchrun: tests/test_torchrun.py, a killed rank in tests/test_failures.py ----


def test_main_without_torchrun_says_so(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="torchrun --nproc-per-node"):
        ranks.main(nothing)
