"""A tornado server in a process of its own, on a free port of 127.0.0.1.

    with served.Server(file, limit=32) as server:       # an ONNX file of chapter 27
        ... server.port ...
    with served.Server(app="utils.built.streamed:app", options={...}) as server:

It tells its port, and ends with the block: its standard input is the thread it hangs on.
When that closes, by the context manager, by an error, by the end of the kernel, even by a
kill, the process ends by itself. It is in a session of its own, so that an interrupted cell
does not reach it twice. Built for chapter 27.

`app` names a function app(**options) -> tornado.web.Application, options made of JSON (and
of functions, which travel by cloudpickle). Its attribute `background`, if it has one, is an
async function that runs beside it; `max_body` are the most bytes of a body, else 1 MiB.
"""

import asyncio
import base64
import contextlib
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cloudpickle

from utils import given

ROOT = Path(__file__).parents[2]
MOST = 1 << 20  # bytes of a body, where an application does not say `max_body`


class Server:
    """A server while a `with` block runs: `port`, `address`, `process`.

    file    an ONNX file (chapter 27's model app), or None
    app     "module:function" that makes the application from `options`
    options keywords for it; without `app`: limit, wait, collect

    RuntimeError with what it wrote where it does not start within `patience` seconds.
    """

    def __init__(
        self, file=None, app="utils.built.served:model_app", patience=60, **options
    ):
        if file is not None:
            if not Path(file).is_file():
                raise ValueError(f"there is no model file {str(file)!r:.80}")
            options["file"] = str(file)
        if not isinstance(app, str) or app.count(":") != 1:
            raise ValueError(f'app is "module:function", not {app!r:.60}')
        options |= options.pop("options", {})
        self.app, self.options, self.patience = app, options, patience
        self.process = self.port = self.said = None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        settings = {name: os.environ[name] for name in os.environ}
        one = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        self.said = tempfile.TemporaryFile()  # no pipe: nobody would empty it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "utils.built.served"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
            cwd=ROOT, env=settings | one, start_new_session=True,
        )  # fmt: skip
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise
        return self

    def _begin(self):
        said = base64.b64encode(cloudpickle.dumps((self.app, self.options)))
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(said + b"\n")
            self.process.stdin.flush()
        wake = threading.Timer(self.patience, self.process.kill)
        wake.start()
        try:
            line = self.process.stdout.readline()
        finally:
            wake.cancel()
        if not line.startswith(b"port "):
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the server did not start: {self._last_line()}")
        self.port = int(line.split()[1])

    def _last_line(self):
        self.said.seek(0)
        told = self.said.read().decode(errors="replace").strip()
        return told.splitlines()[-1] if told else "it said nothing"

    def __exit__(self, kind, *_):
        code = self.process.poll()
        last = self._last_line() if code else ""
        self.stop()
        if code and kind is None:
            raise RuntimeError(f"the server ended by itself, code {code}: {last}")

    def stop(self):
        "End the process and wait for it; may be called twice."
        process = self.process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            for stream in (process.stdout, self.said):
                stream.close()


# ---- what stands in a queue ----


class Queue:
    """Requests that wait: `put`, and `get(timeout)` -> the next, or None after `timeout`.

    `now()` are seconds on the clock that timeouts are measured with. Requests whose
    client has gone are dropped.
    """

    def __init__(self):
        self.waiting, self.came = [], asyncio.Event()
        self.dropped = 0

    def now(self):
        return time.perf_counter()

    def put(self, request):
        self.waiting.append(request)
        self.came.set()

    def _next(self):
        while self.waiting:
            request = self.waiting.pop(0)
            if not request.answer.cancelled():
                return request
            self.dropped += 1
        self.came.clear()
        return None

    async def get(self, timeout=None):
        end = None if timeout is None else self.now() + timeout
        while (request := self._next()) is None:
            left = None if end is None else end - self.now()
            if left is not None and left <= 0:
                return None
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.came.wait(), left)
        return request


