"""Open-loop load: requests leave when they are due, whatever has become of the others.

A latency counts from the moment a request was DUE, not from when the client came round to
sending it. Counting from the send hides the wait behind a stall (coordinated omission).
Built for chapter 27.
"""

import asyncio
import contextlib
import json
import math
import time
from dataclasses import dataclass

import numpy as np

from utils import given


def arrivals(rate, n, seed=0):
    "When n requests are due (n,), in seconds: gaps are exponential, `rate` in a second."
    given.number("rate", rate, above=0)
    gaps = np.random.default_rng(seed).exponential(1 / rate, given.whole("n", n))
    return np.cumsum(gaps)


def _seconds(name, x_N):
    if not np.isfinite(x_N).all():
        raise ValueError(f"{name} holds nan or inf: it is seconds, finite numbers")


def _rising(due_N):
    _seconds("due_N", due_N)
    if (fall := np.flatnonzero(np.diff(due_N.astype(float)) < 0)).size:
        n = int(fall[0])
        raise ValueError(
            f"due_N rises: request {n + 1} is due at {due_N[n + 1]:g}, before request {n} "
            f"at {due_N[n]:g}; sort it"
        )


def latencies(due, done):
    "Seconds from when each request was due to its answer: (n,), (n,) -> (n,)."
    due_N, done_N = given.arrays(due_N=due, done_N=done)
    _seconds("due", due_N)
    return done_N - due_N


def percentile(x, q):
    "The smallest of the values x that at least q percent of them do not exceed."
    x_N = np.sort(given.arrays(x_N=x))
    if not len(x_N):
        raise ValueError("there is no percentile of no values")
    if np.isnan(x_N).any():
        raise ValueError("x holds nan: it has no place in an order")
    if not 0 < given.number("q", q) <= 100:
        raise ValueError(f"q is a percentage above 0 and up to 100, not {q!r}")
    return float(x_N[max(0, math.ceil(q * len(x_N) / 100 - 1e-9) - 1)])


def queued(due_N, seconds_N):
    """Latencies of a server that does one request at a time, first come first served.

    due_N (N,) rising; seconds_N (N,): how long each takes. -> (N,), from the due time.
    """
    due_N, seconds_N = given.arrays(due_N=due_N, seconds_N=seconds_N)
    _rising(due_N)
    _seconds("seconds_N", seconds_N)
    if len(seconds_N) and seconds_N.min() < 0:
        raise ValueError(f"seconds_N are at least 0, not {seconds_N.min():g}")
    free, latency_N = 0.0, np.zeros(len(due_N))
    for n, due in enumerate(due_N):
        free = max(free, due) + seconds_N[n]
        latency_N[n] = free - due
    return latency_N


def batched(due_N, seconds, limit, wait):
    """A server that collects batches, by computing: -> latencies (N,), batch sizes.

    seconds: a function, rows in a batch -> seconds. A batch begins with the first request
    that is there when the server is free; it leaves when it has `limit` rows, or `wait`
    seconds after it began, whichever is first.
    """
    due_N, limit = given.arrays(due_N=due_N), given.whole("limit", limit)
    _rising(due_N)
    given.function("seconds", seconds)
    given.number("wait", wait)
    latency_N, sizes, n, free = np.zeros(len(due_N)), [], 0, 0.0
    while n < len(due_N):
        begin = max(free, due_N[n])
        last = min(n + limit, len(due_N))
        there = n + int(np.searchsorted(due_N[n:last], begin + wait, side="right"))
        full = there == n + limit
        leave = max(begin, due_N[there - 1]) if full else begin + wait
        free = leave + given.number("seconds of a batch", seconds(there - n))
        latency_N[n:there] = free - due_N[n:there]
        sizes.append(there - n)
        n = there
    return latency_N, sizes


@dataclass
class Answer:
    "One answer of a server: when due, sent and done (seconds), status, body as bytes."

    due: float
    sent: float
    done: float
    status: int
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Link:
    "A link of a known rate: bytes a second that leave this client, and no faster."

    def __init__(self, rate):
        self.rate, self.free = given.number("rate", rate, above=0), 0.0

    async def send(self, writer, data, piece=512):
        "Write data piece by piece; the last byte leaves len(data) / rate after the first."
        self.free = max(self.free, time.perf_counter())
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            self.free += len(part) / self.rate
            await asyncio.sleep(max(0.0, self.free - time.perf_counter()))
            writer.write(part)
            await writer.drain()


async def request(
    port, body=b"", path="/", method="POST", link=None, timeout=30, kept=None
):
    """One HTTP request to 127.0.0.1: -> (status, body as bytes).

    kept: a list of open connections to take from and give back to; link: a Link that
    paces what is sent. TimeoutError after `timeout` seconds.
    """

    async def talk(reader, writer):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode())
        if link is None:
            writer.write(body)
        else:
            await link.send(writer, body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        said = {name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:])}  # fmt: skip
        answer = await reader.readexactly(int(said.get("content-length", 0)))
        return int(lines[0].split()[1]), answer, said.get("connection") != "close"

    reader, writer = (
        kept.pop() if kept else await asyncio.open_connection("127.0.0.1", port)
    )
    stays = False
    try:
        status, answer, stays = await asyncio.wait_for(talk(reader, writer), timeout)
        return status, answer
    finally:
        if stays and kept is not None:
            kept.append((reader, writer))
        else:
            await _close(writer)


async def _close(writer):
    "Close a connection, and wait until it is."
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def offer(port, due, bodies, path="/", link=None, timeout=30):
    """Send bodies[n % len(bodies)] at due[n] seconds from now: -> [Answer, ...], in order.

    Open loop: no request waits for another's answer. A request without an answer within
    `timeout` seconds has the status 0. All connections are closed at the end.
    """
    due_N, kept = given.arrays(due_N=due), []
    _seconds("due", due_N)
    begin = time.perf_counter() + 0.05

    async def one(n):
        await asyncio.sleep(max(0.0, begin + due_N[n] - time.perf_counter()))
        sent = time.perf_counter() - begin
        try:
            body = bodies[n % len(bodies)]
            status, answer = await request(
                port, body, path, "POST", link, timeout, kept
            )
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            status, answer = 0, repr(error).encode()
        done = time.perf_counter() - begin
        return Answer(float(due_N[n]), sent, done, status, answer)

    try:
        return await asyncio.gather(*(one(n) for n in range(len(due_N))))
    finally:
        for _, writer in kept:
            await _close(writer)
