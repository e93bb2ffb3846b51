"""Chapter 17's data-parallel steps beside DistributedDataParallel's, on two real ranks.

Both models have the same weights and rows; each rank makes a step of one, a step of the
other, and so on in turns, so that a busy machine slows both alike. What is timed is the
whole step on the wall clock (forward, backward, exchange, SGD), after a barrier.
"""

import time

from utils.bench.ratio import Ratio, benchmark

WIDTH, LAYERS, ROWS = 1024, 5, 64  # rows of each rank


def race(way, pairs=9, n=2, rows=ROWS, width=WIDTH, steps=2):
    """`way` ("shared" or "overlapped") against DDP: one dict for each rank.

    ratios: our seconds over DDP's, of each pair after the first; gap: the largest
    difference between any two gradients of the last step.
    """
    import torch

    from utils import ranks

    def fn(rank, n):
        from torch import distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        from utils.built import data_parallel as course

        ours, theirs = _tower(torch, width), _tower(torch, width)
        ddp, token = DistributedDataParallel(theirs), torch.zeros(1)
        if way == "shared":
            backward = course.SharedMemoryStep(ours).backward
        else:
            parallel = course.Overlapped(ours, cap=25 * 2**20)

            def backward(loss):
                loss.backward()
                parallel.finish()

        X = torch.randn(rows, width, generator=torch.Generator().manual_seed(rank))
        movers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (ours, theirs)]

        def our_step():
            movers[0].zero_grad()
            backward(ours(X).square().mean())
            movers[0].step()

        def their_step():
            movers[1].zero_grad()
            ddp(X).square().mean().backward()
            movers[1].step()

        def seconds(step):
            dist.all_reduce(token)
            began = time.perf_counter()
            for _ in range(steps):
                step()
            return time.perf_counter() - began

        ratios = []
        for pair in range(pairs + 1):
            if pair % 2:
                mine, other = seconds(our_step), seconds(their_step)
            else:
                other, mine = seconds(their_step), seconds(our_step)
            ratios.append(mine / other)
        gaps = [
            (p.grad - q.grad).abs().max().item()
            for p, q in zip(ours.parameters(), theirs.parameters())
        ]
        return {"ratios": ratios[1:], "gap": max(gaps), "scale": _scale(theirs)}

    return ranks.run(fn, n, timeout=300)


def _tower(torch, width):
    torch.manual_seed(0)
    layers = []
    for _ in range(LAYERS):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _scale(model):
    return max(p.grad.abs().max().item() for p in model.parameters())


def _ratio(way, what):
    first = race(way)[0]
    if first["gap"] > 1e-5 * first["scale"]:
        raise AssertionError(f"the gradients differ by {first['gap']:.2g}")
    note = f"largest gradient gap {first['gap']:.1g}, wall clock"
    return Ratio(first["ratios"], what, note)


@benchmark("data-parallel-step-shared-memory-over-ddp", "<= 0.9")
def shared_over_ddp():
    return _ratio(
        "shared",
        f"wall time of a step, gradients averaged in shared memory, over DDP's: MLP of "
        f"{LAYERS} layers of {WIDTH}, {ROWS} rows a rank, 2 ranks",
    )


@benchmark("data-parallel-step-overlapped-over-ddp")
def overlapped_over_ddp():
    return _ratio(
        "overlapped",
        f"wall time of a step with this chapter's 40-line Overlapped (sockets), over "
        f"DDP's: MLP of {LAYERS} layers of {WIDTH}, {ROWS} rows a rank, 2 ranks",
    )
