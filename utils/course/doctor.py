"""What a bug report needs: `python3 start.py doctor`.

Standard library only at import, no network, and every part may fail without stopping
the rest. What needs torch is asked of a second process, which may crash or hang.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import start
from utils.course import homes, setup, venv
from utils.course.packages import LISTS, more, pinned, pins, read, wrong, wrong_pins
from utils.course.sentences import DOWNLOADS, start_py

THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
APPS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
mps = torch.backends.mps.is_available()
print(json.dumps({
    "version": torch.__version__, "built for CUDA": torch.version.cuda,
    "threads": torch.get_num_threads(), "between": torch.get_num_interop_threads(),
    "devices": [torch.cuda.get_device_name(i)
                for i in range(torch.cuda.device_count())],
    "cuda": cuda, "mps": mps,
    "bf16": cuda and torch.cuda.is_bf16_supported(),
}))
"""
NEW = start_py()
STATES = {
    "missing": (".venv is not there yet", NEW),
    "unfinished": (".venv is unfinished", f"{NEW}, which makes it anew"),
    "broken": (".venv is broken", f"{NEW}, which makes it anew"),
    "changed": (
        ".venv differs from environment.yml",
        f"{NEW}, which installs the rest",
    ),
}


def ask(command, timeout=20):
    """What a program prints, or None when it is missing, fails or takes too long."""
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return None


def gigabytes(count):
    """12345678901 -> '12.3 GB'."""
    return f"{count / 1e9:.1f} GB"


