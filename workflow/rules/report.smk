# Reads: results of every stage; of the repository its files and its history.
# Writes: results/assets/ (pictures with captions), environment.json, checklist.json, journal.md and the cards,
# evidence.json and its check, report.html.
import time
from pathlib import Path

from pcam.evidence import preflight_words
from pcam.files import file_digest
from pcam.provenance import ROOT, git_state, package_versions
from pcam.remotes import submission_state

PICTURES = [
    "shift",
    "leakage",
    "patches",
    "poison",
    "audit_score",
    "determinism",
    *(f"training-{variant}" for variant in VARIANTS),
    "spikes",
    "schedules",
    "evaluation",
    "search",
    "search-parallel",
    "deployment",
    "drift",
    "errors",
    "attention",
    "error-patterns",
    "slices",
    "discovered",
    "silent",
    "history",
    "throughput",
]
PICTURE_RULES = {
    "shift": "plot_shift",
    "leakage": "plot_leakage",
    "patches": "plot_patches",
    "poison": "plot_poison",
    "audit_score": "plot_score",
    "determinism": "plot_determinism",
    **{f"training-{variant}": "plot_training" for variant in VARIANTS},
    "spikes": "show_spikes",
    "schedules": "plot_schedules",
    "evaluation": "plot_evaluation",
    "search": "plot_search",
    "search-parallel": "plot_parallel",
    "deployment": "plot_deployment",
    "drift": "plot_drift",
    "errors": "show_errors",
    "attention": "show_errors",
    "error-patterns": "plot_error_patterns",
    "slices": "plot_slices",
    "discovered": "plot_discovered",
    "silent": "plot_silent_failure",
    "history": "plot_history",
    "throughput": "plot_throughput",
}
PINNED = [
    line.partition("==")[0]
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if "==" in line
]
SLURM_FILES = [
    f"profiles/slurm/{name}"
    for name in ("config.yaml", "head.sbatch", "preflight.sbatch")
]
# What `make sbatch` makes them from.
SLURM_SOURCES = [
    "profiles/slurm/make_sbatch.py",
    *(
        f"profiles/slurm/templates/{path.name}"
        for path in sorted((ROOT / "profiles/slurm/templates").glob("*.sbatch"))
    ),
]
CI_FILES = [
    ".ci/run",
    ".github/workflows/ci.yml",
    ".pre-commit-config.yaml",
    "README.md",
    "LICENSE",
    "CITATION.cff",
]


CUTS = {
    "determinism": {
        "path": "workflow/scripts/pcam/determinism.py",
        "name": "fix_device",
    },
    "seeds": {
        "path": "workflow/scripts/pcam/determinism.py",
        "name": "seed_everything",
    },
    "order": {"path": "workflow/scripts/pcam/determinism.py", "name": "epoch_order"},
    "dropout": {"path": "workflow/scripts/pcam/determinism.py", "name": "seed_dropout"},
    "augmentation": {
        "path": "workflow/scripts/pcam/batches.py",
        "name": "_generator",
    },
    "config": {"path": "workflow/scripts/pcam/settings.py", "name": "read_config"},
    "tracker": {"path": "workflow/scripts/pcam/tracking.py", "calling": "MlflowClient"},
}
TEMPLATES = {
    name: f"workflow/report/{name}.j2"
    for name in ("journal.md", "model_card.md", "data_card.md", "report.html")
}
# Files that are no result: their content stands in the parameters, so that a change reruns a rule and a touch does not.
CITED_FILES = [
    "requirements.in",
    "requirements.txt",
    "README.md",
    "inference.py",
    *SLURM_FILES,
    *SLURM_SOURCES,
    *CI_FILES,
]
CONTENT = {
    name: file_digest(ROOT / name)
    for name in [
        *CITED_FILES,
        *TEMPLATES.values(),
        *(cut["path"] for cut in CUTS.values()),
    ]
    if (ROOT / name).is_file()
}


# In shards, the log of the rule that gathers them tells of code and devices.
PREDICTED_BY, PREDICTED_LOG = (
    ("predict_champion", "results/logs/predict_champion/{split}.log")
    if SHARDS == 1
    else ("gather_tables", "results/logs/gather_tables/champion/predict/{split}.log")
)

