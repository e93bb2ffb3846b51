"""No notebook reaches a network, and in a notebook a warning is an error.

192.0.2.1 belongs to no machine: the range is kept for examples.
"""

import os
import socket
import subprocess
import sys

import pytest

from tests.test_exercise_contract import run_cells
from utils.course import author, running

TRY = """
import socket
def attempt(address):
    with socket.socket() as s:
        s.settimeout(2)
        try:
            s.connect(address)
        except OSError as error:
            ours = " by the tests" if "offline" in str(error) else ""
            return type(error).__name__ + ours
        return "connected"
"""
AWAY = ("192.0.2.1", 9)
BY_US = "ConnectionRefusedError by the tests"


def python(folder, program, *arguments):
    "What a program prints when the author's environment surrounds it."
    file = folder / "program.py"
    file.write_text(program)
    environ = {**os.environ, **running.environment(folder)}
    done = subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def noted(folder):
    "The connections that were refused and noted."
    file = folder / "outbound.txt"
    return file.read_text().splitlines() if file.exists() else []


def test_a_public_address_is_refused_and_noted(tmp_path):
    assert python(tmp_path, f"{TRY}\nprint(attempt({AWAY}))") == [BY_US]
    assert noted(tmp_path) == [f"program.py: socket.connect {AWAY}"]


WAYS = {
    "connect_ex": f"socket.socket().connect_ex({AWAY})",
    "sendto": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {AWAY})",
    "sendmsg": f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, {AWAY})",
    "getaddrinfo": "socket.getaddrinfo('host.invalid', 80)",
    "bytes": "socket.getaddrinfo(b'host.invalid', 80)",
    "gethostbyname": "socket.gethostbyname('host.invalid')",
    "create": f"socket.create_connection({AWAY})",
    "ipv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))",
    "urlopen": "from urllib.request import urlopen; urlopen('http://host.invalid/')",
    "asyncio": f"import asyncio; asyncio.run(asyncio.open_connection(*{AWAY}))",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_refused(tmp_path, way):
    if way == "ipv6" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    if way == "sendmsg" and not hasattr(socket.socket, "sendmsg"):
        pytest.skip("no sendmsg here")
    program = (
        f"import socket\ntry:\n    {WAYS[way]}\nexcept OSError as e:\n    print(e)"
    )
    (said,) = python(tmp_path, program)
    assert "the tests run offline" in said
    assert len(noted(tmp_path)) >= 1


LOOPBACK = f"""{TRY}
import platform
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    print(attempt(("127.0.0.1", port)), attempt(("localhost", port)))
socket.getaddrinfo(None, 0), socket.getaddrinfo("localhost", 0)
socket.gethostbyname("")
left, right = socket.socketpair()
left.sendall(b"x")
print(right.recv(1))
"""


def test_this_machine_may_be_reached(tmp_path):
    assert python(tmp_path, LOOPBACK) == ["connected connected", "b'x'"]
    assert noted(tmp_path) == []


CHILDREN = f"""{TRY}
import multiprocessing, subprocess, sys

def child(queue):
    queue.put(attempt({AWAY}))

if __name__ == "__main__":
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        print(queue.get(timeout=30))
        process.join()
    command = [sys.executable, "-c", {TRY!r} + "print(attempt({AWAY}))"]
    print(subprocess.run(command, capture_output=True, text=True).stdout.strip())
"""


def test_processes_that_a_process_starts_are_refused_too(tmp_path):
    methods = [m for m in ("forkserver", "spawn") if m == "spawn" or os.name == "posix"]
    assert python(tmp_path, CHILDREN, *methods) == [BY_US] * (len(methods) + 1)
    assert len(noted(tmp_path)) == len(methods) + 1


def test_without_the_environment_nothing_is_refused(tmp_path):
    environ = {k: v for k, v in os.environ.items() if k != "COURSE_OUTBOUND"}
    environ["PYTHONPATH"] = str(author.ROOT / "tests" / "guard")
    program = "import sys, sitecustomize; print(sitecustomize.__file__)"
    program += "\nimport socket\nprint(socket.getaddrinfo('127.0.0.1', 0) != [])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True
    )
    assert "guard" in done.stdout and done.stdout.endswith("True\n"), done.stderr


KERNEL = f"""{TRY}
import subprocess, sys
print(attempt({AWAY}))
with socket.create_server(("127.0.0.1", 0)) as server:
    print(attempt(server.getsockname()))
command = [sys.executable, "-c", {TRY!r} + "print(attempt({AWAY}))"]
print(subprocess.run(command, capture_output=True, text=True).stdout.strip())
""", """
import warnings
for warning in (UserWarning, DeprecationWarning, RuntimeWarning, FutureWarning):
    try:
        warnings.warn("from a cell", warning)
    except Warning as error:
        print(type(error).__name__)
import numpy as np
try:
    np.log(np.zeros(1))
except RuntimeWarning as error:
    print(error)
""", """
import sys
quiet = "torch._dynamo.x torch.jit traitlets zmq.a ipykernel.b IPython.c".split()
loud = "torch torch.nn mytraitlets torchxjit utils.plots numpy".split()
for name in quiet + loud:
    try:
        warnings.warn_explicit("text", UserWarning, "file", 1, module=name)
    except UserWarning:
        print(name, end=" ")
warnings.warn("left open", ResourceWarning)
"""  # fmt: skip


def test_a_kernel_is_offline_and_strict_about_warnings(tmp_path):
    offline, strict, listed = run_cells(tmp_path, *KERNEL)
    assert offline[0]["text"].splitlines() == [BY_US, "connected", BY_US]
    assert len(noted(tmp_path)) == 2
    assert strict[0]["text"].splitlines() == [
        "UserWarning", "DeprecationWarning", "RuntimeWarning", "FutureWarning",
        "divide by zero encountered in log",
    ]  # fmt: skip
    assert [o["name"] for o in listed] == ["stdout"]
    assert (
        listed[0]["text"] == "torch torch.nn mytraitlets torchxjit utils.plots numpy "
    )


def test_the_environment_leaves_progress_alone_and_keeps_the_path(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", "mine")
    environ = running.environment(tmp_path)
    assert environ["COURSE_PROGRESS"] == "off"
    guard, mine = environ["PYTHONPATH"].split(os.pathsep)
    assert mine == "mine" and os.path.isfile(os.path.join(guard, "sitecustomize.py"))
    assert running.environment(tmp_path) == environ, "twice in one folder"
