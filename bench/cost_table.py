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
# Hours of a shard at most: half of what profiles/slurm asks for at first.
LONGEST_H = {"core": 0.5, "GPU": 0.25}
BATCH = 64  # pcam.memory.PREDICT_BATCH, which the test compares; to import it takes torch
SYMMETRIES = 8
COURSE_BYTES = 16 * 2**30  # what a job of the course may ask for
IN_ONE_JOB = ("checksums", "storage", "leakage", "poison")


@dataclass(frozen=True)
class Pass:
    """A pass over all patches: its name, what runs it, patches a second, and whether it counts to the sum."""

    name: str
    on: str
    rate: float
    counts: bool = True

    def hours(self, n: int) -> float:
        return n / self.rate / 3600


def gpu_rate() -> float:
    """Patches a second that an H100 predicts: the forward pass at the largest batch up to BATCH, once a symmetry."""
    rows = [
        row
        for row in read_csv(MEASURED / "h100" / "throughput.csv")
        if (row["mode"], row["precision"], row["model"]) == ("inference", "fp32", "champion")
        if int(row["batch_size"]) <= BATCH
    ]
    return float(max(rows, key=lambda row: int(row["batch_size"]))["images_per_s"]) / SYMMETRIES


def scattered() -> list[Pass]:
    rates = {name: told["patches_per_s"] for name, told in read_json(MEASURED / "shards.json")["passes"].items()}
    return [
        Pass("survey for duplicates, shared tissue and damage", "core", rates["survey_patches"]),
        Pass("features of the cheap model", "core", rates["extract_features"]),
        Pass("attributes", "core", rates["measure_attributes"]),
        Pass("predictions of one model", "GPU", gpu_rate()),
        Pass("embeddings", "GPU", gpu_rate()),
        Pass("predictions, without a GPU", "core", rates["predict_seed"], counts=False),
        Pass("embeddings, without a GPU", "core", rates["embed_patches"], counts=False),
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
    return max(math.ceil(one.hours(n) / LONGEST_H[one.on]) for one in scattered() if one.counts)


def cell(jobs: int, hours: float) -> str:
    return f"{jobs:,} × {hours:.2g} h" if hours >= 0.01 else f"{jobs:,} × {3600 * hours:.0f} s"


def render() -> str:
    """The table and what it rests on."""
    passes, audit = scattered(), largest_audit()
    seconds = sum(audit["stage_s"][stage] for stage in IN_ONE_JOB)
    rate = audit["patches"] / seconds
    heads = " | ".join(f"{WORDS[n]}, `shards: {shards(n)}`" for n in SIZES)
    lines = [
        f"| a pass over all patches | on | patches/s | {heads} |",
        "|---|---|---|---|---|",
    ]
    for one in passes:
        costs = " | ".join(cell(shards(n), one.hours(n) / shards(n)) for n in SIZES)
        lines.append(f"| {one.name} | {one.on} | {one.rate:,.0f} | {costs} |")
    sizes = " | ".join(
        f"{len(IN_ONE_JOB)} jobs, {n / rate / 3600:.2g} h together, {audit_bytes(n) / 1e9:,.0f} GB" for n in SIZES
    )
    lines.append(f"| {', '.join(IN_ONE_JOB)}, a job each | 2 cores | {rate:,.0f} | {sizes} |")
    totals = []
    for n in SIZES:
        counted = [one for one in passes if one.counts]
        gathers = int(shards(n) > 1)
        jobs = len(counted) * (shards(n) + gathers) + len(IN_ONE_JOB)
        cores = sum(one.hours(n) for one in counted if one.on == "core") + 2 * n / rate / 3600
        gpu = sum(one.hours(n) for one in counted if one.on == "GPU")
        totals.append(f"{jobs:,} jobs, {cores:,.1f} core hours, {gpu:,.1f} GPU hours")
    lines.append(f"| all but what is without a GPU | | | {' | '.join(totals)} |")
    few, many = largest_idle(), audit
    times, patches = many["stage_s"]["leakage"] / few["leakage"], many["patches"] / few["patches"]
    over = [WORDS[n] for n in SIZES if audit_bytes(n) > COURSE_BYTES]
    basis = (
        "Cores: `assets/benchmark/shards.json`. GPU: `assets/benchmark/h100`, the forward pass of a whole H100, once "
        f"for each of {SYMMETRIES} symmetries, without reading and writing; a slice of one was not measured. "
        f"The last four: `assets/benchmark/audit.json`, on {audit['patches']:,} patches, as if their "
        f"time grew in proportion; leakage took {times:.1f} times as long on {patches:.1f} times the patches. "
        f"It sees all patches at once, and at {' and '.join(over)} needs more than the {COURSE_BYTES >> 30} GiB of a "
        "course job; policy, splits and evaluation hold a row a patch in memory and were not tried at that size. "
        "Of each pass in shards, one more job gathers; its time is not counted."
    )
    return "\n".join([*lines, "", textwrap.fill(basis, 120), ""])


def largest_idle() -> dict[str, float]:
    """Patches and seconds of the leakage audit at the largest size that was timed in rounds."""
    sizes = read_json(MEASURED / "audit.json")["runs"][0]["sizes"]
    n = max(sizes, key=int)
    return {"patches": int(n), "leakage": sizes[n]["median_stage_s"]["leakage"]}


if __name__ == "__main__":
    write_part("costs", render())
