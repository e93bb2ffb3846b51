"""Chapter 29: a plan beside what happens, in ratios. One thread, CPU seconds."""

import time

import torch
from torch import nn

from utils.bench.ratio import Ratio, benchmark
from utils.built import engine, gpt, language, muon, plan, release

SHAPE = plan.Shape(63, 64, 2, 4, 4, 256)
TOKENS = 64


def _model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return gpt.GPT(SHAPE.V, TOKENS, SHAPE.L, SHAPE.H, SHAPE.E)


def _steps(model, pair, rows):
    "CPU seconds of one step of so many rows."
    ids = torch.randint(SHAPE.V, (rows, TOKENS + 1))
    begin = time.process_time()
    language.nats(model, ids).backward()
    for optimizer in pair:
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - begin


@benchmark("capstone.step.measured-over-planned", "<= 1.5")
def step_as_planned():
    "A step of 16 rows against the line through steps of 2, 6 and 12."
    model = _model()
    pair, samples = muon.for_model(model), []
    for _ in range(7):
        taken = {rows: [] for rows in (2, 6, 12, 16)}
        for turn in range(6):
            for rows, seconds in taken.items():
                spent = _steps(model, pair, rows)
                if turn:
                    seconds.append(spent)
        work = {rows: plan.size_up(SHAPE, rows, TOKENS)[1] for rows in taken}
        last = sorted(taken.pop(16))[2]
        rate, overhead = plan.fit_machine([(work[r], taken[r]) for r in taken])
        samples.append(last / (overhead + work[16] / rate))
    return Ratio(
        samples, "CPU seconds of a step of 16 rows over what three sizes foretell"
    )


@benchmark("capstone.decode.8users-over-1", ">= 3")
def eight_users():
    "Tokens per CPU second of chapter 28's engine: eight users over one."
    model, samples = _model().eval(), []

    def rate(users):
        served = engine.Engine(model, slots=users, blocks=4 * users, share=False)
        for user in range(users):
            served.add([user + 1] * 16, 40)
        begin = time.process_time()
        served.run()
        return served.counts["tokens"] / (time.process_time() - begin)

    rate(2)
    for _ in range(7):
        samples.append(rate(8) / rate(1))
    return Ratio(samples, "tokens per CPU second, eight users over one")


@benchmark("capstone.file.float32-over-4bits", ">= 6.5")
def four_bits():
    "Bytes of the model in float32 over its safetensors file in 4 bits, header and all."
    from safetensors.torch import save

    model = _model()
    for p in model.parameters():
        nn.init.normal_(p)
    whole = sum(4 * p.numel() for p in model.parameters())
    small = len(save(release.compress(model, 4, 32)))
    return Ratio([whole / small], "bytes, float32 over 4 bits in groups of 32")
