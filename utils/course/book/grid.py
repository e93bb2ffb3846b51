"""Which steps of a lab's controls are drawn ahead: a small grid, the start on it.

A lab says the steps that it wants by `draw.book = {control: values}` (free text: five
lines); for other controls `spread` chooses.
"""

MOST = 80  # frames of one lab


def control(name, knob, wanted=None):
    "{name, label, kind, values, labels, start, fixed}: a control and what it can say."
    values, labels = _values(knob)
    if wanted is not None:
        said = dict(zip(map(repr, values), labels))
        values = list(wanted)
        if isinstance(knob.value, bool):  # a box that is not ticked is step 0
            values = sorted({*values, knob.value})
        labels = [said.get(repr(value), value) for value in values]
    kind = "slider" if hasattr(knob, "min") else "menu"
    if knob.value not in values:
        values, labels = [knob.value, *values], [knob.value, *labels]
        if kind == "slider":  # which has a left end and a right end
            values, labels = zip(*sorted(zip(values, labels)))
            values, labels = list(values), list(labels)
    return {
        "name": name,
        "label": knob.description or name,
        "kind": "check" if isinstance(knob.value, bool) else kind,
        "values": values,
        "labels": [f"{x:.4g}" if isinstance(x, float) else str(x) for x in labels],
        "start": values.index(knob.value),
        "fixed": wanted is not None,
    }


def _values(knob):
    "All values of a widget, and what it calls them."
    if hasattr(knob, "options"):
        options = knob.options
        options = options.items() if hasattr(options, "items") else options
        pairs = [o if isinstance(o, tuple) else (o, o) for o in options]
        return [value for _, value in pairs], [label for label, _ in pairs]
    if isinstance(knob.value, bool):
        return [False, True], ["no", "yes"]
    if hasattr(knob, "min") and hasattr(knob, "step"):
        values = _slider(knob)
        return values, values
    return [knob.value], [knob.value]  # free text


def _slider(knob):
    count = round((knob.max - knob.min) / (knob.step or 1))
    values = [knob.min + i * (knob.step or 1) for i in range(count + 1)]
    if hasattr(knob, "base"):  # a slider of powers
        values = [knob.base**value for value in values]
    near = min(values, key=lambda value: abs(value - knob.value))
    rounded = [v if isinstance(v, int) else round(v, 10) for v in values]
    return [knob.value if v == near else r for v, r in zip(values, rounded)]


def spread(controls, most=MOST):
    "The controls with so few values that at most `most` frames show them all."
    counts = [
        len(c["values"]) if c["fixed"] else min(2, len(c["values"])) for c in controls
    ]
    while True:
        frames = _product(counts)
        can_grow = [
            i
            for i, c in enumerate(controls)
            if counts[i] < len(c["values"]) and frames + frames // counts[i] <= most
        ]
        if not can_grow:
            return [thin(c, count) for c, count in zip(controls, counts)]
        # the words of a menu come before a slider's half steps
        words = [counts[i] - (controls[i]["kind"] == "menu") for i in can_grow]
        counts[can_grow[words.index(min(words))]] += 1


def _product(counts):
    frames = 1
    for count in counts:
        frames *= count
    return frames


def thin(found, count):
    "The control with `count` of its values: evenly spread, the start among them."
    values, start = found["values"], found["start"]
    if count >= len(values):
        return found
    last = len(values) - 1
    at = [round(i * last / max(count - 1, 1)) for i in range(count)]
    if start not in at:
        inner = at[1:-1] if count > 2 else at
        at[at.index(min(inner, key=lambda i: abs(i - start)))] = start
    at = sorted(set(at))
    kept = {k: [found[k][i] for i in at] for k in ("values", "labels")}
    return {**found, **kept, "start": at.index(start)}