async def collect(queue, limit, wait):
    """The next batch: at most `limit` requests, in order; never an empty list.

    It waits without end for the first request and then at most `wait` seconds in all for
    others. What is there already is taken in any case; a full batch leaves at once.
    """
    batch = [await queue.get()]
    end = queue.now() + wait
    while len(batch) < limit:
        request = await queue.get(timeout=max(0.0, end - queue.now()))
        if request is None:
            break
        batch.append(request)
    return batch


class Waiting:
    "A request in the queue: what came, and a future for its answer."

    def __init__(self, x, start=0):
        self.x, self.start = x, start
        self.answer = asyncio.get_running_loop().create_future()


# ---- chapter 27's application ----


def refusal(body, sizes, start):
    "Why a body is no request, as (status, sentence), or None."
    import numpy as np

    if start not in sizes:
        return 404, f"layers begin at {sorted(sizes)}; there is none at {start!r}"
    size = sizes[start]
    if len(body) > 4 * size:
        return 413, f"too long: {4 * size} bytes are right, {size} float32 numbers"
    if len(body) != 4 * size:
        return 400, (
            f"{len(body)} bytes came: send {size} float32 numbers, little-endian, "
            f"{4 * size} bytes"
        )
    if not np.isfinite(np.frombuffer(body, "<f4")).all():
        return 400, "a number is nan or inf: send finite numbers"
    return None


def model_app(file, limit=1, wait=0.0, collect=collect):
    """The application of chapter 27: one row of float32 in, logits out, in batches.

    POST /       {"label", "logits", "batch"}: `batch` rows were computed together
    POST /3      the same, for what layer 2 hands to layer 3 (layers count from 0); after
                 the last layer's number: for logits
    GET /        {"requests", "batches", "refused", "dropped", "pid", "limit", "wait",
                 "seconds": of each layer, one row, measured when the server began}

    A body that does not fit gets 400 or 413 with {"error": what would be right}. limit: the
    most rows in a batch; wait: seconds for others.
    """
    import numpy as np
    from tornado.web import Application, RequestHandler, stream_request_body

    from utils.built import onnx_file

    data = Path(file).read_bytes()
    given.whole("limit", limit)
    given.number("wait", wait)
    chain, whole = [step for _, step in onnx_file.steps(data)], engine(data)
    sizes = _sizes(onnx_file.read(data), chain)
    seconds = _seconds(chain, sizes[0])
    longest, queue = 4 * max(sizes.values()), Queue()
    counts = {"requests": 0, "batches": 0, "refused": 0}

    async def work():
        while True:
            batch = await collect(queue, limit, wait)
            for start in sorted({request.start for request in batch}):
                same = [request for request in batch if request.start == start]
                x_BD = np.stack([request.x for request in same])
                if start == 0:
                    x_BD = whole(x_BD)
                for step in chain[start:] if start else ():
                    x_BD = step(x_BD)
                counts["batches"] += 1
                counts["requests"] += len(same)
                for request, logits in zip(same, x_BD):
                    if not request.answer.done():
                        request.answer.set_result((logits, len(same)))
            await asyncio.sleep(0)

    @stream_request_body
    class Model(RequestHandler):
        def prepare(self):
            self.body, self.waiting = bytearray(), None

        def data_received(self, part):
            if len(self.body) <= longest:  # more is read and not kept
                self.body += part

        async def post(self, start):
            start = int(start or 0)
            wrong = refusal(bytes(self.body), sizes, start)
            if wrong:
                counts["refused"] += 1
                self.set_status(wrong[0])
                return self.write({"error": wrong[1]})
            self.waiting = Waiting(np.frombuffer(bytes(self.body), "<f4"), start)
            queue.put(self.waiting)
            try:
                logits, rows = await self.waiting.answer
            except asyncio.CancelledError:
                return None  # the client has gone
            told = {
                "label": int(logits.argmax()),
                "logits": logits.tolist(),
                "batch": rows,
            }
            return self.write(told)

        def get(self, start):
            state = {"dropped": queue.dropped, "pid": os.getpid(), "seconds": seconds}
            self.write(counts | state | {"limit": limit, "wait": wait})

        def on_connection_close(self):
            if self.waiting is not None:
                self.waiting.answer.cancel()

        def write_error(self, status_code, **_):
            self.finish({"error": f"POST {4 * sizes[0]} bytes to /, or GET /"})

    class Other(RequestHandler):
        def prepare(self):
            self.set_status(404)
            self.finish({"error": f"POST {4 * sizes[0]} bytes to /, or GET /"})

    app = Application(
        [(r"/(\d{0,4})", Model), (r"/.*", Other)], log_function=lambda handler: None
    )
    app.background, app.max_body = work, 1 << 40  # what is too long gets its answer
    return app


