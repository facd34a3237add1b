"""Let the search propose three rounds in a space with every kind of setting, which a refactor must propose again.

Use, after a change that is meant to change them: make golden. Another version of Optuna may change them too; a search
that was begun must then be begun anew.
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import optuna

from pcam.files import write_json
from pcam.tuning import FinishedTrial, propose

BASE = {"model": "resnet", "width": 16, "hidden": 128, "learning_rate": 3e-3, "dropout": 0.0, "augment": True}
SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"type": "float", "low": 5e-4, "high": 1e-2, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.4},
    "model": {"type": "categorical", "choices": ["resnet", "mlp"]},
    "augment": {"type": "categorical", "choices": [True, False]},
    "width": {"type": "int", "low": 12, "high": 24, "step": 4, "when": {"model": ["resnet"]}},
    "hidden": {"type": "int", "low": 16, "high": 256, "log": True, "when": {"model": ["mlp"]}},
}
SEED = 3


def results(proposals: list[dict[str, Any]], start: int) -> list[FinishedTrial]:
    """Made-up results; the second of each round failed."""
    return [
        FinishedTrial(start + i, params, None if i == 1 else 0.9 - params["dropout"] / 10 + 0.001 * i)
        for i, params in enumerate(proposals)
    ]


def make() -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {}
    finished: list[FinishedTrial] = []
    for number in range(3):
        proposals = propose(SPACE, BASE, SEED, number, 4, finished)
        made[f"round-{number}"] = proposals
        finished += results(proposals, len(finished))
    return made


if __name__ == "__main__":
    write_json(sys.argv[1], {"optuna": optuna.__version__, **make()})
