# Reads: results/journal.md, the cards and what they show, results/champion, results/evidence_check.json.
# Writes: in the repository journal.md, model_card.md, data_card.md and assets/. The only rules that touch tracked files.
from pcam.publishing import repository_state


localrules:
    publish_results,


rule publish:
    """Copy documents, pictures and champion into the repository, and print the git commands that push them."""
    input:
        "results/published.json",


rule publish_results:
    """Copy them where nothing uncommitted is lost and no document disagrees with its sources; commit nothing."""
    input:
        documents=[*ASK["templates"]],
        champion=[
            f"results/champion/{name}"
            for name in (
                "weights.pt",
                "weights.json",
                "guard.json",
                "weights.onnx",
                "onnx.json",
            )
        ],
        pictures=[f"results/assets/{name}.png" for name in PICTURES],
        # It exists only where no document disagrees with its sources.
        checked="results/evidence_check.json",
    output:
        "results/published.json",
    log:
        "results/logs/publish_results.log",
    benchmark:
        "results/benchmarks/publish_results.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("publish_results"),
        root=str(ROOT),
        # Whatever was done to the repository meanwhile, asking again copies and prints again.
        state=lambda wildcards: repository_state(ROOT),
        link=config["journal"]["repository"],
    script:
        "../scripts/publish_results.py"
