"""What start.py says to a reader: a line now, or in one sentence what is wrong and why.

Standard library only, and an old Python must be able to load it.
"""

import errno
import os
import platform
import re
import sys

SIZE, SIZE_CUDA = 1.7, 5.6  # GB that .venv takes, without and with torch's CUDA
ROOM, ROOM_CUDA = 2.0, 7.5  # GB to have free: that, and what pip fetches for it
DOWNLOADS = "https://www.python.org/downloads/"

NO_NETWORK = (
    r"NewConnectionError|Connect(ion)?Timeout|Read ?timed ?out|ProxyError|"
    r"Connection (refused|reset|aborted|broken|error)|Max retries exceeded|"
    r"name resolution|getaddrinfo failed|Network is unreachable|SSLError"
)
CAUSES = (  # what pip or venv says: what it means, and the cure; the first that fits
    (
        r"No space left|Errno 28\b|not enough space|quota exceeded",
        "The disk is full: free {room} GB (pip also needs room in the folder for "
        "temporary files)",
    ),
    (
        r"Long Path support|enable-long-paths",
        "A name became longer than Windows allows: move the course to a folder with a "
        r"short name, such as C:\course",
    ),
    (
        r"WinError 32\b|being used by another process|"
        r"WinError 5\b.*(\.pyd|\.dll|\.exe|site-packages)",
        "A file in .venv is in use: shut down JupyterLab and whatever else runs the "
        "course's Python",
    ),
    (
        r"Permission denied|Errno 13\b|Access is denied",
        "Setting up may not write in {root}: move the course to a folder of yours",
    ),
    (
        r"407 Proxy|Proxy Authentication Required|connection failed: 407",
        "The proxy asks for a name and a password: set HTTPS_PROXY to "
        "http://NAME:PASSWORD@HOST:PORT",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|"
        r"SSLCertVerificationError|self.signed certificate",
        "The network's certificate is not one that Python knows: check the clock; "
        "where a firewall or proxy puts in its own, set PIP_CERT to the file of that "
        "certificate",
    ),
    (
        NO_NETWORK,
        "The packages could not be fetched: check the network (and any proxy)",
    ),
)


class Problem(Exception):
    """Something the reader can act on; its text is the one sentence they see."""


def say(text):
    """Print one line now, even into a pipe."""
    print(text, flush=True)


def dotted(version):
    """(3, 10) -> '3.10'."""
    return ".".join(str(part) for part in version)


def start_py(*words):
    """How start.py is called here: python3 start.py, on Windows py start.py."""
    python = "py" if os.name == "nt" else "python3"
    return " ".join((python, "start.py") + words)


def get_python(version):
    """Where a Python that fits can be had, and what to call then."""
    if os.name == "nt":
        return f"Get it from {DOWNLOADS}, then: py -{dotted(version)} start.py"
    return (
        f"Get it from {DOWNLOADS} or, on Linux, from the system's packages, then: "
        f"python{dotted(version)} start.py"
    )


def explain(text, root, log):
    """One sentence on why a step of the set-up failed, from what it said."""
    room = ROOM_CUDA if re.search(r"nvidia.cublas", text) else ROOM
    for sign, cause in CAUSES:
        if re.search(sign, text, re.I):
            cause = cause.format(root=root, room=room)
            break
    else:
        cause = explain_missing(text)
    if cause is None:
        return f"Setting up .venv failed; what pip said last is in {log}"
    return f"{cause}, then start again; the log is {log}"


def explain_missing(text):
    """The cause where pip found no build of a package, else None."""
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", text)
    if not missing:
        return None
    machine = (
        f"Python {dotted(sys.version_info[:2])}, {platform.system()} "
        f"{platform.machine()}"
    )
    if "from versions: none" in text:
        return (
            f"pip found no {missing.group(1)} at all: check the network; if it is on, "
            f"there is no build for this machine ({machine})"
        )
    return (
        f"There is no {missing.group(1)} for this machine ({machine}): take another "
        "Python or machine"
    )


def explain_os(error, root):
    """One sentence on an error of the operating system."""
    place, windows = error.filename or root, getattr(error, "winerror", None)
    if windows == 32 or (windows == 5 and ".venv" in str(place)):
        return (
            f"{place} is in use: shut down JupyterLab and whatever else runs the "
            "course's Python, then start again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{place} cannot be written: move the course to a "
            "folder of yours, then start again."
        )
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        return f"The disk is full: free {ROOM} GB, then start again."
    return f"start.py could not go on: {error}."
