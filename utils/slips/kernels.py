"""Chapter 15's slips: wrong kernels that its checks must reject, and their names.

Most are the right kernel with one piece of its text changed: `changed` shows which.
"""

import inspect

from utils.built import kernels
from utils.built.tile import jit, tl
from utils.checks import kernels as ex


def changed(name, *pieces):
    "A kernel of utils/built/kernels.py with pieces of its text replaced: (old, new)."
    source = inspect.getsource(getattr(kernels, name).fn)
    for old, new in pieces:
        assert old in source, old
        source = source.replace(old, new)
    scope = {**vars(kernels), "jit": jit, "tl": tl}
    exec(compile(source, f"<slip of {name}>", "exec"), scope)
    return scope[name]


def slip(name, sentence, *pieces):
    "Register a changed kernel under the sentence that names it."
    getattr(ex, name).slip(sentence)(changed(name, *pieces))


IEEE = (
    'Right but for rounding: write input_precision="ieee" in every tl.dot, or float32 is '
    "rounded on its way in."
)

# ---- add_kernel ----

slip(
    "add_kernel",
    "The last program reaches past the end of the vectors: mask=i < n in every load and store.",
    (", mask=inside", ""),
)
slip(
    "add_kernel",
    "Program 1 begins at number 1, not at number BLOCK: multiply program_id by BLOCK.",
    ("tl.program_id(0) * BLOCK", "tl.program_id(0)"),
)
slip(
    "add_kernel",
    "Program 1 begins at number n: multiply program_id by BLOCK, the numbers of one program.",
    ("tl.program_id(0) * BLOCK", "tl.program_id(0) * n"),
)
slip(
    "add_kernel",
    "One element too many: the last number is n - 1, so the mask is i < n.",
    ("i < n", "i <= n"),
)
slip(
    "add_kernel",
    "The loads are masked, the store is not: it writes past the end.",
    ("x + y, mask=inside", "x + y"),
)
slip(
    "add_kernel",
    "y is read from x_ptr: out is 2 x.",
    ("tl.load(y_ptr", "tl.load(x_ptr"),
)
slip(
    "add_kernel",
    "Every program adds the first BLOCK numbers: add tl.program_id(0) * BLOCK.",
    ("tl.program_id(0) * BLOCK + ", ""),
)

# ---- sectors ----


