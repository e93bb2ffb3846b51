"""Where to cut a chain of layers between a device and a server. Built for chapter 27."""

import math

from utils import given


def cut_seconds(device, server, sizes, rate):
    """Seconds for each cut k = 0 .. L: layers before k on the device, the rest on the server.

    device, server: seconds of each of the L layers there; sizes: bytes of the input and of
    what each layer gives (L + 1); rate: bytes in a second. At cut k, sizes[k] are sent.
    """
    device, server, sizes = list(device), list(server), list(sizes)
    if not len(device) == len(server) == len(sizes) - 1:
        raise ValueError(
            f"{len(device)} and {len(server)} layers need as many seconds each, and one "
            f"size more: {len(sizes)} sizes"
        )
    given.number("rate", rate, above=0)
    for name, all_of in (("device", device), ("server", server), ("sizes", sizes)):
        for k, value in enumerate(all_of):
            given.number(f"{name}[{k}]", value)
    return [
        sum(device[:k]) + sizes[k] / rate + sum(server[k:])
        for k in range(len(device) + 1)
    ]


def best_cut(device, server, sizes, rate):
    "The cut that takes least time, and its seconds; of equals the one with fewer layers here."
    seconds = cut_seconds(device, server, sizes, rate)
    k = min(range(len(seconds)), key=seconds.__getitem__)
    return k, seconds[k]


def rate_between(device, server, sizes, a, b):
    "Bytes in a second at which cuts a and b take the same time; inf where none does."
    seconds = [sum(device[:k]) + sum(server[k:]) for k in (a, b)]
    gap = seconds[1] - seconds[0]
    rate = (sizes[a] - sizes[b]) / gap if gap else math.inf
    return rate if rate > 0 else math.inf
