from utils.checks import start_here as ex


@ex.mean.slip("This is the sum: divide it by how many there are.")
def the_sum(values):
    return sum(values)


@ex.mean.slip("This is the middle value, the median: add up and divide.")
def the_median(values):
    return sorted(values)[len(values) // 2]


@ex.mean.slip(
    "This is halfway between the smallest and the largest: add up all the values."
)
def halfway(values):
    return (min(values) + max(values)) / 2


@ex.mean.slip("You divided by 2, however many values there are: divide by len(values).")
def always_by_two(values):
    return sum(values) / 2


@ex.mean.slip("You divided by 3, however many values there are: divide by len(values).")
def always_by_three(values):
    return sum(values) / 3


@ex.mean.slip("Whole-number division `//` drops the half: use `/`.")
def whole_number_division(values):
    return sum(values) // len(values)


@ex.mean.slip("You rounded: the mean of whole numbers may lie between them.")
def rounded(values):
    return round(sum(values) / len(values))


@ex.mean.slip("A set keeps equal values once: each of them counts.")
def of_different_values(values):
    return sum(set(values)) / len(set(values))


@ex.mean.slip(told="is a `return` missing?")
def prints_it(values):
    print(sum(values) / len(values))


@ex.mean.slip(told="changes its input")
def in_place(values):
    if isinstance(values, list):
        return sum(values) / len(values)
    values /= len(values)
    return values.sum()