SCHEDULES = ("results/dynamics/schedules.json", "compare_schedules")
# Name of a piece of evidence in the journal's template: where it stands, and the rule that writes it.
EVIDENCE = {
    "checksums": ("results/audit/checksums.json", "audit_checksums"),
    "storage": ("results/audit/storage.json", "audit_storage"),
    "leakage": ("results/audit/leakage.json", "audit_leakage"),
    "poison": ("results/audit/poison.json", "audit_poison"),
    "labels": ("results/audit/labels.json", "audit_labels"),
    "shift": ("results/audit/shift.json", "audit_shift"),
    "patches": ("results/audit/patches.csv", "apply_policy"),
    "verdicts": ("results/audit/verdicts.json", "apply_policy"),
    "gate": ("results/audit/gate.json", "gate_audit"),
    "score": ("results/audit/score.json", "score_audit"),
    "splits": ("results/splits/splits.json", "make_splits"),
    "normalisation": ("results/splits/normalisation.json", "measure_normalisation"),
    "folds": ("results/splits/folds.json", "compare_folds"),
    "determinism": ("results/reproducibility/determinism.csv", "audit_determinism"),
    "determinism_runs": (
        "results/reproducibility/determinism.json",
        "audit_determinism",
    ),
    "twin": ("results/reproducibility/twin.json", "twin_run"),
    "fingerprint": ("results/reproducibility/fingerprint.json", "twin_run"),
    "seeds": ("results/aggregate/seeds.json", "aggregate_seeds"),
    "leaking": ("results/aggregate/leaking_rows.json", "compare_leaking_rows"),
    "baselines": ("results/aggregate/baselines.json", "score_baselines"),
    "spikes": ("results/dynamics/spikes.json", "find_spikes"),
    "spike_steps": ("results/dynamics/spikes.csv", "find_spikes"),
    **({"schedules": SCHEDULES} if SCHEDULE_VARIANTS else {}),
    "runs": ("results/tracking/runs.json", "track_runs"),
    "coverage": ("results/aggregate/coverage.json", "measure_coverage"),
    "trials": ("results/search/trials.csv", "select_recipe"),
    "recipe": ("results/search/recipe.json", "select_recipe"),
    "evaluation": ("results/champion/evaluation.json", "evaluate_champion"),
    "prior_effect": ("results/champion/prior_shift.json", "measure_prior_shift"),
    "stress": ("results/deployment/deployment.json", "measure_deployment"),
    "selection": ("results/champion/selection.json", "select_champion"),
    "champion": ("results/champion/weights.json", "choose_threshold"),
    "onnx": ("results/champion/onnx.json", "export_onnx"),
    "slices": ("results/slices/slices.csv", "slice_metrics"),
    "slices_summary": ("results/slices/slices.json", "slice_metrics"),
    # Not for a figure: the page's live plots draw them.
    **{
        f"predictions {split}": (
            f"results/champion/predict/{split}.csv",
            PREDICTED_BY,
        )
        for split in ("valid", "test")
    },
    "errors": ("results/slices/errors.json", "measure_errors"),
    "discovered": ("results/slices/discovered.json", "discover_slices"),
    "silent": ("results/slices/silent.json", "measure_silent_failure"),
    "drift": ("results/deployment/drift.json", "measure_drift"),
    "throughput": ("results/benchmark/throughput.csv", "find_bottleneck"),
    "bottleneck": ("results/benchmark/bottleneck.json", "find_bottleneck"),
    "environment": ("results/environment.json", "describe_environment"),
    "collaboration": ("results/collaboration.json", "describe_collaboration"),
    "checklist": ("results/checklist.json", "check_submission"),
    **{
        f"picture {name}": (f"results/assets/{name}.png", PICTURE_RULES[name])
        for name in PICTURES
    },
    **{
        f"caption {name}": (f"results/assets/{name}.txt", PICTURE_RULES[name])
        for name in PICTURES
    },
    **{
        f"{part} {variant} {seed}": (
            f"results/train/{variant}/seed-{seed}/{file}",
            "train_seed",
        )
        for variant, seed in RUNS
        for part, file in (
            ("steps", "steps.csv"),
            ("history", "history.csv"),
            ("weights", "weights.json"),
        )
    },
}
# Verdicts of `snakemake reproduce`. They are no part of a run, so no inputs: the journal shows those that are there.
ASIDE = {
    f"reproduction {path.parent.name}": (path.as_posix(), "reproduce_run")
    for path in sorted(Path("results/reproduce").glob("*/verdict.json"))
}
# Told by the journal and made by no rule of `all`: what does not stand there shows as missing.
PLANNED = {
    **({} if SCHEDULE_VARIANTS else {"schedules": SCHEDULES}),
    "planned bundle": ("results/handover/manifest.json", "build_bundle"),
    "planned verification": ("results/handover/verify.json", "verify_bundle"),
    # A run on Slurm writes it anew each time, before any job; the first screen says in words what it found.
    "preflight": ("results/preflight.json", "preflight"),
}


