# Reads: the plan of the run, the files it starts from, what Slurm says.
# Writes: results/preflight.json. All of it happens in onstart, which alone knows plan and executor; never in a dry-run.
import pcam.planned


rule preflight:
    """Say what would run, how long, and whether it can: one table, each line passed or with what to do."""
    localrule: True
    resources:
        # Seconds that a run on Slurm waits for the short job on each partition to start; the profile sets it.
        probe_wait=180,


onstart:
    # A person's run: of its jobs, Snakemake starts each without hooks. A touch runs nothing.
    if not workflow.touch and (
        pcam.planned.runs_on_slurm(workflow)
        or pcam.planned.asks_for_preflight(workflow)
    ):
        from pcam.preflight import preflight
        from pcam.provenance import describe

        try:
            plan = pcam.planned.read_plan(workflow, sys.executable)
        except InputError as error:
            raise WorkflowError(str(error)) from None
        fault = preflight(
            plan, settings, describe("preflight", code_digest("pcam/preflight"))
        )
        if fault is not None:
            raise WorkflowError(fault)
