"""Passes over all patches, cut into shards: each gives the bytes of one job, whatever the number of shards is."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audit_data import tissue
from conftest import ROOT
from embed_patches import embed_patches
from extract_features import extract_features
from gather_arrays import gather_arrays
from gather_survey import gather_survey
from gather_tables import gather_tables, name_devices
from measure_attributes import measure_attributes
from predict_seed import predict_seed
from repository import write_checkpoint
from survey_patches import survey_patches
from test_config import CONFIG

from bench import cost_table
from pcam.evidence import _HEADER
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, read_csv, write_csv
from pcam.hdf5 import write_patches
from pcam.memory import PREDICT_BATCH
from pcam.needs import AUDIT_BYTES, estimate_hours, estimate_room
from pcam.planned import Job as PlannedJob
from pcam.settings import read_config
from pcam.shards import read_rows, shard_rows
from workflow import planned_jobs, snakemake, succeeded

SHARDS = (1, 2, 8)
N = 3 * PREDICT_BATCH + 9  # four batches, the last one short: of 8 shards, half are empty
ONE_JOB = {"survey_patches", "extract_features", "measure_attributes", "embed_patches", "predict_seed",
           "predict_champion"}  # fmt: skip


def items(shards: int) -> list[str]:
    return [f"{k}-of-{shards}" for k in range(1, shards + 1)]


@pytest.mark.parametrize("unit", [1, PREDICT_BATCH])
@pytest.mark.parametrize("shards", [1, 2, 3, 8, 11])
def test_shards_hold_every_row_once_in_order_and_are_cut_at_units(shards: int, unit: int) -> None:
    for n in (0, 1, 63, 64, 65, 500, 32768):
        cut = [shard_rows(item, n, unit) for item in items(shards)]
        assert [row for rows in cut for row in rows] == list(shard_rows(None, n, unit)) == list(range(n))
        assert all(rows.start % unit == 0 or not rows for rows in cut)
        units = [-(-len(rows) // unit) for rows in cut]
        assert max(units) - min(units) <= 1
    assert shard_rows("3-of-8", 512_000, PREDICT_BATCH) == range(128_000, 192_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three x files of several types, a store with its table, and a checkpoint."""
    folder = tmp_path_factory.mktemp("shards")
    for split, n, kind in (("train", 31, np.float32), ("valid", 5, np.uint8), ("test", 13, np.uint8)):
        x = tissue(n, n).astype(kind)
        if kind is np.float32:
            x[3, 0, 0, 0], x[20] = np.nan, 7
        write_patches(folder / pcam_filename(split, "x.h5"), x)
    np.save(folder / "store.npy", tissue(N, 0))
    # Labels, one of them not known.
    write_csv(
        folder / "rows.csv", ("row", "label", "slide"), [(2 * i, "" if i == 70 else i % 2, "a,b") for i in range(N)]
    )
    write_checkpoint(folder / "weights.pt")
    return folder


def tree(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])}


Job = Callable[[Path, str, str | None], None]


def survey(files: Path, out: str, shard: str | None) -> None:
    x_files = {split: str(files / pcam_filename(split, "x.h5")) for split in FILE_SPLITS}
    survey_patches(x_files, out, processes=1, shard=shard)


def features(files: Path, out: str, shard: str | None) -> None:
    extract_features(str(files / pcam_filename("train", "x.h5")), out, processes=1, shard=shard)


def attributes(files: Path, out: str, shard: str | None) -> None:
    measure_attributes(str(files / "store.npy"), out, shard=shard)


def embeddings(files: Path, out: str, shard: str | None) -> None:
    embed_patches(str(files / "weights.pt"), str(files / "store.npy"), out, threads=1, shard=shard)


def predictions(files: Path, out: str, shard: str | None) -> None:
    names = ("weights.pt", "store.npy", "rows.csv")
    predict_seed(*(str(files / name) for name in names), out, threads=1, shard=shard)


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize(
    ("job", "gather", "suffix"),
    [
        (survey, gather_survey, ""),
        (features, gather_arrays, ".npy"),
        (attributes, gather_arrays, ".npy"),
        (embeddings, gather_arrays, ".npy"),
        (predictions, gather_tables, ".csv"),
    ],
)
def test_shards_gathered_are_the_bytes_of_one_job(
    files: Path, tmp_path: Path, job: Job, gather: Callable[[list[str], str], None], suffix: str, shards: int
) -> None:
    whole, gathered = tmp_path / f"whole{suffix}", tmp_path / f"gathered{suffix}"
    job(files, str(whole), None)
    parts = [str(tmp_path / f"{item}{suffix}") for item in items(shards)]
    for item, part in zip(items(shards), parts, strict=True):
        job(files, part, item)
    gather(parts, str(gathered))
    assert tree(gathered) == {name.replace("whole", "gathered"): content for name, content in tree(whole).items()}
    if shards > 1:
        assert list(tree(Path(parts[0])).values()) != list(tree(whole).values())
        gather(parts[::-1], str(gathered))  # the order counts, so the comparison above can fail
        assert tree(gathered) != {name.replace("whole", "gathered"): c for name, c in tree(whole).items()}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("job", "module"), [(predictions, "pcam.training"), (embeddings, "embed_patches")])
