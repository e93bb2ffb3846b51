"""Chapter 18's stage 3 beside FSDP2, on two real ranks of one machine.

Both models have the same weights and rows; each rank makes steps of one, then of the
other, in turns. Timed is the whole step on the wall clock (forward, backward, exchange,
AdamW), after a barrier. Words and bytes are counted, not timed: the same in each run.
"""

import time

from utils.bench.ratio import Ratio, benchmark

WIDTH, LAYERS, ROWS = 512, 6, 64


def race(pairs=7, n=2, width=WIDTH, steps=2):
    """Stage 3 with saved-tensor hooks against FSDP2: one dict for each rank.

    ratios: our seconds over FSDP2's, of each pair after the first; peak, sent: the most
    words alive and the bytes sent in a step, ours over FSDP2's (sent is None where the
    kernel does not count); gap: the largest difference between any two weights.
    """
    import torch

    from utils import ranks

    def fn(rank, n):
        from torch import distributed as dist
        from torch.distributed.fsdp import fully_shard

        from utils.built import sharding
        from utils.built.live import Live, held

        ours, theirs = _tower(torch, width), _tower(torch, width)
        ours = torch.nn.Sequential(
            *[sharding.Zero3(x) if list(x.parameters()) else x for x in ours]
        )
        for layer in theirs:
            if list(layer.parameters()):
                fully_shard(layer)
        fully_shard(theirs)
        X = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(rank))
        token = torch.zeros(1)
        movers = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (ours, theirs)]

        def step(model, mover):
            mover.zero_grad()
            model(X).square().mean().backward()
            mover.step()

        def seconds(model, mover):
            dist.all_reduce(token)
            began = time.perf_counter()
            for _ in range(steps):
                step(model, mover)
            return time.perf_counter() - began

        pair, ratios = list(zip((ours, theirs), movers)), []
        for number in range(pairs + 1):
            if number % 2:
                mine, other = seconds(*pair[0]), seconds(*pair[1])
            else:
                other, mine = seconds(*pair[1]), seconds(*pair[0])
            ratios.append(mine / other)
        peaks, sent = [], []
        for model, mover in pair:
            with Live(model.parameters(), held(mover)) as live, ranks.traffic() as wire:
                step(model, mover)
            peaks.append(live.peak)
            sent.append(wire.wire)
        whole = [
            sharding.all_gather(x.part)[: sum(x.sizes())]
            for x in ours
            if isinstance(x, sharding.Zero3)
        ]
        other = torch.cat([p.full_tensor().flatten() for p in theirs.parameters()])
        return {
            "ratios": ratios[1:],
            "peak": peaks[0] / peaks[1],
            "sent": sent[0] / sent[1] if sent[0] else None,
            "gap": (torch.cat(whole) - other).abs().max().item(),
        }

    return ranks.run(fn, n, timeout=300)


def _tower(torch, width):
    torch.manual_seed(0)
    layers = []
    for _ in range(LAYERS):
        layers += [torch.nn.Linear(width, width), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def _checked(**options):
    first = race(**options)[0]
    if first["gap"] > 1e-3:
        raise AssertionError(f"the weights differ by {first['gap']:.2g}")
    return first


WHAT = f"{LAYERS} layers of {WIDTH}, {ROWS} rows a rank, 2 ranks, AdamW"


@benchmark("sharding-step-stage-3-over-fsdp2", "<= 0.9")
def step_over_fsdp2():
    first = _checked()
    return Ratio(
        first["ratios"],
        f"wall time of a step of this chapter's Zero3 over FSDP2's: {WHAT}",
        f"largest gap of weights {first['gap']:.1g}, float32",
    )


@benchmark("sharding-peak-words-stage-3-over-fsdp2", "<= 1")
def peak_over_fsdp2():
    return Ratio(
        [_checked(pairs=1)["peak"]],
        f"most bytes alive in a step of this chapter's Zero3 over FSDP2's: {WHAT}",
        "counted by operators, the same in each run",
    )


@benchmark("sharding-bytes-sent-stage-3-over-fsdp2", "<= 1")
def bytes_over_fsdp2():
    sent = _checked(pairs=1)["sent"]
    if sent is None:
        raise RuntimeError("this system's kernel does not count what sockets send")
    return Ratio(
        [sent],
        f"bytes sent in a step of this chapter's Zero3 over FSDP2's, both by gloo: {WHAT}",
        "counted by the kernel",
    )
