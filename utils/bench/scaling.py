"""Chapter 10: a grid of runs for its laws.

python -m utils.bench.scaling      records utils/data/scaling.json anew, some 7 minutes
"""

import datetime
import time

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.files import write_whole

HIDDEN = (8, 16, 32, 64, 128, 256, 512, 1024)
STEPS = (150, 300, 600, 1200, 2400, 4800)
SEEDS = (0, 1)
BATCH, K = 512, 8


def text(every=4):
    "-> rows to learn from and rows of the unseen play (N, K + 1), size of the vocabulary."
    from utils.built.seq import vocabulary
    from utils.data.text import shakespeare

    learnt, unseen = shakespeare()
    chars, encode, _ = vocabulary(learnt + unseen)
    rows, unseen_rows = (encode(part).unfold(0, K + 1, 1) for part in (learnt, unseen))
    return rows, unseen_rows[::every], len(chars)


def grid(hidden=HIDDEN, steps=STEPS, seeds=SEEDS):
    "Every run, as rows {hidden, N, steps, D, seed, loss}."
    from utils.built import scaling

    rows, unseen, V = text()
    for seed in seeds:
        for H in hidden:
            for count in steps:
                model = scaling.train(rows, V, H, count, seed, BATCH)
                N = model.hidden.weight.numel() + model.out.weight.numel()
                yield {
                    "hidden": H, "N": N, "steps": count, "D": count * BATCH, "seed": seed,
                    "loss": round(scaling.loss_of(model, unseen), 5),
                }  # fmt: skip


def record():
    "Run the grid in one thread and write it down."
    import torch

    from utils.bench import machine, recordings
    from utils.built.scaling import RECORD

    torch.set_num_threads(1)
    begin, rows = time.process_time(), []
    for row in grid():
        rows.append(row)
        print(row, flush=True)
    data = {
        "what": "chapter 10's family of networks on the shipped text, one thread",
        "command": "python -m utils.bench.scaling",
        "date": datetime.date.today().isoformat(),
        "machine": machine.in_one_line(),
        "cpu_seconds": round(time.process_time() - begin),
        "rows": rows,
    }
    write_whole(RECORD, recordings.text_of(data))


@benchmark("ten rates trained at once, width 64", ">= 2")
def ten_rates():
    "How many times faster ten networks are as one batch than one after the other."
    import torch

    from utils.built.scaling import sweep

    torch.set_num_threads(1)
    rates = 2.0 ** torch.arange(-12, -2)

    def apart():
        return torch.cat([sweep(64, rates[i : i + 1]) for i in range(len(rates))])

    assert torch.allclose(apart(), sweep(64, rates), atol=0.05), "the same networks"
    samples = in_turns(lambda: sweep(64, rates), apart, pairs=5, invert=True)
    return Ratio(samples, "ten runs, one after the other / in one batch")


if __name__ == "__main__":
    record()
