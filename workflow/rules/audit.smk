# Reads: the six files and the meta CSVs; planted.csv for the score alone, and only with the sample.
# Writes: results/audit/: findings and row tables of each audit, the table of patches, the verdicts, the gate.
# Audits witness and know no policy; apply_policy decides; gate_audit stops the run on a verdict of fail.


rule audit_checksums:
    """Digests of every file, and which published file each one is by content."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
        **split_paths(DATA, "meta.csv"),
    output:
        findings="results/audit/checksums.json",
    log:
        "results/logs/audit_checksums.log",
    benchmark:
        "results/benchmarks/audit_checksums.tsv"
    conda:
        "../../environment.yml"
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
        findings="results/audit/storage.json",
        rows="results/audit/storage_rows.csv",
    log:
        "results/logs/audit_storage.log",
    benchmark:
        "results/benchmarks/audit_storage.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("audit_storage"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_storage.py"


rule audit_leakage:
    """Duplicates, conflicting labels and shared tissue, within and across splits."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
    output:
        findings="results/audit/leakage.json",
        rows="results/audit/leakage_rows.csv",
    log:
        "results/logs/audit_leakage.log",
    benchmark:
        "results/benchmarks/audit_leakage.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("audit_leakage"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_leakage.py"


rule audit_poison:
    """Patches that are no picture: NaN, values out of range, one colour all over."""
    input:
        **split_paths(DATA, "x.h5"),
        **split_paths(DATA, "y.h5"),
    output:
        findings="results/audit/poison.json",
        rows="results/audit/poison_rows.csv",
    log:
        "results/logs/audit_poison.log",
    benchmark:
        "results/benchmarks/audit_poison.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("audit_poison"),
        rows_listed=settings.audit.rows_listed,
    script:
        "../scripts/audit_poison.py"


rule apply_policy:
    """Which patches are kept, and a verdict on every kind of defect."""
    input:
        **split_paths(DATA, "y.h5"),
        checksums="results/audit/checksums.json",
        storage="results/audit/storage.json",
        poison_rows="results/audit/poison_rows.csv",
        storage_rows="results/audit/storage_rows.csv",
        leakage_rows="results/audit/leakage_rows.csv",
    output:
        patches="results/audit/patches.csv",
        verdicts="results/audit/verdicts.json",
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
        gate="results/audit/gate.json",
    log:
        "results/logs/gate_audit.log",
    benchmark:
        "results/benchmarks/gate_audit.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("gate_audit"),
    script:
        "../scripts/gate_audit.py"


if settings.data.source == "sample":

    rule score_audit:
        """Recall and precision of the audit against what the sample planted."""
        input:
            planted=f"{DATA}/planted.csv",
            patches="results/audit/patches.csv",
        output:
            score="results/audit/score.json",
        log:
            "results/logs/score_audit.log",
        benchmark:
            "results/benchmarks/score_audit.tsv"
        conda:
            "../../environment.yml"
        params:
            code=code_digest("score_audit"),
        script:
            "../scripts/score_audit.py"
