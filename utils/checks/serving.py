"""Chapter 28: room for readers, steps, blocks, prefixes, and decisions that keep the law.

Clocks are counted, random numbers are handed in, models are tiny: nothing here waits.
"""

import math
import random
from types import SimpleNamespace

import numpy as np
import torch

from utils.built import engine, gpt, paged, speculative
from utils.exercises import Chapter, Miss, same

chapter = Chapter("28_serving")
# a check leaves the reader's dice alone
keeps_random = torch.random.fork_rng(devices=[])


def draws(*shape, seed=0):
    "The same normal numbers in every check, float64: rounding decides nothing."
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tiny(V=11, sharp=1.0, seed=0, width=8):
    "A small GPT in float64 with drawn weights; sharp: how sure of itself it is."
    torch.manual_seed(seed)
    model = gpt.GPT(V, 64, 2, 2, width, start="normal", softcap=None).double()
    for p in model.parameters():
        p.data = draws(*p.shape, seed=p.numel()) / 2
        p.requires_grad_(False)
    model.head.weight.data *= sharp
    return model.eval()


# ---- room ----


@chapter.exercise(
    "How many blocks does the memory have? How many does each request take?",
    "A block is `block` tokens: block * token_bytes bytes. A request of n tokens takes n / "
    "block blocks, rounded up. Stop at the first that does not fit.",
    "free = memory // (block * token_bytes); for n in lengths: free -= -(-n // block); if "
    "free < 0: break; fit += 1",
)
def users(answer):
    "How many requests of a queue fit into memory at once."
    up = "Each request takes whole blocks, its tokens over `block`, rounded up."
    for lengths, memory, size, block, rule in [
        ([20, 16, 17, 40, 30, 60], 300, 3, 16, up),
        ([4, 4, 4], 24, 2, 4, "A length that fills its blocks takes no block more, and a "
         "request that takes the last block still fits."),
        ([5, 3, 9, 8], 60, 4, 4, up),
        ([7, 30, 1, 2], 70, 5, 1, "First come, first served: nobody passes one that does "
         "not fit yet."),
        ([20, 20, 20], 5000, 5, 512, "Where a block is as long as the longest text, every "
         "request takes all of it."),
        ([1, 1, 1, 1, 1], 99, 10, 3, "Memory is cut into whole blocks; what is left over "
         "holds nothing."),
        ([3], 59, 4, 16, "Less memory than a block holds nobody."),
        ([12, 2, 5], 10**6, 4, 8, "With room for all, all of the queue fit."),
        ([], 1000, 4, 16, "Nobody waits: 0."),
    ]:  # fmt: skip
        same(f"lengths {lengths}, {memory} bytes, {size} per token, blocks of {block}",
             answer(lengths, memory, size, block),
             paged.users(lengths, memory, size, block), rule)  # fmt: skip


# ---- steps ----


@chapter.exercise(
    "What does the model need to know about a row, beside its token? Where it stands.",
    "A row that holds 5 tokens has positions 0 to 4; the new one stands at 5. Chapter 09's "
    "GPT takes positions of shape (B, T), a row for each text; here T = 1.",
    "model(ids_B[:, None], cache=cache, positions=length_B[:, None])[:, 0]",
)
@keeps_random
def decode_step(answer):
    "One new token for every row, each at a place of its own."
    model = tiny()
    for lengths, rule in [
        ([4, 4], "One new token per row; logits of shape (B, V)."),
        ([5, 2, 7], "Row b's token stands behind its own length_B[b] tokens, at position "
         "length_B[b]: not behind the longest row's."),
        ([3, 0, 6, 1], "A row of length 0 begins anew: what an earlier text left in its "
         "slots is not seen."),
        ([6], "A single row is a batch, too."),
    ]:  # fmt: skip
        B = len(lengths)
        ids = torch.randint(11, (B, 12), generator=torch.Generator().manual_seed(B))
        length, cache = torch.tensor(lengths), gpt.Cache()
        dirty = torch.randint(11, (B, 9), generator=torch.Generator().manual_seed(9))
        model(dirty, cache=cache, positions=torch.arange(9).expand(B, 9))
        longest = max(lengths)
        if longest:  # shorter rows read a little further; that is written over below
            model(
                ids[:, :longest],
                cache=cache,
                positions=torch.arange(longest).expand(B, -1),
            )
        cache.length = longest
        for _ in range(2):
            new = ids[torch.arange(B), length]
            got = answer(model, new, cache, length.clone())
            want = torch.stack(
                [model(ids[b : b + 1, : n + 1])[0, -1] for b, n in enumerate(length)]
            )
            same(f"rows that hold {length.tolist()} tokens, and one more each", got, want,
                 rule, rtol=1e-6, atol=1e-8)  # fmt: skip
            length = length + 1


