# Reads: the table of patches, the gate's verdict, the six files.
# Writes: results/splits/ (tables, counts, normalisation) and {data.root}/{data.source}/store/ (uint8, memory-mapped).

# Where the course hands out no test labels, a part of valid becomes the labelled test split.
CARVED = settings.data.source == "directory" and "test_y" not in AT_HAND
SPLIT_FILE = {
    "train": "train",
    "valid": "valid",
    "test": "valid" if CARVED else "test",
    "unlabelled": "test",
}


rule make_splits:
    """Tables of the clean splits: row, label, slide, group."""
    input:
        **split_paths(DATA, "meta.csv"),
        gate="results/audit/gate.json",
        patches="results/audit/patches.csv",
        leakage="results/audit/leakage_rows.csv",
    output:
        **{split: f"results/splits/{split}.csv" for split in SPLIT_FILE},
        summary=report(
            "results/splits/splits.json",
            category="Split",
            caption="../report/make_splits.rst",
            labels={"result": "splits", "as": "JSON"},
        ),
    log:
        "results/logs/make_splits.log",
    benchmark:
        "results/benchmarks/make_splits.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("make_splits"),
        test_fraction=settings.data.test_fraction,
        split_seed=settings.data.split_seed,
    script:
        "../scripts/make_splits.py"


rule build_store:
    """The patches of one split as clean uint8 that can be memory-mapped."""
    input:
        rows="results/splits/{split}.csv",
        x=lambda wildcards: f"{DATA}/{pcam_filename(SPLIT_FILE[wildcards.split], 'x.h5')}",
    output:
        f"{DATA}/store/{{split}}.npy",
    log:
        "results/logs/build_store/{split}.log",
    benchmark:
        "results/benchmarks/build_store/{split}.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("build_store"),
    script:
        "../scripts/build_store.py"


rule compare_folds:
    """Variance between folds against variance between seeds, and what leaking folds flatter, on a cheap model."""
    input:
        rows="results/splits/train.csv",
        features=f"{DATA}/features/train.npy",
    output:
        report(
            "results/splits/folds.json",
            category="Split",
            caption="../report/compare_folds.rst",
            labels={"result": "folds and seeds", "as": "JSON"},
        ),
    log:
        "results/logs/compare_folds.log",
    benchmark:
        "results/benchmarks/compare_folds.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("compare_folds"),
        settings=asdict(settings.folds),
    script:
        "../scripts/compare_folds.py"


rule measure_normalisation:
    """Mean and standard deviation per channel, from the training split alone."""
    input:
        f"{DATA}/store/train.npy",
    output:
        report(
            "results/splits/normalisation.json",
            category="Split",
            caption="../report/measure_normalisation.rst",
            labels={"result": "normalisation", "as": "JSON"},
        ),
    log:
        "results/logs/measure_normalisation.log",
    benchmark:
        "results/benchmarks/measure_normalisation.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("measure_normalisation"),
    script:
        "../scripts/measure_normalisation.py"
