# Reads: predictions and sidecars of every run; stores and tables of train, valid and test; the leaking rows.
# Writes: results/aggregate/: seeds, leaking rows, baselines, coverage of the intervals.
RUNS = [(variant, seed) for variant in VARIANTS for seed in SEEDS]
TRAIN_DIRS = [f"results/train/{variant}/seed-{seed}" for variant, seed in RUNS]


rule aggregate_seeds:
    """Every metric of every run with its interval, each at its own threshold from valid; their means over the seeds."""
    input:
        sidecars=[f"{folder}/weights.json" for folder in TRAIN_DIRS],
        valid=[
            f"results/predict/{variant}/seed-{seed}/valid.csv"
            for variant, seed in RUNS
        ],
        test=[
            f"results/predict/{variant}/seed-{seed}/test.csv" for variant, seed in RUNS
        ],
        rows=[f"results/splits/{split}.csv" for split in ("valid", "test")],
    output:
        report(
            "results/aggregate/seeds.json",
            category="Aggregate",
            caption="../report/aggregate_seeds.rst",
            labels={"result": "seeds", "as": "JSON"},
        ),
    log:
        "results/logs/aggregate_seeds.log",
    benchmark:
        "results/benchmarks/aggregate_seeds.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("aggregate_seeds"),
        variants=VARIANTS,
        seeds=SEEDS,
        threshold=asdict(settings.threshold),
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/aggregate_seeds.py"


rule compare_leaking_rows:
    """ROC-AUC on test with and without the rows that leak into train or valid, for every variant."""
    input:
        test=[
            f"results/predict/{variant}/seed-{seed}/test.csv" for variant, seed in RUNS
        ],
        leakage="results/audit/leakage_rows.csv",
        splits="results/splits/splits.json",
    output:
        report(
            "results/aggregate/leaking_rows.json",
            category="Aggregate",
            caption="../report/compare_leaking_rows.rst",
            labels={"result": "leaking rows", "as": "JSON"},
        ),
    log:
        "results/logs/compare_leaking_rows.log",
    benchmark:
        "results/benchmarks/compare_leaking_rows.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("compare_leaking_rows"),
        variants=VARIANTS,
        seeds=SEEDS,
    script:
        "../scripts/compare_leaking_rows.py"


rule fit_baselines:
    """Fit the colour-histogram baseline on train and choose its threshold on valid."""
    input:
        train=f"{DATA}/store/train.npy",
        valid=f"{DATA}/store/valid.npy",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
    output:
        "results/aggregate/baseline_weights.json",
    log:
        "results/logs/fit_baselines.log",
    benchmark:
        "results/benchmarks/fit_baselines.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("fit_baselines"),
        threshold=asdict(settings.threshold),
    script:
        "../scripts/fit_baselines.py"


rule score_baselines:
    """Score what a model must beat: always tumour, the majority of train, a colour histogram."""
    input:
        weights="results/aggregate/baseline_weights.json",
        valid=f"{DATA}/store/valid.npy",
        test=f"{DATA}/store/test.npy",
        valid_rows="results/splits/valid.csv",
        test_rows="results/splits/test.csv",
    output:
        report(
            "results/aggregate/baselines.json",
            category="Aggregate",
            caption="../report/score_baselines.rst",
            labels={"result": "baselines", "as": "JSON"},
        ),
    log:
        "results/logs/score_baselines.log",
    benchmark:
        "results/benchmarks/score_baselines.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("score_baselines"),
        beta=settings.threshold.beta,
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/score_baselines.py"


rule measure_coverage:
    """How often each kind of interval holds the truth, on simulated data sets whose truth is known."""
    output:
        report(
            "results/aggregate/coverage.json",
            category="Aggregate",
            caption="../report/measure_coverage.rst",
            labels={"result": "coverage of the intervals", "as": "JSON"},
        ),
    log:
        "results/logs/measure_coverage.log",
    benchmark:
        "results/benchmarks/measure_coverage.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("measure_coverage"),
        beta=settings.threshold.beta,
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/measure_coverage.py"
