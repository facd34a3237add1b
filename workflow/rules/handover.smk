# Reads: the champion in both forms, the cards, test patches with the champion's answers, inference.py; wheels from pip.
# Writes: results/handover/. No part of `all`: pip has to reach a registry once, or find its wheels in a folder.
from pcam.files import file_digest
from pcam.provenance import ROOT, program_files

HANDOVER_FILES = [
    *program_files(),
    "LICENSE",
    "requirements.txt",
    *(f"workflow/handover/{name}" for name in ("README.md", "install", "selftest")),
]


localrules:
    build_bundle,
    verify_bundle,


rule build_bundle:
    """One archive for a machine without network: code, weights in both forms, cards, examples, wheels, their digests."""
    input:
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
        # Written with the journal, which shows this archive: Snakemake knows by their checksum that they say the same.
        # ancient() would hide every other reason to pack anew where the journal is written in the same call.
        cards=["results/model_card.md", "results/data_card.md"],
        pictures=[f"results/assets/{name}.png" for name in PICTURES],
        store=f"{DATA}/store/test.npy",
        predictions="results/champion/predict/test.csv",
    output:
        bundle="results/handover/bundle.tar.gz",
        manifest="results/handover/manifest.json",
    log:
        "results/logs/build_bundle.log",
    benchmark:
        "results/benchmarks/build_bundle.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("build_bundle"),
        root=str(ROOT),
        content={
            name: file_digest(ROOT / name)
            for name in HANDOVER_FILES
            if (ROOT / name).is_file()
        },
        torch=settings.handover.torch,
        wheels=settings.handover.wheels,
    script:
        "../scripts/build_bundle.py"


rule verify_bundle:
    """Unpack the archive elsewhere, install it without network, read-only, and compare its answers with those expected."""
    input:
        bundle="results/handover/bundle.tar.gz",
        manifest="results/handover/manifest.json",
    output:
        "results/handover/verify.json",
    log:
        "results/logs/verify_bundle.log",
    benchmark:
        "results/benchmarks/verify_bundle.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("verify_bundle"),
    script:
        "../scripts/verify_bundle.py"
