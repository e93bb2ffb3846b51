"""n ranks in one process: they take turns, wait for each other, and are counted.

Every rank is a thread, and one runs at a time, in the order of the ranks, until it must
wait: the same run each time. When all wait, messages move; when none can, Deadlock says
who waits for whom.

Two faces stand on it: messages.py (chapter 16: comm.send, comm.recv) and rehearsal.py
(chapters 17 to 22: torch.distributed). A face opens Sends, Recvs and Meetings and waits for them
with `rank.wait`; what arrives, when, and at what cost is decided here.
"""

import contextlib
import math
import threading
from collections import Counter
from typing import NamedTuple

from utils.limits import raise_in

MOST_MESSAGES = 100_000


class NetworkError(ValueError):
    "A call that no network can carry out: no such rank, a buffer that does not fit."


class Mismatch(RuntimeError):
    "Ranks make different calls at the same place in their order of calls."


class Deadlock(RuntimeError):
    """No rank can go on.

    waits: who waits for what, {rank: sentence}; circle: ranks each of which waits for
    the next, and the last for the first; empty where somebody waits for one that is gone.
    """

    def __init__(self, said, waits, circle=()):
        super().__init__(said)
        self.waits, self.circle = waits, list(circle)


class Stop(BaseException):
    "Ends a thread whose simulation is over."


class Message(NamedTuple):
    "One message of the log: when it left and arrived, from which rank to which."

    left: float
    arrived: float
    source: int
    to: int
    bytes: int


# ---- what a rank can wait for: `end` is None until it has happened ----


class Half:
    "One end of a message, a Send or a Recv; `peer` is the rank at the other end."

    end = None

    def __init__(self, rank, peer, tag=0, group=None):
        self.rank, self.peer, self.tag, self.group = rank, peer, tag, group
        self.start = rank.clock

    def needs(self):
        return [self.peer]

    def fits(self, other):
        "Are these the two ends of one message?"
        return (self.peer, self.tag, self.group) == (
            other.rank.number, other.tag, other.group,
        )  # fmt: skip

    def other_tags(self):
        "The tags with which the peer opened its end of messages between these two."
        halves = self.rank.simulator.ranks[self.peer].posted
        facing = [h for h in halves if type(h) is not type(self)]
        here = [h for h in facing if h.peer == self.rank.number]
        return sorted({h.tag for h in here if h.group is self.group} - {self.tag})

    def __str__(self):
        said = f"{self.says} rank {self.peer}"
        others = self.other_tags()
        if self.tag or others:
            said += f", tag {self.tag}"
        if self.group is not None:
            said += f", in {self.group}"
        if others:
            said += f" (which has opened tag {', '.join(map(str, others))})"
        gone = self.rank.simulator.ranks[self.peer].over
        return said + ", which has returned" * gone


class Send(Half):
    "A message on offer: `value`, and its size."

    says = "waits to send to"

    def __init__(self, rank, peer, value, size, tag=0, group=None):
        super().__init__(rank, peer, tag, group)
        self.value, self.bytes = value, size


class Recv(Half):
    "Room for a message: `fill(send)` puts its value there, or says why it does not fit."

    says = "waits to receive from"

    def __init__(self, rank, peer, fill, tag=0, group=None):
        super().__init__(rank, peer, tag, group)
        self.fill = fill


class Meeting:
    "The k-th call of every member: it must be the same call, and ends when all have come."

    def __init__(self, simulator, group, number):
        self.simulator, self.number = simulator, number
        self.members = range(simulator.n) if group is None else group.ranks
        self.where = "" if group is None else f" in {group}"
        self.start, self.end = 0.0, None
        self.said, self.brought = "", {}  # what the call is; {rank: value}

    def join(self, rank, said, value, rounds):
        """One more member comes; rounds(values) is what such a call sends, for `count`.

        It numbers ranks by their place among the members.
        """
        first = next(iter(self.brought), None)
        if first is not None and said != self.said:
            raise Mismatch(
                f"call {self.number + 1} of rank {first}{self.where} is {self.said}, of "
                f"rank {rank.number} {said}: all ranks make the same calls in the same "
                "order"
            )
        self.said, self.brought[rank.number] = said, value
        self.start = max(self.start, rank.clock)
        if not self.needs():
            self.end = self.simulator.count(self.start, self._by_rank(rounds))

    def _by_rank(self, rounds):
        at = self.members
        return [
            [(at[source], at[to], size) for source, to, size in messages]
            for messages in rounds(self.values())
        ]

    def needs(self):
        return [rank for rank in self.members if rank not in self.brought]

    def values(self):
        return [self.brought[rank] for rank in self.members]

    def __str__(self):
        *others, last = map(str, self.needs())
        ranks = f"ranks {', '.join(others)} and {last}" if others else f"rank {last}"
        return (
            f"waits in its call {self.number + 1}{self.where}, {self.said}, for {ranks}"
        )


