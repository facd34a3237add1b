# Reads: the champion, its predictions on valid and test, the stores of both.
# Writes: results/champion/guard.json, results/deployment/.


rule watch_drift:
    """Learn what validation patches and the answers to them look like, so that inference.py can warn of others."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        predictions="results/champion/predict/valid.csv",
        store=f"{DATA}/store/valid.npy",
        rows="results/splits/valid.csv",
    output:
        "results/champion/guard.json",
    log:
        "results/logs/watch_drift.log",
    benchmark:
        "results/benchmarks/watch_drift.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("watch_drift"),
        false_alarm_rate=settings.deployment.false_alarm_rate,
        seed=settings.evaluation.seed,
    script:
        "../scripts/watch_drift.py"


rule measure_deployment:
    """The champion under other stain, light, focus, files, normalisation, precision and device, and what catches each."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        guard="results/champion/guard.json",
        predictions="results/champion/predict/test.csv",
        store=f"{DATA}/store/test.npy",
        rows="results/splits/test.csv",
    output:
        report(
            "results/deployment/deployment.json",
            category="Deploy",
            caption="../report/measure_deployment.rst",
            labels={"result": "deployment", "as": "JSON"},
        ),
    log:
        "results/logs/measure_deployment.log",
    benchmark:
        "results/benchmarks/measure_deployment.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("measure_deployment"),
        patches=settings.deployment.patches,
        beta=settings.threshold.beta,
        evaluation=asdict(settings.evaluation),
        threads=settings.train.threads,
    script:
        "../scripts/measure_deployment.py"


rule plot_deployment:
    """Metric and changed decisions against the strength of each deployment issue, and where a check catches it."""
    input:
        deployment="results/deployment/deployment.json",
    output:
        png=report(
            "results/assets/deployment.png",
            category="Deploy",
            caption="../report/plot_deployment.rst",
            labels={"result": "deployment", "as": "PNG"},
        ),
        caption="results/assets/deployment.txt",
    log:
        "results/logs/plot_deployment.log",
    benchmark:
        "results/benchmarks/plot_deployment.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_deployment"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_deployment.py"


rule measure_drift:
    """How often the watch raises an alarm: on sound sets, on shifted pixels, on other shares of tumour, by set size."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        guard="results/champion/guard.json",
        predictions=[f"results/champion/predict/{s}.csv" for s in ("valid", "test")],
        stores=[f"{DATA}/store/{s}.npy" for s in ("valid", "test")],
        rows=[f"results/splits/{s}.csv" for s in ("valid", "test")],
    output:
        report(
            "results/deployment/drift.json",
            category="Deploy",
            caption="../report/measure_drift.rst",
            labels={"result": "drift", "as": "JSON"},
        ),
    log:
        "results/logs/measure_drift.log",
    benchmark:
        "results/benchmarks/measure_drift.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("measure_drift"),
        patches=settings.deployment.patches,
        level=settings.evaluation.level,
        seed=settings.evaluation.seed,
        threads=settings.train.threads,
    script:
        "../scripts/measure_drift.py"


rule plot_drift:
    """Alarms of the watch against the size of the set, for sound and for shifted sets."""
    input:
        drift="results/deployment/drift.json",
    output:
        png=report(
            "results/assets/drift.png",
            category="Deploy",
            caption="../report/plot_drift.rst",
            labels={"result": "drift", "as": "PNG"},
        ),
        caption="results/assets/drift.txt",
    log:
        "results/logs/plot_drift.log",
    benchmark:
        "results/benchmarks/plot_drift.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_drift"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_drift.py"
