# Reads: the six files and the meta CSVs; planted.csv for the score alone, and only with the sample.
# Writes: results/audit/: findings and row tables of each audit, the table of patches, the verdicts, the gate.
# Audits witness and know no policy; apply_policy decides; gate_audit stops the run on a verdict of fail.


rule audit_checksums:
    """Digests of every file, and which published file each one is by content."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
        **split_paths(DATA, "meta.csv"),
        reference=settings.audit.reference or [],
    output:
        findings=report(
            "results/audit/checksums.json",
            category="Audit",
            caption="../report/audit_checksums.rst",
            labels={"result": "files and their digests", "as": "JSON"},
        ),
    log:
        "results/logs/audit_checksums.log",
    benchmark:
        "results/benchmarks/audit_checksums.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("audit_checksums"),
    script:
        "../scripts/audit_checksums.py"


rule audit_storage:
    """Why the files are as large as they are, and whether uint8 holds them without loss."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
    output:
        findings=report(
            "results/audit/storage.json",
            category="Audit",
            caption="../report/audit_storage.rst",
            labels={"result": "size of the files", "as": "JSON"},
        ),
        rows="results/audit/storage_rows.csv",
    log:
        "results/logs/audit_storage.log",
    benchmark:
        "results/benchmarks/audit_storage.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("audit_storage"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_storage.py"


rule survey_patches:
    """One look at every patch: what the audits of leakage and poison need to know of it."""
    input:
        **split_paths(DATA, "x.h5"),
    output:
        survey=directory(f"{DATA}/survey"),
    log:
        "results/logs/survey_patches.log",
    benchmark:
        "results/benchmarks/survey_patches.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("survey_patches"),
    script:
        "../scripts/survey_patches.py"


rule audit_leakage:
    """Duplicates in any form, conflicting labels, shared tissue and shared slides, within and across splits."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
        **split_paths(DATA, "meta.csv"),
        survey=f"{DATA}/survey",
    output:
        findings=report(
            "results/audit/leakage.json",
            category="Audit",
            caption="../report/audit_leakage.rst",
            labels={"result": "leakage", "as": "JSON"},
        ),
        rows="results/audit/leakage_rows.csv",
    log:
        "results/logs/audit_leakage.log",
    benchmark:
        "results/benchmarks/audit_leakage.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("audit_leakage"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_leakage.py"


rule audit_poison:
    """Patches that are no picture, partly blanked, stamped or far from all others, and damage that goes with the class."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
        survey=f"{DATA}/survey",
        # Stamps recur in patches that share no tissue: the groups tell which do.
        leakage_rows="results/audit/leakage_rows.csv",
    output:
        findings=report(
            "results/audit/poison.json",
            category="Audit",
            caption="../report/audit_poison.rst",
            labels={"result": "poison", "as": "JSON"},
        ),
        rows="results/audit/poison_rows.csv",
    log:
        "results/logs/audit_poison.log",
    benchmark:
        "results/benchmarks/audit_poison.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("audit_poison"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_poison.py"


rule extract_features:
    """Cheap features of every patch of one file, for the audits of labels and of shift."""
    input:
        lambda wildcards: f"{DATA}/{pcam_filename(wildcards.split, 'x.h5')}",
    output:
        f"{DATA}/features/{{split}}.npy",
    log:
        "results/logs/extract_features/{split}.log",
    benchmark:
        "results/benchmarks/extract_features/{split}.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("extract_features"),
    script:
        "../scripts/extract_features.py"


FEATURES = {f"{split}_features": f"{DATA}/features/{split}.npy" for split in SPLITS}


rule audit_labels:
    """Labels that contradict a cheap model out of fold, and what planted flips say that is worth."""
    input:
        **split_paths(DATA, "y.h5"),
        **split_paths(DATA, "meta.csv"),
        **FEATURES,
        leakage="results/audit/leakage_rows.csv",
        poison="results/audit/poison_rows.csv",
        storage="results/audit/storage_rows.csv",
    output:
        findings=report(
            "results/audit/labels.json",
            category="Audit",
            caption="../report/audit_labels.rst",
            labels={"result": "doubted labels", "as": "JSON"},
        ),
        rows="results/audit/labels_rows.csv",
    log:
        "results/logs/audit_labels.log",
    benchmark:
        "results/benchmarks/audit_labels.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("audit_labels"),
        settings=asdict(settings.audit.labels),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_labels.py"


