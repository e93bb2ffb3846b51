"""The scripts that chapters print, as they stand, on two "machines" over loopback.

Two torchrun agents with two ranks each meet at one rendezvous, and their four ranks run
one script after another: starting torchrun is what costs.
"""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

from utils.files import ROOT

SCRIPT = re.compile(r"```python\n(# (\w+\.py)\n.*?ranks\.main\(.*?)```", re.S)
RUN_ALL = """
import runpy, sys

for script in sys.argv[1:]:
    print(f"begin {script}", flush=True)
    runpy.run_path(script, run_name="__main__")
"""


def alike(word, low, high=float("inf")):
    "All four ranks print the same number after this word, between low and high."
    return lambda said: (
        len(found := re.findall(rf"{word} (\d+\.\d+)", said)) == 4
        and len(set(found)) == 1
        and low <= float(found[0]) <= high
    )


def small(word, most):
    "All four ranks print a number of at most this size."
    return lambda said: (
        len(found := re.findall(rf"{word} (\S+)", said)) == 4
        and max(map(float, found)) <= most
    )


PRINTS = {
    "sums.py": lambda said: said.count(" [10. 10. 10. 10.]") == 4,  # 1 + 2 + 3 + 4
    "train.py": alike("accuracy", 0.85),
    "sharded.py": alike("words per parameter", 1.0, 1.0),
    "pipe.py": small("gap", 1e-12),
    "masked_sum.py": alike("sum", 8.0, 8.0),  # 0.5 + 1.5 + 2.5 + 3.5
}


def scripts():
    "{name: text} of every script for torchrun that a chapter prints."
    found = {}
    for file in sorted((ROOT / "solutions").glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
        for script in SCRIPT.finditer("\n".join(texts)):
            found[script[2]] = script[1]
    return found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def two_agents(folder, *arguments):
    "Run this Python file under two agents of two ranks: what both printed."
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": loopback,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "torch.distributed.run", "--local-addr", "127.0.0.1",
        "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-id", "all", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", *arguments,
    ]  # fmt: skip
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    agents = [
        subprocess.Popen(command, cwd=folder, env=env, **options) for _ in range(2)
    ]
    try:
        said = [agent.communicate(timeout=300)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], said
    return "".join(said)


@pytest.mark.skipif(os.name == "nt", reason="torchrun over loopback needs POSIX")
def test_every_script_runs_on_two_machines_over_loopback(tmp_path):
    texts = scripts()
    assert sorted(texts) == sorted(PRINTS), "what a script prints is said in PRINTS"
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "run_all.py").write_text(RUN_ALL, encoding="utf-8")
    said = two_agents(tmp_path, "run_all.py", *texts)
    wrong = [name for name, right in PRINTS.items() if not right(said)]
    assert not wrong, said