def test_every_batch_of_a_shard_is_one_of_the_whole(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job, module: str
) -> None:
    seen: list[bytes] = []
    normalise = sys.modules[module].normalise  # type: ignore[attr-defined]

    def listened(batch, preprocessing):
        seen.append(batch.numpy().tobytes())
        return normalise(batch, preprocessing)

    monkeypatch.setattr(f"{module}.normalise", listened)
    job(files, str(tmp_path / "whole"), None)
    whole, seen[:] = list(seen), []
    for item in items(3):
        job(files, str(tmp_path / item), item)
    assert seen == whole and len(whole) == 4


def test_a_table_gives_some_of_its_lines_and_tells_how_many_it_has(files: Path, tmp_path: Path) -> None:
    path = files / "rows.csv"
    lines, n = read_rows(path, ("row", "label"), range(60, 75))
    assert (lines, n) == (read_csv(path)[60:75], N)
    assert read_rows(path, ("row",), range(0)) == ([], N)
    with pytest.raises(InputError, match="column 'group' is missing; it holds row, label, slide"):
        read_rows(path, ("row", "group"), range(3))
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "none.csv", ("row",), range(3))
    (tmp_path / "bytes.csv").write_bytes(b"row\n\xff\n")
    with pytest.raises(InputError, match="not a CSV file"):
        read_rows(tmp_path / "bytes.csv", ("row",), range(3))


