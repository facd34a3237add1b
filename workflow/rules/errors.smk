# Reads: the champion and its predictions on valid and test, the stores, tables and attributes of both.
# Writes: results/slices/errors.json and silent.json, their pictures in results/assets/.


rule measure_errors:
    """Which answers of the champion are wrong or doubtful, what it looked at, and what sets the wrong ones apart."""
    input:
        predictions="results/champion/predict/test.csv",
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/test.npy",
        rows="results/splits/test.csv",
        attributes=f"{DATA}/attributes/test.npy",
        attributes_valid=f"{DATA}/attributes/valid.npy",
    output:
        report(
            "results/slices/errors.json",
            category="Slice",
            caption="../report/measure_errors.rst",
            labels={"result": "errors", "as": "JSON"},
        ),
    log:
        "results/logs/measure_errors.log",
    benchmark:
        "results/benchmarks/measure_errors.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("measure_errors"),
        evaluation=asdict(settings.evaluation),
        level=settings.slices.level,
        threads=settings.train.threads,
    script:
        "../scripts/measure_errors.py"


rule measure_silent_failure:
    """What one figure for the whole of test hides: mixes of slices, failing slices, confidence, calibration."""
    input:
        sidecar="results/champion/weights.json",
        predictions=[f"results/champion/predict/{s}.csv" for s in ("valid", "test")],
        rows=[f"results/splits/{s}.csv" for s in ("valid", "test")],
        attributes=[f"{DATA}/attributes/{s}.npy" for s in ("valid", "test")],
    output:
        report(
            "results/slices/silent.json",
            category="Slice",
            caption="../report/measure_silent_failure.rst",
            labels={"result": "silent failure", "as": "JSON"},
        ),
    log:
        "results/logs/measure_silent_failure.log",
    benchmark:
        "results/benchmarks/measure_silent_failure.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("measure_silent_failure"),
        beta=settings.threshold.beta,
        slices=asdict(settings.slices),
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/measure_silent_failure.py"


rule show_errors:
    """The champion's most confident errors and its doubtful answers on test, and what it looked at."""
    input:
        errors="results/slices/errors.json",
        store=f"{DATA}/store/test.npy",
    output:
        png=report(
            "results/assets/errors.png",
            category="Slice",
            caption="../report/show_errors.rst",
            labels={"result": "errors", "as": "PNG"},
        ),
        caption="results/assets/errors.txt",
        attention=report(
            "results/assets/attention.png",
            category="Slice",
            caption="../report/show_attention.rst",
            labels={"result": "attention", "as": "PNG"},
        ),
        attention_caption="results/assets/attention.txt",
    log:
        "results/logs/show_errors.log",
    benchmark:
        "results/benchmarks/show_errors.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("show_errors"),
        label=DATA_LABEL,
    script:
        "../scripts/show_errors.py"


rule plot_error_patterns:
    """By which attributes the champion's errors differ from its right answers."""
    input:
        errors="results/slices/errors.json",
    output:
        png=report(
            "results/assets/error-patterns.png",
            category="Slice",
            caption="../report/plot_error_patterns.rst",
            labels={"result": "error patterns", "as": "PNG"},
        ),
        caption="results/assets/error-patterns.txt",
    log:
        "results/logs/plot_error_patterns.log",
    benchmark:
        "results/benchmarks/plot_error_patterns.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_error_patterns"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_error_patterns.py"


rule plot_silent_failure:
    """Risk and coverage, confidence of wrong answers, calibration by slice, and another mix of slices."""
    input:
        silent="results/slices/silent.json",
    output:
        png=report(
            "results/assets/silent.png",
            category="Slice",
            caption="../report/plot_silent_failure.rst",
            labels={"result": "silent failure", "as": "PNG"},
        ),
        caption="results/assets/silent.txt",
    log:
        "results/logs/plot_silent_failure.log",
    benchmark:
        "results/benchmarks/plot_silent_failure.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_silent_failure"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_silent_failure.py"
