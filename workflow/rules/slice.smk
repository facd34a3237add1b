# Reads: the champion's predictions on test, its threshold, the test store and table.
# Writes: results/slices/.


rule slice_metrics:
    """Score the champion on slices of test by brightness, slide and hospital, each with its interval or why it has none."""
    input:
        predictions="results/champion/predict/test.csv",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/test.npy",
        rows="results/splits/test.csv",
    output:
        slices=report(
            "results/slices/slices.csv",
            category="Slice",
            caption="../report/slice_metrics.rst",
            labels={"result": "slices"},
        ),
        summary=report(
            "results/slices/slices.json",
            category="Slice",
            caption="../report/slice_metrics.rst",
            labels={"result": "widest gaps"},
        ),
    log:
        "results/logs/slice_metrics.log",
    benchmark:
        "results/benchmarks/slice_metrics.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("slice_metrics"),
        brightness_bins=settings.slices.brightness_bins,
        minimum_n=settings.slices.minimum_n,
    script:
        "../scripts/slice_metrics.py"
