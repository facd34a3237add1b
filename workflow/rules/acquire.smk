# Reads: nothing (sample), the files of data.directory (directory), the published record (pcam).
# Writes: {data.root}/{data.source}/ with six files in PCam's layout and names, and a meta CSV per split.
if settings.data.source == "sample":

    rule synthesize_sample:
        """Make the SYNTHETIC SAMPLE: an H&E-like set in PCam's layout, with planted defects."""
        output:
            **split_paths(DATA, "x.h5"),
            **split_paths(DATA, "y.h5"),
            **split_paths(DATA, "meta.csv"),
            # The truth of what was planted. Only score_audit may read it.
            planted=f"{DATA}/planted.csv",
        log:
            "results/logs/synthesize_sample.log",
        benchmark:
            "results/benchmarks/synthesize_sample.tsv"
        conda:
            "../../environment.yml"
        params:
            code=code_digest("synthesize_sample"),
            sample=config["data"]["sample"],
        script:
            "../scripts/synthesize_sample.py"

elif settings.data.source == "directory":

    from pcam.acquisition import files_at_hand

    try:
        AT_HAND = files_at_hand(settings.data.directory)
    except InputError as error:
        raise WorkflowError(str(error)) from None

    rule import_directory:
        """Link or unpack the files of data.directory into PCam's layout; a missing test_y becomes an unlabelled one."""
        input:
            **AT_HAND,
        output:
            **split_paths(DATA, "x.h5"),
            **split_paths(DATA, "y.h5"),
            **split_paths(DATA, "meta.csv"),
        log:
            "results/logs/import_directory.log",
        benchmark:
            "results/benchmarks/import_directory.tsv"
        conda:
            "../../environment.yml"
        params:
            code=code_digest("import_directory"),
        script:
            "../scripts/import_directory.py"

else:

    localrules:
        download_pcam,

    rule download_pcam:
        """Have one file of the published record: checked where it is at hand, else downloaded, checked, unpacked."""
        output:
            f"{DATA}/camelyonpatch_level_2_split_{{file}}",
        log:
            "results/logs/download_pcam/{file}.log",
        benchmark:
            "results/benchmarks/download_pcam/{file}.tsv"
        wildcard_constraints:
            file=r"(train|valid|test)_(x\.h5|y\.h5|meta\.csv)",
        conda:
            "../../environment.yml"
        params:
            code=code_digest("download_pcam"),
            url=settings.data.url,
            directory=settings.data.directory,
        script:
            "../scripts/download_pcam.py"
