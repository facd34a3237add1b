# Reads: the stores of train and valid, normalisation. Never test.
# Writes: results/train/{variant}/seed-{seed}/ and, for any split, results/predict/{variant}/seed-{seed}/{split}.csv.


rule resolve_variant:
    """The full recipe of a variant: the base settings with what it changes."""
    output:
        "results/train/{variant}/settings.json",
    log:
        "results/logs/resolve_variant/{variant}.log",
    benchmark:
        "results/benchmarks/resolve_variant/{variant}.tsv"
    wildcard_constraints:
        variant="|".join(NAMED),
    conda:
        "../../environment.yml"
    params:
        code=code_digest("resolve_variant"),
        recipe=lambda wildcards: asdict(settings.variant(wildcards.variant)),
    script:
        "../scripts/resolve_variant.py"


rule train_seed:
    """Train one variant with one seed; resumes by itself after a kill."""
    input:
        settings="results/train/{variant}/settings.json",
        train=f"{DATA}/store/train.npy",
        valid=f"{DATA}/store/valid.npy",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
        normalisation="results/splits/normalisation.json",
    output:
        weights="results/train/{variant}/seed-{seed}/weights.pt",
        sidecar="results/train/{variant}/seed-{seed}/weights.json",
        history="results/train/{variant}/seed-{seed}/history.csv",
        steps="results/train/{variant}/seed-{seed}/steps.csv",
        layers="results/train/{variant}/seed-{seed}/layers.csv",
    log:
        "results/logs/train_seed/{variant}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/train_seed/{variant}/seed-{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("train_seed"),
        seed=lambda wildcards: int(wildcards.seed),
        data_label=DATA_LABEL,
    script:
        "../scripts/train_seed.py"


rule predict_seed:
    """Predict the patches of one split with one trained seed."""
    input:
        weights="results/train/{variant}/seed-{seed}/weights.pt",
        sidecar="results/train/{variant}/seed-{seed}/weights.json",
        store=f"{DATA}/store/{{split}}.npy",
        rows="results/splits/{split}.csv",
    output:
        "results/predict/{variant}/seed-{seed}/{split}.csv",
    log:
        "results/logs/predict_seed/{variant}/seed-{seed}/{split}.log",
    benchmark:
        "results/benchmarks/predict_seed/{variant}/seed-{seed}/{split}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    params:
        code=code_digest("predict_seed"),
        threads=settings.train.threads,
    script:
        "../scripts/predict_seed.py"
