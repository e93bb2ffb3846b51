"""The scripts that chapters print, as they stand, on two "machines" over loopback.

Two torchrun agents with two ranks each meet at one rendezvous, and their four ranks run
one script after another: starting torchrun is what costs. One script more is run by them
and as a notebook would: both get the same sums and count the same bytes.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.two_machines import TORCHRUN, environ, free_port, said_by, start
from utils.files import ROOT

SCRIPT = re.compile(r"```python\n(# (\w+\.py)\n.*?ranks\.main\(.*?)```", re.S)
RUN_ALL = """
import contextlib, os, runpy, sys

for script in sys.argv[1:]:
    with open(f"{script}.{os.environ['RANK']}", "w") as file:
        with contextlib.redirect_stdout(file):
            runpy.run_path(script, run_name="__main__")
"""

AGREE = """
import os
import torch
from torch import distributed as dist
from utils import ranks

def fn(rank, world):
    x = torch.ones(4) * (rank + 1)
    with ranks.traffic() as sent:
        dist.all_reduce(x)
        if rank == 0:
            dist.send(x, 1)
        if rank == 1:
            dist.recv(x, 0)
    return rank, world, x.tolist(), sent.bytes, torch.get_num_threads()

print(ranks.main(fn, timeout=60) if "RANK" in os.environ else ranks.run(fn, 4))
"""


def between(low, high=float("inf")):
    "Whether all ranks print one and the same number, from low to high, last."
    return lambda said: (
        len(found := {text.split()[-1] for text in said}) == 1
        and low <= float(found.pop()) <= high
    )


PRINTS = {  # script: is what its four ranks printed right?
    "sums.py": lambda said: all("[10. 10. 10. 10.]" in text for text in said),
    "train.py": between(0.85),
    "sharded.py": between(1.0, 1.0),
    "pipe.py": lambda said: all(float(text.split()[-1]) < 1e-12 for text in said),
    "letters.py": between(97),
    "elastic.py": lambda said: len(set(said)) == 1 and "began at 0, " in said[0],
    "masked_sum.py": between(8.0, 8.0),  # 0.5 + 1.5 + 2.5 + 3.5
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


@pytest.mark.skipif(os.name == "nt", reason="torchrun over loopback needs POSIX")
def test_every_script_runs_on_two_machines_over_loopback(tmp_path):
    texts = scripts()
    assert sorted(texts) == sorted(PRINTS), "what a script prints is said in PRINTS"
    for name, text in {**texts, "agree.py": AGREE}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "run_all.py").write_text(RUN_ALL, encoding="utf-8")
    argv = [
        *TORCHRUN, "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-id", "all", "--rdzv-endpoint", f"127.0.0.1:{free_port()}",
        "run_all.py", *texts, "agree.py",
    ]  # fmt: skip
    agents = [start(argv, tmp_path, environ(OMP_NUM_THREADS="1")) for _ in range(2)]
    said_by(agents, 300)
    for name, right in PRINTS.items():
        said = [(tmp_path / f"{name}.{rank}").read_text() for rank in range(4)]
        assert right(said), f"{name}: {said}"
    notebook = subprocess.run(
        [sys.executable, "agree.py"], cwd=tmp_path, env=environ(), timeout=120,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    made = [eval((tmp_path / f"agree.py.{rank}").read_text()) for rank in range(4)]
    assert made == eval(notebook.stdout)
    assert made[0] == (0, 4, [10.0] * 4, 16, 1)
