"""Refuses every connection that would leave this machine, and notes it.

On the path of every Python process that the tests start (kernels, ranks, JupyterLab):
Python imports a module of this name by itself.
"""

import ipaddress
import os
import platform
import sys

HERE = {"localhost", "", "0.0.0.0", "::", "ip6-localhost"}


def _is_here(address):
    if not isinstance(address, tuple):  # a Unix socket's path, netlink
        return True
    host = address[0]
    host = host.decode() if isinstance(host, bytes) else host
    if host is None or host in HERE or host == platform.node():
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = (args[0],)
    else:
        return
    if not _is_here(address):
        with open(os.environ["COURSE_OUTBOUND"], "a", encoding="utf-8") as file:
            file.write(f"{os.path.basename(sys.argv[0] or '?')}: {event} {address}\n")
        raise ConnectionRefusedError(f"the tests run offline; refused: {address}")


if os.environ.get("COURSE_OUTBOUND"):
    sys.addaudithook(_refuse)