# ---- ranks that take turns ----


class Rank(threading.Thread):
    "A thread that runs `work()` in turns; then it is `over`, with `result` or `error`."

    def __init__(self, simulator, number):
        super().__init__(name=f"rank {number}", daemon=True)
        self.simulator, self.number = simulator, number
        self.go = threading.Semaphore(0)
        self.result = self.error = None
        self.over, self.clock = False, 0.0
        self.posted, self.waits = [], []  # halves that are open; what it waits for now
        self.joined = Counter()  # meetings that it has joined, by group
        self.sends_until = self.receives_until = 0.0  # one message each way at a time

    def work(self):
        "What the rank computes: -> its result."
        raise NotImplementedError

    def run(self):
        try:
            self.go.acquire()
            if not self.simulator.stopped:
                self.result = self.work()
        except Stop:
            pass
        except BaseException as error:  # told in the thread that gives the turns
            self.error = error
        finally:
            self._end()

    def _end(self):
        "Be over; a Stop that was on its way lands here, and not behind the last line."
        for _ in range(3):
            with contextlib.suppress(Stop):
                self.over = True
                for _ in range(100):
                    pass
        self.simulator.back.release()

    def turn(self):
        "Called from outside: let the thread run until it waits or is over."
        self.simulator.turns = self
        self.go.release()
        while not self.simulator.back.acquire(timeout=0.1):  # a signal may raise here
            pass
        if self.error is not None:
            raise self.error

    def can_go_on(self):
        return not self.over and not self.open()

    def open(self):
        "What it waits for and has not happened yet."
        return [each for each in self.waits if each.end is None]

    # -- called in the thread --

    def post(self, *halves):
        "Open Sends and Recvs; they move when their other ends are open, too."
        self._still_on()
        self.posted += halves

    def meet(self, said, value, rounds, group=None):
        "Join this rank's next meeting with all others, or with a group's: -> Meeting."
        self._still_on()
        meeting = self.simulator.meeting(group, self.joined[group])
        meeting.join(self, said, value, rounds)
        self.joined[group] += 1
        return meeting

    def wait(self, *what):
        "Let others have their turn until all of this has happened."
        self.waits = what
        if self.open():
            self.simulator.back.release()
            self.go.acquire()
            self._still_on()
        self.waits = []
        self.clock = max([self.clock, *(each.end for each in what)])

    def _still_on(self):
        if self.simulator.stopped:
            raise Stop


