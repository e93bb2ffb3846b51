"""Two "machines" over loopback: torchrun agents, and stand-ins for Slurm's commands."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

from utils.files import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1"]


def text_of(chapter, cell, language):
    "The code block of a text cell of a chapter: text_of('17_data_parallel', ...)."
    file = ROOT / "solutions" / f"{chapter}.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(c["source"]) for c in cells if c["id"] == cell]
    return re.search(rf"```{language}\n(.*?)```", source, re.S)[1]


def command(folder, name, text):
    file = folder / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environ(**more):
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    course = {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": loopback}
    return {**os.environ, **course, **more}


def start(argv, folder, env):
    "A process with a group of its own, whose output is read together."
    return subprocess.Popen(
        argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def end_agents(group):
    "End a process group of agents: told to stop, they end their ranks, in other groups."
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        time.sleep(3)
        os.killpg(group, signal.SIGKILL)


def said_by(started, seconds):
    "What processes printed; all end well, and none is left."
    try:
        said = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                end_agents(process.pid)
    assert [process.returncode for process in started] == [0] * len(started), said
    return "".join(said)


def slurm_job(folder, chapter, script, options="", text=None, **more):
    """The chapter's Slurm file as it stands, and its script or another `text` of that
    name, on two agents of a rank each: what they printed. srun starts its command once
    per "machine".
    """
    (folder / script).write_text(text or text_of(chapter, "script", "python"))
    (folder / "job.sh").write_text(text_of(chapter, "slurm", "bash"))
    tools = folder / "tools"
    tools.mkdir()
    command(tools, "scontrol", "echo 127.0.0.1; echo 127.0.0.2")
    # an error of either is one of srun
    command(tools, "srun", '"$@" & one=$!\n"$@" & two=$!\nwait $one && wait $two')
    python, *rest = TORCHRUN
    command(tools, "torchrun", f'exec "{python}" {" ".join(rest)} {options} "$@"')
    env = environ(
        PATH=f"{tools}{os.pathsep}{os.environ['PATH']}", RANKS="1",
        PORT=str(free_port()), SLURM_NNODES="2", SLURM_JOB_ID="7",
        SLURM_JOB_NODELIST="machines", **more,
    )  # fmt: skip
    return said_by([start(["bash", "job.sh"], folder, env)], 240)
