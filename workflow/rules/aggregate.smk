# Reads: predictions, sidecars and histories of every run; the stores of train, valid and test; the leaking rows.
# Writes: results/aggregate/ (seeds, leaking rows, baselines) and results/tracking/ (MLflow).
RUNS = [(variant, seed) for variant in VARIANTS for seed in SEEDS]
TRAIN_DIRS = [f"results/train/{variant}/seed-{seed}" for variant, seed in RUNS]
SEARCH_DIRS = [f"results/search/round-{r}/trial-{t}" for r, t in TRIALS]


localrules:
    track_runs,


rule aggregate_seeds:
    """Mean, standard deviation and interval over the seeds of every variant, each at its own threshold from valid."""
    input:
        sidecars=[f"{folder}/weights.json" for folder in TRAIN_DIRS],
        valid=[
            f"results/predict/{variant}/seed-{seed}/valid.csv"
            for variant, seed in RUNS
        ],
        test=[
            f"results/predict/{variant}/seed-{seed}/test.csv" for variant, seed in RUNS
        ],
    output:
        report(
            "results/aggregate/seeds.json",
            category="Aggregate",
            caption="../report/aggregate_seeds.rst",
            labels={"result": "seeds"},
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
        beta=settings.threshold.beta,
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
            labels={"result": "leaking rows"},
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
        beta=settings.threshold.beta,
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
            labels={"result": "baselines"},
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
    script:
        "../scripts/score_baselines.py"


rule track_runs:
    """Log every run, trial and the champion to MLflow, from their files; a second time changes nothing."""
    input:
        seeds="results/aggregate/seeds.json",
        train=[f"{folder}/weights.json" for folder in TRAIN_DIRS],
        train_history=[f"{folder}/history.csv" for folder in TRAIN_DIRS],
        search=[f"{folder}/weights.json" for folder in SEARCH_DIRS],
        search_history=[f"{folder}/history.csv" for folder in SEARCH_DIRS],
        champion="results/champion/weights.json",
        champion_valid="results/champion/predict/valid.csv",
        champion_test="results/champion/predict/test.csv",
    output:
        # The database beside it is no declared output: Snakemake deletes those before it runs a rule again, and with
        # it would go what the tracker knows of earlier runs.
        report(
            "results/tracking/runs.json",
            category="Aggregate",
            caption="../report/track_runs.rst",
            labels={"result": "tracked runs"},
        ),
    log:
        "results/logs/track_runs.log",
    benchmark:
        "results/benchmarks/track_runs.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("track_runs"),
        experiment=settings.tracking.experiment,
        variants=VARIANTS,
        seeds=SEEDS,
        trials=TRIALS,
    script:
        "../scripts/track_runs.py"
