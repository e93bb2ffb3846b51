"""Chapter 12: small wrong programs, and the sentence that names each."""

import math

from utils.built import budget
from utils.checks import budget as ex

# ---- parameters ----


@ex.parameters.slip("The biases and the norms are missing: 13 E per block.")
def matrices_alone(V, C, E, L, tied=True):
    return (2 - tied) * V * E + C * E + L * 12 * E * E + 2 * E


@ex.parameters.slip("The last norm is missing: a gain and a bias, 2 E.")
def no_last_norm(V, C, E, L, tied=True):
    return budget.parameters(V, C, E, L, tied) - 2 * E


@ex.parameters.slip("The positions are missing: they are learned too, C * E.")
def no_positions(V, C, E, L, tied=True):
    return budget.parameters(V, C, E, L, tied) - C * E


@ex.parameters.slip("A tied head is the embedding's own matrix: it is counted once.")
def head_twice(V, C, E, L, tied=True):
    return budget.parameters(V, C, E, L, False)


@ex.parameters.slip("An untied head has V * E weights of its own: read `tied`.")
def never_untied(V, C, E, L, tied=True):
    return budget.parameters(V, C, E, L)


@ex.parameters.slip("The MLP has two matrices of 4 E^2, up and down.")
def one_mlp_matrix(V, C, E, L, tied=True):
    return budget.parameters(V, C, E, L, tied) - L * 4 * E * E


# ---- forward_flops ----


@ex.forward_flops.slip("The look-up multiplies nothing: only the head costs V * E.")
def look_up_counted(V, E, L, B, T):
    return budget.forward_flops(V, E, L, B, T) + 2 * B * T * V * E


@ex.forward_flops.slip(
    "The head is missing: one more product, V * E weights per token."
)
def no_head(V, E, L, B, T):
    return budget.forward_flops(V, E, L, B, T) - 2 * B * T * V * E


@ex.forward_flops.slip(
    "A multiplication and an addition are two operations: 2 per weight and token."
)
def one_per_weight(V, E, L, B, T):
    return budget.forward_flops(V, E, L, B, T) // 2


@ex.forward_flops.slip(
    "The products inside attention are missing: they have no weights, and cost 4 B T T E."
)
def no_attention(V, E, L, B, T):
    return 2 * B * T * (12 * E * E * L + V * E)


@ex.forward_flops.slip(
    "That is the causal half. The plain product computes the masked scores too, and so "
    "they are counted."
)
def causal_half(V, E, L, B, T):
    return 2 * B * T * (12 * E * E * L + V * E) + 2 * L * B * T * T * E


@ex.forward_flops.slip("This is the whole step: forward alone is a third of it.")
def whole_step(V, E, L, B, T):
    return 3 * budget.forward_flops(V, E, L, B, T)


# ---- activation_bytes ----


def _bytes(V, E, H, L, B, T, naive, checkpointing, block=0, rest=0, each=4, add=0):
    "The right formula with something added: numbers per token, in a block or outside."
    right = budget.activation_bytes(V, E, H, L, B, T, naive, checkpointing)
    return right + each * B * T * (L * block * (not checkpointing) + rest) + add


@ex.activation_bytes.slip(
    "GELU's input and its output are both kept, 4 E each: its own rule reads the input, "
    "the next product the output."
)
def gelu_once(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, block=-4 * E)


@ex.activation_bytes.slip(
    "The logits are missing: the loss keeps its log-probabilities, V per token."
)
def no_logits(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, rest=-V)


@ex.activation_bytes.slip(
    "Ids and labels are whole numbers of 8 bytes, two per token: 16 B T."
)
def four_byte_labels(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, rest=-2)


@ex.activation_bytes.slip(
    "The statistics of a block's two norms are missing: mean and spread of each, 4 numbers "
    "per token."
)
def no_statistics(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, block=-4)


@ex.activation_bytes.slip(
    "Fused attention keeps one number per head and token, the logarithm of the row's sum."
)
def no_row_sums(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, block=-H * (not naive))


@ex.activation_bytes.slip(
    "Naive attention also keeps its mask: T x T booleans per block, a byte each."
)
def no_masks(V, E, H, L, B, T, naive=False, checkpointing=False):
    add = -L * T * T * (naive and not checkpointing)
    return _bytes(V, E, H, L, B, T, naive, checkpointing, add=add)


@ex.activation_bytes.slip(
    "Naive attention keeps its whole table: H * T numbers per token, read `naive`."
)
def never_naive(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, False, checkpointing)


@ex.activation_bytes.slip(
    "Checkpointing keeps each block's input, E numbers per token: read `checkpointing`."
)
def never_checkpointed(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, False)


