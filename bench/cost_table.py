"""What passes over 10⁶ and 10⁸ patches cost in jobs and hours, by measured rates: the README's table.

Reads:  shards.json, audit.json and h100/throughput.csv in assets/benchmark.
Writes: the table, between its two marks in README.md. Use: make readme-tables
"""

import math
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "workflow" / "scripts")]

from bench.readme_part import write_part  # noqa: E402
from pcam.files import read_csv, read_json  # noqa: E402

MEASURED = ROOT / "assets" / "benchmark"
SIZES = (10**6, 10**8)
WORDS = {10**6: "10⁶", 10**8: "10⁸"}
# Hours of a shard at most: half of what profiles/slurm asks for at first, which the test compares.
LONGEST_H = {"core": 0.5, "GPU": 0.25}
BATCH = 64  # pcam.memory.PREDICT_BATCH, which the test compares; to import it takes torch
SYMMETRIES = 8
JOB_BYTES = 3 * 4096 * 2**20  # a job without a GPU, by the profile, when it is tried a third time
IN_ONE_JOB = ("checksums", "storage", "leakage", "poison")


@dataclass(frozen=True)
class Pass:
    """A pass over patches: its name, over which of a set it goes, what runs it, and patches a second."""

    name: str
    over: str
    on: str
    rate: float

    def hours(self, n: int) -> float:
        return n / self.rate / 3600


def gpu_row() -> dict[str, str]:
    """The H100's forward pass of the champion at the largest measured batch up to BATCH."""
    rows = [
        row
        for row in read_csv(MEASURED / "h100" / "throughput.csv")
        if (row["mode"], row["precision"], row["model"]) == ("inference", "fp32", "champion")
        if int(row["batch_size"]) <= BATCH
    ]
    return max(rows, key=lambda row: int(row["batch_size"]))


def scattered() -> list[Pass]:
    rates = {name: told["patches_per_s"] for name, told in read_json(MEASURED / "shards.json")["passes"].items()}
    by_model = "each split, model and seed"
    return [
        Pass("survey for duplicates, shared tissue and damage", "all splits", "core", rates["survey_patches"]),
        Pass("features of the cheap model", "each split", "core", rates["extract_features"]),
        Pass("attributes", "valid, test", "core", rates["measure_attributes"]),
        Pass("predictions", by_model, "GPU", float(gpu_row()["images_per_s"]) / SYMMETRIES),
        Pass("predictions", by_model, "core", rates["predict_seed"]),
        Pass("embeddings", "valid, test", "core", rates["embed_patches"]),
    ]


def of_memory(dtype: str) -> list[dict[str, Any]]:
    """The audit's runs that measured memory, smallest first."""
    runs = (run["memory"] for run in read_json(MEASURED / "audit.json")["runs"] if "memory" in run)
    return sorted((run for run in runs if run["dtype"] == dtype), key=lambda run: run["patches"])


def largest_audit() -> dict[str, Any]:
    return of_memory("uint8")[-1]


def audit_bytes(n: int) -> float:
    """Memory of the audits that see all patches at once, on the line through two measured sizes."""
    few, many = of_memory("float32")
    key = "peak_anonymous_bytes_of_one_process"
    each = (many[key] - few[key]) / (many["patches"] - few["patches"])
    return float(few[key] + each * (n - few["patches"]))


def shards(n: int) -> int:
    """So many that each pass of n patches takes half its walltime at most, the network on a GPU."""
    fast = [one for one in scattered() if one.on == "GPU" or one.name not in ("predictions", "embeddings")]
    return max(math.ceil(one.hours(n) / LONGEST_H[one.on]) for one in fast)


def cell(jobs: int, hours: float) -> str:
    return f"{jobs:,} × {hours:.2g} h"


def render() -> str:
    """The table and what it rests on."""
    audit, gpu, machine = largest_audit(), gpu_row(), read_json(MEASURED / "h100" / "partition-local.json")
    seconds = sum(audit["stage_s"][stage] for stage in IN_ONE_JOB)
    rate = audit["patches"] / seconds
    heads = " | ".join(f"of {WORDS[n]}, `shards: {shards(n)}`" for n in SIZES)
    lines = [
        f"| one pass | over | on | patches/s | {heads} |",
        "|---" * 6 + "|",
    ]
    for one in scattered():
        costs = " | ".join(cell(shards(n), one.hours(n) / shards(n)) for n in SIZES)
        lines.append(f"| {one.name} | {one.over} | {one.on} | {one.rate:,.0f} | {costs} |")
    sizes = " | ".join(f"at least {n / rate / 3600:.2g} h together, {audit_bytes(n) / 1e9:,.0f} GB" for n in SIZES)
    lines.append(f"| {', '.join(IN_ONE_JOB)} | all splits, a job each | 2 cores | {rate:,.0f} | {sizes} |")
    few = largest_in_rounds()
    times, patches = audit["stage_s"]["leakage"] / few["leakage"], audit["patches"] / few["patches"]
    a, b = audit_bytes(0), audit_bytes(10**6)
    fits = (JOB_BYTES - a) / (b - a)
    model = machine["architectures"]["champion"]
    speed, low, high = (f"{float(gpu[name]):,.0f}" for name in ("images_per_s", "low", "high"))
    basis = (
        "Jobs × hours of one job, for one pass over so many patches; a run makes as many passes as it has splits, "
        "models and seeds. Cores: processor time of a process (`assets/benchmark/shards.json`), the patches in the "
        "page cache, 28 kB each: reading them from a busy file system comes on top. GPU: a whole H100's forward pass "
        f"(`assets/benchmark/h100`) of a {model['model']} of width {model['width']} at batch size {gpu['batch_size']}, "
        f"{speed} patches/s ({low} to {high}), by torch {machine['torch'].partition('+')[0]}, over {SYMMETRIES} "
        "symmetries, without reading or writing; a wider network, such as that of `config/course.yaml`, costs more, "
        "and slices of a GPU and embeddings on one were not measured. The last row: one run on "
        f"{audit['patches']:,} patches (`assets/benchmark/audit.json`), in proportion; at least, since leakage took "
        f"{times:.1f} times as long on {patches:.1f} times the patches. These jobs see all patches at once: with the "
        f"profile's {JOB_BYTES >> 30} GiB about {fits:.0f} million."
    )
    return "\n".join([*lines, "", textwrap.fill(basis, 120), ""])


def largest_in_rounds() -> dict[str, float]:
    """Patches and seconds of the leakage audit at the largest size that was timed in rounds."""
    sizes = read_json(MEASURED / "audit.json")["runs"][0]["sizes"]
    n = max(sizes, key=int)
    return {"patches": int(n), "leakage": sizes[n]["median_stage_s"]["leakage"]}


if __name__ == "__main__":
    write_part("costs", render())
