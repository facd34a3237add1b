"""Throughput has the contract's columns, honest figures, and verdicts that follow from them."""

import csv
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from benchmark_evidence import STEP, measured, point
from conftest import ROOT
from find_bottleneck import find_bottleneck
from measure_throughput import measure_throughput
from plain_text import read_plainly
from planted import killed_at_loops_of_8, killed_at_once, short_of_memory
from plot_throughput import plot_throughput

from pcam import bench, machine, throughput
from pcam.answers_benchmark import benchmark_answers
from pcam.bottleneck import PARTS, saturation
from pcam.checkpoint import save_checkpoint
from pcam.children import Outcome, run_child
from pcam.documents import Source, open_evidence
from pcam.files import InputError, write_csv, write_json
from pcam.model import build_model
from pcam.throughput import random_batches

read_plainly(globals())

CONTRACT = ["partition", "node", "device", "mode", "batch_size", "precision", "images_per_s", "job_id"]
MODES = ("inference", "loop", "parts", "apart")
ARCHITECTURE = {"model": "resnet", "width": 4, "depth": 1, "hidden": 8, "dropout": 0.0, "tta": True}
RECIPE = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["train"]
PROVENANCE = {"rule": "a_test"}
OOM = "out-of-memory killer"
Measured = tuple[list[dict[str, str]], dict[str, Any]]


