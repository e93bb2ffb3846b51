"""What chapter 28 builds: the engine behind HTTP, tokens sent as they are written.

    with served.Server(app="utils.built.streamed:app", options={"model": model}) as server:
        replies = await streamed.offer(server.port, due, [{"prompt": [3, 1], "count": 20}])

POST /generate takes {"prompt": [ids], "count": n, "temperature": 0, "seed": 0} and answers
with server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html),
one line `data: {"token": 5}` and an empty line for each token, at last
`data: {"done": true, "tokens": n}`. A request that cannot be served gets its status and
{"error": what would be right}; who closes the connection gives the blocks back. GET /
tells the counts. See built/served.py for the process.
"""

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass, field

from utils import given
from utils.built import engine, load

MOST_BODY = 1 << 20  # bytes; more is refused before it is read
USAGE = (
    'POST /generate with JSON: {"prompt": [whole numbers], "count": tokens to write}, and '
    'if you like "temperature" and "seed"; GET / tells the counts'
)
KNOWN = {"prompt", "count", "temperature", "seed"}


def parse(body):
    "The body of a request -> (its fields, '') or (None, a sentence that says what is wrong)."
    try:
        fields = json.loads(body)
    except ValueError:  # bytes that are no UTF-8 are one, too
        return None, f"the body is no JSON. {USAGE}"
    if not isinstance(fields, dict) or not {"prompt", "count"} <= set(fields):
        return None, USAGE
    if strange := sorted(set(fields) - KNOWN):
        return None, f"{strange[0]!r:.40} is no field here. {USAGE}"
    fields = {"temperature": 0.0, "seed": 0} | fields
    warm = fields["temperature"]
    if (
        isinstance(warm, bool)
        or not isinstance(warm, (int, float))
        or not (warm == 0 or engine.COLDEST <= warm <= 100)
    ):
        return None, f"temperature is 0 or a number from {engine.COLDEST} to 100"
    if type(fields["seed"]) is not int or not 0 <= fields["seed"] < 2**63:
        return None, "seed is a whole number from 0 to 2**63 - 1"
    if not isinstance(fields["prompt"], list):
        return None, "prompt is a list of whole numbers, a token each"
    return fields, ""


def app(model, slots=8, blocks=64, block=16, budget=None, queue=1000):
    """The application: an Engine with these settings that steps while somebody waits.

    queue: the most requests that wait; others get 503.
    """
    import torch
    from tornado.iostream import StreamClosedError
    from tornado.web import Application, RequestHandler, stream_request_body

    torch.set_num_threads(1)
    served = engine.Engine(model.eval(), slots, blocks, block, budget)
    streams, came, told = {}, asyncio.Event(), {"refused": 0, "finished": 0}
    given.whole("queue", queue)

    async def work():
        while True:
            came.clear()
            while not served.idle:
                for number, token, done in served.step():
                    streams[number].put_nowait((token, done))
                    if done:
                        del served.done[number]
                await asyncio.sleep(0)  # read what came, send what was written
                await asyncio.sleep(0)
            await came.wait()

    class Answer(RequestHandler):
        number = None

        def refuse(self, status, why):
            told["refused"] += 1
            self.set_status(status)
            return self.finish({"error": why})

        def write_error(self, status_code, **_):
            self.finish({"error": USAGE})

    @stream_request_body
    class Generate(Answer):
        def prepare(self):
            self.body = bytearray()
            if int(self.request.headers.get("Content-Length", 0)) > MOST_BODY:
                self.refuse(413, f"too long: a body has at most {MOST_BODY} bytes")

        def data_received(self, part):
            if len(self.body) <= MOST_BODY:
                self.body += part

        async def post(self):
            fields, why = parse(bytes(self.body))
            if why:
                return await self.refuse(400, why)
            try:
                served.accept(fields["prompt"], fields["count"])
            except engine.TooLong as error:
                return await self.refuse(413, str(error))
            except ValueError as error:
                return await self.refuse(400, str(error))
            if len(served.waiting) >= queue:
                self.set_header("Retry-After", "1")
                return await self.refuse(
                    503, f"{queue} requests wait already: try later"
                )
            self.number = served.add(**fields)
            tokens = streams[self.number] = asyncio.Queue()
            came.set()
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("Cache-Control", "no-store")
            written, done = 0, False
            try:
                while not done:
                    token, done = await tokens.get()
                    if token is None:
                        return None  # the client has gone
                    written += 1
                    await self._event({"token": token})
                told["finished"] += 1
                await self._event({"done": True, "tokens": written})
            except StreamClosedError:
                self._gone()
            finally:
                streams.pop(self.number, None)
            return None

        async def _event(self, said):
            self.write(f"data: {json.dumps(said)}\n\n")
            await self.flush()

        def on_connection_close(self):
            self._gone()

        def _gone(self):
            if self.number is not None and served.cancel(self.number):
                streams[self.number].put_nowait((None, True))

    class State(Answer):
        def get(self):
            self.write(
                told | {name: served.counts[name] for name in sorted(served.counts)}
                | {"waiting": len(served.waiting), "running": len(served.running),
                   "free": len(served.pool.free), "blocks": blocks, "pid": os.getpid()}
            )  # fmt: skip

    class Other(Answer):
        def prepare(self):
            self.refuse(404, USAGE)

    made = Application(
        [(r"/", State), (r"/generate", Generate), (r"/.*", Other)],
        log_function=lambda handler: None,
    )
    made.background, made.max_body = work, 1 << 40  # what is too long gets its answer
    return made


