"""How much does a rank hand to the network? Payload counted, the wire measured."""

from contextlib import contextmanager
from dataclasses import dataclass, field

from utils.ranks import sockets

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
    meter, before = Traffic(), sockets.counts()
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
            meter.wire, meter.wire_received = _grown(before, sockets.counts())


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


def _grown(before, after):
    "What was added, handed over and received, over all sockets."
    none = sockets.Count(0, 0, 0, 0)
    pairs = [(count, before.get(name, none)) for name, count in after.items()]
    return (
        sum(a.handed - b.handed for a, b in pairs),
        sum(a.received - b.received for a, b in pairs),
    )
