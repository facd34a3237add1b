# Reads: Snakemake's own log, what Slurm remembers of the jobs, their logs.
# Writes: nothing; a run on Slurm that fails says at its end which jobs, why, and what to do.


onerror:
    if workflow.executor_plugin.name == "slurm":
        from pcam.failed_jobs import explain_failures

        # Snakemake gives a list: each logger of its own may write a file.
        for file in log:
            print(*explain_failures(file), sep="\n", file=sys.stderr)
