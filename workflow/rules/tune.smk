# Reads: train and valid alone.
# Writes: results/search/: a folder a trial, trials.csv, recipe.json; results/train/tuned/settings.json.
# Folders by rung, each in the order of proposal, in which a promotion breaks ties; the rounds are the first rung.
RUNG_DIRS = [
    [f"results/search/{phase}/trial-{t}" for phase, t in TRIALS if phase in phases]
    for phases in (
        [f"round-{r}" for r in range(settings.search.rounds)],
        *([f"rung-{k}"] for k in range(1, len(settings.search.rungs))),
    )
]
TRIAL_DIRS = [folder for rung in RUNG_DIRS for folder in rung]
PROMOTED_DIRS = [folder for rung in RUNG_DIRS[1:] for folder in rung]


rule propose_trials:
    """Propose a round of trials from the finished trials of all rounds before it."""
    input:
        base="results/train/baseline/settings.json",
        finished=lambda wildcards: [
            f"results/search/round-{r}/trial-{t}/weights.json"
            for r in range(int(wildcards.round))
            for t in range(settings.search.trials)
        ],
    output:
        [
            f"results/search/round-{{round}}/trial-{t}/settings.json"
            for t in range(settings.search.trials)
        ],
    log:
        "results/logs/propose_trials/round-{round}.log",
    benchmark:
        "results/benchmarks/propose_trials/round-{round}.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("propose_trials"),
        round_number=lambda wildcards: int(wildcards.round),
        # No more of the search than this: another rung or round must not propose, and so train, all trials again.
        space=settings.search.space,
        seed=settings.search.seed,
        metric=settings.search.metric,
        epochs=settings.search.rungs[0]["epochs"],
    script:
        "../scripts/propose_trials.py"


rule promote_trial:
    """Put one of the best trials of a rung on the next, where it trains again for longer."""
    input:
        base="results/train/baseline/settings.json",
        sidecars=lambda wildcards: [
            f"{folder}/weights.json" for folder in RUNG_DIRS[int(wildcards.rung) - 1]
        ],
        origins=lambda wildcards: [
            f"{folder}/origin.json"
            for folder in RUNG_DIRS[int(wildcards.rung) - 1]
            if folder in PROMOTED_DIRS
        ],
    output:
        settings="results/search/rung-{rung}/trial-{trial}/settings.json",
        origin="results/search/rung-{rung}/trial-{trial}/origin.json",
    log:
        "results/logs/promote_trial/rung-{rung}/trial-{trial}.log",
    benchmark:
        "results/benchmarks/promote_trial/rung-{rung}/trial-{trial}.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("promote_trial"),
        epochs=lambda wildcards: settings.search.rungs[int(wildcards.rung)]["epochs"],
        metric=settings.search.metric,
    script:
        "../scripts/promote_trial.py"


rule train_trial:
    """Train one trial in a child process; one that diverges, runs out of memory or is killed is recorded as failed."""
    input:
        settings="results/search/{phase}/trial-{trial}/settings.json",
        origin=lambda wildcards: (
            "results/search/{phase}/trial-{trial}/origin.json"
            if wildcards.phase.startswith("rung-")
            else []
        ),
        train=f"{DATA}/store/train.npy",
        valid=f"{DATA}/store/valid.npy",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
        normalisation="results/splits/normalisation.json",
    output:
        weights="results/search/{phase}/trial-{trial}/weights.pt",
        sidecar="results/search/{phase}/trial-{trial}/weights.json",
        history="results/search/{phase}/trial-{trial}/history.csv",
        steps="results/search/{phase}/trial-{trial}/steps.csv",
        layers="results/search/{phase}/trial-{trial}/layers.csv",
    log:
        "results/logs/train_trial/{phase}/trial-{trial}.log",
    benchmark:
        "results/benchmarks/train_trial/{phase}/trial-{trial}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("train_trial"),
        seed=settings.search.train_seed,
        data_label=DATA_LABEL,
    script:
        "../scripts/train_trial.py"


rule select_recipe:
    """The best recipe of the search, which is trained with every seed as the variant `tuned`."""
    input:
        base="results/train/baseline/settings.json",
        sidecars=[f"{folder}/weights.json" for folder in TRIAL_DIRS],
        origins=[f"{folder}/origin.json" for folder in PROMOTED_DIRS],
    output:
        settings=f"results/train/{TUNED}/settings.json",
        trials=report(
            "results/search/trials.csv",
            category="Tune",
            caption="../report/select_recipe.rst",
            labels={"result": "trials", "as": "CSV"},
        ),
        recipe=report(
            "results/search/recipe.json",
            category="Tune",
            caption="../report/select_recipe.rst",
            labels={"result": "recipe", "as": "JSON"},
        ),
    log:
        "results/logs/select_recipe.log",
    benchmark:
        "results/benchmarks/select_recipe.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("select_recipe"),
        space=settings.search.space,
        metric=settings.search.metric,
        seed=settings.search.seed,
    script:
        "../scripts/select_recipe.py"
