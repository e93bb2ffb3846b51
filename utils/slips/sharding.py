"Chapter 18: small wrong programs, each with the sentence that names it."

import torch
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from utils.built import sharding as course
from utils.built.sharding import all_gather, reduce_scatter
from utils.checks import sharding as ex

# ---- words ----


@ex.words.slip(
    "Stages are cumulative, but one at a time: stage 1 shares out moments only."
)
def everything_at_once(stage, n):
    return (1 / n, 1 / n, 2 / n) if stage else (1, 1, 2)


@ex.words.slip("Adam keeps two numbers per parameter, not one.")
def one_moment(stage, n):
    return tuple(1 / n if stage >= s else 1 for s in (3, 2, 1))


@ex.words.slip(
    "It starts at the wrong end: stage 1 shares out the moments, stage 3 the weights."
)
def wrong_end(stage, n):
    return tuple(w / n if stage >= s else w for s, w in ((1, 1), (2, 1), (3, 2)))


@ex.words.slip(
    "Each stage keeps what the one before it shares out: stage 2 has moments of 2/n, too."
)
def one_thing_only(stage, n):
    return tuple(w / n if stage == s else w for s, w in ((3, 1), (2, 1), (1, 2)))


@ex.words.slip("This is the total: return three numbers.")
def total(stage, n):
    return sum(course.words(stage, n))


@ex.words.slip(
    "Gradients are shared out at stage 2: at stage 1 each rank still has all of them."
)
def gradients_too_early(stage, n):
    params, _, state = course.words(stage, n)
    return params, 1 / n if stage >= 1 else 1, state


# ---- smallest_stage ----


def _fits(P, n, memory, activations=0, layer=0, stages=range(4), size=4):
    for stage in stages:
        whole = 2 * layer if stage == 3 else 0
        if size * (P * sum(course.words(stage, n)) + whole) + activations <= memory:
            return stage
    return None


@ex.smallest_stage.slip("Words are four bytes each in float32.")
def words_for_bytes(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations, layer, size=1)


@ex.smallest_stage.slip("activations is in bytes already.")
def activations_as_words(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, 4 * activations, layer)


@ex.smallest_stage.slip("Stage 0 was never tried.")
def from_one(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations, layer, range(1, 4))


@ex.smallest_stage.slip(
    "The whole layer comes on top of what this rank stores: 2 words of each of its "
    "parameters, not those of the other ranks only."
)
def without_own_share(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations, layer * (1 - 1 / n))


@ex.smallest_stage.slip(
    "Activations were left out: they need their bytes at every stage."
)
def without_activations(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, 0, layer)


@ex.smallest_stage.slip(
    "Stage 3 gathers: while it computes, the largest layer is whole, weights and gradient."
)
def without_the_layer(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations)


@ex.smallest_stage.slip(
    "The gathered layer also gets a gradient: count its parameters twice."
)
def layer_once(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations, layer / 2)


@ex.smallest_stage.slip("Only stage 3 gathers: the others hold the layer anyway.")
def layer_at_every_stage(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations + 8 * layer)


@ex.smallest_stage.slip("What just fits, fits: <=, not <.")
def strictly(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory - 1, activations, layer)


@ex.smallest_stage.slip(
    "`memory` is that of one rank: the ranks do not lend each other any."
)
def memory_of_all(P, n, memory, activations=0, layer=0):
    return _fits(P, n, n * memory, activations, layer)


@ex.smallest_stage.slip("Where nothing fits, stage 3 does not either: return None.")
def at_least_three(P, n, memory, activations=0, layer=0):
    found = _fits(P, n, memory, activations, layer)
    return 3 if found is None else found


@ex.smallest_stage.slip("This is the last stage that fits. The first is the cheapest.")
def the_last(P, n, memory, activations=0, layer=0):
    return _fits(P, n, memory, activations, layer, range(3, -1, -1))


# ---- flat_views ----


def _flat(model, n):
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    return F.pad(flat, (0, -len(flat) % n))


