# Reads: the champion's weights, the training store.
# Writes: results/benchmark/: throughput on each partition, and what holds it up.
PARTITIONS = list(settings.benchmark.partitions)


rule measure_throughput:
    """Images per second of inference, loading and the whole training step on one partition, per batch size."""
    input:
        weights="results/champion/weights.pt",
        sidecar="results/champion/weights.json",
        store=f"{DATA}/store/train.npy",
        rows="results/splits/train.csv",
    output:
        table="results/benchmark/partition-{partition}.csv",
        points="results/benchmark/partition-{partition}.json",
    log:
        "results/logs/measure_throughput/{partition}.log",
    benchmark:
        "results/benchmarks/measure_throughput/{partition}.tsv"
    conda:
        "../../environment.yml"
    threads: settings.train.threads
    resources:
        slurm_partition=lambda wildcards: (
            None if wildcards.partition == "local" else wildcards.partition
        ),
        # A GPU partition gives a GPU only to a job that asks for one.
        gres=lambda wildcards: (
            "gpu:1" if wildcards.partition.startswith("gpu") else None
        ),
    params:
        code=code_digest("measure_throughput"),
        batch_sizes=list(settings.benchmark.batch_sizes),
        repeats=settings.benchmark.repeats,
        images=settings.benchmark.images,
        threads=settings.train.threads,
    script:
        "../scripts/measure_throughput.py"


rule collect_throughput:
    """One table of all partitions, and for each what share of a training step goes into loading."""
    input:
        tables=[
            f"results/benchmark/partition-{partition}.csv" for partition in PARTITIONS
        ],
        points=[
            f"results/benchmark/partition-{partition}.json" for partition in PARTITIONS
        ],
    output:
        throughput=report(
            "results/benchmark/throughput.csv",
            category="Benchmark",
            caption="../report/collect_throughput.rst",
            labels={"result": "throughput"},
        ),
        bottleneck=report(
            "results/benchmark/bottleneck.json",
            category="Benchmark",
            caption="../report/collect_throughput.rst",
            labels={"result": "bottleneck"},
        ),
    log:
        "results/logs/collect_throughput.log",
    benchmark:
        "results/benchmarks/collect_throughput.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("collect_throughput"),
    script:
        "../scripts/collect_throughput.py"
