"""The TCP sockets of this process: what the kernel has counted, how fast they may send.

Linux only; elsewhere there are no such counters and `tcp` finds nothing.
"""

import os
import socket
import struct
import sys
from contextlib import contextmanager
from typing import NamedTuple

HERE = sys.platform.startswith("linux")


class Count(NamedTuple):
    "Bytes of one socket since it was opened."

    handed: int  # to TCP by this process
    sent: int  # by TCP, those sent again not counted twice
    received: int
    waiting: int  # handed over and not yet sent


def numbers():
    "{name: file descriptor} of this process's sockets, TCP or not."
    found = {}
    for name in os.listdir("/proc/self/fd") if HERE else ():
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # closed meanwhile
            continue
        if link.startswith("socket:"):
            found[link] = int(name)
    return found


@contextmanager
def opened(fd):
    "A socket object of this descriptor, for options; OSError when it is no TCP socket."
    with socket.socket(fileno=os.dup(fd)) as tcp:
        internet = tcp.family in (socket.AF_INET, socket.AF_INET6)
        if not internet or tcp.type != socket.SOCK_STREAM:
            raise OSError("no TCP")
        yield tcp


def counts():
    "{name: Count} of this process's TCP sockets; None where the kernel does not count."
    if not HERE:
        return None
    found = {}
    for name, fd in numbers().items():
        try:
            found[name] = _count(fd)
        except OSError:  # closed meanwhile, or no TCP
            continue
    return found


def _count(fd):
    with opened(fd) as tcp:
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < 216:  # a kernel before 4.19
        raise OSError("no byte counters")
    # struct tcp_info of linux/tcp.h
    (received,) = struct.unpack_from("=Q", info, 128)  # tcpi_bytes_received
    (waiting,) = struct.unpack_from("=I", info, 144)  # tcpi_notsent_bytes
    sent, again = struct.unpack_from("=QQ", info, 200)  # tcpi_bytes_sent, _retrans
    return Count(sent - again + waiting, sent - again, received, waiting)