@ex.flat_views.slip(
    "The parameters still live in memory of their own: p.data = a view of flat."
)
def copies(model, n):
    return _flat(model, n)


@ex.flat_views.slip("Not padded: P numbers cannot be cut into n equal parts.")
def not_padded(model, n):
    flat = _flat(model, 1)
    nn.utils.vector_to_parameters(flat, model.parameters())
    return flat


@ex.flat_views.slip("Where n divides P nothing is added: round up with -(-P // n) * n.")
def always_one_more(model, n):
    flat, start = _flat(model, 1), 0
    flat = F.pad(flat, (0, n - len(flat) % n))
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat


@ex.flat_views.slip(
    "Views of an empty tensor: copy each parameter into its place first."
)
def forgot_to_copy(model, n):
    flat, start = torch.zeros_like(_flat(model, n)), 0
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat


@ex.flat_views.slip(
    "The padding was never filled: torch.empty holds whatever lay there."
)
def empty_padding(model, n):
    old, start = _flat(model, 1), 0
    flat = torch.empty_like(_flat(model, n))
    flat[: len(old)] = old
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat


@ex.flat_views.slip(
    "The parameters are new objects, and hooks and optimisers still hold the old."
)
def new_parameters(model, n):
    flat, start = _flat(model, n), 0
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            place = flat[start : start + p.numel()].view_as(p)
            setattr(module, name, nn.Parameter(place))
            start += p.numel()
    return flat


@ex.flat_views.slip(
    "The parameters still live in memory of their own: p.data = a view of flat."
)
def copied_back(model, n):
    flat, start = _flat(model, n), 0
    for p in model.parameters():
        p.data.copy_(flat[start : start + p.numel()].view_as(p))
        start += p.numel()
    return flat


@ex.flat_views.slip("Zeros belong behind the last parameter, not before the first.")
def padded_in_front(model, n):
    flat = _flat(model, 1)
    more = -len(flat) % n
    flat, start = F.pad(flat, (more, 0)), more
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat


@ex.flat_views.slip("flat is float32 whatever the model is: make it with p.new_zeros.")
def always_float32(model, n):
    flat, start = _flat(model, n).float(), 0
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p).to(p.dtype)
        start += p.numel()
    return flat


# ---- zero1_step ----


def _whole(model, flat):
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    return F.pad(grads, (0, len(flat) - len(grads)))


def _finish(flat, part, optimizer):
    optimizer.step()
    part.grad = None
    flat.copy_(all_gather(part))


@ex.zero1_step.slip("This is the sum over ranks: divide by their number.")
def sum_for_mean(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat))
    _finish(flat, part, optimizer)


@ex.zero1_step.slip(
    "Each rank moved its part by its own rows' gradient: nothing was averaged."
)
def own_gradient(model, flat, part, optimizer):
    n = dist.get_world_size()
    part.grad = _whole(model, flat).view(n, -1)[dist.get_rank()].clone()
    _finish(flat, part, optimizer)


@ex.zero1_step.slip(
    "Each rank sees its own new part and the others' old ones: step first, then copy "
    "all_gather(part) into flat."
)
def gather_before_step(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat)) / dist.get_world_size()
    flat.copy_(all_gather(part))
    optimizer.step()
    part.grad = None


@ex.zero1_step.slip(
    "Each rank sees its own new part and the others' old ones: step first, then copy "
    "all_gather(part) into flat."
)
def never_gathered(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat)) / dist.get_world_size()
    optimizer.step()
    part.grad = None


@ex.zero1_step.slip(
    "Each rank sees its own new part and the others' old ones: step first, then copy "
    "all_gather(part) into flat."
)
def bound_to_a_name(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat)) / dist.get_world_size()
    optimizer.step()
    part.grad = None
    flat = all_gather(part)


@ex.zero1_step.slip("Right, and part.grad stays: its memory is needed no longer.")
def keeps_the_gradient(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat)) / dist.get_world_size()
    optimizer.step()
    flat.copy_(all_gather(part))


