# Reads and writes what the rules of the same names do, when config `shards` exceeds 1: each pass over all patches is
# scattered over as many jobs, each with a stretch of rows, and gathered into the same files, byte for byte. Predictions
# are cut between batches, so that every batch holds the same patches as in one job.
# Writes: {data.root}/{data.source}/shards/, until it is gathered.


if len(gather.shard("{scatteritem}")) != SHARDS:
    raise WorkflowError("shards in the config says how many; leave --set-scatter out")


def log_of_shard(part):
    """The log of the job that predicted it."""
    kind, *rest = Path(part).relative_to(f"{DATA}/shards").with_suffix(".log").parts
    if kind == "champion":
        return "/".join(("results/logs/predict_champion_shard", *rest[1:]))
    return "/".join(("results/logs/predict_seed_shard", *rest))


ruleorder: gather_survey > survey_patches
ruleorder: gather_arrays > extract_features > measure_attributes > embed_patches
ruleorder: gather_tables > predict_seed > predict_champion


use rule survey_patches as survey_patches_shard with:
    output:
        survey=temp(directory(f"{DATA}/shards/survey/{{scatteritem}}")),
    log:
        "results/logs/survey_patches_shard/{scatteritem}.log",
    benchmark:
        "results/benchmarks/survey_patches_shard/{scatteritem}.tsv"
    # Shards run side by side as they are.
    threads: 1


rule gather_survey:
    """The survey of all patches from those of its shards."""
    input:
        gather.shard(f"{DATA}/shards/survey/{{scatteritem}}"),
    output:
        directory(f"{DATA}/survey"),
    log:
        "results/logs/gather_survey.log",
    benchmark:
        "results/benchmarks/gather_survey.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("gather_survey"),
    script:
        "../scripts/gather_survey.py"


use rule extract_features as extract_features_shard with:
    output:
        temp(f"{DATA}/shards/features/{{split}}/{{scatteritem}}.npy"),
    log:
        "results/logs/extract_features_shard/{split}/{scatteritem}.log",
    benchmark:
        "results/benchmarks/extract_features_shard/{split}/{scatteritem}.tsv"
    # Shards run side by side as they are.
    threads: 1


use rule measure_attributes as measure_attributes_shard with:
    output:
        temp(f"{DATA}/shards/attributes/{{split}}/{{scatteritem}}.npy"),
    log:
        "results/logs/measure_attributes_shard/{split}/{scatteritem}.log",
    benchmark:
        "results/benchmarks/measure_attributes_shard/{split}/{scatteritem}.tsv"


use rule embed_patches as embed_patches_shard with:
    output:
        temp(f"{DATA}/shards/embeddings/{{split}}/{{scatteritem}}.npy"),
    log:
        "results/logs/embed_patches_shard/{split}/{scatteritem}.log",
    benchmark:
        "results/benchmarks/embed_patches_shard/{split}/{scatteritem}.tsv"


rule gather_arrays:
    """Features, attributes or embeddings of one split from those of its shards."""
    input:
        gather.shard(
            f"{DATA}/shards/{{what}}/{{split}}/{{scatteritem}}.npy", allow_missing=True
        ),
    output:
        f"{DATA}/{{what}}/{{split}}.npy",
    log:
        "results/logs/gather_arrays/{what}/{split}.log",
    benchmark:
        "results/benchmarks/gather_arrays/{what}/{split}.tsv"
    wildcard_constraints:
        what="features|attributes|embeddings",
    conda:
        "../../environment.yml"
    params:
        code=code_digest("gather_arrays"),
    script:
        "../scripts/gather_arrays.py"


use rule predict_seed as predict_seed_shard with:
    output:
        temp(
            f"{DATA}/shards/predict/{{variant}}/seed-{{seed}}/{{split}}/{{scatteritem}}.csv"
        ),
    log:
        "results/logs/predict_seed_shard/{variant}/seed-{seed}/{split}/{scatteritem}.log",
    benchmark:
        "results/benchmarks/predict_seed_shard/{variant}/seed-{seed}/{split}/{scatteritem}.tsv"


use rule predict_champion as predict_champion_shard with:
    output:
        temp(f"{DATA}/shards/champion/predict/{{split}}/{{scatteritem}}.csv"),
    log:
        "results/logs/predict_champion_shard/{split}/{scatteritem}.log",
    benchmark:
        "results/benchmarks/predict_champion_shard/{split}/{scatteritem}.tsv"


rule gather_tables:
    """The predictions of one split from those of its shards."""
    input:
        gather.shard(
            f"{DATA}/shards/{{where}}/{{split}}/{{scatteritem}}.csv",
            allow_missing=True,
        ),
    output:
        "results/{where}/{split}.csv",
    log:
        "results/logs/gather_tables/{where}/{split}.log",
    benchmark:
        "results/benchmarks/gather_tables/{where}/{split}.tsv"
    wildcard_constraints:
        where=rf"champion/predict|predict/({'|'.join(VARIANTS)})/seed-\d+",
    conda:
        "../../environment.yml"
    params:
        code=code_digest("gather_tables"),
        logs=lambda wildcards, input: [log_of_shard(part) for part in input],
    script:
        "../scripts/gather_tables.py"
