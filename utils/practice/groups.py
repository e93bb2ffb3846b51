"Groups of ranks in a rehearsal, and who is who in them."

import torch
from torch import distributed as dist


class Group:
    "Some of the ranks, in order; what dist.new_group gives in a rehearsal."

    def __init__(self, ranks):
        self.ranks = list(ranks)

    def size(self):
        return len(self.ranks)

    def __repr__(self):
        return f"group {self.ranks}"


OUTSIDE = dist.GroupMember.NON_GROUP_MEMBER  # what a rank gets that is in no such group


def members(me, group):
    "(ranks of the group, the place of the rank that calls among them)."
    group = whole_group(group)
    if group is None:
        return range(me.simulator.n), me.number
    if isinstance(group, Group) and me.number in group.ranks:
        return group.ranks, group.ranks.index(me.number)
    if isinstance(group, Group) or group is OUTSIDE:
        known = f" {group.ranks}" if isinstance(group, Group) else ""
        raise RuntimeError(
            f"rank {me.number} is not in the group{known}: only its members call, "
            "as in `if rank in ranks: dist.all_reduce(x, group=group)`"
        )
    raise TypeError(f"group is what dist.new_group gave in this rehearsal, not {group!r:.60}")  # fmt: skip


def whole_group(group):
    "None for the group of all ranks, else the group as it is."
    world = getattr(dist.group, "WORLD", None)
    return None if group is None or group is world else group


def peer(me, group, rank, group_rank=None):
    "The number among all ranks of the one that a call names, in either way."
    ranks, _ = members(me, group)
    if group_rank is not None:
        if rank is not None:
            raise ValueError("name a rank by its number or by its place in the group, not both")  # fmt: skip
        if not _whole(group_rank) or not 0 <= group_rank < len(ranks):
            raise ValueError(
                f"there are places 0 to {len(ranks) - 1} in the group, and no "
                f"{group_rank!r:.40}"
            )
        return ranks[group_rank]
    if not _whole(rank) or rank not in ranks:
        known = f"0 to {len(ranks) - 1}" if isinstance(ranks, range) else str(ranks)
        raise ValueError(f"there are ranks {known}, and no {rank!r:.40}")
    return rank


def _whole(rank):
    return isinstance(rank, int) and not isinstance(rank, bool)


# ---- the calls ----


def _new_group(
    me, ranks=None, *_, use_local_synchronization=False, sort_ranks=True, **__
):
    "All ranks make this call, also those that are not in the group."
    if use_local_synchronization:
        raise RuntimeError(
            "in a rehearsal all ranks call new_group, with the same ranks"
        )
    n = me.simulator.n
    ranks = list(range(n) if ranks is None else ranks)
    if not all(_whole(r) and 0 <= r < n for r in ranks) or len(set(ranks)) < len(ranks):
        raise ValueError(f"a group has some of the ranks 0 to {n - 1}, each once, not {ranks}")  # fmt: skip
    ranks = sorted(ranks) if sort_ranks else ranks
    me.call("new_group", lambda values: None, lambda values: [], of=str(ranks))
    groups = me.simulator.groups
    group = groups.setdefault(me.joined[None], Group(ranks))
    return group if me.number in ranks else OUTSIDE


def _get_rank(me, group=None):
    ranks = _ranks(me, group)
    return ranks.index(me.number) if me.number in ranks else -1


def _get_world_size(me, group=None):
    ranks = _ranks(me, group)
    return len(ranks) if me.number in ranks else -1


def _ranks(me, group):
    group = whole_group(group)
    if group is None:
        return range(me.simulator.n)
    return group.ranks if isinstance(group, Group) else []


def _get_global_rank(me, group, group_rank):
    return peer(me, group, None, group_rank)


def _get_group_rank(me, group, global_rank):
    return list(members(me, group)[0]).index(peer(me, group, global_rank))


CALLS = {
    "new_group": _new_group,
    "get_rank": _get_rank,
    "get_world_size": _get_world_size,
    "get_process_group_ranks": lambda me, group=None: list(_ranks(me, group)),
    "get_global_rank": _get_global_rank,
    "get_group_rank": _get_group_rank,
    "get_backend": lambda me, group=None: "rehearsal",
    "is_initialized": lambda me: True,
}


# ---- what may travel ----


def fit(tensor, written=()):
    "Refuse what cannot travel, and what cannot be `written`."
    for x in (tensor, *written):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"what travels is a tensor, not {type(x).__name__}")
    if not all(x.is_contiguous() for x in (tensor, *written)):
        raise ValueError(
            "a tensor that travels is contiguous: call .contiguous() first"
        )
    leaves = [x for x in written if x.is_leaf and x.requires_grad]
    if leaves and torch.is_grad_enabled():
        raise RuntimeError(
            "a parameter (a leaf that requires grad) is written here: do that under "
            "torch.no_grad(), or every backward after it warns"
        )