@ex.zero1_step.slip(
    "Right, and an all-reduce sends twice as much as reduce_scatter: each rank needs its "
    "own part only."
)
def all_reduced(model, flat, part, optimizer):
    whole, n = _whole(model, flat), dist.get_world_size()
    dist.all_reduce(whole)
    part.grad = whole.view(n, -1)[dist.get_rank()].clone() / n
    _finish(flat, part, optimizer)


@ex.zero1_step.slip("Averaged twice: once is enough.")
def mean_twice(model, flat, part, optimizer):
    part.grad = reduce_scatter(_whole(model, flat)) / dist.get_world_size() ** 2
    _finish(flat, part, optimizer)


@ex.zero1_step.slip("Lay the gradients out as long as flat, zeros behind.")
def without_padding(model, flat, part, optimizer):
    grads, n = [p.grad.flatten() for p in model.parameters()], dist.get_world_size()
    grads = torch.cat(grads)
    part.grad = grads.new_empty(len(grads) // n)
    call = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    call(part.grad, grads)


# ---- clip_shard ----


def _scale(grads, norm, max_norm, most=1.0):
    factor = min(max_norm / (float(norm) + 1e-6), most)
    for grad in grads:
        grad *= factor
    return norm


@ex.clip_shard.slip(
    "Each rank clips by the norm of its own part: ranks scale differently, and the "
    "gradient changes its direction."
)
def local_norm(grads, max_norm):
    return _scale(grads, torch.cat(grads).norm(), max_norm)


@ex.clip_shard.slip(
    "Norms do not add up, squares do: sum the squares over ranks, then the root."
)
def sum_of_norms(grads, max_norm):
    norm = torch.cat(grads).norm()
    dist.all_reduce(norm)
    return _scale(grads, norm, max_norm)


@ex.clip_shard.slip("This is the square of the norm: the root is missing.")
def without_root(grads, max_norm):
    total = torch.cat(grads).square().sum()
    dist.all_reduce(total)
    return _scale(grads, total, max_norm)


@ex.clip_shard.slip("A mean over ranks is no norm: the squares of all ranks add up.")
def mean_of_squares(grads, max_norm):
    total = torch.cat(grads).square().sum()
    dist.all_reduce(total)
    return _scale(grads, (total / dist.get_world_size()).sqrt(), max_norm)


@ex.clip_shard.slip(
    "The largest part's norm is not the norm of all: squares add up over ranks."
)
def largest_norm(grads, max_norm):
    norm = torch.cat(grads).norm()
    dist.all_reduce(norm, op=dist.ReduceOp.MAX)
    return _scale(grads, norm, max_norm)


@ex.clip_shard.slip(
    "A gradient that is short enough was made longer: the factor is at most 1."
)
def scales_up(grads, max_norm):
    total = torch.cat(grads).square().sum()
    dist.all_reduce(total)
    return _scale(grads, total.sqrt(), max_norm, 1e9)


@ex.clip_shard.slip(
    "The shards did not change: multiply them in place, grad *= factor."
)
def not_in_place(grads, max_norm):
    total = torch.cat(grads).square().sum()
    dist.all_reduce(total)
    norm = total.sqrt()
    grads = [grad * min(max_norm / norm, 1) for grad in grads]
    return norm


@ex.clip_shard.slip(
    "Each tensor was clipped by itself: all tensors of all ranks make one norm."
)
def each_tensor(grads, max_norm):
    for grad in grads:
        total = grad.square().sum()
        dist.all_reduce(total)
        _scale([grad], total.sqrt(), max_norm)
    return total.sqrt()


@ex.clip_shard.slip("The 1e-6 belongs to the norm.")
def without_the_millionth(grads, max_norm):
    total = torch.cat(grads).square().sum()
    dist.all_reduce(total)
    return _scale(grads, total.sqrt() - 1e-6, max_norm) + 1e-6


@ex.clip_shard.slip(
    "The sum of squares was rounded to float32: start from grads[0].new_zeros(())."
)
def float32_sum(grads, max_norm):
    total = torch.zeros(())
    for grad in grads:
        total += grad.square().sum()
    dist.all_reduce(total)
    return _scale(grads, total.sqrt(), max_norm)


@ex.clip_shard.slip(
    "The sum of squares was rounded to float32: start from grads[0].new_zeros(())."
)
def float32_factor(grads, max_norm):
    total = torch.zeros(())
    for grad in grads:
        total += grad.square().sum()
    dist.all_reduce(total)
    for grad in grads:
        grad *= (max_norm / (total.sqrt() + 1e-6)).clamp(max=1.0)
    return total.sqrt()


# ---- Zero2 ----


class _Zero2(course.Zero2):
    """`sent(piece, owner)` for each piece; `keep`, `factor`, `add` are what a slip turns."""

    keep, add = False, True

    def factor(self):
        return 1 / self.n

    def pieces(self, start, size):
        K = len(self.part)
        for owner in range(self.n):
            low, high = max(start, owner * K), min(start + size, (owner + 1) * K)
            if low < high:
                yield owner, low, high

    def reduce(self, piece, owner):
        dist.reduce(piece, dst=owner)

    def arrived(self, p):
        K, start, grad = len(self.part), self.starts[p], p.grad.flatten().clone()
        if not self.keep:
            p.grad = None
        for owner, low, high in self.pieces(start, len(grad)):
            piece = grad[low - start : high - start].clone()
            self.reduce(piece, owner)
            if owner == self.rank:
                mine = self.part.grad[low - owner * K : high - owner * K]
                mine.copy_(piece * self.factor() + (mine if self.add else 0))


@ex.Zero2.slip(
    "p.grad stays, so all gradients end up there together: set p.grad = None."
)
class keeps_gradients(_Zero2):
    keep = True


@ex.Zero2.slip("This is the sum over ranks: divide by their number.")
class sum_of_gradients(_Zero2):
    def factor(self):
        return 1


@ex.Zero2.slip(
    "A second backward pass overwrote the first: gradients add up until the step."
)
class overwrites(_Zero2):
    add = False


@ex.Zero2.slip(
    "The ranks hang: only the owner called reduce. All ranks bring their piece."
)
class owner_alone(_Zero2):
    def reduce(self, piece, owner):
        if owner == self.rank:
            dist.reduce(piece, dst=owner)


@ex.Zero2.slip(
    "Right, and an all-reduce sends the sum to everybody: only its owner needs it."
)
class to_everybody(_Zero2):
    def reduce(self, piece, owner):
        dist.all_reduce(piece)


@ex.Zero2.slip(
    "A parameter that spans several owners was given to its first owner alone, as far as "
    "it fits: the others wait for their piece."
)
class first_owner_only(_Zero2):
    def pieces(self, start, size):
        yield next(iter(super().pieces(start, size)))


@ex.Zero2.slip(
    "A parameter may span three owners: between its first and its last there are others."
)
class first_and_last_owner(_Zero2):
    def pieces(self, start, size):
        first, *rest = super().pieces(start, size)
        yield first
        yield from rest[-1:]


@ex.Zero2.slip("Nothing was exchanged: each owner has the gradient of its own rows.")
class nothing_sent(_Zero2):
    def reduce(self, piece, owner):
        piece *= self.n


@ex.Zero2.slip(
    "Every owner gets the whole gradient: bring it the numbers that it owns, and no more."
)
class whole_to_each(_Zero2):
    def arrived(self, p):
        K, start = len(self.part), self.starts[p]
        grad, p.grad = p.grad.flatten(), None
        for owner, low, high in self.pieces(start, len(grad)):
            whole = grad.clone()
            dist.reduce(whole, dst=owner)
            if owner == self.rank:
                mine = whole[low - start : high - start] / self.n
                self.part.grad[low - owner * K : high - owner * K] += mine


@ex.Zero2.slip(
    "A parameter that ends on a border has no piece behind it: the last owner is "
    "(end - 1) // K."
)
class behind_the_border(_Zero2):
    def pieces(self, start, size):
        K = len(self.part)
        for owner in range(start // K, (start + size) // K + 1):
            yield owner, max(start, owner * K), min(start + size, (owner + 1) * K)


@ex.Zero2.slip("Only the owner's piece holds the sum: no other rank adds it.")
class all_ranks_add(_Zero2):
    def arrived(self, p):
        K, start = len(self.part), self.starts[p]
        grad, p.grad = p.grad.flatten(), None
        for owner, low, high in self.pieces(start, len(grad)):
            piece = grad[low - start : high - start]
            dist.reduce(piece, dst=owner)
            self.part.grad[low - owner * K : high - owner * K] += piece / self.n


# ---- Gather ----


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part):
        return all_gather(part)


@ex.Gather.slip(
    "Backward took this rank's slice of its own gradient: the other ranks' rows pull at "
    "this part, too. Sum over ranks."
)
class own_slice(_Gather):
    @staticmethod
    def backward(ctx, grad):
        return grad.chunk(dist.get_world_size())[dist.get_rank()].contiguous()


@ex.Gather.slip(
    "This is the sum over ranks; their losses are means: divide by their number."
)
class sum_of_slices(_Gather):
    @staticmethod
    def backward(ctx, grad):
        return reduce_scatter(grad.contiguous())


@ex.Gather.slip("Averaged twice: once is enough.")
class mean_of_means(_Gather):
    @staticmethod
    def backward(ctx, grad):
        n = dist.get_world_size()
        return reduce_scatter(grad.contiguous() / n) / n


@ex.Gather.slip(
    "A gradient may be expanded or have gaps: grad.contiguous() before it travels."
)
class not_contiguous(_Gather):
    @staticmethod
    def backward(ctx, grad):
        return reduce_scatter(grad) / dist.get_world_size()


@ex.Gather.slip(
    "Right, and an all-reduce sends twice as much: this rank needs its own part of the sum."
)
class reduced_everywhere(_Gather):
    @staticmethod
    def backward(ctx, grad):
        grad, n = (
            grad.clone(memory_format=torch.contiguous_format),
            dist.get_world_size(),
        )
        dist.all_reduce(grad)
        return grad.chunk(n)[dist.get_rank()] / n


@ex.Gather.slip("The parts were added up: all_gather puts them end to end.")
class summed_forward(_Gather):
    @staticmethod
    def forward(ctx, part):
        whole = part.detach().repeat(dist.get_world_size())
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, grad):
        return reduce_scatter(grad.contiguous()) / dist.get_world_size()