class Simulator:
    """`n` ranks that play, and what it cost; a message takes alpha + beta * its bytes.

    After `play`: `time` (of the last rank), `steps`, `sent` and `received` (bytes of each
    rank), `bytes` and `messages` (in all), `log` (a Message for each that a rank sent by
    itself; those inside a collective call are counted, not logged).
    """

    MOST = 256  # ranks

    def __init__(self, n, alpha=1.0, beta=0.0):
        self.n, self.alpha, self.beta = n, alpha, beta
        self._reset()

    def _reset(self):
        self.stopped, self.back = False, threading.Semaphore(0)
        self.turns = None  # whose turn it is, or was
        self.ranks, self.meetings = [], {}  # meetings of each group, in order
        self.time, self.messages, self.log = 0.0, 0, []
        self.sent, self.received = [0] * self.n, [0] * self.n

    @property
    def steps(self):
        "Messages that had to wait for each other, one after the other."
        return math.ceil(self.time / self.alpha - 1e-9) if self.alpha else 0

    @property
    def bytes(self):
        "Bytes of payload that all ranks sent."
        return sum(self.sent)

    def play(self, ranks):
        "Let them take turns until all are over: -> [results]. No thread stays."
        self._reset()
        self.ranks = ranks
        try:
            for rank in ranks:
                rank.start()
            while ready := [rank for rank in ranks if rank.can_go_on()]:
                for rank in ready:
                    rank.turn()
                self._deliver()
            if stuck := [rank for rank in ranks if not rank.over]:
                raise self._deadlock(stuck)
        finally:
            self._stop()
        self.time = max(rank.clock for rank in ranks)
        return [rank.result for rank in ranks]

    def meeting(self, group, number):
        "The meeting of the members' call `number`; group None: of all ranks."
        meetings = self.meetings.setdefault(group, [])
        if number == len(meetings):
            meetings.append(Meeting(self, group, number))
        return meetings[number]

    def count(self, start, rounds):
        "Count rounds of messages [(source, to, bytes)] that leave at `start`: -> the end."
        for messages in rounds:
            for source, to, size in messages:
                self.messages += 1
                self.sent[source] += size
                self.received[to] += size
            start += self.alpha + self.beta * max(size for *_, size in messages)
        return start

    def _deliver(self):
        "Let messages move, first come, first served, between each two ranks."
        for rank in self.ranks:
            for send in [half for half in rank.posted if isinstance(half, Send)]:
                other = self.ranks[send.peer]
                for recv in other.posted:
                    if isinstance(recv, Recv) and recv.fits(send):
                        rank.posted.remove(send)
                        other.posted.remove(recv)
                        self._move(send, recv)
                        break

    def _move(self, send, recv):
        recv.fill(send)
        free = max(send.rank.sends_until, recv.rank.receives_until)
        left = max(send.start, recv.start, free)
        source, to = send.rank.number, recv.rank.number
        send.end = recv.end = self.count(left, [[(source, to, send.bytes)]])
        send.rank.sends_until = recv.rank.receives_until = send.end
        self.log.append(Message(left, send.end, source, to, send.bytes))
        if len(self.log) > MOST_MESSAGES:
            raise NetworkError(
                f"more than {MOST_MESSAGES:,} messages: an endless loop?"
            )

    def _deadlock(self, stuck):
        waits = {r.number: " and ".join(map(str, r.open())) for r in stuck}
        said = [f"rank {rank} {what}" for rank, what in waits.items()]
        if self.meetings:
            said += [
                f"rank {r.number} has returned after {_calls(r.joined.total())}"
                for r in self.ranks
                if r.over
            ]
        needs = {
            r.number: [n for each in r.open() for n in each.needs()] for r in stuck
        }
        if circle := _circle(needs):
            said.append(f"a circle: {' -> '.join(map(str, [*circle, circle[0]]))}")
        return Deadlock(
            f"deadlock, no rank can go on: {'; '.join(said)}", waits, circle
        )

    def _stop(self):
        "End every thread that is still there; one that computes is interrupted."
        self.stopped, rung = True, None
        for rank in self.ranks:  # first, and quickly: a time limit may ring again
            rank.go.release()
        if self.turns is not None and self.turns.can_go_on():
            with contextlib.suppress(ValueError):
                raise_in(self.turns.ident, Stop)
        for number in range(100):
            try:
                if not self._end_threads(patient=number < 5):
                    break
            except BaseException as error:  # a time limit that rings again: not now
                rung = error
        if rung is not None:
            raise rung

    def _end_threads(self, patient):
        "One try: -> whether any was still there. patient: most end by themselves."
        alive = [rank for rank in self.ranks if rank.is_alive()]
        for rank in alive:
            rank.go.release()
            rank.join(0.001)
            if not patient and rank.is_alive() and not rank.over:
                with contextlib.suppress(ValueError):
                    raise_in(rank.ident, Stop)
        for rank in alive:
            rank.join(0.02 / len(alive))
        return bool(alive)


def _calls(number):
    return f"{number} call{'s' * (number != 1)}"


def _circle(needs):
    "{rank: ranks that it waits for} -> a circle of them, the smallest first, or []."
    gone = set()  # ranks that lead into no circle
    for start in needs:
        path = [start]
        while path:
            onward = [r for r in needs[path[-1]] if r in needs and r not in gone]
            if not onward:
                gone.add(path.pop())
            elif onward[0] in path:
                circle = path[path.index(onward[0]) :]
                first = circle.index(min(circle))
                return circle[first:] + circle[:first]
            else:
                path.append(onward[0])
    return []
