"""Write head.sbatch and preflight.sbatch from their templates and the settings at the top of config.yaml.

Reads: profiles/slurm/config.yaml, profiles/slurm/templates.
Writes: profiles/slurm/head.sbatch, profiles/slurm/preflight.sbatch. `make sbatch` runs it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent


def make_sbatch(settings: Mapping[str, Any]) -> dict[str, str]:
    """Text of each batch file by its name, from the `__variables__` of config.yaml."""
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return {
        f"{name}.sbatch": templates.get_template(f"{name}.sbatch").render(settings, name=name)
        for name in ("head", "preflight")
    }


if __name__ == "__main__":
    settings = yaml.safe_load((FOLDER / "config.yaml").read_text())["__variables__"]
    for name, text in make_sbatch(settings).items():
        (FOLDER / name).write_text(text)