@ex.Gather.slip("Backward needs nothing of the whole: save nothing.")
class saves_the_whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part):
        whole = all_gather(part)
        ctx.save_for_backward(whole)
        return whole

    @staticmethod
    def backward(ctx, grad):
        return reduce_scatter(grad.contiguous()) / dist.get_world_size()


# ---- forgetful ----


@ex.forgetful.slip(
    "A view keeps all the memory it looks into: keep shape, strides, offset."
)
def keeps_views(whole, regain):
    def unpack(x):
        regain()
        return x

    return (lambda x: x), unpack


@ex.forgetful.slip(
    "A copy is memory, too: keep shape, strides and offset, and no number."
)
def keeps_copies(whole, regain):
    pack, unpack = course.forgetful(whole, regain)

    def copied(saved):
        if isinstance(saved, tuple):
            regain()
            return saved[0]
        return saved

    return (lambda x: x if isinstance(pack(x), torch.Tensor) else (x.clone(),)), copied


@ex.forgetful.slip("unpack refers to `whole`, and so it stays alive: use regain().")
def unpack_holds_whole(whole, regain):
    pack, _ = course.forgetful(whole, regain)

    def unpack(saved):
        if isinstance(saved, torch.Tensor):
            return saved
        regain()
        return whole.detach().as_strided(*saved)

    return pack, unpack


