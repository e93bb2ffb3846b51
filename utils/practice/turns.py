"""Threads that take turns, for simulations that come out alike every time.

One thread runs at a time, and goes on until it must wait. utils.practice.network and
utils.practice.rehearsal are built on it: there every rank is such a thread.
"""

import contextlib
import threading

from utils.limits import raise_in


class Deadlock(RuntimeError):
    "No rank can go on; `waits` says who waits for what, {rank: sentence}."

    def __init__(self, said, waits):
        super().__init__(said)
        self.waits = waits


class Stop(BaseException):
    "Ends a thread whose simulation is over."


class Table:
    "Where threads take turns: `back` is released when one has had its turn."

    def __init__(self):
        self.stopped, self.back = False, threading.Semaphore(0)

    def stop(self, players):
        "End every thread that is still there; one that computes is interrupted."
        self.stopped = True
        for _ in range(100):
            alive = [player for player in players if player.is_alive()]
            if not alive:
                return
            for player in alive:
                player.go.release()
                player.join(0.001)
                if player.is_alive() and not player.over:
                    with contextlib.suppress(ValueError):
                        raise_in(player.ident, Stop)
            for player in alive:
                player.join(0.02 / len(alive))


class Player(threading.Thread):
    "A thread that runs `work()` in turns; then it is `over`, with `result` or `error`."

    def __init__(self, table, name):
        super().__init__(name=name, daemon=True)
        self.table, self.go = table, threading.Semaphore(0)
        self.result = self.error = None
        self.over = False

    def work(self):
        "What the thread computes: -> its result."
        raise NotImplementedError

    def run(self):
        try:
            self.go.acquire()
            if not self.table.stopped:
                self.result = self.work()
        except Stop:
            pass
        except BaseException as error:  # told in the thread that gives the turns
            self.error = error
        finally:
            self.over = True
            self.table.back.release()

    def turn(self):
        "Called from outside: let the thread run until it waits or is over."
        self.go.release()
        while not self.table.back.acquire(timeout=0.1):  # a signal may raise here
            pass
        if self.error is not None:
            raise self.error

    def pause(self):
        "Called in the thread: let others have their turn, until it gets the next one."
        self.table.back.release()
        self.go.acquire()
        if self.table.stopped:
            raise Stop