localrules:
    describe_environment,
    check_submission,
    write_journal,
    compare_evidence,
    compare_evidence_now,
    build_report,


rule plot_patches:
    """Clean patches of both classes and examples of every defect found."""
    input:
        **split_paths(DATA, "x.h5"),
        patches="results/audit/patches.csv",
    output:
        png=report(
            "results/assets/patches.png",
            category="Audit",
            caption="../report/plot_patches.rst",
            labels={"result": "patches", "as": "PNG"},
        ),
        caption="results/assets/patches.txt",
    log:
        "results/logs/plot_patches.log",
    benchmark:
        "results/benchmarks/plot_patches.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_patches"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_patches.py"


rule plot_leakage:
    """Pairs of every kind of leak side by side, shared tissue framed, and the largest groups."""
    input:
        **split_paths(DATA, "x.h5"),
        leakage="results/audit/leakage.json",
        patches="results/audit/patches.csv",
    output:
        png=report(
            "results/assets/leakage.png",
            category="Audit",
            caption="../report/plot_leakage.rst",
            labels={"result": "leakage", "as": "PNG"},
        ),
        caption="results/assets/leakage.txt",
    log:
        "results/logs/plot_leakage.log",
    benchmark:
        "results/benchmarks/plot_leakage.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_leakage"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_leakage.py"


rule plot_poison:
    """Stamped blocks and where they stand, and the labels most contradicted."""
    input:
        **split_paths(DATA, "x.h5"),
        poison="results/audit/poison.json",
        labels="results/audit/labels.json",
    output:
        png=report(
            "results/assets/poison.png",
            category="Audit",
            caption="../report/plot_poison.rst",
            labels={"result": "poison", "as": "PNG"},
        ),
        caption="results/assets/poison.txt",
    log:
        "results/logs/plot_poison.log",
    benchmark:
        "results/benchmarks/plot_poison.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_poison"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_poison.py"


rule plot_shift:
    """Share of tumour by file, and the two-sample tests against their null distributions."""
    input:
        shift="results/audit/shift.json",
    output:
        png=report(
            "results/assets/shift.png",
            category="Audit",
            caption="../report/plot_shift.rst",
            labels={"result": "differences between splits", "as": "PNG"},
        ),
        caption="results/assets/shift.txt",
    log:
        "results/logs/plot_shift.log",
    benchmark:
        "results/benchmarks/plot_shift.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_shift"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_shift.py"


rule plot_score:
    """Recall and precision of the audit on planted defects, with detection limits."""
    input:
        score="results/audit/score.json",
    output:
        png=report(
            "results/assets/audit_score.png",
            category="Audit",
            caption="../report/plot_score.rst",
            labels={"result": "score of the audit", "as": "PNG"},
        ),
        caption="results/assets/audit_score.txt",
    log:
        "results/logs/plot_score.log",
    benchmark:
        "results/benchmarks/plot_score.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_score"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_score.py"


rule plot_training:
    """Loss, validation score, gradient norms and learning rate of one variant, all seeds."""
    input:
        histories=[
            f"results/train/{{variant}}/seed-{seed}/history.csv" for seed in SEEDS
        ],
        steps=[f"results/train/{{variant}}/seed-{seed}/steps.csv" for seed in SEEDS],
        layers=[f"results/train/{{variant}}/seed-{seed}/layers.csv" for seed in SEEDS],
    output:
        png=report(
            "results/assets/training-{variant}.png",
            category="Train",
            caption="../report/plot_training.rst",
            labels={"result": "training", "variant": "{variant}", "as": "PNG"},
        ),
        caption="results/assets/training-{variant}.txt",
    log:
        "results/logs/plot_training/{variant}.log",
    benchmark:
        "results/benchmarks/plot_training/{variant}.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_training"),
        seeds=SEEDS,
        label=DATA_LABEL,
    script:
        "../scripts/plot_training.py"


rule plot_evaluation:
    """The champion on valid and test: ROC, precision and recall, confusion, calibration before and after temperature."""
    input:
        evaluation="results/champion/evaluation.json",
        sidecar="results/champion/weights.json",
        champion=[f"results/champion/predict/{s}.csv" for s in ("valid", "test")],
        seeds=[
            f"results/predict/{variant}/seed-{seed}/test.csv" for variant, seed in RUNS
        ],
    output:
        png=report(
            "results/assets/evaluation.png",
            category="Evaluate",
            caption="../report/plot_evaluation.rst",
            labels={"result": "evaluation", "as": "PNG"},
        ),
        caption="results/assets/evaluation.txt",
    log:
        "results/logs/plot_evaluation.log",
    benchmark:
        "results/benchmarks/plot_evaluation.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_evaluation"),
        names=[f"{variant}/seed-{seed}" for variant, seed in RUNS],
        bins=settings.evaluation.ece_bins,
        label=DATA_LABEL,
    script:
        "../scripts/plot_evaluation.py"


