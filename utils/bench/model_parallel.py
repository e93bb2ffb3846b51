"""Chapter 19's pipelines on four real ranks: zero bubble beside 1F1B, 1F1B beside PyTorch's.

Two orders of the same work play in turns on the same ranks, so that a busy machine slows
both alike. Where stages sleep in place of computing, two cores are enough for four ranks.
"""

import time

from utils.bench.ratio import Ratio, benchmark

RANKS, MICRO_BATCHES, UNIT = 4, 8, 0.02


def _problem(torch, width, rows=8):
    "Inputs, targets (G, B, E) and a stage's weights for each rank (S, E, E)."
    draw = torch.Generator().manual_seed(0)
    X_GBE, Y_GBE = torch.randn(2, MICRO_BATCHES, rows, width, generator=draw)
    w_SEE = torch.randn(RANKS, width, width, generator=draw) / width**0.5
    return X_GBE, Y_GBE, w_SEE


def asleep(pairs=3):
    "Seconds of zero bubble over those of 1F1B, stages that sleep: [ratio, ...]."
    from utils import ranks

    def fn(rank, n):
        import torch

        from utils.built import pipeline

        X_GBE, Y_GBE, w_SEE = _problem(torch, 16)

        def seconds(name):
            order = pipeline.schedules(n, MICRO_BATCHES)[name][rank]
            pause = {k: UNIT * t for k, t in pipeline.seconds_of(name).items()}
            player = pipeline.Player(rank, n, {rank: w_SEE[rank]}, X_GBE, Y_GBE, pause)
            began = time.perf_counter()
            player.play(order)  # begins and ends with a barrier
            return time.perf_counter() - began

        seconds("1F1B")
        return [seconds("zero bubble") / seconds("1F1B") for _ in range(pairs)]

    return ranks.run(fn, RANKS, timeout=300)[0]


def beside_torch(pairs=9, n=2, width=256):
    "Seconds of our 1F1B over those of PyTorch's, and the largest gradient gap."
    from utils import ranks

    def fn(rank, n):
        import torch
        from torch import distributed as dist
        from torch.distributed import pipelining

        from utils.built import pipeline

        X_GBE, Y_GBE, w_SEE = _problem(torch, width, rows=64)
        linear = torch.nn.Linear(width, width, bias=False)
        with torch.no_grad():
            linear.weight.copy_(w_SEE[rank])
        stage = torch.nn.Sequential(linear, torch.nn.Tanh())
        pipe = pipelining.PipelineStage(stage, rank, n, torch.device("cpu"))
        loss = torch.nn.functional.mse_loss
        schedule = pipelining.Schedule1F1B(pipe, MICRO_BATCHES, loss_fn=loss)
        rows, targets = X_GBE.flatten(0, 1), Y_GBE.flatten(0, 1)
        player = pipeline.Player(rank, n, {rank: w_SEE[rank]}, X_GBE, Y_GBE)
        order = pipeline.order_1f1b(n, MICRO_BATCHES, rank)
        grads = {}

        def ours():
            grads.update(player.play(order)["grads"])

        def theirs():
            linear.weight.grad = None
            if rank == 0:
                schedule.step(rows)
            else:
                schedule.step(target=targets)

        def seconds(step):
            dist.barrier()
            began = time.perf_counter()
            step()
            dist.barrier()
            return time.perf_counter() - began

        ratios = [seconds(ours) / seconds(theirs) for _ in range(pairs + 1)][1:]
        gap = (grads[rank] - linear.weight.grad).abs().max().item()
        return ratios, gap / linear.weight.grad.abs().max().item()

    return ranks.run(fn, n, timeout=300)


@benchmark("pipeline-zero-bubble-over-1f1b", "<= 0.9")
def zero_bubble_over_1f1b():
    return Ratio(
        asleep(),
        f"wall time of a step of {RANKS} pipeline ranks whose stages sleep, zero bubble over "
        f"1F1B, {MICRO_BATCHES} micro-batches",
        "predicted 27/33 = 0.82",
    )


@benchmark("pipeline-1f1b-over-torch")
def order_over_torch():
    ratios, gap = beside_torch()[0]
    if gap > 1e-4:
        raise AssertionError(f"the gradients differ by {gap:.2g}")
    return Ratio(
        ratios,
        "wall time of a step of the chapter's Player over torch.distributed.pipelining's "
        f"Schedule1F1B, 2 ranks, a layer of 256 each, {MICRO_BATCHES} micro-batches of 64",
        f"largest gradient gap {gap:.1g}, relative",
    )
