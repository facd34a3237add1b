# Reads: results/tracking/mlflow.db; the rebuild, a Snakemake of its own, what the logged config names.
# Writes: results/reproduce/{run}/; data of the rebuild below {data.root}/reproduce/{run}/.
from pcam.provenance import git_state, package_versions

# Packages that can change weights or metrics.
DECISIVE = ["torch", "numpy", "scipy", "scikit-learn", "optuna", "pillow", "h5py"]
NO_RUN = "null"


rule reproduce:
    """Rebuild the logged run that config.run names, from its logged config, and compare."""
    input:
        # Without an id the job tells how to give one.
        f"results/reproduce/{settings.run or NO_RUN}/verdict.json",


rule reproduce_run:
    """Rebuild one logged run in a folder of its own; say whether weights and metrics are the same, and what differs."""

    # No input: what is logged is compared, and not what this workflow would make now.
    output:
        report(
            "results/reproduce/{run}/verdict.json",
            category="Reproducibility",
            labels={"result": "run {run}", "as": "JSON"},
        ),
    log:
        "results/logs/reproduce_run/{run}.log",
    benchmark:
        "results/benchmarks/reproduce_run/{run}.tsv"
    wildcard_constraints:
        run=rf"[0-9a-f]{{32}}|{NO_RUN}",
    conda:
        "../../environment.yml"
    # The rebuild is a whole workflow, with --cores as README gives it. Its bits depend on train.threads alone.
    threads: 4
    params:
        code=code_digest("reproduce_run"),
        run_id=lambda wildcards: None if wildcards.run == NO_RUN else wildcards.run,
        tracking="results/tracking",
        data_root=settings.data.root,
        # Another commit, other versions: another comparison.
        state={**git_state(), "versions": package_versions(DECISIVE)},
    script:
        "../scripts/reproduce_run.py"
