# Reads: the stores and tables of train and valid, normalisation, the first seed of the baseline. Never test.
# Writes: results/reproducibility/: the twin's training, twin.json, fingerprint.json, determinism.csv and .json.
TWIN_OF = f"results/train/baseline/seed-{SEEDS[0]}"
TWIN = "results/reproducibility/twin"
TRAINED_FILES = {
    "weights": "weights.pt",
    "sidecar": "weights.json",
    "history": "history.csv",
    "steps": "steps.csv",
    "layers": "layers.csv",
}
TEAMMATE = settings.reproducibility.fingerprint
if TEAMMATE is not None and not os.path.isfile(TEAMMATE):
    raise WorkflowError(
        f"config: reproducibility.fingerprint: {TEAMMATE}: no such file; give a teammate's fingerprint.json, or null"
    )


use rule train_seed as train_twin with:
    input:
        settings="results/train/baseline/settings.json",
        train=f"{DATA}/store/train.npy",
        valid=f"{DATA}/store/valid.npy",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
        normalisation="results/splits/normalisation.json",
    output:
        **{name: f"{TWIN}/{file}" for name, file in TRAINED_FILES.items()},
    log:
        "results/logs/train_twin.log",
    benchmark:
        "results/benchmarks/train_twin.tsv"
    params:
        code=code_digest("train_seed"),
        seed=SEEDS[0],
        data_label=DATA_LABEL,


use rule predict_seed as predict_twin with:
    input:
        weights=f"{TWIN}/weights.pt",
        sidecar=f"{TWIN}/weights.json",
        store=f"{DATA}/store/valid.npy",
        rows="results/splits/valid.csv",
    output:
        f"{TWIN}/valid.csv",
    log:
        "results/logs/predict_twin.log",
    benchmark:
        "results/benchmarks/predict_twin.tsv"


rule twin_run:
    """Compare the first seed with its twin to the bit, and with a teammate's fingerprint."""
    input:
        **{f"first_{name}": f"{TWIN_OF}/{file}" for name, file in TRAINED_FILES.items()},
        **{f"twin_{name}": f"{TWIN}/{file}" for name, file in TRAINED_FILES.items()},
        first_predictions=f"results/predict/baseline/seed-{SEEDS[0]}/valid.csv",
        twin_predictions=f"{TWIN}/valid.csv",
        train_rows="results/splits/train.csv",
        valid_rows="results/splits/valid.csv",
        normalisation="results/splits/normalisation.json",
        teammate=[] if TEAMMATE is None else TEAMMATE,
    output:
        twin=report(
            "results/reproducibility/twin.json",
            category="Reproducibility",
            labels={"result": "twin run", "as": "JSON"},
        ),
        fingerprint=report(
            "results/reproducibility/fingerprint.json",
            category="Reproducibility",
            labels={"result": "fingerprint", "as": "JSON"},
        ),
    log:
        "results/logs/twin_run.log",
    benchmark:
        "results/benchmarks/twin_run.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("twin_run"),
        fingerprint=TEAMMATE,
        variant="baseline",
    script:
        "../scripts/twin_run.py"


rule audit_determinism:
    """Switch each control of randomness off and train twice: do the two part, where, and by how much."""
    input:
        settings="results/train/baseline/settings.json",
        train=f"{DATA}/store/train.npy",
        train_rows="results/splits/train.csv",
        normalisation="results/splits/normalisation.json",
    output:
        table=report(
            "results/reproducibility/determinism.csv",
            category="Reproducibility",
            labels={"result": "controls", "as": "CSV"},
        ),
        summary="results/reproducibility/determinism.json",
    log:
        "results/logs/audit_determinism.log",
    benchmark:
        "results/benchmarks/audit_determinism.tsv"
    conda:
        "../../environment.yml"
    # The thread count is itself a control: one run of the audit takes another number of threads than the rest.
    threads: settings.train.threads
    params:
        code=code_digest("audit_determinism"),
        seed=SEEDS[0],
        patches=settings.reproducibility.patches,
        epochs=settings.reproducibility.epochs,
    script:
        "../scripts/audit_determinism.py"


rule plot_determinism:
    """Where and how far two trainings part with each control switched off."""
    input:
        summary="results/reproducibility/determinism.json",
    output:
        png=report(
            "results/assets/determinism.png",
            category="Reproducibility",
            caption="../report/plot_determinism.rst",
            labels={"result": "determinism", "as": "PNG"},
        ),
        caption="results/assets/determinism.txt",
    log:
        "results/logs/plot_determinism.log",
    benchmark:
        "results/benchmarks/plot_determinism.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_determinism"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_determinism.py"