@ex.forgetful.slip(
    "Every piece began at the start of the whole: keep x.storage_offset(), too."
)
def without_offset(whole, regain):
    pack, _ = course.forgetful(whole, regain)

    def unpack(saved):
        if isinstance(saved, torch.Tensor):
            return saved
        return regain().as_strided(saved[0], saved[1])

    return pack, unpack


@ex.forgetful.slip("A transposed piece came back row by row: keep its strides.")
def without_strides(whole, regain):
    pack, _ = course.forgetful(whole, regain)

    def unpack(saved):
        if isinstance(saved, torch.Tensor):
            return saved
        shape, _, offset = saved
        return regain()[offset : offset + shape.numel()].view(shape)

    return pack, unpack


@ex.forgetful.slip("It was made again at once, in pack: wait until backward asks.")
def too_early(whole, regain):
    pack, _ = course.forgetful(whole, regain)

    def early(x):
        saved = pack(x)
        return x if saved is x else (regain().as_strided(*saved),)

    def unpack(saved):
        return saved if isinstance(saved, torch.Tensor) else saved[0]

    return early, unpack


@ex.forgetful.slip(
    "Two views of one whole begin at different places, so x.data_ptr() differs: compare "
    "x.untyped_storage().data_ptr()."
)
def first_number(whole, regain):
    pack, unpack = course.forgetful(whole, regain)
    address = whole.data_ptr()
    return (lambda x: pack(x) if x.data_ptr() == address else x), unpack