def in_this_process(work: Callable[..., Any], *arguments: Any) -> Outcome:
    """run_child without the child, for faults planted here and for speed."""
    try:
        return Outcome(value=work(*arguments))
    except InputError as error:
        return Outcome(error=error)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measures a tiny model on four patches, in this process, and gives the table and the points."""
    monkeypatch.setattr(throughput, "run_child", in_this_process)
    monkeypatch.setattr(throughput, "limit_memory", lambda device, free: None)  # of the tests' own process
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

    def run(partition: str = "local", **changed: Any) -> Measured:
        table, points = tmp_path / f"partition-{partition}.csv", tmp_path / f"partition-{partition}.json"
        settings = {"models": {}, "precisions": ("fp32",), "batch_sizes": (1, 8), "repeats": 3, "images": 4,
                    "seconds": 60.0, "threads": 1, **changed}  # fmt: skip
        files = [str(tmp_path / name) for name in ("weights.pt", "train.npy", "train.csv")]
        measure_throughput(*files, str(table), str(points), partition=partition, provenance=PROVENANCE, **settings)
        return read_table(table), json.loads(points.read_text())

    return SimpleNamespace(run=run, folder=tmp_path)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def collect(folder: Path, *partitions: str) -> tuple[list[dict[str, str]], list[dict[str, str]], dict[str, Any]]:
    """Rows of throughput.csv and parts.csv, and bottleneck.json."""
    outputs = [folder / name for name in ("throughput.csv", "parts.csv", "bottleneck.json")]
    find_bottleneck(
        [str(folder / f"partition-{partition}.json") for partition in partitions],
        *map(str, outputs),
        provenance=PROVENANCE,
    )
    return read_table(outputs[0]), read_table(outputs[1]), json.loads(outputs[2].read_text())


def test_every_model_mode_and_batch_size_has_a_row_that_begins_with_the_contracts_columns(measure, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    rows, document = measure.run(models={"large": {**RECIPE, "width": 8}}, precisions=("fp32", "tf32"))
    assert list(rows[0])[:8] == CONTRACT
    there = [row for row in rows if row["precision"] == "fp32"]
    assert {(row["model"], row["mode"], row["batch_size"]) for row in there} == {
        (model, mode, size)
        for model in ("champion", "large")
        for mode in ("inference", "loading", "loop")
        for size in ("1", "8")
    }
    assert all(float(row["low"]) <= float(row["images_per_s"]) <= float(row["high"]) for row in there)
    assert all(
        row["node"] and row["device"] and (row["partition"], row["job_id"]) == ("local", "local") for row in rows
    )
    assert all(int(row["memory_bytes"]) > 2**20 for row in there if row["mode"] != "loading")
    lacking = [row for row in rows if row["precision"] == "tf32"]
    assert [(row["model"], row["images_per_s"]) for row in lacking] == [("champion", ""), ("large", "")]
    assert all("GPU" in row["note"] for row in lacking)
    champion, _, large, _ = document["series"]
    assert large["parameters"] > champion["parameters"] > 0
    assert document["tta"] is False and document["architectures"]["champion"]["tta"] is True
    assert document["threads"] == 1 and document["torch"] == torch.__version__ and document["kind"] == "cpu"


def test_the_job_and_its_partition_are_slurms(measure, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "thin")
    rows, document = measure.run("thin_course", batch_sizes=(1,))
    assert {row["job_id"] for row in rows} == {document["job_id"]} == {"4711"}
    assert {row["partition"] for row in rows} == {"thin_course"} and document["slurm_partition"] == "thin"


def test_every_timed_pass_is_kept_and_the_median_counts(measure):
    _, document = measure.run()
    points = document["series"][0]["points"]
    assert {(one["mode"], one["batch_size"]) for one in points} == {(mode, size) for mode in MODES for size in (1, 8)}
    for one in points:
        assert len(one["values"]) == len(one["passes"]) == 3
        assert one["images_per_s"] == np.median(one["values"])
        assert one["images_per_pass"] == {1: 4, 8: 8}[one["batch_size"]]
        assert set(one["passes"][0]) == ({one["mode"]} if one["mode"] in ("inference", "loop") else set(PARTS))


def test_passes_of_all_points_take_turns_so_that_a_disturbance_shows_in_every_spread(measure, monkeypatch):
    order = []

    def noted(trainer, task, result, repeat):
        order.append((result["mode"], repeat))
        result["values"].append(1.0)

    monkeypatch.setattr(throughput, "time_pass", noted)
    measure.run(batch_sizes=(1,))
    assert order == [(mode, repeat) for repeat in range(3) for mode in MODES]


def test_a_point_that_would_take_too_long_is_skipped_with_its_reason(measure, monkeypatch):
    """A clock by which each image takes a second: 8 of them, five times, are more than 10 s."""
    clock = count()
    monkeypatch.setattr(bench.Bench, "clock", lambda self: float(next(clock)))
    monkeypatch.setitem(throughput.MODES, "loop", lambda trainer, batches: {"loop": float(sum(map(len, batches)))})
    rows, _ = measure.run(seconds=10.0)
    loops = {row["batch_size"]: row for row in rows if row["mode"] == "loop"}
    assert float(loops["1"]["images_per_s"]) == 1 and loops["8"]["images_per_s"] == ""
    assert loops["8"]["note"] == "skipped: 3 passes would take about 40 s; benchmark.seconds allows 10 s"
    _, _, found = collect(measure.folder, "local")
    assert "could not be measured: skipped" in found["steps"][1]["verdict"]
    limit = next(one["limit"] for one in found["saturation"] if one["mode"] == "loop")
    assert limit["batch_size"] == 8 and limit["note"].startswith("skipped")


def test_a_pass_holds_as_many_batches_as_fit_into_its_time(measure, monkeypatch):
    monkeypatch.setitem(throughput.MODES, "loop", lambda trainer, batches: {"loop": float(sum(map(len, batches)))})
    _, document = measure.run(batch_sizes=(1,), images=4, seconds=6.0)
    passes = {one["mode"]: one["images_per_pass"] for one in document["series"][0]["points"]}
    assert passes["loop"] == 2  # of 6 s three passes have 2 s each, and a batch takes one
    assert passes["inference"] == 4


def test_the_weights_on_disk_stay_as_they_are(measure):
    before = (measure.folder / "weights.pt").read_bytes()
    measure.run(batch_sizes=(1,))
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
    def too_large(trainer, batches):
        raise error

    monkeypatch.setitem(throughput.MODES, "loop", too_large)
    rows, _ = measure.run(batch_sizes=(1,))
    assert {row["mode"]: row["note"] for row in rows} == {"inference": "", "loop": "out of memory", "loading": ""}
    assert [row["images_per_s"] for row in rows if row["mode"] == "loop"] == [""]
    _, parts, found = collect(measure.folder, "local")
    assert parts == [] and found["steps"][0]["bottleneck"] is None
    assert "could not be measured: out of memory" in found["steps"][0]["verdict"]


def test_a_bug_is_no_lack_of_memory(measure, monkeypatch):
    def broken(trainer, batches):
        raise RuntimeError("shapes do not match")

    monkeypatch.setitem(throughput.MODES, "loop", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        measure.run(batch_sizes=(1,))


def test_a_point_that_its_process_is_killed_at_is_noted_and_the_others_are_measured(measure, monkeypatch):
    monkeypatch.setattr(throughput, "run_child", run_child)
    monkeypatch.setattr(throughput, "measure", killed_at_loops_of_8)
    _, document = measure.run(batch_sizes=(1, 8, 16))
    notes = {(one["mode"], one["batch_size"]): one.get("note", "") for one in document["series"][0]["points"]}
    assert notes["loop", 8].startswith("died by SIGKILL") and OOM in notes["loop", 8]
    assert notes["loop", 16] == "not tried: a process died at batch size 8"
    assert all(note == "" for (mode, size), note in notes.items() if mode != "loop" or size == 1)
    assert len(notes) == 12
    _, _, found = collect(measure.folder, "local")
    assert found["steps"][0]["bottleneck"] is not None
    assert "could not be measured: died by SIGKILL" in found["steps"][1]["verdict"]


def test_what_does_not_fit_into_the_free_memory_is_out_of_memory_before_the_kernel_kills(measure, monkeypatch):
    monkeypatch.setattr(throughput, "run_child", run_child)
    monkeypatch.setattr(throughput, "measure", short_of_memory)
    _, document = measure.run(batch_sizes=(1, 512), seconds=3600.0)
    notes = {(one["mode"], one["batch_size"]): one.get("note", "") for one in document["series"][0]["points"]}
    assert {notes[mode, 512] for mode in MODES} == {"out of memory"}
    assert {notes[mode, 1] for mode in MODES} == {""}


def test_a_process_that_is_killed_before_its_first_pass_stops_the_measurement(measure, monkeypatch):
    monkeypatch.setattr(throughput, "run_child", run_child)
    monkeypatch.setattr(throughput, "measure", killed_at_once)
    with pytest.raises(InputError, match=f"the process died by SIGKILL .*{OOM}.* before it measured anything"):
        measure.run()
    assert not (measure.folder / "partition-local.csv").exists()


def test_a_point_that_dies_only_beside_the_others_is_measured_alone(measure, monkeypatch):
    """What the points before it left in memory may have killed it."""
    children = []

    def killed_in_its_first_child(work, task, model, precision, points):
        children.append(list(points))
        if len(children) == 1:
            return Outcome(signal="SIGKILL", told=("parts", 8))
        return in_this_process(work, task, model, precision, points)

    monkeypatch.setattr(throughput, "run_child", killed_in_its_first_child)
    _, document = measure.run()
    assert children[1] == [("parts", 8)]
    assert children[2] == [one for one in children[0] if one != ("parts", 8)]
    points = document["series"][0]["points"]
    assert all(one["values"] for one in points)
    assert [one["mode"] for one in points if "measured alone" in one.get("note", "")] == ["parts"]


def test_the_network_is_measured_alone_also_where_the_champion_averages_over_symmetries(measure):
    files = [str(measure.folder / name) for name in ("weights.pt", "train.npy", "train.csv")]
    opened = bench.open_bench(*files, threads=1, architecture=None, precision="fp32")
    passes = []
    opened.model.logits = lambda x: (passes.append(len(x)), x.new_zeros(len(x)))[1]
    opened.model.eval()(torch.zeros(2, 3, 96, 96))
    assert passes == [2]


def test_a_store_that_does_not_match_its_table_is_refused(measure):
    write_csv(measure.folder / "train.csv", ("row", "label"), [(0, 1)])
    with pytest.raises(InputError, match="4 patches for the 1 rows"):
        measure.run()
    assert not (measure.folder / "partition-local.csv").exists()


def test_batches_visit_each_patch_once_in_random_order():
    batches = random_batches(12, 4, 3, (1, 4))
    assert sorted(np.concatenate(batches)) == list(range(12))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert not np.array_equal(np.concatenate(batches), np.arange(12))
    assert not np.array_equal(batches, random_batches(12, 4, 3, (2, 4)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_step_learns_in_every_precision(measure, precision):
    """The step is a real one: its gradients reach the weights, in fp16 through the scaled loss."""
    files = [str(measure.folder / name) for name in ("weights.pt", "train.npy", "train.csv")]
    opened = bench.open_bench(*files, threads=1, architecture=None, precision=precision)
    trainer = bench.Trainer(opened)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.01
    opened.model.train()
    before = float(trainer.forward(opened.transfer(opened.gather(np.arange(4)))).detach())
    for _ in range(12):
        trainer.step(np.arange(4))
    assert float(trainer.forward(opened.transfer(opened.gather(np.arange(4)))).detach()) < before
    assert trainer.scaler.is_enabled() == (precision == "fp16")


def test_the_parts_apart_leave_the_weights_gradients_and_mode_a_step_needs(measure):
    files = [str(measure.folder / name) for name in ("weights.pt", "train.npy", "train.csv")]
    opened = bench.open_bench(*files, threads=1, architecture=None, precision="fp32")
    trainer = bench.Trainer(opened)
    bench.inference_pass(trainer, [np.arange(2)])
    seconds = bench.apart_pass(trainer, [np.arange(2), np.arange(2, 4)])
    assert set(seconds) == set(PARTS) and all(value > 0 for value in seconds.values())
    assert opened.model.training


class FakeEvent:
    """torch.cuda.Event on a clock that goes on by a millisecond a mark."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.now += 1.0
        self.at = FakeEvent.now

    def elapsed_time(self, later: "FakeEvent") -> float:
        return later.at - self.at


