"""Chapter 27: a foreign runtime beside eager PyTorch, a folded batch norm, batches."""

import torch
from torch import nn

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.built import folding, onnx_file, quant


def _session(net):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        onnx_file.onnx_bytes(net), options, providers=["CPUExecutionProvider"]
    )


def _runtime(rows, calls):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, x_BD = quant.Folds.net().eval(), torch.rand(rows, 64)
    session, x = _session(net), x_BD.numpy()

    def theirs():
        with torch.inference_mode():
            for _ in range(calls):
                net(x_BD)

    def ours():
        for _ in range(calls):
            session.run(None, {"x": x})

    samples = in_turns(ours, theirs, invert=True)
    what = (
        f"a hand-written ONNX file in ONNX Runtime, {rows} rows, times as fast as eager"
    )
    return Ratio(samples, what, "one thread")


@benchmark("deployment.onnx.1row", ">= 1.3")
def onnx_one_row():
    "Calls decide: no Python between the operators."
    return _runtime(1, 400)


@benchmark("deployment.onnx.64rows")
def onnx_64_rows():
    "Products decide."
    return _runtime(64, 60)


@benchmark("deployment.folded", ">= 1.02")
def folded():
    "Two convolutions with batch norm and ReLU, 8 images of 8x8, before and after folding."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = []
    for C, D in ((1, 8), (8, 16)):
        parts += [nn.Conv2d(C, D, 3, padding=1), nn.BatchNorm2d(D), nn.ReLU()]
    net = nn.Sequential(*parts).eval()
    small, x_BCYX = folding.fold_all(net), torch.rand(8, 1, 8, 8)

    def run(net):
        with torch.inference_mode():
            for _ in range(60):
                net(x_BCYX)

    samples = in_turns(lambda: run(small), lambda: run(net), invert=True)
    return Ratio(samples, "batch norms folded, times as fast as before")


@benchmark("deployment.batch32", ">= 2")
def batch_of_32():
    "What batching can win: 32 rows in one call over 32 calls, 64-5120-2560-10."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = quant.Folds.net((5120, 2560)).eval()
    session, x = _session(net), torch.rand(32, 64).numpy()

    def one_by_one():
        for n in range(32):
            session.run(None, {"x": x[n : n + 1]})

    samples = in_turns(
        lambda: session.run(None, {"x": x}), one_by_one, pairs=5, invert=True
    )
    return Ratio(
        samples, "32 rows in one call of ONNX Runtime, times as fast as one by one"
    )
