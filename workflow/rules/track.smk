# Reads: weights, sidecars, histories and steps of every run and trial, the search, the champion, figures.
# Writes: results/tracking/ (MLflow).


localrules:
    track_runs,


rule track_runs:
    """Log every run, the search and the champion to MLflow, from their files; a second time adds nothing."""
    input:
        [
            f"{folder}/{name}"
            for folder in TRAIN_DIRS + TRIAL_DIRS
            for name in ("weights.pt", "weights.json", "history.csv", "steps.csv")
        ],
        seeds="results/aggregate/seeds.json",
        recipe="results/search/recipe.json",
        trials="results/search/trials.csv",
        champion="results/champion/weights.pt",
        champion_sidecar="results/champion/weights.json",
        selection="results/champion/selection.json",
        champion_valid="results/champion/predict/valid.csv",
        champion_test="results/champion/predict/test.csv",
        training=[f"results/assets/training-{variant}.png" for variant in VARIANTS],
        search_figure="results/assets/search.png",
        evaluation_figure="results/assets/evaluation.png",
    output:
        # The database beside it is no declared output: Snakemake deletes those before it runs a rule again, and with
        # it would go what the tracker knows of earlier runs.
        report(
            "results/tracking/runs.json",
            category="Aggregate",
            caption="../report/track_runs.rst",
            labels={"result": "tracked runs", "as": "JSON"},
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
        runs=TRAIN_DIRS,
        searched=TRIAL_DIRS,
        search={
            key: config["search"][key]
            for key in ("rounds", "trials", "seed", "train_seed", "metric", "rungs")
        },
    script:
        "../scripts/track_runs.py"