rule plot_search:
    """Value of each trial, what each setting is worth, and value against each searched setting."""
    input:
        trials="results/search/trials.csv",
        recipe="results/search/recipe.json",
    output:
        png=report(
            "results/assets/search.png",
            category="Tune",
            caption="../report/plot_search.rst",
            labels={"result": "search", "as": "PNG"},
        ),
        caption="results/assets/search.txt",
    log:
        "results/logs/plot_search.log",
    benchmark:
        "results/benchmarks/plot_search.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_search"),
        space=settings.search.space,
        metric=settings.search.metric,
        label=DATA_LABEL,
    script:
        "../scripts/plot_search.py"


rule plot_parallel:
    """Every trial as a line through its settings to its value on each rung (parallel coordinates)."""
    input:
        trials="results/search/trials.csv",
    output:
        png=report(
            "results/assets/search-parallel.png",
            category="Tune",
            caption="../report/plot_parallel.rst",
            labels={"result": "search, parallel coordinates", "as": "PNG"},
        ),
        caption="results/assets/search-parallel.txt",
    log:
        "results/logs/plot_parallel.log",
    benchmark:
        "results/benchmarks/plot_parallel.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_parallel"),
        space=settings.search.space,
        metric=settings.search.metric,
        label=DATA_LABEL,
    script:
        "../scripts/plot_parallel.py"


rule plot_throughput:
    """Images per second against batch size, and the parts of a training step."""
    input:
        throughput="results/benchmark/throughput.csv",
        bottleneck="results/benchmark/bottleneck.json",
    output:
        png=report(
            "results/assets/throughput.png",
            category="Benchmark",
            caption="../report/plot_throughput.rst",
            labels={"result": "throughput", "as": "PNG"},
        ),
        caption="results/assets/throughput.txt",
    log:
        "results/logs/plot_throughput.log",
    benchmark:
        "results/benchmarks/plot_throughput.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_throughput"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_throughput.py"


rule describe_environment:
    """Packages, device, repository and environment variables of this run."""
    output:
        report(
            "results/environment.json",
            category="Report",
            caption="../report/describe_environment.rst",
            labels={"result": "environment", "as": "JSON"},
        ),
    log:
        "results/logs/describe_environment.log",
    benchmark:
        "results/benchmarks/describe_environment.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("describe_environment"),
        direct=str(ROOT / "requirements.in"),
        pins=str(ROOT / "requirements.txt"),
        content=[CONTENT.get(name) for name in CITED_FILES[:4]],
        repository_files=CI_FILES,
        present=[name in CONTENT for name in CI_FILES],
        root=str(ROOT),
        commit=git_state()["commit"],
        versions=package_versions(PINNED),
        label=DATA_LABEL,
    script:
        "../scripts/describe_environment.py"


