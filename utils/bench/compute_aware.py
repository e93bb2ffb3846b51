"""Chapter 26: five folds trained at once, and early decision where products are the time."""

import torch

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import fivefold, quant


@benchmark("compute_aware.five_at_once", "<= 0.7")
def five_at_once():
    "Five small networks trained in one batch of products, beside one after the other."
    torch.set_num_threads(1)
    digits, widths = fivefold.Digits(), (16, 16)

    def together():
        fivefold.train(fivefold.Nets([64, *widths, 10]), digits, 3)

    def apart():
        for k in range(fivefold.FOLDS):
            rows_N = digits.trained(k)
            net = quant.Folds.net(widths)
            quant.fit(net, digits.X_ND[rows_N], digits.y_N[rows_N], 3, 6e-3, k)

    samples = in_turns(together, apart)
    return Ratio(samples, "five networks 64-16-16-10, 3 epochs: at once / in turn")


@benchmark("compute_aware.cascade.large", "<= 0.9")
def cascade_large():
    "A cascade that asks on for 10 rows of 64, beside 2.2 million multiply-adds for all."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    first, second = quant.Folds.net((256, 256)), quant.Folds.net((2048, 1024))
    x_ND = torch.randn(64, 64)
    with torch.inference_mode():
        threshold = first(x_ND).softmax(-1).amax(-1).sort().values[10].item()

    def cascade():
        with torch.inference_mode():
            logits_NC = first(x_ND)
            ask_N = logits_NC.softmax(-1).amax(-1) < threshold
            logits_NC[ask_N] = second(x_ND[ask_N])

    def plain():
        with torch.inference_mode():
            second(x_ND)

    calls = range(10)
    samples = in_turns(
        lambda: [cascade() for _ in calls], lambda: [plain() for _ in calls]
    )
    return Ratio(samples, "64 rows: cascade / the large network, CPU seconds")