def test_on_a_gpu_the_parts_are_told_apart_by_events_that_nothing_waits_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: waited.append(FakeEvent.now))
    FakeEvent.now = 0.0
    opened = bench.Bench(torch.nn.Identity(), None, torch.device("cuda"), "fp32", np.zeros(1), np.zeros(1))
    steps = []
    trainer = SimpleNamespace(bench=opened, step=steps.append)
    laps = bench.begin(trainer, [np.arange(4), np.arange(4, 8)])
    # Steps that nothing times come between the wait and the first mark: the queue is not empty there.
    assert [rows.tolist() for rows in steps] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for _ in range(2 * len(PARTS)):
        laps.mark()
    assert waited == [0.0]
    assert laps.seconds() == [0.001] * 10
    assert waited == [0.0, 11.0]


def test_a_partition_without_any_precision_of_the_config_is_drawn_as_such(tmp_path):
    document = measured("local", STEP)
    document["series"][0] |= {"points": [], "note": "tf32 is a mode of a GPU's tensor cores", "precision": "tf32"}
    write_json(tmp_path / "partition-local.json", document)
    rows, _, found = collect(tmp_path, "local")
    assert rows[0]["note"].startswith("tf32") and found["steps"] == []
    png, caption = tmp_path / "a.png", tmp_path / "a.txt"
    names = [str(tmp_path / name) for name in ("throughput.csv", "bottleneck.json")]
    plot_throughput(*names, str(png), str(caption), label="SYNTHETIC SAMPLE")
    assert png.stat().st_size > 0 and caption.read_text().startswith("Nothing was measured.")


