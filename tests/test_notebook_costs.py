"""The plugin that measures notebooks: it counts children, and it can fail."""

import subprocess
import sys

from tests import notebook_costs
from utils.course import author

HOLD = """
import subprocess, sys
held = "x = bytearray({mb} * 2**20); print(0, flush=True); input()"
def test_holds():
    child = subprocess.Popen([sys.executable, "-c", held], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    import time
    time.sleep(2)
    child.communicate("\\n")
"""


def run(tmp_path, mb, cuda=False):
    file = tmp_path / "test_hold.py"
    file.write_text(HOLD.replace("{mb}", str(mb)))
    code = (
        "import sys, pytest; from tests import notebook_costs as c; c.LIMIT = 100;"
        f"c.CUDA = {cuda};"
        f"sys.exit(pytest.main([{str(file)!r}, '-q', '-p', 'no:cacheprovider',"
        "'-p', 'tests.notebook_costs', '-p', 'no:nbval', '-c', '/dev/null']))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=author.ROOT, capture_output=True, text=True
    )


def cost(done):
    line = next(x for x in done.stdout.splitlines() if x.startswith("cost "))
    return float(line.split()[2]), int(line.split()[4])


def test_what_a_child_holds_is_counted_and_too_much_fails(tmp_path):
    done = run(tmp_path, 180)
    seconds, megabytes = cost(done)
    assert 150 <= megabytes < 260 and 0.5 < seconds < 30, done.stdout
    assert done.returncode == 1 and "ABOVE 100 MB" in done.stdout


def test_with_cudas_libraries_much_is_only_told(tmp_path):
    done = run(tmp_path, 180, cuda=True)
    assert done.returncode == 0 and "ABOVE 100 MB" in done.stdout, done.stdout


def test_little_passes(tmp_path):
    done = run(tmp_path, 40)
    assert 30 <= cost(done)[1] < 100 and done.returncode == 0, done.stdout


def test_the_limit_leaves_room_on_binder():
    assert notebook_costs.LIMIT <= 1500
