# Reads: the champion, its predictions on test, the stores of valid and test.
# Writes: results/champion/guard.json, results/deployment/.


rule fit_guard:
    """Learn what validation patches look like, so that inference.py can warn of others."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/valid.npy",
        rows="results/splits/valid.csv",
    output:
        "results/champion/guard.json",
    log:
        "results/logs/fit_guard.log",
    benchmark:
        "results/benchmarks/fit_guard.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("fit_guard"),
        false_alarm_rate=settings.deployment.false_alarm_rate,
        seed=settings.evaluation.seed,
    script:
        "../scripts/fit_guard.py"


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
            labels={"result": "deployment"},
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
            labels={"figure": "deployment"},
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
