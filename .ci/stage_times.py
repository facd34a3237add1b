"""Print the time of each stage of the last run, from Snakemake's benchmark files, against the design's budget.

Compared is half of the processor seconds of its jobs: what they take on two cores that are kept busy. Snakemake looks
at a job twice a second for some 15 s and every 30 s from then on, so the end of a longer job is missing: the seconds
are a lower bound, and the time from start to end of the jobs stands beside them.
"""

import csv
from collections import defaultdict
from pathlib import Path

BUDGET_S = {"acquire and audit": 90, "train": 120, "reproducibility": 60, "tune": 90, "benchmark": 60, "rest": 120}
STAGE = {
    "synthesize_sample": "acquire and audit",
    "import_directory": "acquire and audit",
    "download_pcam": "acquire and audit",
    "survey_patches": "acquire and audit",
    "extract_features": "acquire and audit",
    "audit": "acquire and audit",
    "apply_policy": "acquire and audit",
    "gate_audit": "acquire and audit",
    "score_audit": "acquire and audit",
    "train_seed": "train",
    "train_twin": "reproducibility",
    "predict_twin": "reproducibility",
    "twin_run": "reproducibility",
    "audit_determinism": "reproducibility",
    "propose_trials": "tune",
    "promote_trial": "tune",
    "select_recipe": "tune",
    "train_trial": "tune",
    "select_champion": "tune",
    "choose_threshold": "tune",
    "measure_throughput": "benchmark",
    "find_bottleneck": "benchmark",
}


def stage_of(rule: str) -> str:
    rule = rule.removesuffix("_shard").replace("gather_survey", "survey_patches")
    return STAGE.get(rule) or STAGE.get(rule.partition("_")[0], "rest")


def main(folder: Path = Path("results/benchmarks")) -> None:
    seconds: defaultdict[str, float] = defaultdict(float)
    spent: defaultdict[str, float] = defaultdict(float)
    jobs: defaultdict[str, int] = defaultdict(int)
    for path in folder.rglob("*.tsv"):
        with path.open() as handle:
            parts = path.relative_to(folder).parts
            for line in csv.DictReader(handle, delimiter="\t"):
                # The recipe that the search found is trained by the same rule as all others.
                stage = "tune" if parts[1:2] == ("tuned",) else stage_of(parts[0].removesuffix(".tsv"))
                seconds[stage] += float(line["cpu_time"])
                spent[stage] += float(line["s"])
                jobs[stage] += 1
    print(f"{'stage':<20}{'jobs':>6}{'start to end':>14}{'cpu seconds':>13}{'/ 2 cores':>11}{'budget':>8}")
    for stage, budget in BUDGET_S.items():
        share = seconds[stage] / 2
        mark = "  over budget" if share > budget else ""
        print(f"{stage:<20}{jobs[stage]:>6}{spent[stage]:>14.1f}{seconds[stage]:>13.1f}{share:>11.1f}{budget:>8}{mark}")
    cpu = sum(seconds.values())
    print(f"{'all':<20}{sum(jobs.values()):>6}{sum(spent.values()):>14.1f}{cpu:>13.1f}{cpu / 2:>11.1f}{540:>8}")


if __name__ == "__main__":
    main()
