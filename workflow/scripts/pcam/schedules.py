"""Learning rate schedules by name."""

import math
from collections.abc import Mapping
from typing import Any

from pcam.settings import TrainSettings


def learning_rate_at(settings: TrainSettings, step: int, total: int) -> float:
    """Learning rate of step 0..total-1, by the name of the schedule.

    `one_cycle` (Smith and Topin 2018): from 1/25 of the highest rate a cosine up over the first 30 % of the steps, then
    a cosine down to 1/10,000. `cosine`: linear warm-up over the first 5 %, then a cosine to 0. `step`: a tenth after
    half and a hundredth after three quarters of the steps. `constant`.
    """
    highest = settings.learning_rate
    match settings.schedule:
        case "constant":
            return highest
        case "step":
            return highest * (1.0 if step < 0.5 * total else 0.1 if step < 0.75 * total else 0.01)
        case "cosine":
            warm = 0.05 * total
            if step < warm:
                return highest * (step + 1) / (warm + 1)
            return highest * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1))) / 2
        case "one_cycle":
            start, end, turn = highest / 25, highest / 1e4, 0.3 * total
            low, progress = (start, 1 - step / turn) if step < turn else (end, (step - turn) / max(total - 1 - turn, 1))
            return low + (highest - low) * (1 + math.cos(math.pi * progress)) / 2
        case name:
            raise ValueError(f"no schedule is named {name!r}")


def schedule_variants(recipes: Mapping[str, Mapping[str, Any]], base: str = "baseline") -> list[str]:
    """Names of the recipes that differ from `base` in their schedule and in nothing else."""
    own = recipes[base]
    return [name for name, recipe in recipes.items() if [key for key in own if recipe[key] != own[key]] == ["schedule"]]
