"""time_limit: it ends what never ends, and leaves nothing behind."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.limits import TimeLimit, time_limit

ROOT = Path(__file__).resolve().parents[1]
with_signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="no timer signals here"
)


@pytest.fixture(autouse=True)
def tracing_is_as_before():
    before = sys.gettrace()
    yield
    after = sys.gettrace()
    sys.settrace(before)
    assert after is before


def spin(seconds=60.0):
    "Busy Python for so long; a watching thread can stop it, too."
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def limited(seconds, work, *args):
    "(what came of `work` under the limit, seconds it took)."
    began = time.perf_counter()
    try:
        with time_limit(seconds):
            said = work(*args)
    except TimeLimit:
        said = TimeLimit
    return said, time.perf_counter() - began


def in_thread(function, *args):
    "The result of a call in another thread."
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join(10)
    assert results, "the thread has not ended"
    return results[0]


@pytest.fixture(params=["main thread", "another thread"])
def call(request):
    "Calls a function in the main thread or in another one."
    if request.param == "main thread":
        return lambda function, *args: function(*args)
    return in_thread


def test_a_busy_loop_is_ended(call):
    said, took = call(limited, 0.1, spin)
    assert said is TimeLimit and 0.1 <= took < 1


def test_quick_work_is_left_alone(call):
    assert call(limited, 5, sum, [1, 2])[0] == 3


def test_no_late_alarm(call):
    def twice():
        first = limited(0.1, spin)[0]
        spin(0.3)
        with time_limit(0.2):
            pass
        spin(0.3)
        return first

    assert call(twice) is TimeLimit


def test_exceptions_pass_through(call):
    def fails():
        with pytest.raises(KeyError, match="mine"), time_limit(5):
            raise KeyError("mine")
        spin(0.05)
        return "on"

    assert call(fails) == "on"


def test_except_exception_does_not_swallow_it(call):
    def careful():
        while True:
            with contextlib.suppress(Exception):
                spin(0.01)

    assert call(limited, 0.1, careful)[0] is TimeLimit


def stubborn(work):
    "Swallows everything, for ever; most of its time is inside `work`."
    while True:
        try:  # noqa: SIM105
            work()
        except:  # noqa: E722
            pass


def nested_stubborn():
    stubborn(lambda: time.sleep(0.01))


@with_signals
@pytest.mark.parametrize(
    "work", [lambda: time.sleep(0.01), lambda: spin(0.01), lambda: time.sleep(100)]
)
def test_a_bare_except_holds_out_for_a_moment_only(work):
    said, took = limited(0.1, stubborn, work)
    assert said is TimeLimit and took < 2


@with_signals
def test_a_bare_except_around_a_call_does_not_hold_out_either():
    def outer():
        for _ in range(3):
            with contextlib.suppress(BaseException):
                nested_stubborn()
        spin()

    said, took = limited(0.1, outer)
    assert said is TimeLimit and took < 3


@with_signals
def test_tracing_is_off_after_a_limit_that_was_swallowed_for_a_while():
    caught = []

    def work():
        for _ in range(3):
            with contextlib.suppress(BaseException):
                time.sleep(10)
            caught.append(1)
        time.sleep(10)

    assert limited(0.05, work)[0] is TimeLimit and caught == [1, 1, 1]


@with_signals
def test_a_sleep_is_ended():
    said, took = limited(0.1, time.sleep, 100)
    assert said is TimeLimit and took < 1


@with_signals
def test_contexts_inside_the_block_are_closed():
    closed = []

    class Context:
        def __enter__(self):
            pass

        def __exit__(self, *error):
            closed.append(1)

    def work():
        try:
            with Context(), Context():
                spin()
        finally:
            closed.append(2)

    assert limited(0.1, work)[0] is TimeLimit
    assert closed == [1, 1, 2]


def test_under_redirects_and_an_exit_stack(call):
    def redirected():
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(time_limit(0.1))
            spin()

    def tried():
        with pytest.raises(TimeLimit):
            redirected()
        spin(0.2)
        return sys.stdout

    out = sys.stdout
    assert call(tried) is out


@with_signals
@pytest.mark.parametrize("fails", [False, True])
def test_the_handler_and_the_timer_of_before_come_back(fails):
    rung = []

    def mine(*_):
        rung.append(1)

    before = signal.signal(signal.SIGALRM, mine)
    try:
        with contextlib.suppress(TimeLimit), time_limit(0.05):
            spin(10 if fails else 0)
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        assert rung == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_limit_inside_a_limit(call):
    def both():
        inner = limited(0.05, spin)[0]
        spin()
        return inner

    said, took = call(limited, 0.3, both)
    assert said is TimeLimit and 0.3 <= took < 3  # patience: at most 6 * 0.3 s


def test_an_outer_limit_that_passes_meanwhile_is_still_told():
    def both():
        with time_limit(0.4):
            spin(0.2)
        spin()

    said, took = limited(0.1, both)
    assert said is TimeLimit and took < 1


def test_no_time_at_all(call):
    for _ in range(20):
        assert call(limited, 0.0001, spin)[0] is TimeLimit
        spin(0.002)


@pytest.mark.parametrize("end", ["__enter__", "__exit__"])
def test_nothing_is_raised_at_the_ends_of_the_block(end):
    limit, block = time_limit(9), object()
    limit.block = block
    code = getattr(time_limit, end).__code__
    at_an_end = SimpleNamespace(f_code=code, f_back=block)
    within = SimpleNamespace(f_code=spin.__code__, f_back=block)
    outside = SimpleNamespace(f_code=spin.__code__, f_back=None)
    below_an_end = SimpleNamespace(f_code=spin.__code__, f_back=at_an_end)
    assert limit._inside(within) == [within] and limit._inside(block) == []
    for frame in (at_an_end, below_an_end, outside, None):
        assert limit._inside(frame) is None


def test_no_thread_stays():
    in_thread(limited, 0.05, spin)
    in_thread(limited, 5, sum, [])
    assert not [t for t in threading.enumerate() if "_watch" in t.name]


TRACED = """
import sys, threading, time
from utils.limits import TimeLimit, time_limit
def limited():
    try:
        with time_limit(0.02):
            while True:
                pass
    except TimeLimit:
        pass
