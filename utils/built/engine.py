"""What chapter 28 builds: an engine that writes for many readers at once.

    engine = Engine(model, slots=8, blocks=64)       # model of built/gpt.py
    number = engine.add(prompt_ids, count=40)        # TooLong if it can never fit
    engine.step()      -> [(number, token, done), ...] of this step
    engine.run()       -> {number: [tokens]}, until nobody waits
    engine.cancel(number)

Requests join and leave at every step, as in Yu and others' Orca (2022); their keys and
values lie in the blocks of built/paged.py. Prompts may be read in pieces beside the
writers (Agrawal and others 2024, https://arxiv.org/abs/2403.02310).
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import torch

from utils import given
from utils.built.paged import NoRoom, Paged, Pool, prefix_keys

__all__ = [
    "Engine", "NoRoom", "Paged", "Pool", "Request", "TooLong", "continuous", "count_steps",
    "decode_step", "preempt", "prefix_keys", "share_out", "static",
]  # fmt: skip


COLDEST = 1e-3  # temperature; below it only the likeliest token is left: say 0


# ---- steps ----


def decode_step(model, ids_B, cache, length_B):
    "One new token per row, behind the length_B that its row has: logits (B, V)."
    return model(ids_B[:, None], cache=cache, positions=length_B[:, None])[:, 0]


def static(waiting, running, slots):
    "Who runs in the next step: a new batch when the old one is done."
    return running or waiting[:slots]


def continuous(waiting, running, slots):
    "Who runs in the next step: whoever runs, and newcomers in the free slots."
    return running + waiting[: slots - len(running)]


def count_steps(lengths, slots, policy):
    """Who is where, on a counted clock: (steps, slots), the request's number or -1.

    lengths: the steps that each request runs; policy(waiting, running, slots) -> who runs.
    """
    waiting, running, left = list(range(len(lengths))), [], list(lengths)
    places, rows = [-1] * given.whole("slots", slots), []
    while waiting or running:
        chosen = policy(list(waiting), list(running), slots)
        if not chosen or len(chosen) > slots:
            raise ValueError(f"{len(chosen)} requests were chosen for {slots} slots")
        for number in chosen:
            if number not in places:
                places[places.index(-1)] = number
        waiting = [n for n in waiting if n not in chosen]
        rows.append(list(places))
        for number in chosen:
            left[number] -= 1
        places = [n if n >= 0 and left[n] > 0 else -1 for n in places]
        running = [n for n in chosen if left[n] > 0]
    return rows


def preempt(running, waiting, pool, needed):
    """The youngest give way until `needed` blocks are free; the oldest never does.

    running, waiting: requests in the order of arrival, with `table`. Who leaves hands its
    blocks back and waits in front of all others; its tokens are kept.
    """
    while len(pool.free) < needed and len(running) > 1:
        request = running.pop()
        while request.table:
            pool.release(request.table.pop())
        waiting.insert(0, request)


def share_out(left, writers, budget):
    """Tokens of each prompt that one step reads, beside one token for each writer.

    left: what each prompt still has to be read, in the order of arrival; at most `budget`
    tokens in all. The writers go first, then the prompts, first come first served.
    """
    room, pieces = budget - writers, []
    for tokens in left:
        pieces.append(max(0, min(tokens, room)))
        room -= pieces[-1]
    return pieces


class TooLong(ValueError):
    "Prompt and answer have more tokens than an engine can ever hold."


@dataclass
class Request:
    """One reader's: a prompt, the tokens written, and where its keys and values lie.

    held: how many of its tokens have their keys and values in the blocks of `table`.
    """

    number: int
    prompt: list
    count: int
    temperature: float = 0.0
    seed: int = 0
    written: list = field(default_factory=list)
    table: list = field(default_factory=list)
    held: int = 0
    told: int = 0  # full blocks of it that others can find

    def __post_init__(self):
        self.dice = torch.Generator().manual_seed(self.seed)  # its own: see `_pick`

    @property
    def tokens(self):
        return self.prompt + self.written

    @property
    def left(self):
        "Tokens that must be read before the next one can be written."
        return len(self.prompt) + len(self.written) - self.held


class Engine:
    """Continuous batching over a paged cache.

    slots    requests that run at once
    blocks   of `block` tokens in the pool
    budget   tokens that a step may read, in all; None: prompts are read in one go
    share    whether equal beginnings share their blocks
    policy   continuous, static, or another function of that form

    counts   a Counter: steps, slots (filled, over all steps), tokens (written), read
             (through the model), shared (tokens found instead), preempted, cancelled;
             held and lent: tokens in blocks and tokens that these blocks could hold,
             summed over the steps
    narrowest  the smallest lead, over all greedy choices, of the best logit

    A subclass may bring parts of its own: Pool, prefix_keys, preempt, share_out.
    """

    Pool = Pool
    prefix_keys, preempt, share_out = map(
        staticmethod, (prefix_keys, preempt, share_out)
    )

    def __init__(self, model, slots=8, blocks=64, block=16, budget=None, share=True,
                 policy=continuous):  # fmt: skip
        self.model, self.slots = model, given.whole("slots", slots)
        self.pool = self.Pool(blocks, block)
        self.cache = Paged(model, blocks, block)
        if budget is not None:
            given.whole("budget", budget, least=self.slots + 1)
        self.budget, self.policy = budget, given.function("policy", policy)
        self.share, self.index, self.keys = share, {}, {}
        self.waiting, self.running, self.done = [], [], OrderedDict()
        self.counts, self.narrowest, self._next = Counter(), float("inf"), 0

    @property
    def room(self):
        "The most tokens, prompt and answer, that a request can have."
        return len(self.pool.users) * self.pool.block

    @property
    def idle(self):
        return not (self.waiting or self.running)

    def accept(self, prompt, count):
        """A prompt and a count as whole numbers of Python: -> ([ids], count).

        ValueError, with what would be right, for what can never be served; TooLong where
        it is too much.
        """
        V = self.model.vocab
        prompt = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if (
            not isinstance(prompt, (list, tuple, range))
            or not len(prompt)
            or not all(given.is_whole(x) and 0 <= x < V for x in prompt)
        ):
            raise ValueError(
                f"prompt is a list of at least one token, whole numbers 0 to {V - 1}"
            )
        if not given.is_whole(count) or count < 1:
            raise ValueError("count is a whole number of tokens to write, at least 1")
        most = self.room
        if self.model.positions == "learned":
            most = min(most, self.model.context)
        if len(prompt) + count > most:
            raise TooLong(
                f"{len(prompt)} tokens of prompt and {count} to write are more than the "
                f"{most} that fit: send a shorter prompt or a smaller count"
            )
        return [int(x) for x in prompt], int(count)

    def add(self, prompt, count, temperature=0.0, seed=0):
        """Queue a request: -> its number. temperature 0: always the likeliest token.

        ValueError, as of `accept`, for one that can never be served.
        """
        prompt, count = self.accept(prompt, count)
        if isinstance(temperature, bool) or temperature != 0:
            given.number("temperature", temperature, least=COLDEST)
        given.whole("seed", seed, 0, 2**63 - 1)
        request = Request(self._next, prompt, count, temperature, seed)
        self.waiting.append(request)
        self._next += 1
        return request.number

    def cancel(self, number):
        "Forget a request, its blocks are free at once: -> whether it was there."
        for queue in (self.waiting, self.running):
            for request in queue:
                if request.number == number:
                    queue.remove(request)
                    self._leave(request)
                    self.counts["cancelled"] += 1
                    return True
        return False

    def run(self):
        "Steps until nobody waits: -> {number: tokens} of all that are done."
        while not self.idle:
            self.step()
        return {number: request.written for number, request in self.done.items()}

    @torch.no_grad()
    def step(self):
        "Everybody who runs gets on: -> [(number, token, done)] of what was written."
        self._admit()
        pieces = self._pieces()
        self._reserve(pieces)
        writers = [r for r in self.running if pieces.get(r.number) == 1 and r.left == 1]
        readers = [r for r in self.running if pieces.get(r.number) and r not in writers]
        logits = {}
        if writers:
            logits |= self._read(writers, 1)
        for request in readers:
            logits |= self._read([request], pieces[request.number])
        self._count()
        return [self._write(r, logits[r.number]) for r in [*self.running] if not r.left]

    def _admit(self):
        chosen = self.policy(list(self.waiting), list(self.running), self.slots)
        for request in [r for r in chosen if r not in self.running]:
            found = self._found(request)
            need = -(-len(request.tokens) // self.pool.block) - len(found)
            if need > len(self.pool.free):
                break  # nobody overtakes
            for number in found:
                self.pool.share(number)
            request.table = found
            request.held = len(found) * self.pool.block
            self.counts["shared"] += request.held
            self.pool.extend(request.table, len(request.tokens))
            self.waiting.remove(request)
            self.running.append(request)
            self.running.sort(key=lambda r: r.number)

    def _found(self, request):
        "Blocks that hold this request's beginning. Its last token must be read anyway."
        found = []
        if self.share:
            for key in self.prefix_keys(request.tokens[:-1], self.pool.block):
                if key not in self.index:
                    break
                found.append(self.index[key])
        return found

    def _pieces(self):
        "{number: how many tokens this step reads of it}."
        left = {r.number: r.left for r in self.running}
        if self.budget is None:
            return left
        prompts = [n for n, tokens in left.items() if tokens > 1]
        writers = len(left) - len(prompts)
        parts = self.share_out([left[n] for n in prompts], writers, self.budget)
        return left | dict(zip(prompts, parts))

    def _reserve(self, pieces):
        "Blocks for what is read now, the oldest first; the youngest may have to leave."
        for request in [*self.running]:
            if request not in self.running:
                continue
            while True:
                try:
                    tokens = request.held + pieces[request.number]
                    self.pool.extend(request.table, tokens)
                    break
                except RuntimeError:
                    self._make_room(1)
                    if request not in self.running:
                        break

    def _make_room(self, needed):
        before = [*self.running]
        self.preempt(self.running, self.waiting, self.pool, needed)
        for request in before:
            if request not in self.running:
                self.counts["preempted"] += 1
                request.held = request.told = 0
                self._forget()

    def _read(self, requests, count):
        "`count` more tokens of each through the model: -> {number: logits (V,)}."
        begin = [r.held for r in requests]
        ids_BT = [r.tokens[b : b + count] for r, b in zip(requests, begin)]
        device = self.model.tokens.weight.device
        positions_BT = torch.tensor(begin, device=device)[:, None]
        positions_BT = positions_BT + torch.arange(count, device=device)
        # Rows that read end where they end: tables longer than that are cut.
        need = [-(-(b + count) // self.pool.block) for b in begin]
        cache = self.cache.rows([r.table[:n] for r, n in zip(requests, need)])
        logits_BTV = self.model(
            torch.tensor(ids_BT, device=device), cache=cache, positions=positions_BT
        )
        for request in requests:
            request.held += count
            self._publish(request)
        self.counts["read"] += count * len(requests)
        return {r.number: row[-1] for r, row in zip(requests, logits_BTV)}

    def _publish(self, request):
        "Full blocks can be found by others from now on."
        full = request.held // self.pool.block
        if self.share and full > request.told:
            keys = self.prefix_keys(request.tokens[: request.held], self.pool.block)
            for key, number in zip(keys, request.table):
                if key not in self.index and number not in self.keys:
                    self.index[key], self.keys[number] = number, key
            request.told = full

    def _write(self, request, logits_V):
        token = self._pick(request, logits_V)
        request.written.append(token)
        self.counts["tokens"] += 1
        done = len(request.written) == request.count
        if done:
            self.running.remove(request)
            self._leave(request)
            self.done[request.number] = request
        return request.number, token, done

    def _pick(self, request, logits_V):
        if request.temperature == 0:
            best = logits_V.topk(2)
            lead = (best.values[0] - best.values[1]).item()
            self.narrowest = min(self.narrowest, lead)
            return int(best.indices[0])
        # its own generator: a request's tokens do not depend on who runs beside it
        chances_V = (logits_V / request.temperature).softmax(-1)
        return int(torch.multinomial(chances_V, 1, generator=request.dice))

    def _leave(self, request):
        while request.table:
            self.pool.release(request.table.pop())
        self._forget()

    def _forget(self):
        "A block that nobody has is found no longer: others may write over it."
        gone = [number for number in self.keys if not self.pool.users[number]]
        for number in gone:
            del self.index[self.keys.pop(number)]
        if gone:  # another may hold the same beginning in blocks of its own
            for request in self.running:
                request.told = 0
                self._publish(request)

    def _count(self):
        counts, block = self.counts, self.pool.block
        counts["steps"] += 1
        counts["slots"] += len(self.running)
        lent = len(self.pool.users) - len(self.pool.free)
        counts["lent"] += lent * block
        counts["held"] += sum(self._filled().values())

    def _filled(self):
        "{block: tokens that it holds} of all that are lent out."
        filled, block = Counter(), self.pool.block
        for request in self.running:
            for place, number in enumerate(request.table):
                here = max(0, min(block, request.held - place * block))
                filled[number] = max(filled[number], here)
        return filled

    @property
    def share_used(self):
        "Tokens held over tokens that the lent blocks could hold, over all steps."
        return self.counts["held"] / max(1, self.counts["lent"])