rule check_submission:
    """The six items of the submission checklist, each verified."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        # inference.py reads it when it is there, so it must be there, and of these weights.
        guard="results/champion/guard.json",
        pictures=[f"results/assets/{name}.png" for name in PICTURES],
    output:
        report(
            "results/checklist.json",
            category="Report",
            caption="../report/check_submission.rst",
            labels={"result": "submission checklist", "as": "JSON"},
        ),
    log:
        "results/logs/check_submission.log",
    benchmark:
        "results/benchmarks/check_submission.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("check_submission"),
        inference=str(ROOT / "inference.py"),
        root=str(ROOT),
        # A commit, a push or a fetch that closes an item reruns the check. Asked for this rule alone: git takes a while.
        state=lambda wildcards: submission_state(ROOT),
        slurm_files=SLURM_FILES,
        content=[
            CONTENT.get(name)
            for name in ("inference.py", *SLURM_FILES, *SLURM_SOURCES)
        ],
        journal=config["journal"],
    script:
        "../scripts/check_submission.py"


# What the documents are made of, for the rule that writes them and the one that compares them with the results.
ASK = {
    "templates": {
        f"results/{name}": str(ROOT / TEMPLATES[name])
        for name in ("journal.md", "model_card.md", "data_card.md")
    },
    "content": [
        CONTENT.get(name)
        for name in (*TEMPLATES.values(), *(cut["path"] for cut in CUTS.values()))
    ],
    "sources": {**EVIDENCE, **ASIDE, **PLANNED},
    # Pictures, captions and predictions carry no provenance; the log of their rule does.
    "logs": {
        f"results/assets/{name}.{suffix}": (
            f"results/logs/plot_training/{name.removeprefix('training-')}.log"
            if rule == "plot_training"
            else f"results/logs/{rule}.log"
        )
        for name, rule in PICTURE_RULES.items()
        for suffix in ("png", "txt")
    }
    | {
        EVIDENCE[f"predictions {split}"][0]: PREDICTED_LOG.format(split=split)
        for split in ("valid", "test")
    },
    # What no rule of a run writes and the documents tell of: when it changes, they are written anew.
    "outside": {
        "aside": [file_digest(path) for path, _ in ASIDE.values()],
        "planned": {
            name: file_digest(path)
            for name, (path, _) in PLANNED.items()
            if name != "preflight" and Path(path).is_file()
        },
        "preflight": preflight_words(PLANNED["preflight"][0]),
    },
    "cuts": CUTS,
    "root": str(ROOT),
    "runs": RUNS,
    "config": config,
    "label": DATA_LABEL,
}
DOCUMENTS = [*ASK["templates"], "results/evidence.json", "results/report.html"]


rule write_journal:
    """The course's journal, the model card and the data card, every answer from the results, every number bound."""
    input:
        [path for path, _ in EVIDENCE.values()],
    output:
        *[
            report(
                path,
                category="Report",
                caption=f"../report/write_{Path(path).stem}.rst",
                labels={"result": Path(path).stem.replace("_", " "), "as": "Markdown"},
            )
            for path in ASK["templates"]
        ],
        evidence="results/evidence.json",
    log:
        "results/logs/write_journal.log",
    benchmark:
        "results/benchmarks/write_journal.tsv"
    conda:
        "../../environment.yml"
    params:
        **ASK,
        code=code_digest("write_journal"),
    script:
        "../scripts/write_journal.py"


rule compare_evidence:
    """Compare every number of journal, cards and report with the result it cites; a line for each fault."""
    input:
        DOCUMENTS,
    output:
        "results/evidence_check.json",
    log:
        "results/logs/compare_evidence.log",
    benchmark:
        "results/benchmarks/compare_evidence.tsv"
    conda:
        "../../environment.yml"
    params:
        **ASK,
        code=code_digest("compare_evidence"),
        # Not of what stands aside: it tells of its own time.
        codes={
            rule: code_digest("predict_seed" if rule == "predict_champion" else rule)
            for _, rule in EVIDENCE.values()
        },
        checked=["results/evidence.json", "results/journal.md", "results/report.html"],
    script:
        "../scripts/compare_evidence.py"


# Without inputs: what stands there is compared, and no result that changed makes Snakemake write the documents first.
use rule compare_evidence as compare_evidence_now with:
    input:
        [],
    output:
        "results/evidence_check_now.json",
    log:
        "results/logs/compare_evidence_now.log",
    benchmark:
        "results/benchmarks/compare_evidence_now.tsv"
    params:
        # Whenever it is asked for, it compares again.
        asked=lambda wildcards: time.time_ns(),


rule check_evidence:
    """Compare the documents that stand there with the results that stand there; nothing is made anew."""
    input:
        "results/evidence_check_now.json",


# What the live plots of the page draw, and the rules that wrote it.
DRAWN = {
    **{split: EVIDENCE[f"predictions {split}"] for split in ("valid", "test")},
    "evaluation": EVIDENCE["evaluation"],
    "trials": EVIDENCE["trials"],
    "slices": EVIDENCE["slices"],
}
PAGE_FILES = [
    f"workflow/report/{name}"
    for name in ("report.html.j2", "plot.html.j2", "report.css", "report.js")
]


rule build_report:
    """The journal as one page that needs no network: verdicts first, live plots, and the evidence of every number."""
    input:
        **{name: path for name, (path, _) in DRAWN.items()},
        pictures=[f"results/assets/{name}.png" for name in PICTURES],
        journal="results/journal.md",
        evidence="results/evidence.json",
    output:
        # Not in Snakemake's report: that holds the same pictures and lies beside it.
        "results/report.html",
    log:
        "results/logs/build_report.log",
    benchmark:
        "results/benchmarks/build_report.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("build_report"),
        template=str(ROOT / PAGE_FILES[0]),
        content=[file_digest(ROOT / name) for name in PAGE_FILES],
        rules=dict(DRAWN.values()),
        space=settings.search.space,
        metric=settings.search.metric,
        label=DATA_LABEL,
    script:
        "../scripts/build_report.py"