# ---- clients ----


@dataclass
class Reply:
    """What came back: seconds from the same zero, tokens and when each one came.

    status 0: no answer. `error` is the server's sentence.
    """

    due: float
    status: int = 0
    tokens: list = field(default_factory=list)
    times: list = field(default_factory=list)
    error: str = ""
    whole: bool = False

    @property
    def first(self):
        "Seconds from when it was due to its first token."
        return self.times[0] - self.due

    @property
    def each(self):
        "Seconds per token after the first."
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


async def ask(port, request, due=0.0, zero=None, stop=None, timeout=60, path="/generate",
              method="POST"):  # fmt: skip
    """One request to 127.0.0.1 (a dict, or bytes as they are): -> Reply.

    stop: close the connection after so many tokens. zero: the perf_counter of second 0.
    """
    zero = time.perf_counter() if zero is None else zero
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    reply = Reply(due)

    async def talk():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            )
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            top = (await reader.readuntil(b"\r\n\r\n")).decode()
            reply.status = int(top.split()[1])
            if "text/event-stream" not in top:
                size = [
                    x
                    for x in top.lower().split("\r\n")
                    if x.startswith("content-length")
                ]
                data = await reader.readexactly(int(size[0].split(":")[1]))
                reply.error = json.loads(data)["error"]
                return
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                said = json.loads(line[6:])
                if said.get("done"):
                    reply.whole = True
                    return
                reply.tokens.append(said["token"])
                reply.times.append(time.perf_counter() - zero)
                if stop is not None and len(reply.tokens) >= stop:
                    return
        finally:
            writer.close()

    with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
        await asyncio.wait_for(talk(), timeout)
    return reply


async def offer(port, due, requests, timeout=60):
    "Each request leaves when it is due, whatever became of the others: -> [Reply, ...]."
    due = [given.number(f"due[{n}]", when) for n, when in enumerate(due)]
    zero = time.perf_counter() + 0.05

    async def one(when, request):
        await asyncio.sleep(max(0.0, zero + when - time.perf_counter()))
        return await ask(port, request, float(when), zero, timeout=timeout)

    return await asyncio.gather(
        *(one(w, r) for w, r in zip(due, requests, strict=True))
    )


async def state(port):
    "The server's counts: a dict."
    _, data = await load.request(port, method="GET")
    return json.loads(data)
