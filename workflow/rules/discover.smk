# Reads: the champion's predictions on valid and test, their attributes, embeddings and tables. Slices are chosen on valid.
# Writes: results/slices/discovered.json and its picture.


rule discover_slices:
    """Slices that nobody named and the champion is weak on: found on one half of valid, confirmed on the other."""
    input:
        predictions_valid="results/champion/predict/valid.csv",
        predictions_test="results/champion/predict/test.csv",
        rows_valid="results/splits/valid.csv",
        rows_test="results/splits/test.csv",
        attributes_valid=f"{DATA}/attributes/valid.npy",
        attributes_test=f"{DATA}/attributes/test.npy",
        embedding_valid=f"{DATA}/embeddings/valid.npy",
        embedding_test=f"{DATA}/embeddings/test.npy",
        sidecar="results/champion/weights.json",
    output:
        report(
            "results/slices/discovered.json",
            category="Slice",
            caption="../report/discover_slices.rst",
            labels={"result": "discovered slices", "as": "JSON"},
        ),
    log:
        "results/logs/discover_slices.log",
    benchmark:
        "results/benchmarks/discover_slices.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("discover_slices"),
        discovery=asdict(settings.discovery),
        evaluation=asdict(settings.evaluation),
    script:
        "../scripts/discover_slices.py"


rule plot_discovered:
    """Errors in each discovered slice and in the rest, on the half that found it, the other half and test; examples."""
    input:
        discovered="results/slices/discovered.json",
        store=f"{DATA}/store/test.npy",
    output:
        png=report(
            "results/assets/discovered.png",
            category="Slice",
            caption="../report/plot_discovered.rst",
            labels={"result": "discovered slices", "as": "PNG"},
        ),
        caption="results/assets/discovered.txt",
    log:
        "results/logs/plot_discovered.log",
    benchmark:
        "results/benchmarks/plot_discovered.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("plot_discovered"),
        label=DATA_LABEL,
    script:
        "../scripts/plot_discovered.py"
