"""Chapter 22: two libraries' privacy budgets, recorded; clients at once, in turns.

`python -m utils.bench.federated` records what Opacus and dp-accounting say, anywhere
where both are installed beside the course's packages:

    python3 -m venv DIR
    DIR/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu \\
        torch==2.13.0 opacus==1.6.0 dp-accounting==0.6.0
    DIR/bin/python -m utils.bench.federated

They are not among the readers' packages: Opacus alone takes seconds to import.
"""

import datetime
import json
from importlib.metadata import version

from utils.bench.ratio import Ratio, benchmark, in_turns
from utils.files import ROOT

RECORD = ROOT / "utils" / "data" / "privacy.json"
DELTA = 1e-5
ORDERS = list(range(2, 64))
# the chance that a row joins a step, the noise, steps
SETTINGS = [
    (64 / 1437, 0.6, 440), (64 / 1437, 1.0, 220), (64 / 1437, 1.0, 440),
    (64 / 1437, 2.0, 440), (64 / 1437, 4.0, 440), (0.01, 1.1, 1000), (1.0, 5.0, 10),
]  # fmt: skip


def recorded():
    "What was recorded: versions, and a row of budgets for each setting."
    return json.loads(RECORD.read_text(encoding="utf-8"))


def record(path=RECORD):
    "Ask both libraries for each setting and write their answers down."
    rows = [dict(_ask(*setting), delta=DELTA) for setting in SETTINGS]
    names = ("opacus", "dp-accounting", "torch", "numpy", "scipy")
    told = {
        "command": "python -m utils.bench.federated",
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in names},
        "orders": [ORDERS[0], ORDERS[-1]],
        "rows": rows,
    }
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def _ask(q, sigma, steps):
    "One setting's budgets: by moments at whole orders, and by whole distributions."
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import PRVAccountant, RDPAccountant

    ours, exact = RDPAccountant(), PRVAccountant()
    ours.history = exact.history = [(sigma, q, steps)]
    event = dp.GaussianDpEvent(sigma)
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(q, event), steps)
    return {
        "q": q, "sigma": sigma, "steps": steps,
        "opacus": float(ours.get_epsilon(DELTA, alphas=ORDERS)),
        "dp_accounting": float(RdpAccountant(ORDERS).compose(event).get_epsilon(DELTA)),
        "opacus_default_orders": float(ours.get_epsilon(DELTA)),
        "opacus_prv": float(exact.get_epsilon(DELTA)),
        "dp_accounting_pld": float(PLDAccountant().compose(event).get_epsilon(DELTA)),
    }  # fmt: skip


@benchmark("federated.stacked", ">= 2")
def stacked():
    "60 steps of 10 clients: one client after another over all in one product."
    import torch

    from utils.built import federated

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(60, 10, 16, 64, generator=generator)
    y = torch.randint(10, (60, 10, 16), generator=generator)
    start = federated.weights_of()

    def at_once():
        federated.fedavg_round(
            start,
            lambda w, s: federated.client_slopes(w, X[s], y[s]),
            [1] * 10,
            60,
            0.1,
        )

    def one_by_one():
        for k in range(10):
            federated.fedavg_round(
                start,
                lambda w, s, k=k: federated.client_slopes(w, X[s, [k]], y[s, [k]]),
                [1], 60, 0.1,
            )  # fmt: skip

    samples = in_turns(at_once, one_by_one, pairs=5, invert=True)
    return Ratio(samples, "10 clients one after another over 10 stacked, 60 steps each")


if __name__ == "__main__":
    print(json.dumps(record(), indent=1))
