"What a reader sees of a call: the prints of its ranks, and errors without our inside."

import sys
import traceback
import types
from pathlib import Path

from utils.ranks import worker

MOST = 20_000  # characters of print that are shown of one rank, from both its ends
INSIDE = str(Path(__file__).parent)


def prints(folder, n):
    "What each rank printed, in the order of ranks, to stdout and stderr."
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        said = [_said(folder / f"{name}.{rank}", rank) for rank in range(n)]
        if any(said):
            stream.write("".join(said))
            stream.flush()


def _said(file, rank):
    "A rank's print, each line labelled; the middle of a long one is left out."
    if not file.exists():
        return ""
    text = file.read_bytes()
    if len(text) > MOST:
        head, tail = text[: MOST * 3 // 4], text[-MOST // 4 :]
        head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        left_out = len(text) - len(head) - len(tail)
        text = head + b"... %d bytes are left out here ...\n" % left_out + tail
    lines = worker.cells(text.decode("utf-8", errors="replace")).split("\n")
    if lines[-1] == "":
        lines.pop()
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]  # progress bars
    return "".join(f"[rank {rank}] {line}\n" for line in lines)


# ---- tracebacks ----


def interrupted(n):
    "The KeyboardInterrupt that a reader sees: one sentence."
    error = KeyboardInterrupt(
        f"ranks.run was interrupted, and its {n} rank{'s' * (n > 1)} ended"
    )
    error._render_traceback_ = lambda: without_ours(error)  # what IPython asks for
    return error


def without_ours(error):
    "The lines in which IPython shows this error: the reader's frames, none of ours."
    steps, step = [], error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(INSIDE):
            steps.append(step)
        step = step.tb_next
    shorter = None
    for step in reversed(steps):
        shorter = types.TracebackType(
            shorter, step.tb_frame, step.tb_lasti, step.tb_lineno
        )
    try:
        from IPython import get_ipython

        show = get_ipython().InteractiveTB.structured_traceback
        return show(type(error), error, shorter, tb_offset=1)  # 1: IPython's own frame
    except Exception:
        return traceback.format_exception(type(error), error, shorter)
