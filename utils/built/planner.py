"""What chapter 19 builds last: how many ways to share a model out, and what each costs.

A plan is (tp, pp, dp): ranks per layer, per pipeline, and copies of the whole. Weights,
gradients and moments are sharded over the copies, too (chapter 18's stage 3).
"""

from dataclasses import dataclass

from utils import given


@dataclass(frozen=True)
class Work:
    "A transformer of equal layers, and what one step of training reads."

    layers: int
    width: int
    hidden: int
    tokens: int  # of one sequence
    sequences: int  # of one step

    @property
    def words(self):
        "Weights of all layers: four matrices of attention, two of the MLP."
        return self.layers * (4 * self.width**2 + 2 * self.width * self.hidden)


def plans(chips, layers, sequences, most_tp=8):
    "Every (tp, pp, dp) that uses all chips: see chapter 19 for the four rules."
    chips, layers = given.whole("chips", chips), given.whole("layers", layers)
    sequences = given.whole("sequences", sequences)
    found, tp = [], 1
    while tp <= min(most_tp, chips):
        for pp in range(1, layers + 1):
            dp, rest = divmod(chips, tp * pp)
            if rest == 0 and layers % pp == 0 and sequences % dp == 0:
                found.append((tp, pp, dp))
        tp *= 2
    return found


def words_per_rank(work, plan):
    "Weights that one rank stores: the stage's, over tp and over the copies."
    tp, pp, dp = plan
    return work.words // (tp * pp * dp)


def bytes_per_rank(work, plan):
    """Bytes of one rank in mixed precision, 16 per weight, and of its activations.

    A layer keeps 34 bytes per token and width of one sequence (Korthikanti and others,
    2022, without the table of attention), tokens split too; min(pp, m) micro-batches of
    one sequence are in flight. The stage's weights and gradients are there whole during
    a step (bf16, over tp).
    """
    tp, pp, dp = plan
    gathered = 4 * work.words // (tp * pp)
    layer = 34 * work.tokens * work.width // tp
    waiting = min(pp, work.sequences // dp)
    return (
        16 * words_per_rank(work, plan) + gathered + layer * work.layers // pp * waiting
    )


def seconds_per_step(work, plan, chip, inside, between):
    """Predicted seconds of one step: {compute, bubble, tensor, data}.

    chip: FLOP per second that are reached; inside, between: bytes per second on the link
    of a tensor group and between copies. Bubble of 1F1B. Nothing is hidden.
    """
    tp, pp, dp = plan
    m = work.sequences // dp
    compute = 6 * work.words * work.tokens * work.sequences / (tp * pp * dp) / chip
    message = 2 * work.tokens * work.width  # bytes of one sequence's activations, bf16
    per_layer = 4 * 2 * (tp - 1) / tp * message / inside  # four all-reduces
    stage = 2 * work.words / (tp * pp)  # bytes of its weights in bf16
    return {
        "compute": compute,
        "bubble": compute * (pp - 1) / m,
        "tensor": per_layer * work.layers / pp * (m + pp - 1),
        "data": 2 * stage * (dp - 1) / dp / between,  # gather once, reduce-scatter once
    }


def counted_words(work, plan, rank=0):
    """The weights that PyTorch's own classes leave on `rank` of the plan: a count.

    Meta tensors, the "fake" backend, no data: nothing is allocated or sent. Leaves
    torch.distributed as it found it: not initialised.
    """
    import torch
    from torch import distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import parallel as tensor

    from utils.built.sharding import pretend  # chapter 18

    if dist.is_initialized():
        raise RuntimeError("counted_words makes a fake process group of its own: call it "
                           "outside ranks.run and ranks.main")  # fmt: skip
    tp, pp, dp = plan
    world = tp * pp * dp
    E, hidden = work.width, work.hidden
    shapes = {"q": (E, E), "k": (E, E), "v": (E, E), "up": (E, hidden),
              "o": (E, E), "down": (hidden, E)}  # fmt: skip

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            for name, shape in shapes.items():
                self.add_module(name, nn.Linear(*shape, bias=False))

    with torch.device("meta"):
        stage = nn.ModuleList(Layer() for _ in range(work.layers // pp))
    with pretend(rank, world):
        names = ("pp", "dp", "tp")
        mesh = init_device_mesh("cpu", (pp, dp, tp), mesh_dim_names=names)
        rows = dict.fromkeys(("o", "down"), tensor.RowwiseParallel())
        ways = {**dict.fromkeys(shapes, tensor.ColwiseParallel()), **rows}
        for layer in stage:
            tensor.parallelize_module(layer, mesh["tp"], ways)
            fully_shard(layer, mesh=mesh["dp"])
        return sum(p.to_local().numel() for p in stage.parameters())