@ex.activation_bytes.slip("A float32 has 4 bytes: this counts 2 for each.")
def in_half_precision(V, E, H, L, B, T, naive=False, checkpointing=False):
    whole = budget.activation_bytes(V, E, H, L, B, T, naive, checkpointing)
    return (whole - 16 * B * T - 4) // 2 + 16 * B * T + 4


@ex.activation_bytes.slip("The mean itself is one number more: 4 bytes.")
def no_mean(V, E, H, L, B, T, naive=False, checkpointing=False):
    return _bytes(V, E, H, L, B, T, naive, checkpointing, add=-4)


# ---- recompute_flops ----


@ex.recompute_flops.slip(
    "The whole block is not needed again: nobody reads the result of its last product."
)
def whole_forward(E, L, B, T):
    return L * (24 * B * T * E * E + 4 * B * T * T * E)


@ex.recompute_flops.slip(
    "Attention's own products are made again as well: 4 B T T E per block."
)
def matrices_again(E, L, B, T):
    return L * 16 * B * T * E * E


@ex.recompute_flops.slip("Every block is made again, not one alone: times L.")
def one_block(E, L, B, T):
    return budget.recompute_flops(E, 1, B, T)


@ex.recompute_flops.slip("Two operations per weight and token.")
def half_of_it(E, L, B, T):
    return budget.recompute_flops(E, L, B, T) // 2


# ---- kv_bytes ----


@ex.kv_bytes.slip("Keys and values: two tensors per layer.")
def keys_alone(L, groups, D, B, T, size=2):
    return budget.kv_bytes(L, groups, D, B, T, size) // 2


@ex.kv_bytes.slip("Each of the B texts has a cache of its own.")
def one_text(L, groups, D, B, T, size=2):
    return budget.kv_bytes(L, groups, D, 1, T, size)


@ex.kv_bytes.slip("Every layer keeps its own keys and values: times L.")
def one_layer(L, groups, D, B, T, size=2):
    return budget.kv_bytes(1, groups, D, B, T, size)


@ex.kv_bytes.slip("D is the size of one head: there are `groups` of them.")
def one_group(L, groups, D, B, T, size=2):
    return budget.kv_bytes(L, 1, D, B, T, size)


@ex.kv_bytes.slip("These are numbers, not bytes: times `size`.")
def numbers(L, groups, D, B, T, size=2):
    return budget.kv_bytes(L, groups, D, B, T, 1)


@ex.kv_bytes.slip("`size` is the bytes of one number: do not write 2 for it.")
def always_two_bytes(L, groups, D, B, T, size=2):
    return budget.kv_bytes(L, groups, D, B, T, 2)


# ---- chip_hours ----


@ex.chip_hours.slip(
    "2 N is the forward pass; backward costs twice as much: 6 N per token."
)
def forward_alone(N, tokens, peak, mfu=0.4):
    return 2 * N * tokens / (mfu * peak) / 3600


@ex.chip_hours.slip("These are seconds: 3600 of them are an hour.")
def in_seconds(N, tokens, peak, mfu=0.4):
    return 6 * N * tokens / (mfu * peak)


@ex.chip_hours.slip("At the whole peak: only the share mfu of it is reached.")
def at_the_peak(N, tokens, peak, mfu=0.4):
    return 6 * N * tokens / peak / 3600


@ex.chip_hours.slip("Less than the peak takes longer: divide by mfu.")
def times_mfu(N, tokens, peak, mfu=0.4):
    return 6 * N * tokens * mfu / peak / 3600


@ex.chip_hours.slip("These are days: an hour has 3600 seconds.")
def in_days(N, tokens, peak, mfu=0.4):
    return 6 * N * tokens / (mfu * peak) / 86400


# ---- bill ----


@ex.bill.slip("This is in kWh: a MWh is a thousand of them.")
def kilowatt_hours(hours, watts, price, pue=1.1):
    return hours * watts * pue / 1e3, hours * price


@ex.bill.slip("The building's share is missing: times pue.")
def chips_only(hours, watts, price, pue=1.1):
    return hours * watts / 1e6, hours * price


@ex.bill.slip("PUE twice: it multiplies the energy, and the price holds it already.")
def pue_twice(hours, watts, price, pue=1.1):
    return hours * watts * pue / 1e6, hours * pue * price


@ex.bill.slip("The price is per chip-hour, not per MWh.")
def price_per_mwh(hours, watts, price, pue=1.1):
    mwh = hours * watts * pue / 1e6
    return mwh, mwh * price


# ---- chips_for ----


