"""Throughput has the contract's columns, honest figures, and a verdict that follows from them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from collect_throughput import collect_throughput
from measure_throughput import measure_throughput
from planted import killed_at_loops_of_8, killed_at_once

from pcam import throughput
from pcam.checkpoint import save_checkpoint
from pcam.children import Outcome, run_child
from pcam.files import InputError, write_csv, write_json
from pcam.model import build_model
from pcam.throughput import random_batches

COLUMNS = ["partition", "node", "device", "mode", "batch_size", "precision", "images_per_s", "job_id"]
ARCHITECTURE = {"model": "resnet", "width": 4, "depth": 1, "hidden": 8, "dropout": 0.0, "tta": True}
PROVENANCE = {"rule": "a_test"}
OOM = "out-of-memory killer"


def in_this_process(work, *arguments) -> Outcome:
    """run_child without the child, for faults planted here and for speed."""
    try:
        return Outcome(value=work(*arguments))
    except InputError as error:
        return Outcome(error=error)


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Measures a tiny model on four patches, in this process, and gives the table and the points."""
    monkeypatch.setattr(throughput, "run_child", in_this_process)
    document = {
        "architecture": ARCHITECTURE,
        "preprocessing": {"mean": [0.7, 0.5, 0.7], "std": [0.2, 0.2, 0.2]},
        "threshold": 0.5,
        "digests": {},
        "data_source": "SYNTHETIC SAMPLE",
    }
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "weights.pt", tmp_path / "weights.json", build_model(ARCHITECTURE), document)
    np.save(tmp_path / "train.npy", np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3)).astype(np.uint8))
    write_csv(tmp_path / "train.csv", ("row", "label", "slide", "group"), [(i, i % 2, "", "") for i in range(4)])

    def run(partition: str = "local", batch_sizes=(1, 8)) -> tuple[list[dict[str, str]], dict]:
        table, points = tmp_path / f"partition-{partition}.csv", tmp_path / f"partition-{partition}.json"
        measure_throughput(
            *(str(tmp_path / name) for name in ("weights.pt", "train.npy", "train.csv")),
            str(table),
            str(points),
            partition=partition,
            batch_sizes=batch_sizes,
            repeats=3,
            images=4,
            threads=1,
            provenance=PROVENANCE,
        )
        with table.open(newline="") as handle:
            return list(csv.DictReader(handle)), json.loads(points.read_text())

    run.folder = tmp_path
    return run


def collect(folder: Path, *partitions: str) -> tuple[list[dict[str, str]], list[dict]]:
    collect_throughput(
        [str(folder / f"partition-{partition}.csv") for partition in partitions],
        [str(folder / f"partition-{partition}.json") for partition in partitions],
        str(folder / "throughput.csv"),
        str(folder / "bottleneck.json"),
        provenance=PROVENANCE,
    )
    with (folder / "throughput.csv").open(newline="") as handle:
        return list(csv.DictReader(handle)), json.loads((folder / "bottleneck.json").read_text())["steps"]


def measured(partition: str, loop: float | None, loading: float | None, share: float | None) -> dict:
    """What measure_throughput leaves for one batch size."""
    common = {"batch_size": 32, "precision": "fp32", "images_per_pass": 64, "values": [390.0, 400.0, 420.0]}
    speeds = {"inference": 900.0, "loading": loading, "loop": loop}
    points = [{**common, "mode": mode, "images_per_s": speed} for mode, speed in speeds.items()]
    points[2]["loading_share"] = share
    machine = {"partition": partition, "node": "n1", "device": "a CPU", "job_id": "7", "load_average": {}}
    return {**machine, "points": points}


def write_measured(folder: Path, document: dict) -> None:
    machine = {key: document[key] for key in ("partition", "node", "device", "job_id")}
    rows = [[{**machine, **point}[column] for column in COLUMNS] for point in document["points"]]
    write_csv(folder / f"partition-{document['partition']}.csv", COLUMNS, rows)
    write_json(folder / f"partition-{document['partition']}.json", document)