def test_a_gpu_is_described_as_the_slice_that_torch_sees(monkeypatch):
    cuda = {
        "get_device_name": lambda device: "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "get_device_capability": lambda device: (9, 0),
        "mem_get_info": lambda device: (4 * 2**30, 10 * 2**30),
        "max_memory_allocated": lambda device: 5,
        "max_memory_reserved": lambda device: 6,
        "is_bf16_supported": lambda including_emulation: True,
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(machine, "driver_version", lambda: "570.86.15")
    told = machine.describe_machine(torch.device("cuda"))
    assert told["mig"] is True and told["memory_bytes"] == 10 * 2**30 and told["compute_capability"] == "9.0"
    assert machine.peak_memory(torch.device("cuda")) == {
        "allocated": 5, "reserved": 6, "driver": 6 * 2**30, "resident": None,
    }  # fmt: skip
    assert bench.absent_precisions(torch.device("cuda")) == {}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (7, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert bench.absent_precisions(torch.device("cuda")) == {
        "tf32": "compute capability 7.0: tf32 needs 8.0",
        "bf16": "compute capability 7.0: this GPU has no bf16",
    }


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12.2.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build",
        "550.54.15\n",
    ],
)
def test_the_driver_is_found_in_what_kernel_module_and_tool_say(text):
    assert machine._VERSION.search(text)[0] in ("535.104.05", "570.124.06", "550.54.15")


