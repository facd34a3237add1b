# Reads: the champion's weights, the training store.
# Writes: results/benchmark/: throughput on each partition, and what holds it up.
PARTITIONS = list(settings.benchmark.partitions)


rule measure_throughput:
    """Images per second of models, precisions and batch sizes on one partition, and each part of a training step."""
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
    params:
        code=code_digest("measure_throughput"),
        models={
            name: {**asdict(settings.train), **difference}
            for name, difference in settings.benchmark.models.items()
        },
        precisions=list(settings.benchmark.precisions),
        batch_sizes=list(settings.benchmark.batch_sizes),
        repeats=settings.benchmark.repeats,
        images=settings.benchmark.images,
        seconds=settings.benchmark.seconds,
        threads=settings.train.threads,
    script:
        "../scripts/measure_throughput.py"


rule find_bottleneck:
    """One table of all partitions, what each part of a training step takes, and which of them holds it up."""
    input:
        [f"results/benchmark/partition-{partition}.json" for partition in PARTITIONS],
    output:
        throughput=report(
            "results/benchmark/throughput.csv",
            category="Benchmark",
            caption="../report/find_bottleneck.rst",
            labels={"result": "throughput", "as": "CSV"},
        ),
        parts=report(
            "results/benchmark/parts.csv",
            category="Benchmark",
            caption="../report/find_bottleneck.rst",
            labels={"result": "parts of a step", "as": "CSV"},
        ),
        bottleneck=report(
            "results/benchmark/bottleneck.json",
            category="Benchmark",
            caption="../report/find_bottleneck.rst",
            labels={"result": "bottleneck", "as": "JSON"},
        ),
    log:
        "results/logs/find_bottleneck.log",
    benchmark:
        "results/benchmarks/find_bottleneck.tsv"
    conda:
        "../../environment.yml"
    params:
        code=code_digest("find_bottleneck"),
    script:
        "../scripts/find_bottleneck.py"