thread = threading.Thread(target=limited)
thread.start()
thread.join()
seen = []
sys.settrace(lambda *event: seen.append(event))
(lambda: 3)()
sys.settrace(None)
print(len(seen) > 0)
"""


def test_a_debugger_works_after_a_limit_in_a_thread():
    done = subprocess.run(
        [sys.executable, "-c", TRACED], cwd=ROOT, timeout=20, capture_output=True
    )
    assert done.stdout.split() == [b"True"], done.stderr


# ---- a busy machine, a slow import ----


def starved(answer, seconds):
    "What `limited` says while another process keeps this one from its core."
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("a process cannot be held to one core here")
    core = {min(os.sched_getaffinity(0))}
    hog = [
        sys.executable,
        "-c",
        f"import os\nos.sched_setaffinity(0, {core})\nprint(1, flush=True)\nwhile 1: 0",
    ]
    running = [subprocess.Popen(hog, stdout=subprocess.PIPE) for _ in range(3)]
    before = os.sched_getaffinity(0)
    try:
        for process in running:
            process.stdout.readline()  # it runs
        os.sched_setaffinity(0, core)
        return limited(seconds, answer)
    finally:
        os.sched_setaffinity(0, before)
        for process in running:
            process.kill()
            process.communicate()


def test_a_busy_machine_makes_no_answer_slow():
    def answer():
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return "in time"

    said, took = starved(answer, 0.9)
    assert took > 0.9, "by the wall's clock it was late"
    assert said == "in time" or took > 6 * 0.9, "six times as long, at the very least"


def test_a_busy_machine_does_not_save_an_endless_loop():
    assert starved(spin, 0.2)[0] is TimeLimit


def test_what_waits_is_given_more_than_what_computes():
    assert limited(0.2, time.sleep, 0.5)[0] is None
    said, took = limited(0.1, time.sleep, 60)
    assert said is TimeLimit and 0.5 < took < 2


@pytest.mark.parametrize("where", [lambda function: function(), in_thread])
def test_nothing_is_stopped_inside_an_import(tmp_path, monkeypatch, call, where):
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nend = time.process_time() + 0.5\n"
        "while time.process_time() < end:\n    pass\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def answer():
        import slow_to_import

        spin(0.02)
        return slow_to_import.whole

    try:
        assert call(limited, 0.2, where, answer)[0] is True
    finally:
        sys.modules.pop("slow_to_import", None)


def test_after_a_long_wait_in_an_import_there_is_time_to_wait(tmp_path, monkeypatch):
    (tmp_path / "waits_to_import.py").write_text("import time\ntime.sleep(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def answer():
        import waits_to_import  # noqa: F401

        time.sleep(0.2)  # as on a busy machine: by the CPU's clock it is nothing

    try:
        assert limited(0.1, answer)[0] is None
    finally:
        sys.modules.pop("waits_to_import", None)


def test_after_an_import_the_clock_goes_on(tmp_path, monkeypatch):
    (tmp_path / "quick_to_import.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def answer():
        import quick_to_import  # noqa: F401

        spin()

    try:
        said, took = limited(0.1, answer)
        assert said is TimeLimit and took < 2
    finally:
        sys.modules.pop("quick_to_import", None)