def test_a_processor_measures_what_it_has_instructions_for(monkeypatch):
    monkeypatch.setattr(bench, "cpu_flags", lambda: {"avx2", "avx512_bf16"})
    assert set(bench.absent_precisions(torch.device("cpu"))) == {"tf32", "fp16"}
    monkeypatch.setattr(bench, "cpu_flags", lambda: {"avx2"})
    assert set(bench.absent_precisions(torch.device("cpu"))) == {"tf32", "bf16", "fp16"}


def test_resident_memory_is_that_of_the_point_and_not_of_the_points_before_it():
    device = torch.device("cpu")
    machine.forget_peak(device)
    torch.ones(100 * 2**20, dtype=torch.uint8)
    large = machine.peak_memory(device)["resident"]
    machine.forget_peak(device)
    small = machine.peak_memory(device)["resident"]
    assert large - small > 50 * 2**20


def test_a_real_measurement_can_be_collected_and_drawn(measure):
    measure.run()
    rows, parts, found = collect(measure.folder, "local")
    assert list(rows[0])[:8] == CONTRACT
    assert [step["batch_size"] for step in found["steps"]] == [1, 8]
    for step in found["steps"]:
        assert sum(told["share"] for told in step["parts"].values()) == pytest.approx(1)
        assert step["parts_over_loop"] > 0 and step["apart_over_loop"] > 0
    assert [row["part"] for row in parts] == [*PARTS, *PARTS]
    png, caption = measure.folder / "a.png", measure.folder / "a.txt"
    names = [str(measure.folder / name) for name in ("throughput.csv", "bottleneck.json")]
    plot_throughput(*names, str(png), str(caption), label="SYNTHETIC SAMPLE")
    assert png.stat().st_size > 0 and "champion on local: training reaches" in caption.read_text()


def test_partitions_stand_in_one_table_in_their_order(tmp_path):
    for partition in ("thin_course", "gpu_course"):
        write_json(tmp_path / f"partition-{partition}.json", measured(partition, STEP))
    rows, _, found = collect(tmp_path, "thin_course", "gpu_course")
    assert [row["partition"] for row in rows] == ["thin_course"] * 3 + ["gpu_course"] * 3
    assert [one["partition"] for one in found["machines"]] == ["thin_course", "gpu_course"]


