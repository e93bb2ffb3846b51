"""What chapter 28 builds: keys and values in blocks that are lent out.

    pool, table = Pool(blocks=64), []
    pool.extend(table, tokens=20)                   # two blocks of 16
    cache = Paged(model, blocks=64)                 # in place of a Cache of built/gpt.py

Blocks of a few tokens lie anywhere in memory; a request has a table of their numbers
(Kwon and others 2023, https://arxiv.org/abs/2309.06180). Shapes: P blocks of S tokens, G
heads that are read, D numbers a head, B rows, N blocks in the longest table.
"""

import hashlib

import torch

from utils import given


def users(lengths, memory, token_bytes, block):
    """How many requests of a queue, from its front, fit into `memory` bytes at once.

    lengths: the tokens of each; each takes whole blocks of `block` tokens, and a token's
    keys and values are `token_bytes`. The first that does not fit ends it.
    """
    given.number("memory", memory)
    given.whole("token_bytes", token_bytes), given.whole("block", block)
    free, fit = int(memory // (block * token_bytes)), 0
    for tokens in lengths:
        free -= -(-given.whole("a length", tokens) // block)
        if free < 0:
            break
        fit += 1
    return fit


class NoRoom(RuntimeError):
    "The pool has too few free blocks."


class Pool:
    """Blocks 0 .. blocks - 1 that are lent out and counted.

    free    numbers of the blocks that nobody has
    users   how many tables hold each block
    """

    def __init__(self, blocks, block=16):
        self.block = given.whole("block", block)
        self.users = [0] * given.whole("blocks", blocks)
        self.free = list(range(blocks))

    def take(self):
        "A free block's number, now with one user; NoRoom if there is none."
        if not self.free:
            raise NoRoom(f"all {len(self.users)} blocks are taken")
        number = self.free.pop()
        self.users[number] = 1
        return number

    def share(self, number):
        "One more user of a block that somebody has; ValueError if nobody has it."
        self._held(number)
        self.users[number] += 1

    def release(self, number):
        "One user less; the last one makes it free. ValueError if nobody has it."
        self._held(number)
        self.users[number] -= 1
        if not self.users[number]:
            self.free.append(number)

    def extend(self, table, tokens):
        """Blocks are added to a table until it holds `tokens` tokens.

        NoRoom, with nothing changed, if too few are free.
        """
        missing = -(-given.whole("tokens", tokens, 0) // self.block) - len(table)
        if missing > len(self.free):
            raise NoRoom(f"{missing} blocks are needed, {len(self.free)} are free")
        for _ in range(missing):
            table.append(self.take())

    def _held(self, number):
        last = len(self.users) - 1
        if not self.users[given.whole("a block's number", number, 0, last)]:
            raise ValueError(f"nobody has block {number}")


class Paged:
    """Keys and values in blocks; stands in place of a Cache of built/gpt.py.

        cache.rows([[7, 2], [5]])                 # each row's table
        model(ids_BT, cache=cache, positions=positions_BT)

    keys, values: (P, G, S, D) for each layer, all there from the beginning.
    """

    length = 0

    def __init__(self, model, blocks, block=16):
        shape = given.whole("blocks", blocks), model.groups, given.whole("block", block)
        like = model.tokens.weight
        self.block = block
        self.keys, self.values = (
            [like.new_zeros(*shape, model.size) for _ in model.blocks] for _ in range(2)
        )

    def rows(self, tables):
        "The tables of the rows that the next call reads: -> the cache."
        longest = max(map(len, tables))
        padded = [[*table, *[0] * (longest - len(table))] for table in tables]
        self.held = [len(table) * self.block for table in tables]
        self.table_BN = torch.tensor(padded, device=self.keys[0].device)
        return self

    def begin(self, positions):
        "Tokens are read at positions (B, T): -> the positions (N S,) that a table holds."
        if positions.ndim == 1:
            positions = positions[None]
        for last, own in zip(positions.amax(1).tolist(), self.held):
            if last >= own:
                raise ValueError(f"position {last} in a table of {own} tokens")
        self.at_BT = self.table_BN.gather(1, positions // self.block)
        self.spot_BT = positions % self.block
        longest = self.table_BN.shape[1] * self.block
        return torch.arange(longest, device=positions.device)

    def layer(self, number):
        "-> keep(k, v): write one layer's new ones into their blocks, return the rows' own."
        return lambda k, v: tuple(
            self._keep(store[number], new)
            for store, new in ((self.keys, k), (self.values, v))
        )

    def _keep(self, blocks_PGSD, new_BGTD):
        blocks_PGSD[self.at_BT, :, self.spot_BT] = new_BGTD.transpose(1, 2)
        return blocks_PGSD[self.table_BN].transpose(1, 2).flatten(2, 3)

    def bytes(self):
        "Bytes of all blocks, lent out or not."
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values))


def paged_attention(q_BHD, keys_PHSD, values_PHSD, table_BN, length_B):
    "One asker per row over the first length_B tokens of its blocks: (B, H, D)."
    given.tensors(
        q_BHD=q_BHD, keys_PHSD=keys_PHSD, values_PHSD=values_PHSD, table_BN=table_BN,
        length_B=length_B,
    )  # fmt: skip
    k, v = (x[table_BN].transpose(1, 2).flatten(2, 3) for x in (keys_PHSD, values_PHSD))
    scores_BHS = (k @ q_BHD[..., None])[..., 0] / q_BHD.shape[-1] ** 0.5
    seen_BS = torch.arange(k.shape[2], device=k.device) < length_B[:, None]
    scores_BHS = scores_BHS.masked_fill(~seen_BS[:, None], -torch.inf)
    return (scores_BHS.softmax(-1)[:, :, None] @ v)[:, :, 0]


def prefix_keys(tokens, block):
    "A key for each full block that depends on it and on all before it: a list."
    keys, key = [], b""
    for end in range(given.whole("block", block), len(tokens) + 1, block):
        piece = ",".join(str(int(token)) for token in tokens[end - block : end])
        key = hashlib.sha256(key + piece.encode()).digest()
        keys.append(key)
    return keys
