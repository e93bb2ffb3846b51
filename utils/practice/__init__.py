"Ranks rehearsed in one process: one simulator, chapter 16's face of it and chapter 17's."

from utils.practice.messages import Comm, Network
from utils.practice.rehearsal import Call, Rehearsal, rehearse
from utils.practice.simulator import Deadlock, Message, Mismatch, NetworkError

__all__ = [
    "Call", "Comm", "Deadlock", "Message", "Mismatch", "Network", "NetworkError",
    "Rehearsal", "rehearse",
]  # fmt: skip