@ex.forgetful.slip("Every other tensor passes as it is, the same object.")
def copies_the_rest(whole, regain):
    pack, unpack = course.forgetful(whole, regain)

    def copied(x):
        saved = pack(x)
        return x.clone() if saved is x else saved

    return copied, unpack


# ---- Zero3 ----


class _Zero3(course.Zero3):
    def whole(self):
        return course.Gather.apply(self.part)

    def named(self, whole):
        pieces = whole[: sum(self.sizes())].split(self.sizes())
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces)
        }

    def compute(self, whole, inputs):
        return functional_call(self.layer[0], self.named(whole), inputs)

    def forward(self, *inputs):
        whole = self.whole()
        hooks = course.forgetful(whole, lambda: all_gather(self.part))
        with saved_tensors_hooks(*hooks):
            return self.compute(whole, inputs)


@ex.Zero3.slip(
    "Autograd keeps every gathered weight: compute inside saved_tensors_hooks."
)
class without_hooks(_Zero3):
    def forward(self, *inputs):
        return self.compute(self.whole(), inputs)


@ex.Zero3.slip("all_gather is a call that autograd does not see: use Gather.apply.")
class unseen_gather(_Zero3):
    def whole(self):
        return all_gather(self.part).requires_grad_()


@ex.Zero3.slip(
    "Something still holds the whole after forward, regain or self: gather it anew, and "
    "let it go."
)
class regain_holds(_Zero3):
    def forward(self, *inputs):
        whole = self.whole()
        kept = whole.detach()
        with saved_tensors_hooks(*course.forgetful(whole, lambda: kept)):
            return self.compute(whole, inputs)


@ex.Zero3.slip("A plain all_gather has no backward: Gather.apply(self.part).")
class plain_gather(_Zero3):
    def whole(self):
        return all_gather(self.part)


@ex.Zero3.slip("A layer may have several inputs: pass on the tuple `inputs`, whole.")
class first_input_only(_Zero3):
    def compute(self, whole, inputs):
        return functional_call(self.layer[0], self.named(whole), inputs[0])


@ex.Zero3.slip("A layer may have several inputs: pass on the tuple `inputs`, whole.")
class inputs_unpacked(_Zero3):
    def compute(self, whole, inputs):
        return functional_call(self.layer[0], self.named(whole), *inputs)


@ex.Zero3.slip("The whole is padded: cut it to sum(self.sizes()) before you split.")
class padding_stays(_Zero3):
    def named(self, whole):
        pieces = whole.split(self.sizes())
        return {
            name: piece.view(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces)
        }