def test_a_cell_with_a_line_break_is_one_row(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", ("row", "slide"), [(0, "a\nb"), (1, "c")])
    assert read_rows(tmp_path / "rows.csv", ("row",), range(1, 2)) == ([{"row": "1", "slide": "c"}], 2)


def test_more_shards_than_patches_are_refused_where_a_shard_cannot_be_empty(files: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="config: shards: too many for 49 patches; set 49 at most"):
        survey(files, str(tmp_path / "survey"), "1-of-50")
    assert not (tmp_path / "survey").exists()


def test_a_shard_that_is_missing_damaged_or_foreign_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    out, names = tmp_path / "out", [str(tmp_path / name) for name in ("one", "two")]
    for gather in (gather_arrays, gather_tables, gather_survey):
        with pytest.raises(InputError, match=r"one.*(no such file|No such file)"):
            gather(names, str(out))
    (tmp_path / "one").write_text("row,logit\n1,2\n")
    (tmp_path / "two").write_text("row\n1\n")
    with pytest.raises(InputError, match=r"two: its header is not that of .*one"):
        gather_tables(names, str(out))
    with pytest.raises(InputError, match="one: not an array"):
        gather_arrays(names, str(out))
    for name, columns in zip(names, (3, 4), strict=True):
        with Path(name).open("wb") as handle:
            np.save(handle, np.zeros((2, columns), np.float32))
    with pytest.raises(InputError, match=r"two: holds float32 \(2, 4\), not what .*one holds"):
        gather_arrays(names, str(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_table_of_shards_names_each_device_that_computed_rows(tmp_path: Path) -> None:
    header = "# predict_champion_shard | split=test | commit abc | code 0123 | "
    parts, logs = [], []
    for name, rows, devices in (("1", "", ["CPU 1"]), ("2", "1,2\n", ["CPU 1", "GPU 1"]), ("3", "3,4\n", ["CPU 2"]),
                                ("4", "5,6\n", ["CPU 2"])):  # fmt: skip
        parts.append(tmp_path / f"{name}.csv")
        parts[-1].write_text(f"row,logit\n{rows}")
        logs.append(tmp_path / f"{name}.log")
        logs[-1].write_text("".join(f"{header}{device}\n" for device in devices) + "# ended after 1 s\n")
    parts, logs = [[str(path) for path in paths] for paths in (parts, logs)]
    assert name_devices(parts, logs) == "GPU 1 and CPU 2"
    assert name_devices(parts[:1], logs[:1]) is None
    Path(logs[2]).unlink()
    assert name_devices(parts[2:3], logs[2:3]) == "unknown device"


def test_the_hours_of_shards_rest_on_as_many_shards(tmp_path: Path) -> None:
    for name, seconds in (("1-of-2", 1800), *((f"{k}-of-8", 450) for k in range(1, 9))):
        path = tmp_path / "benchmarks" / "extract_features_shard" / "train" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    jobs = [PlannedJob("extract_features_shard", {}, False) for _ in range(8)]
    for shards, hours in ((8, 1.0), (2, 4.0)):
        told = estimate_hours(jobs, read_config({**CONFIG, "shards": shards}), 100, tmp_path)
        assert told.hours == hours


def test_with_shards_the_same_files_are_made_and_with_one_nothing_is_scattered(tmp_path: Path) -> None:
    plans = {}
    for shards in (1, 8):
        # --config is refused between --configfile and the targets without an option of its own.
        plans[shards] = planned_jobs(succeeded(snakemake(tmp_path, "--dry-run", "--config", f"shards={shards}")))
    rules = {shards: {job.rule for job in jobs} for shards, jobs in plans.items()}
    gathers = {"gather_survey", "gather_arrays", "gather_tables"}
    assert rules[1] >= ONE_JOB and not rules[1] & {*gathers, *(f"{rule}_shard" for rule in ONE_JOB)}
    assert rules[8] - rules[1] == {*gathers, *(f"{rule}_shard" for rule in ONE_JOB)}
    assert rules[1] - rules[8] == ONE_JOB
    made = {shards: {out: job for job in jobs for out in job.outputs} for shards, jobs in plans.items()}
    parts = {out for out in made[8] if "/shards/" in out}
    assert set(made[8]) - parts == set(made[1])
    scattered = sum(job.rule in ONE_JOB for job in plans[1])
    assert len(parts) == 8 * scattered and sum(job.rule in gathers for job in plans[8]) == scattered
    for out, job in made[8].items():
        if job.rule in gathers:  # all parts of its own, in order
            assert [re.search(r"\d+-of-8", path)[0] for path in job.inputs] == items(8), out  # type: ignore[index]
        elif out not in parts:
            assert job.inputs == made[1][out].inputs, out


def test_each_shard_of_the_costs_stays_below_half_its_walltime() -> None:
    assert cost_table.BATCH == PREDICT_BATCH
    profile = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    for rule, on in (("survey_patches", "core"), ("extract_features", "core"), ("measure_attributes", "core"),
                     ("predict_seed", "GPU")):  # fmt: skip
        minutes = re.search(rf"  {rule}_shard: \?\w+\((\d+), ", profile)
        assert minutes and cost_table.LONGEST_H[on] == int(minutes[1]) / 60 / 2, rule
    for n in cost_table.SIZES:
        of = cost_table.shards(n)
        spent = {(one.name, one.on): one.hours(n) / of / cost_table.LONGEST_H[one.on] for one in cost_table.scattered()}
        of_cores = max(
            share for (name, on), share in spent.items() if on == "core" and name not in ("predictions", "embeddings")
        )
        assert max(of_cores, spent["predictions", "GPU"]) <= 1 and (of == 1 or of_cores * of / (of - 1) > 1)
        assert f"`shards: {of}`" in cost_table.render()


def test_the_room_on_disk_counts_what_shards_keep_until_they_are_gathered() -> None:
    patches = {"train": 70, "valid": 20, "test": 10}
    room = {rule: estimate_room(read_config(CONFIG), patches, [], [PlannedJob(rule, {}, False)])[0].needed
            for rule in ("survey_patches", "gather_survey", "audit_poison")}  # fmt: skip
    assert room == {"survey_patches": 100 * AUDIT_BYTES, "gather_survey": 200 * AUDIT_BYTES, "audit_poison": 0}


@pytest.mark.slow
def test_a_finished_run_keeps_its_bytes_when_its_passes_are_made_again_in_shards(
    tmp_path: Path, copy_tiny_run: Callable[[Path], Path]
) -> None:
    run = copy_tiny_run(tmp_path / "run")
    data = "data/sample"
    targets = [f"{data}/survey", f"{data}/features/test.npy", f"{data}/attributes/test.npy",
               f"{data}/embeddings/test.npy", "results/predict/baseline/seed-0/test.csv",
               "results/champion/predict/test.csv"]  # fmt: skip
    before = {target: tree(run / target) for target in targets}
    for target in targets:
        for name in before[target]:
            (run / target / name if (run / target).is_dir() else run / target).unlink()
    only = [*(f"{rule}_shard" for rule in ONE_JOB), "gather_survey", "gather_arrays", "gather_tables"]
    asked = ("--config", "shards=2", "--allowed-rules", *only, "--", *targets)
    succeeded(snakemake(run, *asked))
    assert {target: tree(run / target) for target in targets} == before
    assert not [path for path in (run / data / "shards").rglob("*") if path.is_file()]  # parts go once gathered
    # What the documents take the origin of predictions from.
    log = run / "results" / "logs" / "gather_tables" / "champion" / "predict" / "test.log"
    assert _HEADER.match(log.read_text().splitlines()[0])
    assert "Nothing to be done" in succeeded(snakemake(run, *asked))
