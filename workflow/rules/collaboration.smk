# Reads: the repository's history and its CI files.
# Writes: results/collaboration.json, results/assets/history.png with its caption.
from pcam.files import file_digest
from pcam.history import history_state
from pcam.provenance import ROOT

# Whatever describes CI, and the names that a .mailmap joins: their content stands in the parameters.
COLLABORATION_FILES = [
    ".ci/run",
    ".mailmap",
    ".pre-commit-config.yaml",
    "CODEOWNERS",
    ".github/CODEOWNERS",
    "docs/CODEOWNERS",
    *(
        f".github/workflows/{path.name}"
        for path in sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    ),
]


localrules:
    describe_collaboration,
    plot_history,


rule describe_collaboration:
    """How the group worked together: contributors, merges replayed, direct commits, what CI checks and lets through."""
    output:
        report(
            "results/collaboration.json",
            category="Report",
            caption="../report/describe_collaboration.rst",
            labels={"result": "collaboration"},
        ),
    log:
        "results/logs/describe_collaboration.log",
    benchmark:
        "results/benchmarks/describe_collaboration.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("describe_collaboration"),
        root=str(ROOT),
        content={
            name: file_digest(ROOT / name)
            for name in COLLABORATION_FILES
            if (ROOT / name).is_file()
        },
        # Asked for this rule alone: a long history takes git a while to count.
        state=lambda wildcards: history_state(ROOT),
    script:
        "../scripts/describe_collaboration.py"


rule plot_history:
    """Commits over time by contributor, and the graph of the newest commits with merges that conflicted."""
    input:
        "results/collaboration.json",
    output:
        png=report(
            "results/assets/history.png",
            category="Report",
            caption="../report/plot_history.rst",
            labels={"figure": "history of the repository"},
        ),
        caption="results/assets/history.txt",
    log:
        "results/logs/plot_history.log",
    benchmark:
        "results/benchmarks/plot_history.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_history"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_history.py"
