"""Measure how often each kind of interval holds the truth, on simulated data sets whose truth is known.

Reads: nothing; the settings of the evaluation alone.
Writes: coverage.json with {cases: [{case, metric, kind, covered, low, high, draws, within, undefined, mean_width}]}.
"""

from collections.abc import Mapping

from pcam.coverage import CASES, TARGET, measure_case, measure_seeds
from pcam.files import write_json
from pcam.settings import EvaluationSettings, from_mapping
from pcam.stage import run_stage


def measure_coverage(
    out_path: str, *, beta: float, rules: EvaluationSettings, provenance: Mapping[str, object]
) -> None:
    """A row for every interval in every case; low and high: what the number of draws leaves open of `covered`."""
    rows = [row for case in CASES for row in measure_case(case, beta, rules)] + [measure_seeds(rules)]
    document = {"draws": rules.coverage_draws, "level": rules.level, "target": list(TARGET), "beta": beta}
    write_json(out_path, {**document, "cases": rows, "provenance": provenance})
    for row in rows:
        print(f"{row['case']}: {row['metric']} ({row['kind']}): covered {row['covered']}, within {row['within']}")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_coverage(
            snakemake.output[0],
            beta=snakemake.params.beta,
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