@ex.sectors.slip("These are lines of 128 bytes: a sector has 32.")
def lines(places, size=4):
    return len({p * size // 128 for p in places})


@ex.sectors.slip(
    "The places count elements; a sector counts bytes: multiply by size first."
)
def elements(places, size=4):
    return len({p // 32 for p in places})


@ex.sectors.slip("This counts different bytes, not sectors: divide by 32.")
def addresses(places, size=4):
    return len({p * size for p in places})


@ex.sectors.slip(
    "From the first sector to the last: those between that nobody touches do not come."
)
def span(places, size=4):
    touched = [p * size // 32 for p in places]
    return max(touched) - min(touched) + 1


@ex.sectors.slip(
    "These are the bytes wanted over 32: where they lie decides, not how many they are."
)
def wanted(places, size=4):
    return -(-len(places) * size // 32)


@ex.sectors.slip("The size is fixed at 4 bytes: use the argument.")
def always_four(places, size=4):
    return len({p * 4 // 32 for p in places})


# ---- transpose_kernel ----

COLUMNS = (
    "Right numbers, but one side walks down columns: neighbouring lanes are a whole row "
    "apart. Load along x's rows, turn the tile with tl.trans, store along out's rows."
)

slip(
    "transpose_kernel",
    "The tile is written without being turned: tl.trans(x).",
    ("tl.trans(x)", "x"),
)
slip(
    "transpose_kernel",
    "A row of out has R numbers, not C: c[:, None] * R + r[None, :].",
    ("c[:, None] * R", "c[:, None] * C"),
)
slip(
    "transpose_kernel",
    COLUMNS,
    ("c[:, None] * R + r[None, :], tl.trans(x), mask=turned",
     "c[None, :] * R + r[:, None], x, mask=inside"),
)  # fmt: skip
slip(
    "transpose_kernel",
    COLUMNS,
    ("r[:, None] * C + c[None, :], mask=inside", "r[None, :] * C + c[:, None], "
     "mask=(c[:, None] < C) & (r[None, :] < R)"),
    ("tl.trans(x)", "x"),
)  # fmt: skip
slip(
    "transpose_kernel",
    "The mask of the store is the load's: the tile is turned, so its mask is too.",
    ("mask=turned", "mask=inside"),
)
slip(
    "transpose_kernel",
    "The load is not masked: tiles at the edge reach past x.",
    ("c[None, :], mask=inside", "c[None, :]"),
)
slip(
    "transpose_kernel",
    "The two axes of the grid are exchanged: program_id(0) counts tiles of rows.",
    ("r = tl.program_id(0)", "r = tl.program_id(2 - 1)"),
    ("c = tl.program_id(1)", "c = tl.program_id(0)"),
)

# ---- bank_conflicts ----


@ex.bank_conflicts.slip(
    "Lanes that want the same word share one read: count different words in each bank."
)
def counts_lanes(words):
    banks = [w % 32 for w in words]
    return max(map(banks.count, banks)) - 1


@ex.bank_conflicts.slip("These are the passes; the first of them is not extra.")
def passes(words):
    banks = {}
    for w in words:
        banks.setdefault(w % 32, set()).add(w)
    return max(map(len, banks.values()))


@ex.bank_conflicts.slip(
    "Words follow each other through the banks: the bank is w % 32."
)
def divides(words):
    banks = {}
    for w in words:
        banks.setdefault(w // 32, set()).add(w)
    return max(map(len, banks.values())) - 1


@ex.bank_conflicts.slip(
    "Banks work at the same time: the fullest one decides, they do not add up."
)
def adds_up(words):
    banks = {}
    for w in words:
        banks.setdefault(w % 32, set()).add(w)
    return sum(len(b) - 1 for b in banks.values())


@ex.bank_conflicts.slip(
    "This is how many banks stay empty; asked is how often the fullest must work again."
)
def empty_banks(words):
    return 32 - len({w % 32 for w in words})


@ex.bank_conflicts.slip("A bank is four bytes wide, and `words` counts words already.")
def of_bytes(words):
    banks = {}
    for w in words:
        banks.setdefault(w // 4 % 32, set()).add(w)
    return max(map(len, banks.values())) - 1


# ---- softmax_kernel ----

slip(
    "softmax_kernel",
    "Lanes beyond N count as 0, which is larger than the whole row: other=-float('inf').",
    ('other=-float("inf")', "other=0.0"),
)
slip(
    "softmax_kernel",
    "Without `other`, lanes beyond N hold anything at all: other=-float('inf').",
    (', other=-float("inf")', ""),
)
slip(
    "softmax_kernel",
    "exp(10000) is infinite, and inf / inf is nan: subtract the row's maximum.",
    ("x - tl.max(x, 0)", "x"),
)
slip(
    "softmax_kernel",
    "A row has N numbers, BLOCK is only the size of the block: row * N + j.",
    ("row * N", "row * BLOCK"),
)
slip(
    "softmax_kernel",
    "The exponentials are not divided by their sum.",
    ("e / tl.sum(e, 0)", "e"),
)
slip(
    "softmax_kernel",
    "The row is loaded twice: keep x, the maximum and the exponentials in the program.",
    ("e = tl.exp(x", "x = tl.load(x_ptr + row * N + j, mask=inside, other=-float('inf'))\n"
     "    e = tl.exp(x"),
)  # fmt: skip
slip(
    "softmax_kernel",
    "The store is not masked: it writes into the next row, which another program owns.",
    ("tl.sum(e, 0), mask=inside", "tl.sum(e, 0)"),
)

# ---- total_kernel ----

slip(
    "total_kernel",
    "Load, add, store: two programs may load the same old value, and one sum is lost. "
    "tl.atomic_add lets nobody come between.",
    ("tl.atomic_add(out_ptr, tl.sum(x, 0))", "tl.store(out_ptr, tl.load(out_ptr) + tl.sum(x, 0))"),
)  # fmt: skip
slip(
    "total_kernel",
    "Every program overwrites the sums of the others: add, with tl.atomic_add.",
    ("tl.atomic_add(", "tl.store("),
)
slip(
    "total_kernel",
    "Lanes beyond n hold anything at all: other=0.0 in the load.",
    (", other=0.0", ""),
)
slip(
    "total_kernel",
    "Every lane adds by itself: right, and 32 atomic operations in place of one. Sum the block first.",
    ("out_ptr, tl.sum(x, 0)", "out_ptr + 0 * i, x"),
)
slip(
    "total_kernel",
    "The load is not masked: the last program reads past the end.",
    (", mask=i < n, other=0.0", ""),
)
slip(
    "total_kernel",
    "Each program adds to an address of its own: all add to out_ptr.",
    ("tl.atomic_add(out_ptr,", "tl.atomic_add(out_ptr + tl.program_id(0),"),
)
slip(
    "total_kernel",
    "A maximum is no sum: tl.sum(x, 0).",
    ("tl.sum(x, 0)", "tl.max(x, 0)"),
)

# ---- matmul_kernel ----

slip(
    "matmul_kernel",
    "Every step loads the first BK columns: k = start + tl.arange(0, BK).",
    ("k = start + tl.arange", "k = tl.arange"),
)

slip(
    "matmul_kernel",
    "The loads are not masked in K: the last step reads the next row, or past the end.",
    ("(m[:, None] < M) & (k[None, :] < K)", "m[:, None] < M"),
    ("(k[:, None] < K) & (n[None, :] < N)", "n[None, :] < N"),
)
slip(
    "matmul_kernel",
    "Without `other`, masked lanes hold anything at all: other=0.0 adds nothing.",
    (", other=0.0", ""),
)
slip(
    "matmul_kernel",
    "A row of b has N numbers: k[:, None] * N + n[None, :].",
    ("k[:, None] * N", "k[:, None] * K"),
)
slip(
    "matmul_kernel",
    "Only the last step is kept: add to acc in each.",
    ("tl.dot(a, b, acc, input", "tl.dot(a, b, input"),
)
slip(
    "matmul_kernel",
    "The sum is kept in float16, which has no 2,049: tl.zeros((BM, BN), dtype=tl.float32).",
    ("dtype=tl.float32", "dtype=tl.float16"),
    ("acc = tl.dot(a, b, acc, input_precision=\"ieee\")",
     "acc = (acc + tl.dot(a, b)).to(a.dtype)"),
)  # fmt: skip
slip(
    "matmul_kernel",
    "On a GPU tl.dot rounds float32 to 10 bits, unless input_precision='ieee'.",
    (', input_precision="ieee"', ""),
)
slip(
    "matmul_kernel",
    "The store has no mask: at the edge it writes into a neighbour's tile or past the end.",
    (", c, mask=inside", ", c"),
)
slip(
    "matmul_kernel",
    "A row of c has N numbers: m[:, None] * N + n[None, :].",
    ("c_ptr + m[:, None] * N", "c_ptr + m[:, None] * M"),
)
slip(
    "matmul_kernel",
    "Each tile is loaded twice in a step: load it once and use it.",
    ("        acc = tl.dot", "        b = tl.load(b_ptr + k[:, None] * N + n[None, :],\n"
     "                    mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)\n"
     "        acc = tl.dot"),
)  # fmt: skip

# ---- grouped ----


@ex.grouped.slip("Row by row: the group is not used at all.")
def row_by_row(pid, rows, cols, group):
    return pid // cols, pid % cols


@ex.grouped.slip("The last group can have fewer rows: min(rows - first, group).")
def full_groups(pid, rows, cols, group):
    first, within = pid // (group * cols) * group, pid % (group * cols)
    return first + within % group, within // group


@ex.grouped.slip("These are groups of columns: a group is `group` rows of tiles.")
def groups_of_columns(pid, rows, cols, group):
    first = pid // (group * rows) * group
    wide, within = min(cols - first, group), pid % (group * rows)
    return within // wide, first + within % wide


@ex.grouped.slip("Every group starts at row 0: add the group's first row.")
def no_first(pid, rows, cols, group):
    first = pid // (group * cols) * group
    high, within = min(rows - first, group), pid % (group * cols)
    return within % high, within // high


@ex.grouped.slip("(column, row): the row comes first.")
def swapped(pid, rows, cols, group):
    first = pid // (group * cols) * group
    high, within = min(rows - first, group), pid % (group * cols)
    return within // high, first + within % high


@ex.grouped.slip("A group has group * cols programs, not group * rows.")
def counts_rows(pid, rows, cols, group):
    first = pid // (group * rows) * group
    high, within = max(min(rows - first, group), 1), pid % (group * rows)
    return first + within % high, within // high


# ---- occupancy ----


def _held(warps, registers, shared, unit=256, reserve=1024, block=128, most=32):
    of_warp = -(-registers * 32 // unit) * unit
    taken = -(-(shared + reserve) // block) * block
    return min(64 // warps, most, 65536 // (of_warp * warps), 233472 // max(taken, 1))


@ex.occupancy.slip(
    "Registers are handed to a warp in lots of 256: round registers * 32 up."
)
def plain_registers(warps, registers, shared):
    return _held(warps, registers, shared, unit=1) * warps / 64


@ex.occupancy.slip("Every program also takes 1,024 bytes of shared memory for itself.")
def no_reserve(warps, registers, shared):
    return _held(warps, registers, shared, reserve=0) * warps / 64


@ex.occupancy.slip("Shared memory is handed out in lots of 128 bytes: round up.")
def plain_shared(warps, registers, shared):
    return _held(warps, registers, shared, block=1) * warps / 64


@ex.occupancy.slip(
    "A multiprocessor has places for 32 programs, however small they are."
)
def any_number(warps, registers, shared):
    return _held(warps, registers, shared, most=64) * warps / 64


@ex.occupancy.slip("These are the programs that fit: times their warps, over 64.")
def programs(warps, registers, shared):
    return _held(warps, registers, shared)


@ex.occupancy.slip("Programs fit whole or not at all: divide with //.")
def fractions(warps, registers, shared):
    of_warp = -(-registers * 32 // 256) * 256
    taken = -(-(shared + 1024) // 128) * 128
    return min(64 / warps, 32, 65536 / (of_warp * warps), 233472 / taken) * warps / 64


@ex.occupancy.slip(
    "Registers are counted once for each of 32 lanes, not once for a warp."
)
def one_lane(warps, registers, shared):
    of_warp = -(-registers // 256) * 256
    taken = -(-(shared + 1024) // 128) * 128
    return (
        min(64 // warps, 32, 65536 // (of_warp * warps), 233472 // taken) * warps / 64
    )


# ---- flash_forward ----

slip(
    "flash_forward",
    "The sum shrinks when a larger maximum comes, the output does not: acc * shrink too.",
    ("acc = acc * shrink[:, None]", "acc = acc"),
)
slip(
    "flash_forward",
    "The output shrinks when a larger maximum comes, the sum does not: total * shrink.",
    ("total * shrink + tl.sum", "total + tl.sum"),
)
slip(
    "flash_forward",
    "The scores are not scaled: s * scale.",
    ('input_precision="ieee") * scale', 'input_precision="ieee")'),
)
slip(
    "flash_forward",
    "Keys beyond T count with a score of 0: where n >= T the score is -inf.",
    ("seen = n[None, :] < T", "seen = n[None, :] >= 0"),
)
slip(
    "flash_forward",
    "A query sees itself: n <= m, not n < m.",
    ("n[None, :] <= m[:, None]", "n[None, :] < m[:, None]"),
)
slip(
    "flash_forward",
    "The mask is turned round: a query sees keys before it, n <= m.",
    ("n[None, :] <= m[:, None]", "n[None, :] >= m[:, None]"),
)
slip(
    "flash_forward",
    "The output is not divided by the sum of its weights.",
    ("acc / total[:, None]", "acc"),
)
slip(
    "flash_forward",
    "lse lacks the maximum: top + log(total).",
    ("top + tl.log(total)", "tl.log(total)"),
)
slip(
    "flash_forward",
    "Right, and all keys are read: a causal program ends at its own last query.",
    ("end = min(T, (i + 1) * BM)", "end = T"),
)
slip(
    "flash_forward",
    "The running maximum is not kept: top = new at the end of each turn.",
    ("        top = new\n", ""),
)

slip(
    "flash_forward",
    "One maximum for all queries of the block: far below it a query's weights are all 0. "
    "tl.max(s, 1) has one per row.",
    ("tl.max(s, 1)", "tl.max(s)"),
)
slip(
    "flash_forward",
    "tl.dot wants one type: p is float32, so p.to(v.dtype).",
    ("p.to(v.dtype)", "p"),
)

slip(
    "flash_forward",
    "An exponent is wrong: p = exp(s - new top) and shrink = exp(old top - new top).",
    ("shrink = tl.exp(top - new)", "shrink = tl.exp(new - top)"),
)
slip(
    "flash_forward",
    "top is overwritten before the shrink is taken: shrink first, then top = new.",
    ("p = tl.exp(s - new[:, None])", "top = new\n        p = tl.exp(s - new[:, None])"),
)
slip(
    "flash_forward",
    "An exponent is wrong: p = exp(s - new top) and shrink = exp(old top - new top).",
    ("tl.exp(s - new[:, None])", "tl.exp(s - top[:, None])"),
)
slip(
    "flash_forward",
    "This is the largest of the block at hand alone: tl.maximum(top, ...).",
    ("tl.maximum(top, tl.max(s, 1))", "tl.max(s, 1)"),
)
slip(
    "flash_forward",
    IEEE,
    (', input_precision="ieee"', ""),
)

# ---- flash_keys ----

slip(
    "flash_keys",
    "s lacks the scale: q k^T * scale, as in the forward pass.",
    ('input_precision="ieee") * scale\n', 'input_precision="ieee")\n'),
)
slip(
    "flash_keys",
    "The causal mask is turned round: a key is seen by the queries after it, n <= m.",
    ("n[None, :] <= m[:, None]", "n[None, :] >= m[:, None]"),
)
slip(
    "flash_keys",
    IEEE,
    (', input_precision="ieee"', ""),
)

slip(
    "flash_keys",
    "tl.dot wants one type: p and ds are float32, so .to(do.dtype) and .to(q.dtype).",
    (".to(do.dtype)", ""),
    (".to(q.dtype)", ""),
)

slip(
    "flash_keys",
    "ds lacks delta: the softmax's gradient is p (dp - delta).",
    ("(dp - delta[:, None])", "dp"),
)
slip(
    "flash_keys",
    "ds lacks the scale: s was q k^T times scale, so its gradient is too.",
    ("(dp - delta[:, None]) * scale", "(dp - delta[:, None])"),
)
slip(
    "flash_keys",
    "dv is p^T do: turn p.",
    ("tl.trans(p).to(do.dtype), do", "p.to(do.dtype), do"),
)
slip(
    "flash_keys",
    "dk is ds^T q: k is what it is the gradient of.",
    ("tl.trans(ds).to(q.dtype), q, dk", "tl.trans(ds).to(q.dtype), do, dk"),
)
slip(
    "flash_keys",
    "p is exp(s - lse): the weights, not the exponentials.",
    ("tl.exp(s - lse[:, None])", "tl.exp(s)"),
)
slip(
    "flash_keys",
    "A key collects from queries that see it: p is 0 where n > m.",
    ("tl.where(seen, tl.exp(s - lse[:, None]), 0.0)", "tl.exp(s - lse[:, None])"),
)
slip(
    "flash_keys",
    "Only the last tile of queries is kept: dv and dk add up over the loop.",
    ("do, dv, input", "do, input"),
    ("q, dk, input", "q, input"),
)

# ---- int4_matmul ----

slip(
    "int4_matmul",
    IEEE,
    (', input_precision="ieee"', ""),
)

slip(
    "int4_matmul",
    "The halves are exchanged: the even weight lies in the lower four bits, w & 15.",
    ("low = ((w & 15)", "low = ((w >> 4)"),
    ("high = ((w >> 4)", "high = ((w & 15)"),
)
slip(
    "int4_matmul",
    "Codes above 7 are negative: (code ^ 8) - 8.",
    ("((w & 15) ^ 8).to(tl.float32) - 8", "(w & 15).to(tl.float32)"),
    ("((w >> 4) ^ 8).to(tl.float32) - 8", "(w >> 4).to(tl.float32)"),
)
slip(
    "int4_matmul",
    "w is unsigned: 3 - 8 wraps round to 251. Change the type first, then subtract.",
    ("((w & 15) ^ 8).to(tl.float32) - 8", "(((w & 15) ^ 8) - 8).to(tl.float32)"),
    ("((w >> 4) ^ 8).to(tl.float32) - 8", "(((w >> 4) ^ 8) - 8).to(tl.float32)"),
)
slip(
    "int4_matmul",
    "The codes are shifted by 8 without the ^ 8: chapter 24 stores -1 as 15, not as 7.",
    ("((w & 15) ^ 8)", "(w & 15)"),
    ("((w >> 4) ^ 8)", "(w >> 4)"),
)
slip(
    "int4_matmul",
    "The products are not multiplied by their group's scale.",
    ("part * s[None, :].to(tl.float32)", "part"),
)
slip(
    "int4_matmul",
    "Only the even weights are used: a byte holds two.",
    ('        part = tl.dot(odd, tl.trans(high).to(odd.dtype), part, input_precision="ieee")\n', ""),
)  # fmt: skip
slip(
    "int4_matmul",
    "Only the odd weights are used: hand the first product on, tl.dot(..., part).",
    ("odd.dtype), part, input", "odd.dtype), input"),
)
slip(
    "int4_matmul",
    "tl.dot takes one type for both sides: .to(even.dtype) for the codes.",
    (".to(even.dtype)", ""),
    (".to(odd.dtype)", ""),
)
slip(
    "int4_matmul",
    "The weights take a type that float16 sums cannot hold: sum in float32.",
    ("acc += part * s[None, :].to(tl.float32)",
     "acc = (acc + part * s[None, :]).to(tl.float16).to(tl.float32)"),
)  # fmt: skip
