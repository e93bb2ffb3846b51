"""A time limit on code that may never end, in this thread, without a second process."""

import contextlib
import ctypes
import signal
import sys
import threading
import time


class TimeLimit(BaseException):
    "The time is up. Not an Exception, so that `except Exception:` lets it through."


class time_limit:
    """`with time_limit(seconds):` raises TimeLimit when the block computes longer.

    What counts is this process's CPU time, so that a busy machine does not make an answer
    slow; what waits for something is ended after `patience` times as many seconds of the
    wall's clock. Nothing is stopped inside an import, here or in a thread that the block
    has started: that would leave half a module behind. While one runs the clock stands
    still.

    Where there are timer signals (main thread, not Windows) they also end a sleep or a
    wait; elsewhere a watching thread raises at the next Python instruction. Both repeat,
    and signals that were swallowed raise inside the handler of a bare `except:` as well,
    so that a loop around one cannot hold out for ever. Code that stays inside one call
    of a C library is stopped only when that call returns, and Python 3.10 never looks up
    in a loop that is one `try` without any call.
    """

    def __init__(self, seconds, patience=6, again=0.05):
        self.seconds, self.patience, self.again = seconds, patience, again
        self.rung = 0
        self.cpu = self.wall = 0.0  # what the block had used when it was last looked at

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        self.by_signal = main and hasattr(signal, "setitimer")
        self.block = sys._getframe(1)
        while self.block.f_code.co_filename == contextlib.__file__:  # an ExitStack
            self.block = self.block.f_back
        self.threads = set(sys._current_frames())  # that are not the block's
        self.began, self.cpu_began = time.monotonic(), time.process_time()
        self.allowed, self.latest = self.seconds, self.patience * self.seconds
        if self.by_signal:
            self.tracing = sys.gettrace()
            self.before = signal.signal(signal.SIGALRM, self._ring)
            self.outer = signal.setitimer(signal.ITIMER_REAL, self.seconds, self.again)
        else:
            self.thread, self.over = threading.get_ident(), threading.Event()
            self.watcher = threading.Thread(target=self._watch, daemon=True)
            self.watcher.start()

    def __exit__(self, *error):
        if self.by_signal:
            sys.settrace(self.tracing)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before or signal.SIG_DFL)
            left, again = self.outer  # of a limit around this one
            if left:
                left -= time.monotonic() - self.began
                signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), again)
        else:
            self.over.set()
            self.watcher.join()
            if self.rung:  # the last one may be still to come: let it come here
                with contextlib.suppress(TimeLimit):
                    raise_in(self.thread, TimeLimit)
                    while True:
                        pass
        del self.block

    def _is_up(self, inside):
        "Whether the block has had its time; it gets more while it imports something."
        self.cpu = time.process_time() - self.cpu_began
        self.wall = time.monotonic() - self.began
        if any(map(_imports, [*inside, *self._elsewhere()])):
            self.allowed = max(self.allowed, self.cpu + self.seconds / 2)
            more = self.patience * self.seconds / 2
            self.latest = max(self.latest, self.wall + more)
        return self.cpu >= self.allowed or self.wall >= self.latest

    def _ring(self, _, frame):
        inside = self._inside(frame)
        if inside is None or not self._is_up(inside):
            return
        self.rung += 1
        if self.rung > 3:  # not at once: the first raise lets every `with` close
            for each in inside:
                each.f_trace = _raise_in_line
            sys.settrace(_raise_in_line)
        raise TimeLimit

    def _watch(self):
        wait = self.seconds
        while not self.over.wait(wait):
            inside = self._inside(sys._current_frames().get(self.thread))
            if inside is not None and self._is_up(inside):
                self.rung += 1
                raise_in(self.thread, TimeLimit)
            wait = self.again

    def _elsewhere(self):
        "The frames of the threads that the block has started."
        for thread, frame in sys._current_frames().items():
            while frame is not None and thread not in self.threads:
                yield frame
                frame = frame.f_back

    def _inside(self, frame):
        "The frames that the block has called; None at its ends and outside of it."
        frames = []
        while frame is not None and frame is not self.block:
            if frame.f_code in _ENDS:
                return None
            frames.append(frame)
            frame = frame.f_back
        return None if frame is None else frames


def _imports(frame):
    return frame.f_code.co_filename.startswith("<frozen importlib")


_ENDS = time_limit.__enter__.__code__, time_limit.__exit__.__code__


def _raise_in_line(_, event, __):
    "A trace function that raises in the next line, be it that of an `except:`."
    if event == "line":
        raise TimeLimit


def raise_in(thread, error):
    "Let the thread with this number raise `error` at its next Python instruction."
    # never NULL in its place, to take one back: Python 3.11 then looks for a pending
    # exception at every turn from there on, and hangs as soon as it is traced
    number, error = ctypes.c_ulong(thread), ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)