@ex.chips_for.slip("Rounded down, the last part has no chip: round up.")
def rounds_down(need, memory_gb, spare=0.1):
    return max(1, int(need / (memory_gb * 1e9 * (1 - spare))))


@ex.chips_for.slip("What fits exactly needs no chip more: round up, do not add one.")
def always_one_more(need, memory_gb, spare=0.1):
    return int(need / (memory_gb * 1e9 * (1 - spare))) + 1


@ex.chips_for.slip("The spare share is not left free.")
def uses_all(need, memory_gb, spare=0.1):
    return max(1, math.ceil(need / (memory_gb * 1e9)))


@ex.chips_for.slip(
    "The spare share belongs to the chip and not to the need: room is memory * (1 - spare)."
)
def adds_to_the_need(need, memory_gb, spare=0.1):
    return max(1, math.ceil(need * (1 + spare) / (memory_gb * 1e9)))


@ex.chips_for.slip("Only the spare share is used: the rest of the chip is 1 - spare.")
def uses_the_spare(need, memory_gb, spare=0.1):
    return max(1, math.ceil(need / (memory_gb * 1e9 * (spare or 1))))


@ex.chips_for.slip("There is always at least one chip, also for nothing.")
def none_for_nothing(need, memory_gb, spare=0.1):
    return math.ceil(need / (memory_gb * 1e9 * (1 - spare)))


@ex.chips_for.slip(
    "A GB has 1e9 bytes here, as on the data sheets; 2**30 promises 7 % more than there is."
)
def binary_gigabytes(need, memory_gb, spare=0.1):
    return max(1, math.ceil(need / (memory_gb * 2**30 * (1 - spare))))


# ---- smallest ----


def _rows(chips):
    return [row for row in chips if row["memory_gb"] and row["watts"]]


def _choose(chips, need, most, key, count=budget.chips_for):
    fits = [(count(need, row["memory_gb"]), row) for row in _rows(chips)]
    fits = [pair for pair in fits if pair[0] <= most]
    if not fits:
        return None
    found = min(fits, key=lambda pair: key(*pair))
    return found[1]["name"], found[0]


@ex.smallest.slip("The first of equals, not the one of the fewest watts.")
def watts_ignored(chips, need, most=8):
    return _choose(chips, need, most, lambda count, row: count)


@ex.smallest.slip("Watts decide only among equals: the number of chips comes first.")
def fewest_watts(chips, need, most=8):
    return _choose(chips, need, most, lambda count, row: count * row["watts"])


@ex.smallest.slip("More chips than `most`: no such machine is to be had.")
def no_limit(chips, need, most=8):
    return _choose(chips, need, math.inf, lambda count, row: (count, row["watts"]))


@ex.smallest.slip("`most` chips are still allowed.")
def below_most(chips, need, most=8):
    return _choose(chips, need, most - 1, lambda count, row: (count, row["watts"]))


@ex.smallest.slip(
    "Rows whose memory or watts is None are left out before anything else."
)
def none_compared(chips, need, most=8):
    found = []
    for row in chips:
        count = budget.chips_for(need, row["memory_gb"] or 1)
        if count <= most:
            found.append((count, row["watts"], row["name"]))
    return min(found)[::-2] if found else None


@ex.smallest.slip("A tenth of each chip stays free: count with chips_for.")
def nothing_spare(chips, need, most=8):
    return _choose(chips, need, most, lambda count, row: (count, row["watts"]),
                   lambda need, memory: budget.chips_for(need, memory, 0.0))  # fmt: skip


# ---- mfu ----


@ex.mfu.slip(
    "This is the forward pass alone: a step has three times as many operations."
)
def forward_only(V, E, L, B, T, seconds, peak):
    return budget.mfu(V, E, L, B, T, seconds, peak) / 3


@ex.mfu.slip("Three times too many: forward_flops is not the step yet, 3 of it are.")
def three_twice(V, E, L, B, T, seconds, peak):
    return 3 * budget.mfu(V, E, L, B, T, seconds, peak)


@ex.mfu.slip("These are operations per second: divide by the peak.")
def rate(V, E, L, B, T, seconds, peak):
    return budget.mfu(V, E, L, B, T, seconds, peak) * peak


@ex.mfu.slip("More seconds mean a smaller share: divide by them.")
def times_seconds(V, E, L, B, T, seconds, peak):
    return budget.mfu(V, E, L, B, T, seconds, peak) * seconds**2


@ex.mfu.slip("It is upside down: what was done over what could have been done.")
def upside_down(V, E, L, B, T, seconds, peak):
    return 1 / budget.mfu(V, E, L, B, T, seconds, peak)