@chapter.exercise(
    "How many slots are free? Who has waited longest?",
    "Whoever runs goes on, and the free slots, slots - len(running), go to the front of "
    "the queue.",
    "return running + waiting[: slots - len(running)]",
    mutates=True,
)
def continuous(answer):
    "Who runs in the next step, when newcomers need not wait for a batch to end."
    for waiting, running, slots, rule in [
        ([4, 5, 6], [1, 3], 4, "Whoever runs goes on; the free slots go to the front of the "
         "queue."),
        ([1, 2, 3, 4, 5], [], 3, "With nobody running, the first `slots` of the queue."),
        ([7, 8], [1, 2, 3], 3, "No slot is free: nobody joins."),
        ([9], [2, 5], 6, "More free slots than waiting: all of them join."),
        ([], [2, 5], 4, "Nobody waits: whoever runs goes on."),
        ([9, 3, 6], [8], 3, "First come, first served: the queue's own order, not that of "
         "the numbers."),
    ]:  # fmt: skip
        given = list(waiting), list(running)
        got = answer(*given, slots)
        case = f"waiting {waiting}, running {running}, {slots} slots"
        same(f"{case}: the two lists afterwards", list(given), [waiting, running],
             "The server still needs both lists: make a new one (a + b, not append, pop "
             "or +=).")  # fmt: skip
        want = running + waiting[: slots - len(running)]
        same(case, got if got is None else list(got), want, rule)
    lengths = [3, 9, 2, 7, 1, 1, 8, 2, 5, 4, 6]
    rows = engine.count_steps(lengths, 3, lambda *given: list(answer(*given)))
    want = engine.count_steps(lengths, 3, engine.continuous)
    same(f"requests of {lengths} steps in 3 slots: the steps until all are done",
         len(rows), len(want), "No slot stays idle while somebody waits.")  # fmt: skip


@chapter.exercise(
    "How many tokens of the budget are left when every writer has its one?",
    "Go through the prompts in order: each gets what it still needs, or all that is left.",
    "room = budget - writers; for n in left: take = min(n, room); room -= take",
)
def share_out(answer):
    "A step's tokens: writers first, then prompts in the order of arrival."
    for left, writers, budget, rule in [
        ([30], 4, 16, "Every writer has one token of the budget; the prompt gets the rest."),
        ([5, 30], 3, 16, "First come, first served: the second prompt gets what the first "
         "leaves."),
        ([30, 5], 3, 16, "First come, first served: the second prompt gets what the first "
         "leaves, here nothing."),
        ([4, 4, 4], 2, 100, "No prompt reads more than it has."),
        ([9, 9], 0, 12, "Without writers the whole budget is for prompts."),
        ([7, 3], 8, 8, "The writers have used it up: nobody reads, and nobody reads less "
         "than 0."),
        ([7, 3], 9, 8, "Where writers alone pass the budget, nobody reads, and nobody reads "
         "less than 0."),
        ([2, 3, 4, 5], 1, 8, "A prompt that fits only in part reads that part."),
        ([], 3, 16, "No prompt: an empty list."),
    ]:  # fmt: skip
        got = answer(list(left), writers, budget)
        same(f"prompts with {left} tokens to read, {writers} writers, budget {budget}",
             got if got is None else list(got), engine.share_out(left, writers, budget),
             rule)  # fmt: skip


# ---- blocks ----


def _raises(kind, call):
    "The name of what a call raises, or 'nothing'; subclasses count as their kind."
    try:
        call()
    except kind:
        return kind.__name__
    except Exception as error:
        return type(error).__name__
    return "nothing"


def _extends(pool, table, tokens, rule):
    "extend where enough blocks are free: a RuntimeError is told with its call."
    case = (
        f"{len(pool.free)} blocks are free, the table has {len(table)} blocks of "
        f"{pool.block}, extend(table, {tokens})"
    )
    try:
        pool.extend(table, tokens)
    except RuntimeError as error:
        if isinstance(error, NotImplementedError):
            raise
        raise Miss(rule, case, "RuntimeError", "no error") from error