@ex.Zero3.slip(
    "What is gathered again is this rank's part only, repeated: all_gather(self.part)."
)
class regains_own_part(_Zero3):
    def forward(self, *inputs):
        whole = self.whole()
        n = dist.get_world_size()
        hooks = course.forgetful(whole, lambda: self.part.detach().repeat(n))
        with saved_tensors_hooks(*hooks):
            return self.compute(whole, inputs)


@ex.Zero3.slip(
    "Something still holds the whole after forward, regain or self: gather it anew, and "
    "let it go."
)
class keeps_whole(_Zero3):
    def whole(self):
        self.kept = [super().whole()]
        return self.kept[0]


# ---- save_shards ----


def _save(path, parts, sizes, place, cut=True):
    rank, n = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        with open(path, "wb") as file:
            file.truncate(sum(sizes) * parts[0].element_size())
    dist.barrier()
    with open(path, "r+b") as file:
        for i, (part, size) in enumerate(zip(parts, sizes)):
            start = min(rank * len(part), size)
            mine = part.detach()[: size - start] if cut else part.detach()
            if len(mine):
                file.seek(place(i, rank, n, part))
                file.write(mine.numpy().tobytes())
    dist.barrier()


@ex.save_shards.slip(
    "Padding was written: it lies on the next layer, or behind the end."
)
def with_padding(path, parts, sizes):
    def place(i, rank, n, part):
        return (sum(sizes[:i]) + rank * len(part)) * part.element_size()

    _save(path, parts, sizes, place, cut=False)


@ex.save_shards.slip(
    "On a rank that holds padding only, size - rank * K is negative, and part[:-1] is not "
    "empty: write nothing there."
)
def cut_below_zero(path, parts, sizes):
    rank, first = dist.get_rank(), 0
    if rank == 0:
        with open(path, "wb") as file:
            file.truncate(sum(sizes) * parts[0].element_size())
    dist.barrier()
    with open(path, "r+b") as file:
        for part, size in zip(parts, sizes):
            start = rank * len(part)
            mine = part.detach()[: min(start + len(part), size) - start]
            file.seek((first + start) * part.element_size())
            file.write(mine.numpy().tobytes())
            first += size
    dist.barrier()


@ex.save_shards.slip("file.seek counts bytes: numbers times part.element_size().")
def seeks_numbers(path, parts, sizes):
    _save(
        path, parts, sizes, lambda i, rank, n, part: sum(sizes[:i]) + rank * len(part)
    )


@ex.save_shards.slip("A number has part.element_size() bytes, which is not always 8.")
def eight_bytes(path, parts, sizes):
    _save(path, parts, sizes,
          lambda i, rank, n, part: 8 * (sum(sizes[:i]) + rank * len(part)))  # fmt: skip


@ex.save_shards.slip("Rank by rank: the file is layer by layer, each whole.")
def rank_by_rank(path, parts, sizes):
    def place(i, rank, n, part):
        before = sum(len(p) for p in parts)
        return (rank * before + sum(len(p) for p in parts[:i])) * part.element_size()

    _save(path, parts, sizes, place)


@ex.save_shards.slip(
    "A layer begins behind the numbers before it, and padding is none of them."
)
def counts_padding(path, parts, sizes):
    def place(i, rank, n, part):
        first = sum(len(p) * n for p in parts[:i])
        return (first + rank * len(part)) * part.element_size()

    _save(path, parts, sizes, place)


@ex.save_shards.slip(
    "Every layer was written at the beginning of the file: first += size."
)
def all_in_one_place(path, parts, sizes):
    _save(
        path,
        parts,
        sizes,
        lambda i, rank, n, part: rank * len(part) * part.element_size(),
    )


@ex.save_shards.slip(
    "Right, and every weight has travelled: each rank can write its own."
)
def gathers_first(path, parts, sizes):
    whole = [all_gather(part.detach())[:size] for part, size in zip(parts, sizes)]
    if dist.get_rank() == 0:
        with open(path, "wb") as file:
            file.write(torch.cat(whole).numpy().tobytes())
    dist.barrier()
