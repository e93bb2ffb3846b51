"""What chapter 19 builds of experts: tokens travel to the rank that holds their expert.

Called by all ranks of a torch.distributed group; expert e lives on rank e. After Lepikhin
and others, GShard (2020), https://arxiv.org/abs/2006.16668.
"""

import torch
from torch import distributed as dist

from utils.ranks.agree import joined


def swapped(x, send_R, recv_R):
    "send_R[r] rows of x go to rank r, recv_R[r] come from it: -> (sum(recv_R), ...)."
    out = x.new_empty(int(recv_R.sum()), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), recv_R.tolist(), send_R.tolist())
    return out


class Swap(torch.autograd.Function):
    "`swapped`, and backward the gradients go home the same way."

    @staticmethod
    def forward(ctx, x, send_R, recv_R):
        ctx.way_back = recv_R, send_R
        return swapped(x, send_R, recv_R)

    @staticmethod
    def backward(ctx, grad):
        return swapped(grad, *ctx.way_back), None, None


def dispatch(x_NE, expert_N, run):
    """Row i through expert expert_N[i], wherever it lives: -> (N, E), in x's order.

    run(rows_KE) -> (K, E) is this rank's own expert; K differs and may be 0.
    """
    joined("dispatch")
    if len(x_NE) != len(expert_N):
        raise ValueError(f"{len(x_NE)} rows and {len(expert_N)} experts: one per row")
    n = dist.get_world_size()
    if len(expert_N) and not 0 <= int(expert_N.min()) <= int(expert_N.max()) < n:
        raise ValueError(f"expert_N names experts 0 to {n - 1}, one per rank")
    order_N = expert_N.argsort(stable=True)
    send_R = torch.bincount(expert_N, minlength=n)
    recv_R = torch.empty_like(send_R)
    dist.all_to_all_single(recv_R, send_R)
    rows_KE = Swap.apply(x_NE[order_N], send_R, recv_R)
    back_NE = Swap.apply(run(rows_KE), recv_R, send_R)
    return back_NE[order_N.argsort()]
