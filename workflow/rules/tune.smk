# Reads: train and valid alone.
# Writes: results/search/round-{round}/trial-{trial}/, results/search/trials.csv, results/champion/.
TRIAL_DIRS = [f"results/search/round-{r}/trial-{t}" for r, t in TRIALS]
CANDIDATES = [f"results/train/baseline/seed-{seed}" for seed in SEEDS] + TRIAL_DIRS


rule propose_trials:
    """Propose a round of trials from the finished trials of all rounds before it."""
    input:
        base="results/train/baseline/settings.json",
        finished=lambda wildcards: [
            f"results/search/round-{r}/trial-{t}/weights.json"
            for r, t in TRIALS
            if r < int(wildcards.round)
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
        search=config["search"],
    script:
        "../scripts/propose_trials.py"


rule train_trial:
    """Train one trial in a child process; one that diverges, runs out of memory or is killed is recorded as failed."""
    input:
        settings="results/search/round-{round}/trial-{trial}/settings.json",
        train=f"{DATA}/store/train.npy",
        valid=f"{DATA}/store/valid.npy",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
        normalisation="results/splits/normalisation.json",
    output:
        weights="results/search/round-{round}/trial-{trial}/weights.pt",
        sidecar="results/search/round-{round}/trial-{trial}/weights.json",
        history="results/search/round-{round}/trial-{trial}/history.csv",
        steps="results/search/round-{round}/trial-{trial}/steps.csv",
        layers="results/search/round-{round}/trial-{trial}/layers.csv",
    log:
        "results/logs/train_trial/round-{round}/trial-{trial}.log",
    benchmark:
        "results/benchmarks/train_trial/round-{round}/trial-{trial}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("train_trial"),
        seed=settings.search.train_seed,
        data_label=DATA_LABEL,
    script:
        "../scripts/train_trial.py"


rule select_champion:
    """Rank all trials and the baseline's seeds on validation; the best is the champion."""
    input:
        sidecars=[f"{folder}/weights.json" for folder in CANDIDATES],
    output:
        selection=report(
            "results/champion/selection.json",
            category="Tune",
            labels={"result": "selection"},
        ),
        trials=report(
            "results/search/trials.csv",
            category="Tune",
            caption="../report/select_champion.rst",
            labels={"result": "trials"},
        ),
    log:
        "results/logs/select_champion.log",
    benchmark:
        "results/benchmarks/select_champion.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("select_champion"),
        metric=settings.search.metric,
        searched=sorted(settings.search.space),
    script:
        "../scripts/select_champion.py"


rule choose_threshold:
    """Choose the champion's decision threshold on validation and store it beside its weights."""
    input:
        selection="results/champion/selection.json",
        weights=[f"{folder}/weights.pt" for folder in CANDIDATES],
        sidecars=[f"{folder}/weights.json" for folder in CANDIDATES],
        store=f"{DATA}/store/valid.npy",
        rows="results/splits/valid.csv",
    output:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
    log:
        "results/logs/choose_threshold.log",
    benchmark:
        "results/benchmarks/choose_threshold.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("choose_threshold"),
        beta=settings.threshold.beta,
        threads=settings.train.threads,
    script:
        "../scripts/choose_threshold.py"


use rule predict_seed as predict_champion with:
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/{{split}}.npy",
        rows="results/splits/{split}.csv",
    output:
        "results/champion/predict/{split}.csv",
    log:
        "results/logs/predict_champion/{split}.log",
    benchmark:
        "results/benchmarks/predict_champion/{split}.tsv"
