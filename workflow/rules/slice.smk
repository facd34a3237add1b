# Reads: the stores and tables of valid and test, the champion, its predictions on test, its threshold.
# Writes: attributes/ and embeddings/ beside the stores; results/slices/slices.csv and slices.json; the picture of both.


rule measure_attributes:
    """Light, stain, focus, compression, tissue, nuclei and folds of every patch of one split."""
    input:
        store=f"{DATA}/store/{{split}}.npy",
    output:
        f"{DATA}/attributes/{{split}}.npy",
    log:
        "results/logs/measure_attributes/{split}.log",
    benchmark:
        "results/benchmarks/measure_attributes/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("measure_attributes"),
    script:
        "../scripts/measure_attributes.py"


rule embed_patches:
    """What the champion's last layer is given for every patch of one split."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/{{split}}.npy",
    output:
        f"{DATA}/embeddings/{{split}}.npy",
    log:
        "results/logs/embed_patches/{split}.log",
    benchmark:
        "results/benchmarks/embed_patches/{split}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("embed_patches"),
        threads=settings.train.threads,
    script:
        "../scripts/embed_patches.py"


rule slice_metrics:
    """Score the champion on slices of test, each with its interval and its gap to the rest, or why it has none."""
    input:
        predictions="results/champion/predict/test.csv",
        sidecar="results/champion/weights.json",
        rows="results/splits/test.csv",
        valid_attributes=f"{DATA}/attributes/valid.npy",
        attributes=f"{DATA}/attributes/test.npy",
    output:
        slices=report(
            "results/slices/slices.csv",
            category="Slice",
            caption="../report/slice_metrics.rst",
            labels={"result": "slices", "as": "CSV"},
        ),
        summary=report(
            "results/slices/slices.json",
            category="Slice",
            caption="../report/slice_metrics.rst",
            labels={"result": "claims and widest gaps", "as": "JSON"},
        ),
    log:
        "results/logs/slice_metrics.log",
    benchmark:
        "results/benchmarks/slice_metrics.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("slice_metrics"),
        slices=asdict(settings.slices),
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/slice_metrics.py"


rule plot_slices:
    """The champion's metric by slice, with intervals and the whole of test for comparison."""
    input:
        slices="results/slices/slices.csv",
        summary="results/slices/slices.json",
    output:
        png=report(
            "results/assets/slices.png",
            category="Slice",
            caption="../report/plot_slices.rst",
            labels={"result": "slices", "as": "PNG"},
        ),
        caption="results/assets/slices.txt",
    log:
        "results/logs/plot_slices.log",
    benchmark:
        "results/benchmarks/plot_slices.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_slices"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_slices.py"