@pytest.mark.parametrize(
    ("changed", "largest", "bound"),
    [
        ({}, "backward", "compute"),
        ({"loading": 0.5}, "loading", "loading"),
        ({"transfer": 0.5}, "transfer", "transfer"),
        # Loading takes more than any other part, and less than computing as a whole.
        ({"loading": 0.06}, "loading", "compute"),
    ],
)
def test_the_verdict_follows_from_the_parts(tmp_path, changed, largest, bound):
    write_json(tmp_path / "partition-local.json", measured("local", {**STEP, **changed}))
    _, parts, found = collect(tmp_path, "local")
    (step,) = found["steps"]
    assert (step["largest_part"], step["bottleneck"]) == (largest, bound)
    assert f"{largest.capitalize()} takes most; the step is {bound}-bound" in step["verdict"]
    assert step["parts"]["loading"]["loop_s"] == pytest.approx({**STEP, **changed}["loading"])
    assert step["parts"]["loading"]["apart_s"] == pytest.approx({**STEP, **changed}["loading"] / 2)
    assert step["parts_over_loop"] == pytest.approx(1) and step["agrees"] is True
    assert step["apart_over_loop"] == pytest.approx(0.5)
    assert [float(row["loop_low_s"]) < float(row["loop_s"]) < float(row["loop_high_s"]) for row in parts] == [True] * 5


def test_a_step_that_costs_the_same_at_any_batch_size_is_told_from_one_that_computes(tmp_path):
    """Twice the batch in the same time: the device waits for whoever starts its kernels."""
    same, grown = (measured("local", STEP, sizes=(8, 16)) for _ in range(2))
    twice = measured("local", {part: 2 * seconds for part, seconds in STEP.items()}, sizes=(16,))
    points = grown["series"][0]["points"]
    points[:] = [point for point in points if point["batch_size"] == 8] + twice["series"][0]["points"]
    found = []
    for document in (same, grown):
        write_json(tmp_path / "partition-local.json", document)
        found.append(collect(tmp_path, "local")[2]["steps"])
    assert [[step["bottleneck"] for step in steps] for steps in found] == [["overhead"] * 2, ["compute"] * 2]
    assert [step["fixed_share"] for steps in found for step in steps] == pytest.approx([1, 1, 0, 0], abs=1e-9)
    assert "overhead-bound: 100% of it is the same at any batch size" in found[0][0]["verdict"]


@pytest.mark.parametrize(("loop_s", "agrees"), [(0.0735, True), (0.0715, False), (0.0885, True), (0.1, False)])
def test_parts_that_do_not_sum_to_the_loop_within_a_tenth_are_said_not_to(tmp_path, loop_s, agrees):
    write_json(tmp_path / "partition-local.json", measured("local", STEP, loop_s=loop_s))
    _, _, found = collect(tmp_path, "local")
    (step,) = found["steps"]
    assert step["parts_over_loop"] == pytest.approx(0.08 / loop_s)
    assert step["agrees"] is agrees and found["disagreeing"] == (not agrees)
    assert ("hold for the timed loop alone" in step["verdict"]) is not agrees


@pytest.mark.parametrize(
    ("speeds", "enough", "at"),
    [
        ({1: 10, 8: 96, 32: 100, 128: 99}, 8, 32),
        ({1: 10, 8: 94, 32: 100, 128: 96}, 32, 32),
        ({1: 10, 8: 96, 32: 100, 128: 50}, None, 32),  # it falls again
        ({1: 10, 8: 20, 32: 40, 128: 80}, None, 128),  # it still rises
        ({1: 10}, None, 1),  # one size tells nothing
    ],
)
def test_saturation_is_the_smallest_batch_within_a_twentieth_of_the_highest(speeds, enough, at):
    points = [point("loop", size, [{"loop": 2 * size / speed}] * 3) for size, speed in speeds.items()]
    gone = point("loop", 512, [], "out of memory")
    found = saturation({"model": "m", "precision": "fp32", "points": [*points, gone]}, "loop")
    assert (found["batch_size"], found["highest_at"]) == (enough, at)
    assert found["limit"] == {"batch_size": 512, "note": "out of memory"}
    assert found["gain"] == pytest.approx(max(speeds.values()) / 10)


