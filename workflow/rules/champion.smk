# Reads: sidecars of every run and trial, predictions on valid and test. Choices use valid alone.
# Writes: results/champion/.


rule select_champion:
    """Rank the variants by their mean on validation over all seeds; the best seed of the best is the champion."""
    input:
        sidecars=[f"{folder}/weights.json" for folder in TRAIN_DIRS],
        trials="results/search/trials.csv",
    output:
        report(
            "results/champion/selection.json",
            category="Tune",
            caption="../report/select_champion.rst",
            labels={"result": "selection", "as": "JSON"},
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
        runs=RUNS,
    script:
        "../scripts/select_champion.py"


rule choose_threshold:
    """Fit the champion's temperature and choose its threshold, on validation alone; store both beside its weights."""
    input:
        selection="results/champion/selection.json",
        weights=[f"{folder}/weights.pt" for folder in TRAIN_DIRS],
        sidecars=[f"{folder}/weights.json" for folder in TRAIN_DIRS],
        store=f"{DATA}/store/valid.npy",
        rows="results/splits/valid.csv",
    output:
        weights="results/champion/weights.pt",
        sidecar=report(
            "results/champion/weights.json",
            category="Evaluate",
            caption="../report/choose_threshold.rst",
            labels={"result": "settings and threshold of the champion", "as": "JSON"},
        ),
    log:
        "results/logs/choose_threshold.log",
    benchmark:
        "results/benchmarks/choose_threshold.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("choose_threshold"),
        rule=asdict(settings.threshold),
        evaluation=asdict(settings.evaluation),
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


rule export_onnx:
    """The champion as an ONNX graph, whose answers on test patches must be those of torch within a tolerance."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/test.npy",
    output:
        graph="results/champion/weights.onnx",
        record="results/champion/onnx.json",
    log:
        "results/logs/export_onnx.log",
    benchmark:
        "results/benchmarks/export_onnx.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("export_onnx"),
        threads=settings.train.threads,
    script:
        "../scripts/export_onnx.py"


rule evaluate_champion:
    """Score the champion on valid, where it was chosen, and on test, with intervals; what the temperature changed."""
    input:
        sidecar="results/champion/weights.json",
        predictions=[f"results/champion/predict/{s}.csv" for s in ("valid", "test")],
        rows=[f"results/splits/{s}.csv" for s in ("valid", "test")],
    output:
        report(
            "results/champion/evaluation.json",
            category="Evaluate",
            caption="../report/evaluate_champion.rst",
            labels={"result": "evaluation", "as": "JSON"},
        ),
    log:
        "results/logs/evaluate_champion.log",
    benchmark:
        "results/benchmarks/evaluate_champion.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("evaluate_champion"),
        beta=settings.threshold.beta,
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/evaluate_champion.py"


rule measure_prior_shift:
    """What another share of tumour does to the champion's precision, F-beta and threshold."""
    input:
        sidecar="results/champion/weights.json",
        predictions=[f"results/champion/predict/{s}.csv" for s in ("valid", "test")],
        rows=[f"results/splits/{s}.csv" for s in ("train", "valid", "test")],
    output:
        report(
            "results/champion/prior_shift.json",
            category="Evaluate",
            caption="../report/measure_prior_shift.rst",
            labels={"result": "prior shift", "as": "JSON"},
        ),
    log:
        "results/logs/measure_prior_shift.log",
    benchmark:
        "results/benchmarks/measure_prior_shift.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("measure_prior_shift"),
        rule=asdict(settings.threshold),
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/measure_prior_shift.py"