def first_line(path, key):
    """The value of the first 'key: value' line of a file, or None."""
    for line in (read(Path(path)) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def course(root):
    """The commit of the course and how many of its files differ from it."""
    commit = ask(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"])
    if commit is None:
        return "no git commit here"
    changed = ask(["git", "-C", str(root), "status", "--porcelain"]) or ""
    return f"commit {commit.strip()}, {len(changed.splitlines())} files changed"


def system():
    """The operating system and the machine's architecture."""
    name = first_line("/etc/os-release", "PRETTY_NAME") or ""
    for line in (read(Path("/etc/os-release")) or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            name = line.partition("=")[2].strip('"')
    return f"{platform.platform()} {platform.machine()} {name}".strip()


def cpu():
    """The processor's name, its cores, and those this process may use."""
    name = (
        first_line("/proc/cpuinfo", "model name")
        or (ask(["sysctl", "-n", "machdep.cpu.brand_string"]) or "").strip()
        or platform.processor()
        or "unknown"
    )
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "all"
    )
    return f"{name}, {os.cpu_count()} cores, {allowed} for this process"


def cpu_has():
    """What the processor can do that changes speed, as far as Linux tells."""
    flags = (first_line("/proc/cpuinfo", "flags") or "").split()
    known = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"]
    if not flags:
        return "unknown"
    return ", ".join(f"{flag} {'yes' if flag in flags else 'no'}" for flag in known)


def memory():
    """(total, available) bytes, the limit of a container counted in, or None."""
    total = first_line("/proc/meminfo", "MemTotal")
    free = first_line("/proc/meminfo", "MemAvailable")
    if total and free:
        total, free = (int(text.split()[0]) * 1024 for text in (total, free))
    else:
        try:
            import psutil
        except ImportError:
            return None
        total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    limit = (read(Path("/sys/fs/cgroup/memory.max")) or "").strip()
    if limit.isdigit() and int(limit) < total:
        total, free = int(limit), min(free, int(limit))
    return total, free


def threads(facts):
    """The settings of threads and what torch makes of them."""
    settings = [f"{name}={os.environ.get(name, 'unset')}" for name in THREADS]
    if facts:
        settings.append(
            f"torch {facts['threads']} in, {facts['between']} between operations"
        )
    return ", ".join(settings)


def torch_facts():
    """What torch says of itself, as a dict, or None when it cannot be asked."""
    said = ask([sys.executable, "-c", ASK_TORCH], timeout=120)
    try:
        return json.loads((said or "").splitlines()[-1])
    except (ValueError, IndexError):
        return None


def nvidia():
    """The NVIDIA devices that the driver lists, one a line, or None."""
    query = "--query-gpu=name,memory.total,driver_version"
    said = ask(["nvidia-smi", query, "--format=csv,noheader"])
    return said.strip() or None if said else None


def accelerators(facts, driver):
    """The accelerators that the driver and torch see."""
    parts = [
        f"driver: {'; '.join(driver.splitlines())}" if driver else "no NVIDIA driver"
    ]
    if facts:
        devices = ", ".join(facts["devices"]) or "none"
        bf16 = "with" if facts["bf16"] else "without"
        parts.append(f"CUDA devices in torch: {devices}")
        parts += [f"{bf16} bf16"] * facts["cuda"]
        parts.append(f"MPS: {'yes' if facts['mps'] else 'no'}")
    return ", ".join(parts)


def chromium():
    """Where the browser test would find a Chromium, or None."""
    found = [path for path in map(shutil.which, CHROMIUMS) if path]
    return (found + [path for path in APPS if Path(path).exists()] + [None])[0]


def runs_in_venv(root):
    """Whether this Python is the one of the course's .venv."""
    return os.path.realpath(sys.prefix) == os.path.realpath(str(venv.venv_of(root)))


def packages(root):
    """(a line on the pins, [what is missing or different])."""
    wrong = [
        f"{name} {installed or 'missing'} (wanted {wanted})"
        for name, wanted, installed in wrong_pins(root)
    ]
    total = len(pins(root))
    return f"{total - len(wrong)} of {total} as in environment.yml", wrong


def list_of(root, name):
    """What is installed of one of the lists that not everybody needs."""
    pairs = pinned(more(root, name))
    differ = wrong(pairs)
    said = f"{len(pairs) - len(differ)} of {len(pairs)} as pinned"
    command = "test" if name == "authors" else name
    return said + (f" ({start_py(command)} adds the rest)" if differ else "")


def home():
    """Where Jupyter, IPython and matplotlib keep their files."""
    ours = os.environ.get(homes.OURS)
    if ours:
        return f"cannot be written: {short(ours)} is used in its place"
    lost = homes.lost(os.environ)
    if lost:
        return f"cannot be written, and nothing stands in for {', '.join(lost)}"
    return "can be written"


def findings_of_setup(root, here):
    """What is wrong with Python and .venv: [(finding, what to do)]."""
    found = []
    try:
        start.check_python(sys.version_info, here)
    except start.Problem:
        what = f"Python {platform.python_version()} is not supported"
        supported = f"{start.dotted(start.OLDEST)} to {start.dotted(start.NEWEST)}"
        found.append((what, f"use Python {supported}: {DOWNLOADS}"))
    try:
        setup.check_length(root)
    except start.Problem:
        what = f"the course's path has {len(str(root))} characters"
        found.append((what, f"move it to one of at most {setup.LONGEST_ROOT}"))
    state = "ready" if here else venv.state(root)
    if state in STATES:
        found.append(STATES[state])
    lost = [name for name, _, got in wrong_pins(root) if not got] if here else []
    if lost:
        found.append((f"not in this Python: {', '.join(lost)}", "install them"))
    return found, state


def findings_of_machine(root, facts, driver, ready):
    """What the machine is short of: [(finding, what to do)]."""
    found = []
    free = shutil.disk_usage(str(root)).free
    room = memory()
    if free < 1e9:
        found.append((f"the disk has {gigabytes(free)} left", "free at least 1 GB"))
    if room and room[1] < 1e9:
        found.append(
            (f"{gigabytes(room[1])} of memory are free", "close other programs")
        )
    if ready and facts is None:
        found.append(("torch does not load", f"delete .venv, then {NEW}"))
    if facts and driver and not facts["built for CUDA"]:
        what = "an NVIDIA device is here, and torch is the build without CUDA"
        found.append((what, f"delete .venv, then {NEW}"))
    if facts and driver and facts["built for CUDA"] and not facts["cuda"]:
        found.append(("torch cannot use the NVIDIA device", "update NVIDIA's driver"))
    if os.environ.get("COURSE_BROWSER") == "required" and not chromium():
        found.append(("no Chromium for the browser test", "install chromium"))
    return found


def guarded(function, *arguments):
    """A function's answer, or a note of its failure: a doctor never falls ill."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"could not be told ({type(error).__name__}: {error})"


def short(path):
    """A path without the reader's name."""
    return re.sub("^" + re.escape(str(Path.home())), "~", str(path))


def lines(root, here, state, facts, driver):
    """The report as (what, value) pairs."""
    compared = here or runs_in_venv(root)
    pins = guarded(packages, root) if compared else "none: .venv does not run"
    room = guarded(memory)
    yield "course", f"{guarded(course, root)}, in {short(root)}"
    yield "system", guarded(system)
    yield "Python", f"{platform.python_version()} in {short(sys.prefix)}"
    yield ".venv", "not used (--here)" if here else state
    yield "packages", pins[0] if isinstance(pins, tuple) else pins
    for line in pins[1] if isinstance(pins, tuple) else []:
        yield "", line
    for name in LISTS if compared else ():
        yield "", f"{name}: {guarded(list_of, root, name)}"
    yield (
        "torch",
        facts["version"] if facts else ("does not load" if compared else "none"),
    )
    yield "CPU", guarded(cpu)
    yield "", guarded(cpu_has)
    yield "threads", guarded(threads, facts)
    told = isinstance(room, tuple)
    yield (
        "memory",
        f"{gigabytes(room[0])}, {gigabytes(room[1])} free"
        if told
        else room or "unknown",
    )
    usage = guarded(shutil.disk_usage, str(root))
    yield "disk", f"{gigabytes(usage.free)} free" if hasattr(usage, "free") else usage
    yield "home", guarded(home)
    yield "accelerators", guarded(accelerators, facts, driver)
    browser = guarded(chromium)
    yield "Chromium", browser or "none (only the browser test needs one)"


def report(root, here=False):
    """Print the report; 1 when something is missing, else 0."""
    setup = guarded(findings_of_setup, root, here)
    found, state = setup if isinstance(setup, tuple) else ([(setup, NEW)], "unknown")
    facts, driver = guarded(torch_facts), guarded(nvidia)
    facts = facts if isinstance(facts, dict) else None
    for what, value in lines(root, here, state, facts, driver):
        print(f"{what:<14}{value}")
    ready = here or state == "ready"
    machine = guarded(findings_of_machine, root, facts, driver, ready)
    found += machine if isinstance(machine, list) else [(machine, "report this")]
    print()
    for finding, remedy in found:
        print(f"Missing: {finding}. Do this: {remedy}.")
    if not found:
        print("All is well.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(report(start.ROOT, "--here" in sys.argv[1:]))
