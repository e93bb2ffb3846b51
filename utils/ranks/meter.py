"""How much does a rank hand to the network? Payload counted, the wire measured."""

import os
import socket
import struct
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field

_meters = []  # the meters that are running in this rank, innermost last


@dataclass(eq=False)
class Traffic:
    """What one rank sent and received while a `with traffic()` block ran.

    `messages`, `bytes`, `received` and `to` count point-to-point calls (send, isend,
    recv, irecv, batches and objects of them), exactly: the payload, without headers.
    `wire` and `wire_received` are what the kernel counted on this rank's TCP sockets,
    so they hold gloo's collectives too, with its headers (some 50 bytes a message).
    They are None where the kernel has no such counters (only Linux has them here) and
    say nothing of NCCL, which has its own roads.
    """

    messages: int = 0  # sends
    bytes: int = 0  # bytes of payload in them
    received: int = 0  # bytes of payload asked for by recv and irecv
    to: dict = field(default_factory=dict)  # {rank: bytes of payload sent to it}
    wire: int | None = None  # bytes handed to TCP
    wire_received: int | None = None  # bytes that came from TCP

    def _send(self, group, tensors, to, *rest, **options):
        size = sum(t.numel() * t.element_size() for t in tensors)
        rank = _global_rank(group, to)
        self.messages += 1
        self.bytes += size
        self.to[rank] = self.to.get(rank, 0) + size

    def _recv(self, group, tensors, *rest, **options):
        self.received += sum(t.numel() * t.element_size() for t in tensors)


@contextmanager
def traffic():
    """Inside a rank: `with traffic() as sent: ...`, then sent.bytes, sent.messages.

    Blocks may be nested; each counts all that happens within it, in this rank.
    """
    meter, before = Traffic(), _wire()
    _meters.append(meter)
    if len(_meters) == 1:
        _listen()
    try:
        yield meter
    finally:
        _meters.remove(meter)
        if not _meters:
            _stop_listening()
        if before is not None:
            meter.wire, meter.wire_received = _grown(before, _wire())


# ---- payload: every road to a send leads through these methods of ProcessGroup ----

_ROADS = {"send": "_send", "recv": "_recv", "recv_anysource": "_recv"}
_originals = {}


def _listen():
    from torch.distributed import ProcessGroup

    for road, count in _ROADS.items():
        _originals[road] = vars(ProcessGroup)[road]  # getattr would lose its binding
        setattr(ProcessGroup, road, _counted(getattr(ProcessGroup, road), count))


def _stop_listening():
    from torch.distributed import ProcessGroup

    for road, original in _originals.items():
        setattr(ProcessGroup, road, original)
    _originals.clear()


def _counted(call, count):
    def counted(group, *arguments, **options):
        work = call(group, *arguments, **options)
        for meter in _meters:
            getattr(meter, count)(group, *arguments, **options)
        return work

    return counted


def _global_rank(group, rank):
    from torch import distributed as dist

    try:
        return dist.get_global_rank(group, rank)
    except (ValueError, KeyError, RuntimeError):
        return rank


# ---- the wire: the kernel's own counters, Linux only ----


def _wire():
    "{socket: (bytes handed to TCP, bytes received)} of this process, or None."
    if not sys.platform.startswith("linux"):
        return None
    counters = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:"):
                counters[link] = _counters(int(name))
        except OSError:  # closed meanwhile, or no TCP
            continue
    return counters


def _counters(fd):
    "Bytes (handed to TCP, received) of one socket; OSError when it is no TCP socket."
    with socket.socket(fileno=os.dup(fd)) as tcp:
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < 216:  # a kernel before 4.19
        raise OSError("no byte counters")
    # struct tcp_info of linux/tcp.h
    (received,) = struct.unpack_from("=Q", info, 128)  # tcpi_bytes_received
    (waiting,) = struct.unpack_from("=I", info, 144)  # tcpi_notsent_bytes
    sent, again = struct.unpack_from("=QQ", info, 200)  # tcpi_bytes_sent, _retrans
    return sent - again + waiting, received


def _grown(before, after):
    "What was added, over all sockets, from one count to a later one."
    pairs = [(after[s], before.get(s, (0, 0))) for s in after]
    return tuple(sum(a[i] - b[i] for a, b in pairs) for i in (0, 1))
