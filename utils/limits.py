"""A time limit on code that may never end, in this thread, without a second process."""

import ctypes
import signal
import sys
import threading


class TimeLimit(BaseException):
    "The time is up. Not an Exception, so that `except Exception:` lets it through."


class time_limit:
    """`with time_limit(seconds):` raises TimeLimit when the block takes longer.

    Where there are timer signals (main thread, not Windows) they also end a sleep or a
    wait; elsewhere a watching thread raises at the next Python instruction. Both repeat,
    so that a bare `except:` in a loop cannot swallow the limit for ever. Code that stays
    inside one call of a C library is stopped only when that call returns.
    """

    def __init__(self, seconds, again=0.05):
        self.seconds, self.again = seconds, again

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        self.by_signal = main and hasattr(signal, "setitimer")
        if self.by_signal:
            self.before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds, self.again)
        else:
            self.thread, self.over = threading.get_ident(), threading.Event()
            self.watcher = threading.Thread(target=self._watch, daemon=True)
            self.watcher.start()

    def __exit__(self, *error):
        if self.by_signal:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)
        else:
            self.over.set()
            self.watcher.join()
            _raise_in(self.thread, None)  # one that was set but not yet raised

    def _ring(self, _, frame):
        if not _leaving(frame):
            raise TimeLimit

    def _watch(self):
        wait = self.seconds
        while not self.over.wait(wait):
            if not _leaving(sys._current_frames().get(self.thread)):
                _raise_in(self.thread, ctypes.py_object(TimeLimit))
            wait = self.again


def _leaving(frame):
    "Is this frame, or one that called it, the end of the block? Then the time counts no more."
    while frame is not None:
        if frame.f_code is time_limit.__exit__.__code__:
            return True
        frame = frame.f_back
    return False


def _raise_in(thread, error):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
