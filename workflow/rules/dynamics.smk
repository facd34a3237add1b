# Reads: what training left of every variant and seed, the table of the training split; its store for the montage.
# Writes: results/dynamics/ (gradient norms that stand out, schedules compared) and their pictures in results/assets/.
from pcam.schedules import schedule_variants

# Trained with the budget of baseline at another schedule; without one there is nothing to compare.
SCHEDULE_VARIANTS = schedule_variants(
    {variant: asdict(settings.variant(variant)) for variant in NAMED}
)
SCHEDULE_RUNS = [
    (variant, seed) for variant in ("baseline", *SCHEDULE_VARIANTS) for seed in SEEDS
]


rule find_spikes:
    """Steps whose gradient norm stands out, in every variant and seed, with the patches of their batches."""
    input:
        steps=[f"{folder}/steps.csv" for folder in TRAIN_DIRS],
        layers=[f"{folder}/layers.csv" for folder in TRAIN_DIRS],
        settings=[f"results/train/{variant}/settings.json" for variant in VARIANTS],
        rows="results/splits/train.csv",
    output:
        json="results/dynamics/spikes.json",
        csv=report(
            "results/dynamics/spikes.csv",
            category="Train",
            caption="../report/find_spikes.rst",
            labels={"result": "steps that stand out", "as": "CSV"},
        ),
    log:
        "results/logs/find_spikes.log",
    benchmark:
        "results/benchmarks/find_spikes.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("find_spikes"),
        runs=RUNS,
        variants=VARIANTS,
    script:
        "../scripts/find_spikes.py"


rule show_spikes:
    """The patches in the batches of the steps that stand out most."""
    input:
        csv="results/dynamics/spikes.csv",
        json="results/dynamics/spikes.json",
        rows="results/splits/train.csv",
        store=f"{DATA}/store/train.npy",
    output:
        png=report(
            "results/assets/spikes.png",
            category="Train",
            caption="../report/show_spikes.rst",
            labels={"result": "steps that stand out", "as": "PNG"},
        ),
        caption="results/assets/spikes.txt",
    log:
        "results/logs/show_spikes.log",
    benchmark:
        "results/benchmarks/show_spikes.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("show_spikes"),
        label=DATA_LABEL,
    script:
        "../scripts/show_spikes.py"


rule compare_schedules:
    """Validation under the schedule of baseline against that under the others trained, seed by seed."""
    input:
        sidecars=[
            f"results/train/{variant}/seed-{seed}/weights.json"
            for variant, seed in SCHEDULE_RUNS
        ],
        histories=[
            f"results/train/{variant}/seed-{seed}/history.csv"
            for variant, seed in SCHEDULE_RUNS
        ],
    output:
        report(
            "results/dynamics/schedules.json",
            category="Train",
            caption="../report/compare_schedules.rst",
            labels={"result": "schedules", "as": "JSON"},
        ),
    log:
        "results/logs/compare_schedules.log",
    benchmark:
        "results/benchmarks/compare_schedules.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("compare_schedules"),
        runs=SCHEDULE_RUNS,
        variants=SCHEDULE_VARIANTS,
        seeds=SEEDS,
    script:
        "../scripts/compare_schedules.py"


rule plot_schedules:
    """The learning rate schedules by name, and validation under those trained."""
    input:
        **(
            {"comparison": "results/dynamics/schedules.json"}
            if SCHEDULE_VARIANTS
            else {}
        ),
        settings=[
            f"results/train/{variant}/settings.json"
            for variant in ("baseline", *SCHEDULE_VARIANTS)
        ],
        steps=f"results/train/baseline/seed-{SEEDS[0]}/steps.csv",
        histories=[
            f"results/train/{variant}/seed-{seed}/history.csv"
            for variant, seed in SCHEDULE_RUNS
        ],
    output:
        png=report(
            "results/assets/schedules.png",
            category="Train",
            caption="../report/plot_schedules.rst",
            labels={"result": "schedules", "as": "PNG"},
        ),
        caption="results/assets/schedules.txt",
    log:
        "results/logs/plot_schedules.log",
    benchmark:
        "results/benchmarks/plot_schedules.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_schedules"),
        variants=SCHEDULE_VARIANTS,
        seeds=SEEDS,
        label=DATA_LABEL,
    script:
        "../scripts/plot_schedules.py"