def test_every_mode_and_batch_size_has_a_row_with_the_contracts_columns(measure, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    rows, _ = measure()
    assert list(rows[0]) == COLUMNS
    assert {(row["mode"], row["batch_size"]) for row in rows} == {
        (mode, size) for mode in ("inference", "loading", "loop") for size in ("1", "8")
    }
    assert all(float(row["images_per_s"]) > 0 and row["node"] and row["device"] for row in rows)
    assert {(row["partition"], row["precision"], row["job_id"]) for row in rows} == {("local", "fp32", "local")}


def test_the_job_id_is_slurms(measure, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    rows, points = measure("thin_course")
    assert {row["job_id"] for row in rows} == {points["job_id"]} == {"4711"}
    assert {row["partition"] for row in rows} == {"thin_course"}


def test_every_timed_pass_is_kept_and_the_median_counts(measure):
    rows, document = measure()
    assert document["threads"] == 1
    for row, point in zip(rows, document["points"], strict=True):
        assert len(point["values"]) == 3
        assert float(row["images_per_s"]) == point["images_per_s"] == np.median(point["values"])
    assert [point["images_per_pass"] for point in document["points"]] == [4, 4, 4, 8, 8, 8]


def test_passes_of_all_points_take_turns_so_that_a_disturbance_shows_in_every_spread(measure, monkeypatch):
    order = []
    monkeypatch.setattr(throughput, "time_pass", lambda *of: (order.append((*of[1:3], of[4])), (1.0, None))[1])
    measure(batch_sizes=(1,))
    assert order == [(mode, 1, repeat) for repeat in range(3) for mode in ("inference", "loading", "loop")]


def test_the_weights_on_disk_stay_as_they_are(measure):
    before = (measure.folder / "weights.pt").read_bytes()
    measure()
    assert (measure.folder / "weights.pt").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_an_empty_cell_and_not_a_crash(measure, monkeypatch, error):
    def too_large(bench, batch_size):
        raise error

    monkeypatch.setitem(throughput.MODES, "loop", too_large)
    rows, document = measure(batch_sizes=(1,))
    assert [row["images_per_s"] == "" for row in rows] == [False, False, True]
    assert document["points"][2]["note"] == "out of memory"
    _, steps = collect(measure.folder, "local")
    assert steps[0]["bottleneck"] is None
    assert "could not be measured: out of memory" in steps[0]["verdict"]


def test_a_point_that_its_process_is_killed_at_is_noted_and_the_others_are_measured(measure, monkeypatch):
    monkeypatch.setattr(throughput, "run_child", run_child)
    monkeypatch.setattr(throughput, "measure", killed_at_loops_of_8)
    rows, document = measure()
    assert [row["images_per_s"] == "" for row in rows] == [False] * 5 + [True]
    assert [len(point["values"]) for point in document["points"]] == [3] * 5 + [0]
    assert document["points"][5]["note"].startswith("died by SIGKILL") and OOM in document["points"][5]["note"]
    _, steps = collect(measure.folder, "local")
    assert steps[0]["bottleneck"] is not None
    assert steps[1]["bottleneck"] is None and "could not be measured: died by SIGKILL" in steps[1]["verdict"]


def test_a_process_that_is_killed_before_its_first_pass_stops_the_measurement(measure, monkeypatch):
    monkeypatch.setattr(throughput, "run_child", run_child)
    monkeypatch.setattr(throughput, "measure", killed_at_once)
    with pytest.raises(InputError, match=f"the process died by SIGKILL .*{OOM}.* before it measured anything"):
        measure()
    assert not (measure.folder / "partition-local.csv").exists()


def test_a_point_that_dies_only_beside_the_others_is_measured_alone(measure, monkeypatch):
    """What the points before it left in memory may have killed it."""
    told, children = [], []

    def killed_in_its_first_child(work, task, points):
        children.append(list(points))
        if len(children) == 1:
            return Outcome(signal="SIGKILL", told=("loading", 8))
        return in_this_process(work, task, points)

    monkeypatch.setattr(throughput, "tell", told.append)
    monkeypatch.setattr(throughput, "run_child", killed_in_its_first_child)
    rows, document = measure()
    others = [(mode, size) for size in (1, 8) for mode in throughput.MODES if (mode, size) != ("loading", 8)]
    assert children[1:] == [[("loading", 8)], others]
    assert told == [("loading", 8)] * 3 + others * 3
    assert all(row["images_per_s"] for row in rows)
    assert [row["mode"] for row in rows] == list(throughput.MODES) * 2
    assert [point.get("note", "")[:14] for point in document["points"]] == [""] * 4 + ["measured alone", ""]


def test_the_network_is_measured_alone_also_where_the_champion_averages_over_symmetries(measure):
    passes = []
    files = [str(measure.folder / name) for name in ("weights.pt", "train.npy", "train.csv")]
    model = throughput.open_bench(throughput.Task(*files, threads=1, images=4, repeats=1)).model
    model.logits = lambda x: (passes.append(len(x)), x.new_zeros(len(x)))[1]
    model.eval()(torch.zeros(2, 3, 96, 96))
    assert passes == [2]
    _, document = measure()
    assert document["tta"] is False and document["architecture"]["tta"] is True


def test_a_store_that_does_not_match_its_table_is_refused(measure):
    write_csv(measure.folder / "train.csv", ("row", "label"), [(0, 1)])
    with pytest.raises(InputError, match="4 patches for the 1 rows"):
        measure()
    assert not (measure.folder / "partition-local.csv").exists()


def test_batches_visit_each_patch_once_in_random_order():
    batches = random_batches(12, 4, 3, (1, 4))
    assert sorted(np.concatenate(batches)) == list(range(12))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert not np.array_equal(np.concatenate(batches), np.arange(12))
    assert not np.array_equal(batches, random_batches(12, 4, 3, (2, 4)))


def test_a_real_measurement_can_be_collected(measure):
    measure()
    rows, steps = collect(measure.folder, "local")
    assert list(rows[0]) == COLUMNS
    assert [step["batch_size"] for step in steps] == [1, 8]
    assert all(0 < step["loading_share"] < 1 for step in steps)


def test_partitions_stand_in_one_table_in_their_order(tmp_path):
    for partition in ("thin_course", "gpu_course"):
        write_measured(tmp_path, measured(partition, loop=400.0, loading=8000.0, share=0.05))
    rows, _ = collect(tmp_path, "thin_course", "gpu_course")
    assert [row["partition"] for row in rows] == ["thin_course"] * 3 + ["gpu_course"] * 3


@pytest.mark.parametrize(("share", "bottleneck"), [(0.05, "computing"), (0.8, "loading")])
def test_the_verdict_follows_from_the_share_of_loading(tmp_path, share, bottleneck):
    write_measured(tmp_path, measured("local", loop=400.0, loading=500.0, share=share))
    _, (step,) = collect(tmp_path, "local")
    assert step["bottleneck"] == bottleneck
    assert f"{bottleneck} is the bottleneck" in step["verdict"]
    assert step["loading_share"] == share
    assert step["loading_share_apart"] == pytest.approx(0.8)
    assert "390 to 420" in step["verdict"]


def test_a_step_that_could_not_be_measured_has_no_share(tmp_path):
    document = measured("local", loop=None, loading=500.0, share=None)
    document["points"][2]["note"] = "out of memory"
    write_measured(tmp_path, document)
    _, (step,) = collect(tmp_path, "local")
    assert step["loading_share"] is step["loading_share_apart"] is None


def test_a_verdict_names_what_is_missing_beside_a_step_that_was_measured(tmp_path):
    document = measured("local", loop=400.0, loading=None, share=0.05)
    document["points"][1]["note"] = "died by SIGKILL"
    write_measured(tmp_path, document)
    _, (step,) = collect(tmp_path, "local")
    assert step["loading_share"] == 0.05 and step["loading_share_apart"] is None
    assert "loading alone reaches no measurement (died by SIGKILL)" in step["verdict"]