def test_a_batch_whose_fastest_pass_is_as_fast_as_the_best_is_not_called_slower():
    passes = {8: [98, 98, 98], 32: [80, 85, 97], 128: [90, 100, 100]}  # images/s; the middle batch has a slow median
    points = [point("loop", n, [{"loop": 2 * n / speed} for speed in speeds]) for n, speeds in passes.items()]
    assert saturation({"model": "m", "precision": "fp32", "points": points}, "loop")["batch_size"] == 8
    points[1] = point("loop", 32, [{"loop": 2 * 32 / speed} for speed in (80, 85, 94)])
    assert saturation({"model": "m", "precision": "fp32", "points": points}, "loop")["batch_size"] is None


def test_saturation_of_nothing_measured_has_no_figures():
    found = saturation({"model": "m", "precision": "fp32", "points": [point("loop", 8, [], "died")]}, "loop")
    assert found["batch_size"] is found["highest"] is found["gain"] is None
    assert found["limit"] == {"batch_size": 8, "note": "died"}


def answers_of(folder: Path, *partitions: str) -> dict[str, Any]:
    collect(folder, *partitions)
    sources = {name: Source(str(folder / path), "find_bottleneck")
               for name, path in (("throughput", "throughput.csv"), ("bottleneck", "bottleneck.json"))}  # fmt: skip
    found = {name: open_evidence(source) for name, source in sources.items()}
    return benchmark_answers(found, {"benchmark": {"partitions": list(partitions)}})


def test_the_journal_says_what_was_not_measured_and_why(tmp_path):
    document = measured("gpu_course", {**STEP, "loading": 0.5}, sizes=(1, 8), loop_s=0.1)
    document |= {"device": "a GPU", "kind": "cuda", "mig": True, "memory_bytes": 5 * 2**30, "threads": 1,
                 "cpus_allowed": 4, "load_average": {"before": 0.0, "after": 0.0}}  # fmt: skip
    document["series"].append({"model": "champion", "precision": "bf16", "note": "no bf16 here", "points": []})
    write_json(tmp_path / "partition-gpu_course.json", document)
    told = answers_of(tmp_path, "gpu_course")
    assert told["batch_one"] == [
        ["thin_course", "CPU Only", "not measured in this run", ""],
        ["gpu_course", "a GPU", "champion, fp32: training 10, inference 20", "7"],
    ]
    assert told["precision_sentence"] == "Measured: fp32. Not measured: bf16 on gpu_course (no bf16 here)."
    assert "5.0 GiB (a MIG slice), driver unknown" in told["benchmark_machines"][0]
    assert "agree with it within 10 % on 0 of 2 points. Each ratio" in told["agreement_sentence"]
    assert told["verdict_sentences"][0] == "gpu_course, champion: of 2 training steps measured 2 loading-bound."
    assert told["scaling_table"][-1] == ["gpu_course", "champion", "bf16", "any", *["–"] * 4, "no bf16 here"]
    assert [row[-1] for row in told["part_table"]] == ["578% (differs)"] * 2
    assert "8.0 times the speed of the smallest batch; saturation not reached" in told["scaling_sentences"][0]


def test_the_journal_names_the_batch_that_ran_out_of_memory(tmp_path):
    document = measured("local", STEP, sizes=(8,))
    document |= {"kind": "cpu", "memory_bytes": 2**30, "load_average": {"before": 0.0, "after": 0.0}}
    for one in document["series"][0]["points"]:
        one |= {"values": [], "passes": [], "images_per_s": None, "memory": None, "note": "out of memory"}
    write_json(tmp_path / "partition-local.json", document)
    told = answers_of(tmp_path, "local")
    assert told["agreement_sentence"] == "No training step was measured, so nothing can be said of its parts."
    assert told["scaling_sentences"][0].endswith("training step: not measured at any batch size (out of memory).")
    assert "could not be measured: out of memory" in told["verdict_sentences"][0]
    assert told["part_table"] == [] and told["scaling_table"][0][-1] == "out of memory"
