"""Chapter 20 on links that the kernel slows down: real processes, real gloo, 10 Mbit/s.

What is timed is the wall clock between two barriers; ours and theirs in turns.
"""

import time

from utils.bench.ratio import Ratio, benchmark

RATE = 1.25e6  # bytes per second of each connection


def _in_turns(fn, n):
    from utils import ranks

    by_rank = ranks.run(fn, n, timeout=120)
    return [max(r[i] for r in by_rank) for i in range(len(by_rank[0]))]


def _timed(call):
    from torch import distributed as dist

    dist.barrier()
    began = time.perf_counter()
    call()
    dist.barrier()
    return time.perf_counter() - began


@benchmark("thin-wires-all-reduce-over-textbook", "<= 1.15")
def over_textbook():
    "gloo's all_reduce of 200 kB on a slow link, over 2 (n - 1) / n * bytes / rate."

    def fn(rank, n):
        import torch
        from torch import distributed as dist

        from utils import ranks
        from utils.built.thin import talk_seconds

        x_N = torch.ones(50_000)
        dist.all_reduce(x_N)
        expected = talk_seconds("all_reduce", n, 200_000, RATE)
        with ranks.slow_link(RATE):
            return [_timed(lambda: dist.all_reduce(x_N)) / expected for _ in range(5)]

    what = (
        "seconds of an all_reduce of 200 kB at 1.25 MB/s over the textbook's, 2 ranks"
    )
    return Ratio(_in_turns(fn, 2), what, "paced by the kernel (Linux)")


@benchmark("thin-wires-two-levels-over-flat", "<= 0.5")
def over_flat():
    "A two-level sum over a flat all_reduce, two boxes of two ranks, slow between."

    def fn(rank, n):
        import torch
        from torch import distributed as dist

        from utils import ranks
        from utils.built.thin import two_level_sum

        x_N = torch.ones(50_000)
        across = [dist.new_group([i, i + 2]) for i in range(2)][rank % 2]
        for group in (None, across):
            dist.all_reduce(torch.ones(8), group=group)
        with ranks.slow_link(RATE):
            inside = [dist.new_group([b, b + 1]) for b in (0, 2)][rank // 2]
            dist.all_reduce(torch.ones(8), group=inside)  # made later: it stays fast
            seconds = []
            for _ in range(4):
                seconds.append(_timed(lambda: two_level_sum(x_N, inside, across)))
                seconds.append(_timed(lambda: dist.all_reduce(x_N)))
        return seconds

    seconds = _in_turns(fn, 4)
    samples = [ours / flat for ours, flat in zip(seconds[::2], seconds[1::2])]
    what = "wall time of the two-level sum of 200 kB over gloo's flat all_reduce, 2 x 2 ranks"
    return Ratio(samples, what, "1.25 MB/s between the boxes")


@benchmark("thin-wires-letter-over-every-step", "<= 0.1")
def letter_over_every_step():
    "One exchange of signs over 32 all_reduces of the same weights, 2 ranks, slow link."

    def fn(rank, n):
        import torch
        from torch import distributed as dist

        from utils import ranks
        from utils.built import fleet, thin

        v_P = torch.randn(fleet.P)
        thin.exchange_signs(v_P)

        def often():
            for _ in range(32):
                dist.all_reduce(v_P.clone())

        with ranks.slow_link(RATE):
            seconds = []
            for _ in range(2):
                seconds.append(_timed(lambda: thin.exchange_signs(v_P)))
                seconds.append(_timed(often))
        return seconds

    seconds = _in_turns(fn, 2)
    samples = [ours / often for ours, often in zip(seconds[::2], seconds[1::2])]
    what = "wall time of one letter of bits over 32 all_reduces of 69 kB, 2 ranks"
    return Ratio(samples, what, "1.25 MB/s")
