"""What chapter 15 counts about the chip: sectors, banks, occupancy, the order of tiles.

Sizes are bytes. The multiprocessor is an H100's (NVIDIA, CUDA C++ programming guide,
compute capability 9.0): 64 warps, 32 programs, 65,536 registers, 228 KiB of shared memory.
"""

from collections import OrderedDict

from utils import given

WARPS, PROGRAMS, REGISTERS, SHARED = 64, 32, 65536, 228 * 1024
WARP_LANES = 32
REGISTER_UNIT, SHARED_UNIT, RESERVE = 256, 128, 1024
MOST_REGISTERS = 255  # of one thread


def sectors(places, size=4):
    "32-byte sectors that a warp touches: places of its elements, `size` bytes each."
    size = given.whole("size", size)
    places = [given.whole("place", place, 0) for place in places]
    return len({place * size // 32 for place in places})


def bank_conflicts(words):
    "Extra passes of a warp through shared memory: words of 4 bytes, one a lane."
    banks = {}
    for word in words:
        word = given.whole("word", word, 0)
        banks.setdefault(word % 32, set()).add(word)
    return max((len(found) for found in banks.values()), default=1) - 1


def occupancy(warps, registers, shared):
    """Share of a multiprocessor's 64 warps that programs of one kernel can fill.

    warps: of a program; registers: of a thread; shared: bytes of a program. 0 where not
    even one fits.
    """
    warps = given.whole("warps", warps)
    registers = given.whole("registers", registers)
    shared = given.whole("shared", shared, 0)
    of_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    taken = -(-(shared + RESERVE) // SHARED_UNIT) * SHARED_UNIT
    fit = min(WARPS // warps, PROGRAMS, REGISTERS // (of_warp * warps), SHARED // taken)
    return fit * warps / WARPS


def grouped(pid, rows, cols, group):
    "Number of a program -> row and column of its tile, `group` rows of tiles at a time."
    given.whole("pid", pid, 0)
    given.whole("rows", rows), given.whole("cols", cols), given.whole("group", group)
    first = pid // (group * cols) * group
    high = min(rows - first, group)
    within = pid % (group * cols)
    return first + within % high, within // high


def traffic(M, N, K, BM, BN, size=4):
    "Bytes that a matrix product moves between its programs and memory, tiles (BM, BN)."
    down, across = -(-M // BM), -(-N // BN)
    return size * (M * K * across + K * N * down + M * N)


def waves(places, at_once=132):
    "The tiles in the order of their programs, as many at a time as run together."
    places = list(places)
    return [places[i : i + at_once] for i in range(0, len(places), at_once)]


def from_memory(places, steps, row_bytes, column_bytes, cache, at_once=132):
    """(asked, missed) bytes of a matrix product whose tiles come in this order.

    places: (row, column) of each program's tile; a program takes `steps` steps, in each a
    piece of its row's A and of its column's B. Programs of a wave walk in step; the cache
    forgets what was not used for longest.
    """
    pieces, used, asked, missed = OrderedDict(), 0, 0, 0
    for wave in waves(places, at_once):
        wanted = [("A", r, row_bytes) for r in dict.fromkeys(r for r, _ in wave)]
        wanted += [("B", c, column_bytes) for c in dict.fromkeys(c for _, c in wave)]
        asked += steps * len(wave) * (row_bytes + column_bytes)
        for step in range(steps):
            for which, line, size in wanted:
                key = which, line, step
                if key in pieces:
                    pieces.move_to_end(key)
                    continue
                missed, used = missed + size, used + size
                pieces[key] = size
                while used > cache:
                    used -= pieces.popitem(last=False)[1]
    return asked, missed
