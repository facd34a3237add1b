# PCam files in, an answered MLOps journal out. Stages stand in workflow/rules, their code in workflow/scripts.
import os
import sys
from dataclasses import asdict

sys.path.insert(0, os.path.join(workflow.basedir, "workflow", "scripts"))

from snakemake.exceptions import WorkflowError

from pcam.facts import FILE_SPLITS as SPLITS, pcam_filename, split_paths
from pcam.files import InputError
from pcam.provenance import code_digest
from pcam.schema import check_doubled_keys
from pcam.settings import TUNED, read_config


configfile: os.path.join(workflow.basedir, "config", "config.yaml")


try:
    for path in workflow.overwrite_configfiles:
        check_doubled_keys(path)
    settings = read_config(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

# Idle OpenMP threads must sleep: spinning ones make two jobs on two cores ten times slower. One BLAS thread, whatever
# --cores is. cuBLAS is deterministic only with a fixed workspace.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", CUBLAS_WORKSPACE_CONFIG=":4096:8")

DATA = f"{settings.data.root}/{settings.data.source}"
DATA_LABEL = settings.data.label
# The recipes of the config, and the one that the search finds.
NAMED = sorted(settings.variants)
VARIANTS = [*NAMED, TUNED]
SEEDS = list(settings.seeds)
# Trials by phase: the rounds of the first rung, then the rungs that the best of them go on to.
PHASES = {
    **{f"round-{r}": settings.search.trials for r in range(settings.search.rounds)},
    **{f"rung-{k}": r["trials"] for k, r in enumerate(settings.search.rungs) if k},
}
TRIALS = [(phase, t) for phase, trials in PHASES.items() for t in range(trials)]

SHARDS = settings.shards

# Jobs of a run parse this file again; only the run that a person started announces its data.
if not workflow.remote_exec and not workflow.subprocess_exec:
    print(f"Data: {DATA_LABEL}", file=sys.stderr)


# Sets larger than one job should take: see workflow/rules/shards.smk.
scattergather:
    shard=settings.shards,


wildcard_constraints:
    variant="|".join(VARIANTS),
    seed=r"\d+",
    split="train|valid|test|unlabelled",
    phase=r"(round|rung)-\d+",
    round=r"\d+",
    rung=r"[1-9]\d*",
    run=r"[0-9a-f]{32}",
    trial=r"\d+",
    partition=r"[A-Za-z0-9_]+",


include: "workflow/rules/acquire.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/reproducibility.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/dynamics.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/champion.smk"
include: "workflow/rules/deployment.smk"
include: "workflow/rules/slice.smk"
include: "workflow/rules/discover.smk"
include: "workflow/rules/errors.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/reproduce.smk"
include: "workflow/rules/collaboration.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/handover.smk"
include: "workflow/rules/preflight.smk"
include: "workflow/rules/cluster.smk"


if SHARDS > 1:

    include: "workflow/rules/shards.smk"


# What reads a few tables or figures and takes a second or two: on a cluster, run beside Snakemake itself rather than
# queue, where each job costs 6 to 8 s before it does anything.
localrules:
    resolve_variant,
    apply_policy,
    gate_audit,
    propose_trials,
    promote_trial,
    select_recipe,
    select_champion,
    twin_run,
    find_spikes,
    compare_schedules,
    find_bottleneck,
    track_runs,
    describe_environment,
    check_submission,
    write_journal,
    compare_evidence,
    build_report,


report: "workflow/report/workflow.rst"


rule all:
    """Everything: journal, report, checklist, tracked runs."""
    default_target: True
    input:
        "results/report.html",
        "results/journal.md",
        "results/checklist.json",
        "results/evidence_check.json",
        "results/tracking/runs.json",
        "results/audit/score.json",
        "results/reproducibility/twin.json",
        "results/reproducibility/determinism.csv",
        # Patches without labels are predicted all the same.
        ["results/champion/predict/unlabelled.csv"] if CARVED else [],
