"""What start.py says to a reader: a line now, or in one sentence what is wrong and why.

Standard library only, and an old Python must be able to load it.
"""

import errno
import platform
import re
import sys

GIGABYTES = 2.0  # what an empty .venv must find free
FULL_DISK = r"No space left|Errno 28\b|not enough space|quota exceeded"
NO_PERMISSION = r"Permission denied|Errno 13\b|Access is denied"
NO_NETWORK = (
    r"NewConnectionError|Connect(ion)?Timeout|Read ?timed ?out|ProxyError|"
    r"Connection (refused|reset|aborted|broken|error)|Max retries exceeded|"
    r"name resolution|getaddrinfo failed|Network is unreachable|SSLError|"
    r"CERTIFICATE_VERIFY_FAILED"
)


class Problem(Exception):
    """Something the reader can act on; its text is the one sentence they see."""


def say(text):
    """Print one line now, even into a pipe."""
    print(text, flush=True)


def dotted(version):
    """(3, 10) -> '3.10'."""
    return ".".join(str(part) for part in version)


def explain(text, root, log):
    """One sentence on why a step of the set-up failed, from what it said."""
    machine = (
        f"Python {dotted(sys.version_info[:2])}, {platform.system()} "
        f"{platform.machine()}"
    )
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", text)
    if re.search(FULL_DISK, text, re.I):
        cause = (
            f"The disk is full: free {GIGABYTES} GB (pip also needs room in the "
            "folder for temporary files)"
        )
    elif re.search(NO_PERMISSION, text, re.I):
        cause = (
            f"Setting up may not write in {root}: move the course to a folder of yours"
        )
    elif re.search(NO_NETWORK, text, re.I):
        cause = "The packages could not be fetched: check the network (and any proxy)"
    elif missing and "from versions: none" in text:
        cause = (
            f"pip found no {missing.group(1)} at all: check the network; if it is on, "
            f"there is no build for this machine ({machine})"
        )
    elif missing:
        cause = f"There is no {missing.group(1)} for this machine ({machine})"
    else:
        cause = "Setting up .venv failed"
    return f"{cause}, then start again; the log is {log}"


def explain_os(error, root):
    """One sentence on an error of the operating system."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{error.filename or root} cannot be written: move the course to a "
            "folder of yours, then start again."
        )
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", -1)):
        return f"The disk is full: free {GIGABYTES} GB, then start again."
    return f"start.py could not go on: {error}."
