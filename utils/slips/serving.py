"""Chapter 28: small wrong programs, and the sentence that names each."""

import hashlib

import numpy as np
import torch

from utils.built import engine as right
from utils.built import paged
from utils.built import speculative as spec
from utils.built.gpt import Cache
from utils.checks import serving as ex

# ---- users ----


@ex.users.slip("A block that is begun is taken whole: round the blocks up, not down.")
def blocks_rounded_down(lengths, memory, token_bytes, block):
    free, fit = memory // (block * token_bytes), 0
    for n in lengths:
        free -= n // block
        if free < 0:
            break
        fit += 1
    return fit


@ex.users.slip(
    "This counts tokens as if they needed no blocks: a request takes whole ones."
)
def no_blocks(lengths, memory, token_bytes, block):
    free, fit = memory // token_bytes, 0
    for n in lengths:
        free -= n
        if free < 0:
            break
        fit += 1
    return fit


@ex.users.slip(
    "A later, shorter request passes the first that does not fit: first come, first "
    "served, so stop there."
)
def overtakes(lengths, memory, token_bytes, block):
    free, fit = memory // (block * token_bytes), 0
    for n in lengths:
        if -(-n // block) <= free:
            free -= -(-n // block)
            fit += 1
    return fit


@ex.users.slip(
    "A length that fills its blocks needs no other: this takes one too many."
)
def one_block_more(lengths, memory, token_bytes, block):
    free, fit = memory // (block * token_bytes), 0
    for n in lengths:
        free -= n // block + 1
        if free < 0:
            break
        fit += 1
    return fit


@ex.users.slip(
    "The request that takes the last block still fits: stop below 0, not at 0."
)
def keeps_one_free(lengths, memory, token_bytes, block):
    free, fit = memory // (block * token_bytes), 0
    for n in lengths:
        free -= -(-n // block)
        if free <= 0:
            break
        fit += 1
    return fit


@ex.users.slip(
    "`memory` is in bytes: a block has block * token_bytes of them, not `block`."
)
def memory_in_tokens(lengths, memory, token_bytes, block):
    return paged.users(lengths, memory, 1, block)


@ex.users.slip("This gives every request as much as the longest takes.")
def longest_for_all(lengths, memory, token_bytes, block):
    if not lengths:
        return 0
    each = -(-max(lengths) // block)
    return min(len(lengths), memory // (block * token_bytes) // each)


# ---- decode_step ----


@ex.decode_step.slip(
    "Without positions every row's token stands behind the longest row: a shorter one "
    "would see what an earlier text has left."
)
def behind_the_longest(model, ids_B, cache, length_B):
    return model(ids_B[:, None], cache=cache)[:, 0]


@ex.decode_step.slip(
    "One place too far: a row that holds 5 tokens has positions 0 to 4, the new one is 5."
)
def one_too_far(model, ids_B, cache, length_B):
    return model(ids_B[:, None], cache=cache, positions=length_B[:, None] + 1)[:, 0]


@ex.decode_step.slip(
    "This overwrites each row's last token: position length - 1 is taken, the new one is "
    "at length."
)
def one_too_near(model, ids_B, cache, length_B):
    at = (length_B - 1).clamp(min=0)
    return model(ids_B[:, None], cache=cache, positions=at[:, None])[:, 0]


@ex.decode_step.slip(
    "The axis of tokens is still there: the logits of one token per row are (B, V)."
)
def keeps_an_axis(model, ids_B, cache, length_B):
    return model(ids_B[:, None], cache=cache, positions=length_B[:, None])


@ex.decode_step.slip(
    "This reads the tokens without the cache: they know nothing of what came before."
)
def without_cache(model, ids_B, cache, length_B):
    return model(ids_B[:, None], positions=length_B[:, None])[:, 0]


@ex.decode_step.slip("positions has the shape (B, T), here (B, 1): length_B[:, None].")
def flat_positions(model, ids_B, cache, length_B):
    return model(ids_B[:, None], cache=cache, positions=length_B)[:, 0]


# ---- continuous ----


@ex.continuous.slip(
    "This is static batching: newcomers wait until nobody runs. Fill the free slots."
)
def waits_for_all(waiting, running, slots):
    return running or waiting[:slots]


@ex.continuous.slip("Only one newcomer joins per step, though more slots may be free.")
def one_at_a_time(waiting, running, slots):
    return running + waiting[: min(1, slots - len(running))]


@ex.continuous.slip("First come, first served: this takes the end of the queue.")
def last_come(waiting, running, slots):
    free = slots - len(running)
    return running + waiting[::-1][:free]


@ex.continuous.slip(
    "So many slots are not free: those who run have theirs. slots - len(running) are."
)
def too_many(waiting, running, slots):
    return running + waiting[:slots]


@ex.continuous.slip("Whoever runs is thrown out here: they go on, and newcomers join.")
def forgets_running(waiting, running, slots):
    return waiting[: slots - len(running)]


@ex.continuous.slip("The queue has its order; sorted by number, a later one may pass.")
def by_number(waiting, running, slots):
    return running + sorted(waiting)[: slots - len(running)]


@ex.continuous.slip(
    "running grows here, and the server still needs it: make a new list (a + b, not append, "
    "pop or +=)."
)
def grows_running(waiting, running, slots):
    running += waiting[: slots - len(running)]
    return running


@ex.continuous.slip(
    "Both lists change here, and the server still needs them: make a new list (a + b, not "
    "append, pop or +=)."
)
def moves_over(waiting, running, slots):
    while waiting and len(running) < slots:
        running.append(waiting.pop(0))
    return running


# ---- share_out ----


@ex.share_out.slip(
    "The writers' tokens belong to the budget, too: budget - writers are left for prompts."
)
def forgets_writers(left, writers, budget):
    return right.share_out(left, 0, budget)


@ex.share_out.slip(
    "Every prompt gets the whole rest here: what one takes, others lack."
)
def everybody_all(left, writers, budget):
    return [max(0, min(n, budget - writers)) for n in left]


@ex.share_out.slip(
    "Equal parts let all prompts wait for all: first come, first served."
)
def equal_parts(left, writers, budget):
    part = (budget - writers) // max(1, len(left))
    return [min(n, part) for n in left]


@ex.share_out.slip(
    "This reads a prompt whole or not at all: cut it, and read the part that fits."
)
def whole_or_nothing(left, writers, budget):
    room, pieces = budget - writers, []
    for n in left:
        pieces.append(n if n <= room else 0)
        room -= pieces[-1]
    return pieces


@ex.share_out.slip(
    "The shortest prompt is served first here, not the one that came first."
)
def shortest_first(left, writers, budget):
    room, pieces = budget - writers, [0] * len(left)
    for i in sorted(range(len(left)), key=lambda i: left[i]):
        pieces[i] = max(0, min(left[i], room))
        room -= pieces[i]
    return pieces


@ex.share_out.slip("What is left must go down with each prompt; here it goes below 0.")
def below_zero(left, writers, budget):
    room, pieces = budget - writers, []
    for n in left:
        pieces.append(min(n, room))
        room -= n
    return pieces


@ex.share_out.slip("Prompts without a part must stay in the list, with 0.")
def leaves_them_out(left, writers, budget):
    return [n for n in right.share_out(left, writers, budget) if n]


# ---- Pool ----


class _Pool:
    "A right one to begin from, in plain lists."

    def __init__(self, blocks, block=16):
        self.block = block
        self.users = [0] * blocks
        self.free = list(range(blocks))

    def take(self):
        if not self.free:
            raise RuntimeError("no block is free")
        number = self.free.pop()
        self.users[number] = 1
        return number

    def share(self, number):
        if not self.users[number]:
            raise ValueError(f"nobody has block {number}")
        self.users[number] += 1

    def release(self, number):
        if not self.users[number]:
            raise ValueError(f"nobody has block {number}")
        self.users[number] -= 1
        if not self.users[number]:
            self.free.append(number)

    def extend(self, table, tokens):
        missing = -(-tokens // self.block) - len(table)
        if missing > len(self.free):
            raise RuntimeError("too few blocks are free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip(
    "release makes a block free while another table still has it: only the last user does."
)
class FreesShared(_Pool):
    def release(self, number):
        if not self.users[number]:
            raise ValueError(f"nobody has block {number}")
        self.users[number] -= 1
        self.free.append(number)


@ex.Pool.slip("Released blocks never come back into `free`.")
class NeverFrees(_Pool):
    def release(self, number):
        if not self.users[number]:
            raise ValueError(f"nobody has block {number}")
        self.users[number] -= 1


@ex.Pool.slip(
    "A block that nobody has cannot be released: without a ValueError it is free twice."
)
class ReleasesTwice(_Pool):
    def release(self, number):
        self.users[number] = max(0, self.users[number] - 1)
        if not self.users[number]:
            self.free.append(number)


@ex.Pool.slip("share must raise ValueError for a block that nobody has.")
class SharesAnything(_Pool):
    def share(self, number):
        self.users[number] += 1


@ex.Pool.slip("take must set the number of users to 1.")
class TakesUncounted(_Pool):
    def take(self):
        if not self.free:
            raise RuntimeError("no block is free")
        return self.free.pop()


@ex.Pool.slip("take must take the number out of `free`.")
class StaysFree(_Pool):
    def take(self):
        if not self.free:
            raise RuntimeError("no block is free")
        self.users[self.free[-1]] = 1
        return self.free[-1]


@ex.Pool.slip(
    "A full block needs no other yet: 4 tokens in blocks of 4 are one block, not two."
)
class OneTooMany(_Pool):
    def extend(self, table, tokens):
        missing = tokens // self.block + 1 - len(table)
        if missing > len(self.free):
            raise RuntimeError("too few blocks are free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip("A block that is begun is needed: round up.")
class RoundsDown(_Pool):
    def extend(self, table, tokens):
        missing = tokens // self.block - len(table)
        if missing > len(self.free):
            raise RuntimeError("too few blocks are free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip("extend adds what is missing: the table has blocks already.")
class ExtendsFromZero(_Pool):
    def extend(self, table, tokens):
        missing = -(-tokens // self.block)
        if missing > len(self.free):
            raise RuntimeError("too few blocks are free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip(
    "extend takes block after block until there is none: the table is left half grown. Ask "
    "first whether all fit."
)
class HalfGrown(_Pool):
    def extend(self, table, tokens):
        while len(table) < -(-tokens // self.block):
            table.append(self.take())


@ex.Pool.slip(
    "The last free blocks may be taken, too: raise where missing > free, not >=."
)
class KeepsOne(_Pool):
    def extend(self, table, tokens):
        missing = -(-tokens // self.block) - len(table)
        if missing and missing >= len(self.free):
            raise RuntimeError("too few blocks are free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip(
    "The last free blocks may be taken, too: raise where missing > free, not >=."
)
class KeepsOneAlways(_Pool):
    def extend(self, table, tokens):
        missing = -(-tokens // self.block) - len(table)
        if missing >= len(self.free):
            raise RuntimeError("too few free")
        for _ in range(missing):
            table.append(self.take())


@ex.Pool.slip(
    "The table's own blocks are forgotten when you ask whether all fit: only what is "
    "missing must be free."
)
class AsksForAll(_Pool):
    def extend(self, table, tokens):
        need = -(-tokens // self.block)
        if need > len(self.free):
            raise RuntimeError("too few free")
        while len(table) < need:
            table.append(self.take())


# ---- paged_attention ----


def _gathered(x_PHSD, table_BN):
    return x_PHSD[table_BN].transpose(1, 2).flatten(2, 3)


def _mixed(q, k, v, seen_BS, scale=None):
    scores = (k @ q[..., None])[..., 0] / (scale or q.shape[-1] ** 0.5)
    scores = scores.masked_fill(~seen_BS[:, None], -torch.inf)
    return (scores.softmax(-1)[:, :, None] @ v)[:, :, 0]


def _seen(k, length_B):
    return torch.arange(k.shape[2]) < length_B[:, None]


@ex.paged_attention.slip(
    "The blocks are read in the order of their numbers; the table's order is the text's."
)
def sorted_blocks(q, keys, values, table, length):
    table = table.sort(1).values
    k, v = _gathered(keys, table), _gathered(values, table)
    return _mixed(q, k, v, _seen(k, length))


@ex.paged_attention.slip(
    "Without a mask each row sees the rest of its last block, and what fills its table."
)
def no_mask(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    return _mixed(q, k, v, torch.ones(len(q), k.shape[2], dtype=torch.bool))


@ex.paged_attention.slip(
    "One token too many is seen: positions 0 to length - 1 are its own."
)
def one_token_more(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    return _mixed(q, k, v, _seen(k, length + 1))


@ex.paged_attention.slip(
    "The longest row's length masks all rows here: each has its own."
)
def longest_mask(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    return _mixed(q, k, v, _seen(k, length.max().expand(len(q))))


@ex.paged_attention.slip(
    "A reshape cannot bring heads before blocks: transpose first, then flatten N and S."
)
def reshaped(q, keys, values, table, length):
    (B, N), (_, H, S, D) = table.shape, keys.shape
    k, v = (x[table].reshape(B, H, N * S, D) for x in (keys, values))
    return _mixed(q, k, v, _seen(k, length))


@ex.paged_attention.slip("The scores are not divided by the root of D.")
def unscaled(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    return _mixed(q, k, v, _seen(k, length), 1.0)


@ex.paged_attention.slip(
    "Whole blocks are masked: within the last block, length counts tokens."
)
def whole_blocks(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    S = keys.shape[2]
    return _mixed(q, k, v, _seen(k, -(-length // S) * S))


@ex.paged_attention.slip("A score of 0 still has a share, e ** 0 is 1: mask with -inf.")
def masked_with_0(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    scores = (k @ q[..., None])[..., 0] / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~_seen(k, length)[:, None], 0)
    return (scores.softmax(-1)[:, :, None] @ v)[:, :, 0]


@ex.paged_attention.slip(
    "Masked after the softmax, a row's shares no longer add up to 1: mask the scores, "
    "before it."
)
def masked_late(q, keys, values, table, length):
    k, v = _gathered(keys, table), _gathered(values, table)
    shares = ((k @ q[..., None])[..., 0] / q.shape[-1] ** 0.5).softmax(-1)
    shares = shares.masked_fill(~_seen(k, length)[:, None], 0)
    return (shares[:, :, None] @ v)[:, :, 0]


@ex.paged_attention.slip(
    "S comes before N here: the text runs through a block, then on to the next. Bring the "
    "axes into the order (B, H, N, S, D)."
)
def across_blocks(q, keys, values, table, length):
    k, v = (x[table].permute(0, 2, 3, 1, 4).flatten(2, 3) for x in (keys, values))
    return _mixed(q, k, v, _seen(k, length))


# ---- prefix_keys ----


def _pieces(tokens, block):
    return [tokens[e - block : e] for e in range(block, len(tokens) + 1, block)]


def _digest(text):
    return hashlib.sha256(text.encode()).digest()


@ex.prefix_keys.slip(
    "This is the key of the block alone: the same words behind another beginning have "
    "other keys and values."
)
def block_alone(tokens, block):
    return [_digest(str(list(piece))) for piece in _pieces(tokens, block)]


@ex.prefix_keys.slip("A block that is not full has no key yet: it will still change.")
def with_the_rest(tokens, block):
    return [
        _digest(str(list(tokens[: i + block]))) for i in range(0, len(tokens), block)
    ]


@ex.prefix_keys.slip(
    "Written without anything between them, 1, 23 and 12, 3 are the same digits."
)
def run_together(tokens, block):
    keys, key = [], ""
    for piece in _pieces(tokens, block):
        key = key + "|" + "".join(map(str, piece))
        keys.append(key)
    return keys


@ex.prefix_keys.slip("This forgets the order of the tokens.")
def summed(tokens, block):
    return [sum((t + 1) ** 2 for t in tokens[: (i + 1) * block])
            for i in range(len(tokens) // block)]  # fmt: skip


@ex.prefix_keys.slip(
    "The block's own tokens are missing: this is the key of what is before."
)
def only_before(tokens, block):
    return [
        _digest(str(list(tokens[: i * block]))) for i in range(len(tokens) // block)
    ]


@ex.prefix_keys.slip(
    "This looks one block back only: the key must stand for everything before."
)
def one_block_back(tokens, block):
    return [_digest(str(list(tokens[max(0, (i - 1) * block) : (i + 1) * block])))
            for i in range(len(tokens) // block)]  # fmt: skip


@ex.prefix_keys.slip(
    "A list cannot be looked up in a dict: make it a tuple, bytes or text."
)
def lists(tokens, block):
    return [list(tokens[: (i + 1) * block]) for i in range(len(tokens) // block)]


@ex.prefix_keys.slip("A key per token, not per block.")
def per_token(tokens, block):
    return [_digest(str(list(tokens[: i + 1]))) for i in range(len(tokens))]


@ex.prefix_keys.slip(
    "bytes(...) takes numbers from 0 to 255 only, and tokens may be larger: write them as "
    "text, or give each several bytes."
)
def a_byte_each(tokens, block):
    return [
        hashlib.sha256(bytes(tokens[:e])).digest()
        for e in range(block, len(tokens) + 1, block)
    ]


@ex.prefix_keys.slip(
    "One byte per token: 7 and 263 become the same. Write tokens as text, or give each "
    "several bytes."
)
def cut_to_a_byte(tokens, block):
    return [
        hashlib.sha256(bytes(t % 256 for t in tokens[:e])).digest()
        for e in range(block, len(tokens) + 1, block)
    ]


# ---- preempt ----


def _leave(request, pool):
    while request.table:
        pool.release(request.table.pop())


@ex.preempt.slip("The oldest leaves here. It has most to lose: the youngest gives way.")
def oldest_first(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop(0)
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip(
    "Who leaves waits behind all others here, and may never get done: it goes to the front."
)
def to_the_end(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        waiting.append(request)


@ex.preempt.slip(
    "Of two who leave, the younger comes first in the queue here: keep the order of arrival."
)
def turned_round(running, waiting, pool, needed):
    place = 0
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        waiting.insert(place, request)
        place += 1


@ex.preempt.slip("The blocks are never released: nothing is gained.")
def keeps_blocks(running, waiting, pool, needed):
    freed = len(pool.free)
    while freed < needed and len(running) > 1:
        request = running.pop()
        freed += len(request.table)
        request.table = []
        waiting.insert(0, request)


@ex.preempt.slip(
    "Even the oldest leaves here. It must stay: two that throw each other out never end."
)
def nobody_stays(running, waiting, pool, needed):
    while len(pool.free) < needed and running:
        request = running.pop()
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip(
    "A released block that another table still has is not free: look at pool.free again."
)
def counts_tables(running, waiting, pool, needed):
    freed = len(pool.free)
    while freed < needed and len(running) > 1:
        request = running.pop()
        freed += len(request.table)
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip("The table still names blocks that are another's now: empty it.")
def keeps_its_table(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        for number in request.table:
            pool.release(number)
        waiting.insert(0, request)


@ex.preempt.slip("Only one leaves here; go on until enough blocks are free.")
def only_one(running, waiting, pool, needed):
    if len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip("What was written is lost: the reader has read it already. Keep it.")
def forgets_the_text(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        request.written = []
        waiting.insert(0, request)


@ex.preempt.slip("Somebody leaves though enough blocks are free.")
def always_one(running, waiting, pool, needed):
    while len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        waiting.insert(0, request)
        if len(pool.free) >= needed:
            break


@ex.preempt.slip(
    "The oldest leaves, too, and then nobody is left to give way: stop when one runs."
)
def no_guard(running, waiting, pool, needed):
    while len(pool.free) < needed:
        request = running.pop()
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip(
    "running = running[:-1] makes a new list: change running and waiting in place."
)
def new_running(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request, running = running[-1], running[:-1]
        _leave(request, pool)
        waiting.insert(0, request)


@ex.preempt.slip(
    "waiting = [request, *waiting] makes a new list: change running and waiting in place."
)
def new_waiting(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        _leave(request, pool)
        waiting = [request, *waiting]


@ex.preempt.slip(
    "Neither list has changed: running = running[:-1] would make a new one. Change running "
    "and waiting in place."
)
def both_new(running, waiting, pool, needed):
    while len(pool.free) < needed and len(running) > 1:
        request, running = running[-1], running[:-1]
        _leave(request, pool)
        waiting = [request, *waiting]


# ---- accept ----


@ex.accept.slip(
    "Drawn from p itself, what q proposes too rarely still comes too rarely: draw from "
    "max(p - q, 0)."
)
def from_p(p_V, q_V, token, u, w):
    return token if u * q_V[token] < p_V[token] else spec.inverse(p_V, w)


@ex.accept.slip("Kept if it is p's favourite: that writes the favourite far too often.")
def favourite(p_V, q_V, token, u, w):
    if token == int(np.argmax(p_V)):
        return token
    return spec.inverse(np.maximum(p_V - q_V, 0), w)


@ex.accept.slip(
    "The chance to stay is p, not p / q: this forgets that the draft proposed it with q."
)
def forgets_q(p_V, q_V, token, u, w):
    if u < p_V[token]:
        return token
    return spec.inverse(np.maximum(p_V - q_V, 0), w)


@ex.accept.slip("Upside down: the token stays where u < p / q, not q / p.")
def upside_down(p_V, q_V, token, u, w):
    if u * p_V[token] < q_V[token]:
        return token
    return spec.inverse(np.maximum(p_V - q_V, 0), w)


@ex.accept.slip("Whatever the draft proposes stays: that is the draft's law.")
def always(p_V, q_V, token, u, w):
    return token


@ex.accept.slip(
    "The replacement is the likeliest of max(p - q, 0); it must be drawn, with w."
)
def likeliest_rest(p_V, q_V, token, u, w):
    if u * q_V[token] < p_V[token]:
        return token
    return int(np.argmax(np.maximum(p_V - q_V, 0)))


@ex.accept.slip(
    "|p - q| gives a share to what q already gives too often: cut below 0, max(p - q, 0)."
)
def absolute(p_V, q_V, token, u, w):
    if u * q_V[token] < p_V[token]:
        return token
    return spec.inverse(np.abs(p_V - q_V), w)


@ex.accept.slip("With <= a token that p never writes stays at u = 0.")
def at_zero(p_V, q_V, token, u, w):
    if u * q_V[token] <= p_V[token]:
        return token
    return spec.inverse(np.maximum(p_V - q_V, 0), w)


@ex.accept.slip("One random number for both: w, not u, draws the replacement.")
def same_dice(p_V, q_V, token, u, w):
    if u * q_V[token] < p_V[token]:
        return token
    return spec.inverse(np.maximum(p_V - q_V, 0), u)


@ex.accept.slip("The model must decide alone here: the draft's proposal is never kept.")
def never(p_V, q_V, token, u, w):
    return spec.inverse(p_V, w)


# ---- speculate ----


def _round(model, draft, prompt, count, K, dice, *, forget=1, bonus=True, row=0, stop=True,
           chain=True, cut=True, own=True, calls_of=1, late=0, judge=None, last=None,
           put=True):  # fmt: skip
    judge = judge or (
        lambda p, q, t, dice: spec.accept(p, q, t, dice.random(), dice.random())
    )
    cache, tokens, calls = Cache(), list(prompt), 0
    while len(tokens) < len(prompt) + count:
        proposed, laws = [], []
        for _ in range(K):
            laws.append(draft(tokens + proposed if chain else tokens))
            proposed.append(spec.inverse(laws[-1], dice.random()))
        unread = (tokens[cache.length :] or tokens[-1:]) + proposed
        p_KV = spec.chances(model(torch.tensor([unread]), cache=cache)[:, -K - 1 :])
        calls += calls_of
        for k, (q_V, token) in enumerate(zip(laws, proposed)):
            p_V = p_KV[min(K, k + late)]
            new = judge(p_V, q_V, token, dice)
            if put or new == token:
                tokens.append(new)
            if new != token and stop:
                break
        else:
            if bonus:
                law_V = last(draft, tokens, laws) if last else p_KV[K - row]
                tokens.append(spec.inverse(law_V, dice.random()))
        if forget is not None:
            cache.length = max(0, len(tokens) - forget)
    end = len(prompt) + count if cut else None
    return tokens[len(prompt) if own else 0 : end], calls


@ex.speculate.slip(
    "The cache keeps proposals that were turned down: set cache.length back to "
    "len(tokens) - 1."
)
def never_forgets(*args):
    return _round(*args, forget=None)


@ex.speculate.slip(
    "The last token has not been read yet, since it was chosen after the call: the cache "
    "holds len(tokens) - 1."
)
def one_too_long(*args):
    return _round(*args, forget=0)


@ex.speculate.slip(
    "The cache forgets one token too many. It is read again, and the call reads more than it must."
)
def one_too_short(*args):
    return _round(*args, forget=3)


@ex.speculate.slip(
    "When all K stay, the last row of the same call is a law, too: draw one token more."
)
def no_bonus(*args):
    return _round(*args, bonus=False)


@ex.speculate.slip(
    "The token behind all proposals comes from the last row, p_KV[K]; this takes the one before."
)
def bonus_from_before(*args):
    return _round(*args, row=1)


@ex.speculate.slip(
    "After a replaced token, the next proposals stand behind a text that is not there: stop."
)
def goes_on(*args):
    return _round(*args, stop=False)


@ex.speculate.slip(
    "Every proposal is made behind the ones before it: draft(tokens + proposed)."
)
def unchained(*args):
    return _round(*args, chain=False)


@ex.speculate.slip("The last round may write more than `count`: cut the rest off.")
def uncut(*args):
    return _round(*args, cut=False)


@ex.speculate.slip("Return the new tokens, without the prompt.")
def with_prompt(*args):
    return _round(*args, own=False, cut=False)


@ex.speculate.slip("The rows are one late: the law of proposal k is row k, not k + 1.")
def one_row_late(*args):
    return _round(*args, late=1)


@ex.speculate.slip("Calls are counted per token here; one per round.")
def counts_tokens(model, draft, prompt, count, K, dice):
    tokens, _ = _round(model, draft, prompt, count, K, dice)
    return tokens, len(tokens)


@ex.speculate.slip("Is the replacement appended? Else a round may bring nothing.")
def not_appended(*args):
    return _round(*args, put=False)


MODELS = "The token behind all proposals is the model's, not the draft's."


@ex.speculate.slip(MODELS)
def last_of_the_draft(*args):
    return _round(*args, last=lambda draft, tokens, laws: draft(tokens))


@ex.speculate.slip(MODELS)
def last_law_again(*args):
    return _round(*args, last=lambda draft, tokens, laws: laws[-1])


@ex.speculate.slip(
    "The replacement is drawn from p itself here: accept(...) draws it from max(p - q, 0)."
)
def replaced_from_p(*args):
    def judge(p, q, t, dice):
        if dice.random() * q[t] < p[t]:
            return t
        return spec.inverse(p, dice.random())

    return _round(*args, judge=judge)


@ex.speculate.slip(
    "One random number for both: whoever turns a proposal down must draw the replacement "
    "with a fresh one."
)
def one_number_for_both(*args):
    def judge(p, q, t, dice):
        u = dice.random()
        return spec.accept(p, q, t, u, u)

    return _round(*args, judge=judge)


@ex.speculate.slip(
    "The replacement is always the likeliest of max(p - q, 0) here: it must be drawn."
)
def likeliest_replacement(*args):
    def judge(p, q, t, dice):
        if dice.random() * q[t] < p[t]:
            return t
        return int(np.argmax(np.maximum(p - q, 0)))

    return _round(*args, judge=judge)


@ex.speculate.slip(
    "The law is right, but fewer proposals stay than could: here one stays only if the "
    "model happens to draw the same token. Decide with accept(...)."
)
def drawn_from_p(*args):
    return _round(*args, judge=lambda p, q, t, dice: spec.inverse(p, dice.random()))
