"""A type that a check accepts must not break the cells that follow: each chapter runs to
its end with answers that return lists in place of arrays and tuples."""

import functools
from importlib import import_module
from types import GeneratorType

import pytest

from utils import plots
from utils.course import author
from utils.course.notebooks import nbformat  # which starts quicker there

LISTS = {  # chapter -> exercises whose answers may return lists
    "01_descent": "predict mse numeric_gradient mse_gradient gradient_step stable_rate "
    "standardise minibatches sgd",
    "02_neurons": "linear relu mlp_forward xor_layers sigmoid slope softmax cross_entropy "
    "binary_cross_entropy cross_entropy_gradient softmax_step softmax_regression accuracy",
    "03_backprop": "matmul_backward sum_backward history sgd_step softmax_cross_entropy "
    "linear_relu_backward",
    "04_optimizers": "gradient_noise warmup_cosine he_init soft_threshold shift_digits",
    "13_gpu": "seconds step_seconds value_of saved_bytes step_bytes step_flops idle_share "
    "train_fast",
    "16_collectives": "pass_right cut fit cost choose",
    "24_quantization": "read_bits affine best_scale codebook choose_bits",
}
SLOW = {  # cells that meet no answer's result in a new way
    "02_neurons": "splits train-star star-result",
    "03_backprop": "random-check digits-train digits-figure time-scalars "
    "objects-per-second ladder digits-time recursion-breaks tape-holds reveal-ladder",
    "04_optimizers": "race-run race-reveal race-figure deep stopping-run stopping-prove "
    "stopping-figure row-gradients noise-run noise-figure lab",
    "13_gpu": "trace race vanish-run recover recover-figure bf16-prove bf16-speed mine machines",
    "16_collectives": "introduce processes on-processes real-deadlock own-weights "
    "broadcast-real there-and-back prove-exact-run count-bytes same-errors steps-and-bytes fit-run "
    "fit-figure crossing-figure test-choice-run networks-figure networks-table "
    "reveal-cluster clusters-figure both-exact race-run race-figure",
    "24_quantization": "three-ways-show lab sabotage-run integer-price "
    "saturation-here file-run file-break compensate-same repaired-run repaired-figure "
    "minilm outliers minilm-table minilm-file engines timing-figure pareto-digits "
    "pareto-digits-figure minilm-time",
}


def listed(x):
    "Arrays, tensors and tuples as lists, NumPy's numbers as Python's."
    if hasattr(x, "tolist"):
        return x.tolist()
    if isinstance(x, (list, tuple)):
        return [listed(part) for part in x]
    return map(listed, x) if isinstance(x, GeneratorType) else x


def in_lists(answer):
    "An answer whose result comes as lists."
    if not callable(answer):
        return listed(answer)
    return functools.wraps(answer)(
        lambda *args, **named: listed(answer(*args, **named))
    )


@pytest.mark.parametrize("chapter", LISTS)
def test_a_chapter_runs_with_answers_that_return_lists(chapter, monkeypatch):
    exercises = import_module(f"utils.checks.{chapter[3:]}").chapter.exercises
    monkeypatch.chdir(author.CHAPTERS)
    monkeypatch.setattr(plots, "show", lambda fig, says: plots.plt.close(fig))
    scope, slow = {"__name__": "__main__"}, SLOW.get(chapter, "").split()
    notebook = nbformat.read(author.CHAPTERS / f"{chapter}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id not in slow:
            exec(compile(cell.source, cell.id, "exec"), scope)
            name = cell.id.removesuffix("-check")
            if name != cell.id and name in LISTS[chapter].split():
                answer = in_lists(scope[name])
                verdict, report = exercises[name].judge(answer)
                assert verdict == "right", report
                scope[name] = answer
