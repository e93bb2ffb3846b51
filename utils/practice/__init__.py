"""Ranks rehearsed in one process: one simulator with two faces.

messages.py: chapter 16's network. rehearsal.py: torch.distributed, from chapter 17 on;
collectives.py, points.py and groups.py are its calls, costs.py what they send, and
stand_ins.py puts them in torch's place. simulator.py: ranks that take turns, below both.
"""

from utils.practice.messages import Comm, Network
from utils.practice.rehearsal import Call, Rehearsal, rehearse
from utils.practice.simulator import Deadlock, Message, Mismatch, NetworkError

__all__ = [
    "Call", "Comm", "Deadlock", "Message", "Mismatch", "Network", "NetworkError",
    "Rehearsal", "rehearse",
]  # fmt: skip