rule audit_shift:
    """Differences between the splits: share of tumour, colour and texture, slides and hospitals."""
    input:
        **split_paths(DATA, "y.h5"),
        **split_paths(DATA, "meta.csv"),
        **FEATURES,
        leakage="results/audit/leakage_rows.csv",
        poison="results/audit/poison_rows.csv",
        storage="results/audit/storage_rows.csv",
    output:
        findings=report(
            "results/audit/shift.json",
            category="Audit",
            caption="../report/audit_shift.rst",
            labels={"result": "differences between splits", "as": "JSON"},
        ),
    log:
        "results/logs/audit_shift.log",
    benchmark:
        "results/benchmarks/audit_shift.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("audit_shift"),
        settings=asdict(settings.audit.shift),
    script:
        "../scripts/audit_shift.py"


rule apply_policy:
    """Which patches are kept, and a verdict on every kind of defect."""
    input:
        **split_paths(DATA, "y.h5"),
        checksums="results/audit/checksums.json",
        storage="results/audit/storage.json",
        poison="results/audit/poison.json",
        shift="results/audit/shift.json",
        leakage="results/audit/leakage.json",
        labels="results/audit/labels.json",
        poison_rows="results/audit/poison_rows.csv",
        storage_rows="results/audit/storage_rows.csv",
        leakage_rows="results/audit/leakage_rows.csv",
        labels_rows="results/audit/labels_rows.csv",
    output:
        patches="results/audit/patches.csv",
        verdicts=report(
            "results/audit/verdicts.json",
            category="Audit",
            caption="../report/apply_policy.rst",
            labels={"result": "verdicts", "as": "JSON"},
        ),
    log:
        "results/logs/apply_policy.log",
    benchmark:
        "results/benchmarks/apply_policy.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("apply_policy"),
        policy=settings.audit.policy,
        waive=settings.audit.waive,
    script:
        "../scripts/apply_policy.py"


rule gate_audit:
    """Stop the run unless each finding is repaired, or waived by name in the config."""
    input:
        verdicts="results/audit/verdicts.json",
    output:
        gate=report(
            "results/audit/gate.json",
            category="Audit",
            caption="../report/gate_audit.rst",
            labels={"result": "gate", "as": "JSON"},
        ),
    log:
        "results/logs/gate_audit.log",
    benchmark:
        "results/benchmarks/gate_audit.tsv"
    # The same verdicts give the same answer, also where a profile tries failed jobs again.
    retries: 0
    conda:
        "../../environment.yml"
    params:
        code=code_digest("gate_audit"),
    script:
        "../scripts/gate_audit.py"


# What the embedded sample planted: the truth about it, which no audit reads.
TRUTH = {"planted": f"{DATA}/planted.csv"} if settings.data.source == "sample" else {}


rule score_audit:
    """Recall and precision of the audit on defects planted into clean patches, and on those of the sample."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
        **TRUTH,
        patches="results/audit/patches.csv",
    output:
        score=report(
            "results/audit/score.json",
            category="Audit",
            caption="../report/score_audit.rst",
            labels={"result": "score of the audit", "as": "JSON"},
        ),
    log:
        "results/logs/score_audit.log",
    benchmark:
        "results/benchmarks/score_audit.tsv"
    conda:
        "../../environment.yml"
    threads: 2
    params:
        code=code_digest("score_audit"),
        patches=settings.audit.score.patches,
        rates=settings.audit.score.rates,
        repeats=settings.audit.score.repeats,
        seed=settings.audit.score.seed,
        canvas=settings.data.source == "sample",
        # Where there is room for the planted files: beside the data they are made from.
        scratch=lambda wildcards, input: os.path.dirname(input.train_x),
    script:
        "../scripts/score_audit.py"