def engine(data):
    """A whole file as one function, array (B, D) -> array (B, H), on one thread.

    ONNX Runtime where it is installed, else PyTorch. (NumPy would do; its products of a few
    rows cost as much as of many.)
    """
    with contextlib.suppress(ImportError):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        return lambda x_BD: session.run(None, {name: x_BD})[0]
    return _torch_engine(data)


def _torch_engine(data):
    import torch

    from utils.built import onnx_file

    torch.set_num_threads(1)
    found, chain = onnx_file.read(data), []
    for op, inputs, _, attributes in found["nodes"]:
        if op == "Relu":
            chain.append(torch.relu)
            continue
        W, *b = (torch.tensor(found["weights"][name]) for name in inputs[1:])
        b = b[0] if b else None
        W = W if attributes.get("transB") else W.T.contiguous()
        chain.append(lambda x, W=W, b=b: torch.nn.functional.linear(x, W, b))

    def run(x_BD):
        x_BD = torch.from_numpy(x_BD)
        with torch.inference_mode():
            for step in chain:
                x_BD = step(x_BD)
        return x_BD.numpy()

    return run


def _sizes(found, chain):
    "{layer: numbers it takes}, from the file; and how many the last one gives."
    from utils.built import onnx_file

    (_, width), sizes = onnx_file.taken(found), {}
    for k, (op, inputs, _, attributes) in enumerate(found["nodes"]):
        sizes[k] = width
        if op == "Gemm":
            axis = 0 if attributes.get("transB") else 1
            width = found["weights"][inputs[1]].shape[axis]
    return sizes | {len(chain): width}


def _seconds(chain, width, times=9):
    "Seconds that each layer takes for one row: the median of some tries."
    import numpy as np

    x, found = np.full((1, width), 0.5, np.float32), []
    for step in chain:
        tries = []
        for _ in range(times):
            began = time.perf_counter()
            after = step(x)
            tries.append(time.perf_counter() - began)
        found.append(float(np.median(tries)))
        x = after
    return found


# ---- the process ----


async def _serve(app):
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets

    sockets = bind_sockets(0, "127.0.0.1")
    most = getattr(app, "max_body", MOST)
    server = HTTPServer(app, max_body_size=most, max_buffer_size=4 * MOST)
    server.add_sockets(sockets)
    jobs = (
        [asyncio.ensure_future(app.background())] if hasattr(app, "background") else []
    )
    print(f"port {sockets[0].getsockname()[1]}", flush=True)
    os.dup2(2, 1)  # what an answer prints goes where errors go
    if not jobs:
        await asyncio.Event().wait()
    await asyncio.gather(*jobs)  # an error in it ends the server, and is told


def _end_with_parent():
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at the end
        pass
    os._exit(0)


def main():
    import logging

    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    app, options = cloudpickle.loads(base64.b64decode(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.platform == "win32":  # tornado needs the selector loop there
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())

    async def begin():
        await _serve(pkgutil.resolve_name(app)(**options))

    asyncio.run(begin())


if __name__ == "__main__":
    main()
