from tests.wrong_answers import WrongAnswers

wrong = WrongAnswers("start_here")


@wrong("mean", says="This is the sum")
def the_sum(values):
    return sum(values)


@wrong("mean", says="the median")
def the_median(values):
    return sorted(values)[len(values) // 2]


@wrong("mean", says="divide by len(values)")
def always_by_two(values):
    return sum(values) / 2


@wrong("mean", says="drops the half")
def whole_number_division(values):
    return sum(values) // len(values)


@wrong("mean", says="is a `return` missing?")
def prints_it(values):
    print(sum(values) / len(values))


@wrong("mean", says="changes its input")
def in_place(values):
    if isinstance(values, list):
        return sum(values) / len(values)
    values /= len(values)
    return values.sum()