def _state(pool):
    return [sorted(pool.free), list(pool.users)]


@chapter.exercise(
    "Two lists say it all: who is free, and how many tables hold each block. Every method "
    "changes both, or raises before it changes any.",
    "release: one user less; at 0 the number goes back into free. extend: how many blocks "
    "do `tokens` tokens need, and how many has the table?",
    "missing = -(-tokens // self.block) - len(table); if missing > len(self.free): raise "
    "RuntimeError(...); for _ in range(missing): table.append(self.take())",
    kind="class",
    mutates=True,
)
def Pool(answer):
    "Blocks that are lent out, shared, counted and handed back."
    pool = answer(3, 4)
    same("Pool(3, 4), fresh: free, users", _state(pool), [[0, 1, 2], [0, 0, 0]],
         "__init__ stays as it was given.")  # fmt: skip
    taken = sorted(pool.take() for _ in range(3))
    same("three times take()", taken, [0, 1, 2], "take returns a free block's number.")
    same("and then: free, users", _state(pool), [[], [1, 1, 1]],
         "A block that is taken is not free, and has one user.")  # fmt: skip
    same("take() when nothing is free raises", _raises(RuntimeError, pool.take),
         "RuntimeError", "With no free block, take raises RuntimeError.")  # fmt: skip
    pool.share(1)
    same("share(1): free, users", _state(pool), [[], [1, 2, 1]],
         "share: one user more.")  # fmt: skip
    pool.release(1)
    same("release(1), once of twice: free, users", _state(pool), [[], [1, 1, 1]],
         "A block with a user left is not free.")  # fmt: skip
    pool.release(1)
    same("release(1), twice: free, users", _state(pool), [[1], [1, 0, 1]],
         "The last user's release makes a block free.")  # fmt: skip
    same("release(1) once more raises", _raises(ValueError, lambda: pool.release(1)),
         "ValueError", "A block that nobody has cannot be released: ValueError.")  # fmt: skip
    same("share(1), which nobody has, raises", _raises(ValueError, lambda: pool.share(1)),
         "ValueError", "A block that nobody has cannot be shared: what it holds is "
         "nobody's. ValueError.")  # fmt: skip
    same("and then: free, users", _state(pool), [[1], [1, 0, 1]],
         "What raises changes nothing.")  # fmt: skip
    for block in (4, 1, 7):
        pool, table, sizes = answer(20, block), [], []
        for tokens in (0, 1, 3, 4, 5, 8, 9, 9, 12, 13):
            _extends(pool, table, tokens, "What the table lacks is free: no error.")
            sizes.append(len(table))
        want = [-(-n // block) for n in (0, 1, 3, 4, 5, 8, 9, 9, 12, 13)]
        same(f"blocks of {block}: the table's length at 0, 1, 3, 4, 5, 8, 9, 9, 12 and 13 "
             "tokens", sizes, want, "A table has tokens / block blocks, rounded up: a full "
             "block needs no other yet.")  # fmt: skip
    pool = answer(5, 4)
    table, other = [], []
    _extends(pool, table, 9, "What the table lacks is free: no error.")
    before = [list(table), *_state(pool)]
    same("3 of 5 blocks are taken, extend(table, 25) raises",
         _raises(RuntimeError, lambda: pool.extend(table, 25)), "RuntimeError",
         "With too few free blocks, extend raises RuntimeError.")  # fmt: skip
    same("and then: the table, free, users", [table, *_state(pool)], before,
         "What raises changes nothing: ask whether all fit before you take the first.")  # fmt: skip
    _extends(pool, other, 8, "The last free blocks can be taken, too.")
    same("two more for another table: free, users of its blocks",
         [sorted(pool.free), [pool.users[n] for n in other]], [[], [1, 1]],
         "The last free blocks can be taken, too.")  # fmt: skip
    _extends(pool, table, 3, "A table that holds as many already stays as it is.")
    same("extend(table, 3) of a table of 3 blocks", len(table), 3,
         "A table that holds as many already stays as it is.")  # fmt: skip
    _walk(answer)


def _walk(answer):
    "400 random acts of a few readers; the books must agree after each."
    dice, pool, tables = random.Random(0), answer(9, 3), []
    tokens, rule = (
        [],
        (
            "After every act: free and taken blocks are all blocks, none twice, and users "
            "counts the tables that hold a block."
        ),
    )
    for act in range(400):
        kind = dice.choice(("new", "grow", "grow", "fork", "leave"))
        i = dice.randrange(len(tables)) if tables else -1
        if kind == "new":
            tables.append([])
            tokens.append(0)
        elif i < 0:
            continue
        elif kind == "grow":
            want = tokens[i] + dice.randrange(1, 5)
            need = -(-want // 3) - len(tables[i])
            free = 9 - len({n for table in tables for n in table})
            said = _raises(RuntimeError, lambda i=i, w=want: pool.extend(tables[i], w))
            same(f"random act {act}: {need} blocks are needed, {free} are free, it raises",
                 said, "RuntimeError" if need > free else "nothing",
                 "extend raises RuntimeError where too few are free, and only there.")  # fmt: skip
            tokens[i] = want if need <= free else tokens[i]
        elif kind == "fork":
            for number in tables[i]:
                pool.share(number)
            tables.append(list(tables[i]))
            tokens.append(len(tables[i]) * 3)
            tokens[i] = max(tokens[i], len(tables[i]) * 3)
        else:
            for number in tables.pop(i):
                pool.release(number)
            tokens.pop(i)
        users = [sum(table.count(n) for table in tables) for n in range(9)]
        want = [[n for n in range(9) if not users[n]], users]
        same(f"random act {act}, {kind}: free, users", _state(pool), want, rule)


@chapter.exercise(
    "First make each row's keys one piece, as an ordinary cache has them; then chapter "
    "09's attention, with a mask of its own for each row.",
    "keys_PHSD[table_BN] has the shape (B, N, H, S, D). Heads must come before blocks: "
    "then N and S, side by side, are the positions.",
    "k = keys[table].transpose(1, 2).flatten(2, 3); scores = (k @ q[..., None])[..., 0] / D "
    "** 0.5; seen = torch.arange(k.shape[2]) < length[:, None]",
)
def paged_attention(answer):
    "Attention over keys and values that lie in blocks, anywhere."
    for B, H, S, D, lengths, seed, rule in [
        (2, 1, 4, 3, [6, 3], 0, "Row b reads the blocks of table_BN[b], in the table's order, "
         "and of them its first length_B[b] tokens."),
        (3, 2, 4, 3, [8, 3, 5], 1, "Every row sees its own first length_B[b] tokens: what "
         "lies behind them is another's, or nobody's."),
        (2, 3, 5, 4, [1, 13], 2, "A row of one token sees that token only."),
        (2, 2, 1, 6, [4, 2], 3, "Blocks of one token are blocks, too."),
        (4, 1, 3, 2, [3, 6, 9, 4], 4, "A full block is seen to its last token, and not "
         "beyond."),
    ]:  # fmt: skip
        N = max(-(-n // S) for n in lengths)
        P = B * N + 3
        keys, values = (
            2 * draws(P, H, S, D, seed=seed),
            draws(P, H, S, D, seed=seed + 50),
        )
        order = torch.randperm(P - 1, generator=torch.Generator().manual_seed(seed)) + 1
        table = torch.zeros(B, N, dtype=torch.long)
        q, want = draws(B, H, D, seed=seed + 90), torch.zeros(B, H, D).double()
        for b, n in enumerate(lengths):
            own = order[b * N : b * N + -(-n // S)]
            table[b, : len(own)] = own
            for h in range(H):
                k, v = (
                    torch.stack([x[own[t // S], h, t % S] for t in range(n)])
                    for x in (keys, values)
                )
                want[b, h] = ((k @ q[b, h]) / math.sqrt(D)).softmax(0) @ v
        got = answer(q, keys, values, table, torch.tensor(lengths))
        same(f"{B} rows of {lengths} tokens, {H} heads of size {D}, blocks of {S} in any "
             "order", got, want, rule, rtol=1e-6, atol=1e-8)  # fmt: skip


@chapter.exercise(
    "When do two texts have the same keys and values in a block? When the block is equal, "
    "and all that stands before it.",
    "Chain them: the key of a block is made of the key of the block before and of its own "
    "tokens. Only full blocks have one.",
    "key = b''; for each full block: key = hashlib.sha256(key + "
    "str(list(piece)).encode()).digest(); keys.append(key)",
)
def prefix_keys(answer):
    "A key for each full block that stands for it and for all before it."
    text = [5, 1, 4, 4, 2, 9, 5, 1, 4, 4, 2]

    def alike(a, b, block):
        return [x == y for x, y in zip(answer(a, block), answer(b, block))]

    for n, block in ((11, 4), (8, 4), (3, 4), (11, 1), (0, 4), (4, 4)):
        same(f"{n} tokens, blocks of {block}: how many keys",
             len(answer(text[:n], block)), n // block,
             "One key per full block; what does not fill one has none.")  # fmt: skip
    same("the same tokens twice", alike(text, list(text), 3), [True] * 3,
         "Equal texts have equal keys, in every call.")  # fmt: skip
    found = {key: n for n, key in enumerate(answer(text, 5))}
    same("keys find their block in a dict", [found[k] for k in answer(list(text), 5)],
         [0, 1], "A key can be looked up in a dict: bytes, a number, a text or a "
         "tuple.")  # fmt: skip
    same("other tokens in the last block", alike(text[:9], text[:6] + [7, 7, 7], 3),
         [True, True, False], "What comes later does not touch the keys before.")  # fmt: skip
    rule = "A block's key depends on all tokens before it, too."
    same("the same last block behind another first one",
         alike([1, 2, 8, 9], [3, 2, 8, 9], 2), [False, False], rule)  # fmt: skip
    same("the first token of 9 is another, blocks of 3", alike(text[:9], [0, *text[1:9]], 3),
         [False] * 3, rule)  # fmt: skip
    same("the last token of the first block is another",
         alike([6, 6, 6, 6, 6, 6], [6, 7, 6, 6, 6, 6], 2), [False] * 3, rule)  # fmt: skip
    keys = answer([6] * 8, 2)
    same("four equal blocks in a row: are two of their keys equal?",
         len(set(keys)) < len(keys), False, "The second block is not the first: it stands "
         "behind another text.")  # fmt: skip
    same("[1, 2] and [2, 1], one block", alike([1, 2], [2, 1], 2), [False],
         "The order of the tokens counts.")  # fmt: skip
    same("[1, 23] and [12, 3], one block", alike([1, 23], [12, 3], 2), [False],
         "Tokens must not run into one another: put something between them.")  # fmt: skip
    same("[1, 2, 3, 4] in blocks of 4, and [1, 23, 4, 0] in blocks of 4",
         alike([1, 2, 3, 4], [1, 23, 4, 0], 4), [False],
         "Tokens must not run into one another: put something between them.")  # fmt: skip
    same("[7] and [263], one block", alike([7], [263], 1), [False],
         "Tokens are whole numbers of any size, also above 255.")  # fmt: skip
    swapped = alike([1, 2, 3, 4, 5, 6], [3, 4, 1, 2, 5, 6], 2)
    same("the first two blocks change places", swapped, [False] * 3,
         "The order of the blocks counts.")  # fmt: skip


def _reader(number, table):
    return SimpleNamespace(
        number=number, table=list(table), written=[number, number + 1]
    )


@chapter.exercise(
    "Who has lost least if it must begin again? Who must never have to?",
    "While too few blocks are free and more than one request runs: the last of running "
    "leaves, releases each block of its table, and waits at the front.",
    "request = running.pop(); while request.table: pool.release(request.table.pop()); "
    "waiting.insert(0, request)",
    mutates=True,
)
def preempt(answer):
    "Who gives way when blocks run out."
    front = "Who leaves waits in front of all others, in the order of arrival."
    for tables, free, needed, shared, rule in [
        ([3, 2, 2], 4, 3, 0, "Enough blocks are free: nobody leaves."),
        ([3, 2, 2], 2, 2, 0, "Exactly enough blocks are free: nobody leaves."),
        ([3, 2, 2], 0, 1, 0, "The youngest leaves, the last of running, and only as many "
         "as must."),
        ([2, 1, 4, 1], 1, 3, 0, front),
        ([1, 1, 1, 1], 0, 3, 0, front),
        ([4, 2], 1, 9, 0, "The oldest never leaves, even where that is not enough: so "
         "somebody always gets done."),
        ([3, 4, 3], 0, 3, 2, "A block that another still has is not free: look at "
         "pool.free again before the next one leaves."),
        ([2], 0, 1, 0, "A lone request stays."),
    ]:  # fmt: skip
        pool, running = engine.Pool(sum(tables) + free, 4), []
        for number, size in enumerate(tables):
            table = [pool.take() for _ in range(size)]
            if shared and number == 2:  # its first blocks are the first request's
                for place in range(shared):
                    pool.release(table[place])
                    table[place] = running[0].table[place]
                    pool.share(table[place])
                    pool.take()
            running.append(_reader(number, table))
        last = _reader(9, [])
        waiting = [last]
        case = (
            f"tables of {tables} blocks{f', {shared} shared' if shared else ''}, {free} "
            f"free, {needed} needed"
        )
        try:
            answer(running, waiting, pool, needed)
        except IndexError as error:  # lists have changed: tell what was given
            raise Miss(rule, case, "IndexError", "no error") from error
        stay, go, want_pool = _given_way(tables, free, needed, shared)
        same(f"{case}: who runs, who waits",
             [[r.number for r in running], [r.number for r in waiting]],
             [stay, [*go, 9]], rule)  # fmt: skip
        same(f"{case}: free blocks", len(pool.free), want_pool,
             "Who leaves releases every block of its table.")  # fmt: skip
        same(f"{case}: the tables of those who wait", [r.table for r in waiting],
             [[]] * len(waiting), "Who leaves has an empty table: its blocks are "
             "another's now.")  # fmt: skip
        same(f"{case}: the tables of those who run", [len(r.table) for r in running],
             [tables[n] for n in stay], "Who stays keeps its blocks.")  # fmt: skip
        same(f"{case}: what was written", [r.written for r in [*running, *waiting]],
             [[r.number, r.number + 1] for r in [*running, *waiting]],
             "What was written is kept: only its keys and values are computed again.")  # fmt: skip


def _given_way(tables, free, needed, shared):
    "Who stays and who goes, by counting; the free blocks then."
    stay = list(range(len(tables)))
    while free < needed and len(stay) > 1:
        number = stay.pop()
        free += tables[number] - (shared if number == 2 else 0)
    return stay, list(range(len(stay), len(tables))), free


# ---- speculation ----

P4, Q4 = np.array([0.1, 0.4, 0.3, 0.2]), np.array([0.4, 0.1, 0.3, 0.2])


@chapter.exercise(
    "Where the draft proposes a token more often than p wants it, some proposals must be "
    "turned down. What p wants more often than q gives must come in their place.",
    "It stays with the chance min(1, p / q): where u < p[token] / q[token]. Else inverse() "
    "draws from max(p - q, 0), with w.",
    "if u * q_V[token] < p_V[token]: return token; return inverse(np.maximum(p_V - q_V, "
    "0), w)",
)
def accept(answer):
    "One decision of speculative decoding."
    p, q = np.array([0.1, 0.3, 0.35, 0.25]), np.array([0.7, 0.1, 0.05, 0.15])
    often = "What p wants more often than q proposes it always stays."
    stays = "The token stays where u < p[token] / q[token]: here 0.1 / 0.7, or 0.143."
    rest = (
        "In its place comes a token drawn from max(p - q, 0): here (0, 0.2, 0.3, 0.1)."
    )
    for token, u, w, want, rule in [
        (2, 0.3, 0.05, 2, often), (2, 0.36, 0.05, 2, often), (1, 0.31, 0.36, 1, often), (1, 0.9, 0.9, 1, often),
        (3, 0.999, 0.1, 3, often), (0, 0.14, 0.8, 0, stays), (0, 0.0, 0.5, 0, stays),
        (0, 0.15, 0.8, 2, rest), (0, 0.9, 0.36, 2, rest), (0, 0.9, 0.3, 1, rest),
        (0, 0.9, 0.0, 1, rest), (0, 0.9, 0.34, 2, rest), (0, 0.9, 0.82, 2, rest),
        (0, 0.9, 0.84, 3, rest), (0, 0.9, 0.999, 3, rest),
    ]:  # fmt: skip
        same(f"p (0.1, 0.3, 0.35, 0.25), q (0.7, 0.1, 0.05, 0.15), token {token}, u {u}, "
             f"w {w}", answer(p.copy(), q.copy(), token, u, w), want, rule)  # fmt: skip
    never, q = np.array([0.0, 0.5, 0.5]), np.array([0.5, 0.25, 0.25])
    same("p (0, 0.5, 0.5), q (0.5, 0.25, 0.25), token 0, u 0, w 0.6",
         answer(never, q, 0, 0.0, 0.6), 2, "What p never writes never stays, not even at "
         "u = 0.")  # fmt: skip
    for seed, V in ((0, 4), (1, 6)):
        p, q = (x.softmax(0).numpy() for x in 2 * draws(2, V, seed=seed))
        same(f"{V} tokens: the law of what comes out", speculative.law(answer, p, q), p,
             "Summed over all proposals the law is p: q[t] min(1, p[t] / q[t]) for what "
             "stays, and the rest as p - q where that is above 0.",
             atol=1e-7, rtol=1e-6)  # fmt: skip
    same("p = q: the law of what comes out", speculative.law(answer, P4, P4.copy()), P4,
         "A draft that is right is never turned down.", atol=1e-7)  # fmt: skip


class Script:
    """A model that is sure of each next token, which depends on all before it.

    It notes in the cache what it has read, and how many tokens each call had it read.
    """

    def __init__(self, V=7, case=""):
        self.V, self.read, self.case = V, [], case

    def after(self, tokens):
        return (sum((3 + i) * (t + 1) for i, t in enumerate(tokens)) + 2) % self.V

    def __call__(self, ids_BT, cache=None):
        before = [] if cache is None else getattr(cache, "seen", []) + [0] * 99
        before = before[: getattr(cache, "length", 0)]
        tokens = before + ids_BT[0].tolist()
        self.read.append(ids_BT.shape[1])
        if len(self.read) > 100:
            raise Miss(
                "Is the replacement appended? Else a round may bring nothing.",
                self.case, "more than 100 calls", "a token or more from each",
            )  # fmt: skip
        if cache is not None:
            cache.seen, cache.length = tokens, len(tokens)
        ends = range(len(before) + 1, len(tokens) + 1)
        next_T = torch.tensor([self.after(tokens[:end]) for end in ends])
        return 1e3 * torch.nn.functional.one_hot(next_T, self.V).double()[None]

    def write(self, prompt, count):
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(self.after(tokens))
        return tokens[len(prompt) :]


def _sure(V, token):
    q = np.full(V, 1e-6)
    q[token] = 1
    return q / q.sum()


@chapter.exercise(
    "One round: K proposals, one call of the model, decisions from left to right until one "
    "is replaced. Then the cache forgets what was not kept.",
    "The call reads what the cache lacks, tokens[cache.length:], and the K proposals: its "
    "last K + 1 rows are the laws of the first proposal, ..., of the token behind the "
    "last. That one is drawn if all stayed. Then cache.length = len(tokens) - 1.",
    "unread = tokens[cache.length:] + proposed; p_KV = chances(model(torch.tensor("
    "[unread]), cache=cache)[:, -K - 1:]); for each: tokens.append(accept(...)), break if "
    "replaced; else: tokens.append(inverse(p_KV[K], dice.random()))",
)
@keeps_random
def speculate(answer):
    "Many tokens per call of the model, and the same law."
    V, prompt = 7, [1, 4, 6]
    want = Script(V).write(prompt, 14)
    drafts = {
        "a draft that is always right": lambda seen: _sure(
            V, (want + [0] * 9)[len(seen) - 3]
        ),
        "a draft that is always wrong": lambda seen: _sure(
            V, ((want + [0] * 9)[len(seen) - 3] + 1) % V
        ),
        "a draft that is right but for every third token": lambda seen: _sure(
            V, ((want + [0] * 9)[len(seen) - 3] + (len(seen) % 3 == 0)) % V
        ),
        "a draft that looks at the last token": lambda seen: _sure(V, seen[-1]),
    }  # fmt: skip
    for K, name in [
        (4, "a draft that is right but for every third token"),
        (3, "a draft that is always right"),
        (3, "a draft that is always wrong"),
        (2, "a draft that is right but for every third token"),
        (1, "a draft that looks at the last token"),
    ]:
        case = f"a model that is sure of each token, K = {K}, {name}"
        watched = Script(V, f"{case}: 12 tokens")
        got = answer(
            watched, drafts[name], list(prompt), 12, K, np.random.default_rng(0)
        )
        if not isinstance(got, tuple) or len(got) != 2:
            raise Miss("Return a pair: the list of new tokens, and the calls.", case, got,
                       "(tokens, calls)")  # fmt: skip
        rule = (
            "Whatever the draft says, the tokens are the model's own. The cache must hold "
            "exactly what was kept, but for the last token: cache.length = len(tokens) - 1."
        )
        same(f"{case}: the 12 tokens", list(got[0]), want[:12], rule)
        same(f"{case}: calls", got[1], _calls(drafts[name], want, prompt, 12, K),
             "All up to the first replaced token are kept, and it; and one more where all "
             "K stayed.")  # fmt: skip
        same(f"{case}: calls that were made", len(watched.read), got[1],
             "One call of the model per round, and count them.")  # fmt: skip
        same(f"{case}: tokens that the calls read", watched.read,
             [len(prompt) + K] + [1 + K] * (got[1] - 1), "The cache holds all that was "
             "kept but the last token: nothing is read twice.")  # fmt: skip
    _far_draft(answer)
    _lawful(answer)


def _calls(draft, want, prompt, count, K):
    "Rounds until `count` tokens are there, for a model that writes `want`."
    done = calls = 0
    while done < count:
        calls += 1
        kept = 0
        seen = [*prompt, *want[:done]]
        while kept < K and int(draft(seen).argmax()) == (want + [0] * 9)[done + kept]:
            seen.append((want + [0] * 9)[done + kept])
            kept += 1
        done += kept + 1
    return calls


class Bigram:
    "A model that looks at the last token only; its cache counts."

    def __init__(self, table_VV):
        self.table_VV = torch.as_tensor(table_VV).log()

    def __call__(self, ids_BT, cache=None):
        if cache is not None:
            cache.length += ids_BT.shape[1]
        return self.table_VV[ids_BT]


LAWS = (
    "The texts are not as frequent as the model alone would write them: proposals are "
    "drawn with inverse(q, dice.random()), each decision is accept(...) with two fresh "
    "random numbers, and the extra token is drawn from the last row."
)


def _frequent(case, counts, law, rule=LAWS):
    "Frequencies within five standard errors of a law."
    n, law = sum(counts), np.array(law)
    same(f"{case}, within five standard errors", np.array(counts) / n, law, rule,
         atol=5 * np.sqrt(law * (1 - law) / n), rtol=0)  # fmt: skip


def _lawful(answer):
    "900 answers of 3 tokens each: how often does each text come?"
    table = np.array([[0.15, 0.85], [0.6, 0.4]])
    model, draft = Bigram(table), lambda seen: np.array([0.3, 0.7])
    n, dice, count = 900, np.random.default_rng(1), {}
    for _ in range(n):
        tokens, _calls_made = answer(model, draft, [1, 0], 3, 1, dice)
        text = tuple(int(t) for t in tokens)
        count[text] = count.get(text, 0) + 1
    texts = list(np.ndindex(2, 2, 2))
    _frequent(
        f"{n} answers from a model with 2 tokens, K = 1: how often 000, 001, ..., 111 come",
        [count.get(text, 0) for text in texts],
        [math.prod(table[a, b] for a, b in zip((0, *text), text)) for text in texts],
    )  # fmt: skip


def _far_draft(answer):
    "A draft far from the model, of 3 tokens: the rest has two, so it must be drawn."
    p, q = np.array([0.1, 0.3, 0.6]), np.array([0.7, 0.2, 0.1])
    model, draft = Bigram(np.stack([p] * 3)), lambda seen: q.copy()
    tokens, calls, dice = [], 0, np.random.default_rng(2)
    for _ in range(30):
        new, made = answer(model, draft, [1, 0], 100, 2, dice)
        tokens, calls = tokens + [int(t) for t in new], calls + made
    case = "3,000 tokens, p (0.1, 0.3, 0.6) and q (0.7, 0.2, 0.1) at each place, K = 2"
    _frequent(f"{case}: how often each comes", [tokens.count(t) for t in range(3)], p)
    stay = np.minimum(
        p, q
    ).sum()  # a call brings 1 + a + a^2; its deviation is about 0.75
    same(f"{case}: mean tokens per call", len(tokens) / calls, 1 + stay + stay**2,
         "A proposal stays as often as accept(...) lets it, the sum of min(p, q), here 0.4: "
         "a call brings 1 + 0.4 + 0.4 ** 2 tokens.", atol=0.1, rtol=0)  # fmt: skip
