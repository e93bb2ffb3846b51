"While a rehearsal runs, torch.distributed's calls from its threads go to it."

import threading
from contextlib import contextmanager

from torch import distributed as dist

from utils.practice import collectives, groups, points

CALLS = collectives.CALLS | points.CALLS | groups.CALLS
NOT_HERE = (
    "init_process_group destroy_process_group monitored_barrier new_subgroups "
    "all_reduce_coalesced all_gather_coalesced gather_object scatter_object_list "
    "send_object_list recv_object_list"
).split()


def _refuse(name):
    def refuse(me, *arguments, **options):
        raise RuntimeError(
            f"dist.{name} is for real processes (ranks.run); a rehearsal has "
            f"{', '.join(name for name in CALLS if hasattr(dist, name))}"
        )

    return refuse


@contextmanager
def stand_ins(actor):
    "Calls of torch.distributed that come from a thread of this class go to its rehearsal."
    calls = CALLS | {name: _refuse(name) for name in NOT_HERE}
    originals = {name: getattr(dist, name) for name in calls if hasattr(dist, name)}
    try:
        for name, original in originals.items():
            setattr(dist, name, _switch(actor, calls[name], name, original))
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def _switch(actor, call, name, original):
    def switch(*arguments, **options):
        me = threading.current_thread()
        if isinstance(me, actor):
            return call(me, *arguments, **options)
        return original(*arguments, **options)

    switch.__name__ = name
    return switch
