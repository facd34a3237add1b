"""The losses of two tiny trainings stay what they were: a refactor keeps them.

Compared with what tests/make_golden.py wrote. On one machine the bits repeat; another number of threads, or a CPU
without AVX-512 or AVX2 (tried with ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA), moves a loss by up to 2e-6 and a
gradient norm by up to 2e-5 of its size. Nothing that is smaller than the tolerance can be told from that.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from make_golden import SETTINGS, measure

from pcam.files import read_json

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
TOLERANCE = 1e-4
RENEW = (
    "If the training was meant to change, renew them with `make golden`, say why in the commit, and look at the "
    "difference of tests/golden/losses.json"
)


def worst_difference(found: dict[str, list[float]], kept: dict[str, list[float]]) -> tuple[float, str]:
    """Largest relative difference, and where it first passes the tolerance, else where it is."""
    differences = {
        name: np.abs(np.array(values) / np.array(kept[name]) - 1)
        if len(values) == len(kept[name])
        else np.array([np.inf])
        for name, values in found.items()
    }
    name = max(differences, key=lambda key: differences[key].max())
    at = int(np.argmax(differences[name] > min(TOLERANCE, differences[name].max() / 2)))
    return float(differences[name].max()), f"{name}[{at}]"


@pytest.mark.parametrize("model", SETTINGS)
def test_losses_and_gradient_norms_are_those_kept(model: str) -> None:
    kept = read_json(GOLDEN)
    assert asdict(SETTINGS[model]) == kept[model]["settings"], f"the golden losses are of other settings. {RENEW}."
    difference, where = worst_difference(measure(SETTINGS[model]), kept[model])
    assert difference < TOLERANCE, (
        f"{model}: {where} is the first to differ, the most by {difference:.1e} of its size; kept with torch "
        f"{kept['torch']}. {RENEW}."
    )


@pytest.mark.parametrize(
    "planted",
    [
        {"learning_rate": SETTINGS["mlp"].learning_rate * 1.01},
        {"weight_decay": 0.0},
        {"ema": 0.91},
        {"ema": 0.0},
        {"label_smoothing": 0.04},
        {"augment": False},
        {"schedule": "cosine"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_a_small_change_of_the_training_passes_the_tolerance(planted: dict[str, object]) -> None:
    difference, _ = worst_difference(measure(replace(SETTINGS["mlp"], **planted)), read_json(GOLDEN)["mlp"])
    assert difference > TOLERANCE
