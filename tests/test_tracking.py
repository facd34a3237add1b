"""The tracker holds every run once with all that belongs to it; a database that cannot be used is told in one line."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from alembic.util import CommandError
from reproduce_run import prepare
from sqlalchemy.exc import OperationalError
from track_runs import without_place
from tracked_results import CONFIG, PATCHES, PROVENANCE, RECIPE, Results, fail, write_training

from pcam.files import InputError, read_json, write_csv
from pcam.predictions import read_predictions
from pcam.reproduction import not_compared
from pcam.run_records import STEPS_LOGGED, tags_of, trial_records
from pcam.tracking import open_client, read_run


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Results that were tracked once, for tests to copy."""
    results = Results(tmp_path_factory.mktemp("logged"))
    results.first = results.track()
    return results


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    """A database that MLflow has set up, which takes it seconds."""
    folder = tmp_path_factory.mktemp("blank")
    opened(folder)
    return folder / "mlflow.db"


@pytest.fixture
def results(tmp_path, blank):
    made = Results(tmp_path)
    made.tracking.mkdir()
    shutil.copy(blank, made.tracking)
    return made


def ids(runs: list[dict]) -> dict[str, str]:
    return {run["name"]: run["run_id"] for run in runs}


def test_every_run_is_logged_with_kind_status_and_parent(logged):
    assert [(run["name"], run["kind"], run["status"], run["parent"]) for run in logged.first] == [
        ("baseline/seed-7", "train", "FINISHED", None),
        ("baseline/seed-0", "train", "FINISHED", None),
        ("search", "search", "FINISHED", None),
        ("round-0/trial-0", "trial", "FINISHED", "search"),
        ("round-0/trial-1", "trial", "FINISHED", "search"),
        ("champion", "champion", "FINISHED", None),
    ]
    found = logged.in_tracker()
    for trial in ("round-0/trial-0", "round-0/trial-1"):
        assert found[trial].data.tags["mlflow.parentRunId"] == found["search"].info.run_id
        assert not any(name.startswith("test_") for name in found[trial].data.metrics)
    assert {name: run.info.run_id for name, run in found.items()} == ids(logged.first)


def test_a_run_holds_params_tags_curves_by_epoch_and_by_step_and_its_data(logged):
    run = logged.in_tracker()["baseline/seed-7"]
    assert run.data.params == {"model": "mlp", "learning_rate": "0.003"}
    told = {"variant": "baseline", "seed": "7", "commit": "abc", "dirty": "False", "torch": "2"}
    assert told.items() <= run.data.tags.items()
    curve = logged.client().get_metric_history(run.info.run_id, "valid_roc_auc")
    assert sorted((metric.step, metric.value) for metric in curve) == [(1, 0.6), (3, 0.8)]
    steps = logged.client().get_metric_history(run.info.run_id, "steps/loss")
    assert sorted((metric.step, metric.value) for metric in steps) == [(step, 0.5 + step) for step in range(6)]
    assert run.data.metrics["test_final_f_beta"] == 0.5
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("SYNTHETIC SAMPLE", "d" * 36)
    assert "valid_final_roc_auc" not in logged.in_tracker()["baseline/seed-0"].data.metrics  # it is null


def test_a_run_holds_its_config_sidecar_tables_and_figure(logged):
    folder = logged.tracking / "artifacts" / ids(logged.first)["baseline/seed-7"] / "artifacts"
    assert read_json(folder / "config.json") == CONFIG
    assert read_json(folder / "weights.json")["seed"] == 7
    assert (folder / "figures" / "figure.png").read_bytes() == b"a picture"
    assert (folder / "history.csv").exists() and (folder / "steps.csv").exists()


def test_the_search_holds_the_value_of_each_trial(logged):
    search = logged.in_tracker()["search"]
    assert search.data.metrics == {"trial_value": 0.7, "importance/width": 0.25, "failed_trials": 1, "best_value": 0.8}
    assert search.data.tags["chosen"] == "round-0/trial-1"


def test_the_logged_champion_gives_the_predictions_of_the_files(logged, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])  # MLflow puts the model's own code in front, for good
    with open_client(logged.tracking):
        model = mlflow.pyfunc.load_model("models:/pcam@champion")
    assert np.array_equal(model.predict(PATCHES), read_predictions(logged.predicted).probabilities)
    assert "uint8" in str(model.metadata.signature.inputs) and "(-1, 96, 96, 3)" in str(model.metadata.signature.inputs)
    with pytest.raises(mlflow.exceptions.MlflowException, match="schema"):
        model.predict(PATCHES.astype(np.float32))


def test_the_logged_model_brings_its_code_and_holds_no_pickle(logged, tmp_path):
    checkpoints = (logged.tracking / "artifacts" / "models").glob("*/artifacts/artifacts/weights.pt")
    models = sorted(path.parents[1] for path in checkpoints)
    assert len(models) == 3  # two runs and the champion; trials keep their weights in their own folders
    assert not [path for path in models[0].rglob("*") if path.suffix in (".pkl", ".pickle")]
    script = (
        "import sys, numpy as np, mlflow.pyfunc; model = mlflow.pyfunc.load_model(sys.argv[1]);"
        "import pcam.checkpoint as c; assert '/code/' in c.__file__, c.__file__;"
        "print(model.predict(np.zeros((1, 96, 96, 3), np.uint8)).dtype)"
    )
    alone = [sys.executable, "-c", script, str(models[0])]
    done = subprocess.run(alone, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "float64", done.stderr[-2000:]


def test_tracking_twice_adds_nothing_and_says_the_same(results):
    first = results.track()
    document = results.document()
    versions = results.client().search_model_versions("name = 'pcam'")
    assert results.track() == first and results.document() == document
    assert {name: run.info.run_id for name, run in results.in_tracker().items()} == ids(first)
    assert len(results.client().search_model_versions("name = 'pcam'")) == len(versions) == 1
    (results.tracking / "runs.json").unlink()
    assert results.track() == first
    assert document["logged"]["values"] == sum(run["metrics"] for run in first) > 0
    assert document["registered"] == {"name": "pcam", "version": "1", "alias": "champion"}


def test_a_run_that_changed_takes_the_place_of_its_predecessor_and_the_others_stay(results):
    first = ids(results.track())
    write_training(results.trials[0], 7, settings={**RECIPE, "learning_rate": 0.01})
    second = ids(results.track())
    assert {name for name in first if first[name] != second[name]} == {"round-0/trial-0"}
    assert {name: run.info.run_id for name, run in results.in_tracker().items()} == second


def test_another_search_takes_its_trials_along(results):
    results.track()
    write_csv(results.root / "search/trials.csv", ("state", "value"), [("COMPLETE", 0.75)])
    second = ids(results.track())
    found = results.in_tracker()
    assert found["round-0/trial-1"].data.tags["mlflow.parentRunId"] == second["search"]


def test_another_config_or_figure_makes_no_other_run(results):
    first = results.track()
    results.config = {"seeds": [1]}
    results.figure.write_bytes(b"another picture")
    assert results.track() == first
    folder = results.tracking / "artifacts" / first[0]["run_id"] / "artifacts"
    assert read_json(folder / "config.json") == CONFIG
    assert (folder / "figures" / "figure.png").read_bytes() == b"another picture"


def test_a_run_that_was_killed_while_it_was_logged_is_logged_anew(results):
    first = ids(results.track())
    results.client().delete_tag(first["search"], "pcam.digest")
    second = ids(results.track())
    assert {name for name in first if first[name] != second[name]} == {"search"}
    assert {name: run.info.run_id for name, run in results.in_tracker().items()} == second


def test_another_champion_is_a_new_version_and_takes_the_alias(results):
    results.track()
    results.choose_champion(0)
    runs = ids(results.track())
    assert results.document()["registered"]["version"] == "2"
    version = results.client().get_model_version_by_alias("pcam", "champion")
    assert version.run_id == runs["champion"]
    assert len(results.client().search_model_versions("name = 'pcam'")) == 2


def test_an_alias_that_was_taken_away_comes_back(results):
    results.track()
    results.client().delete_registered_model_alias("pcam", "champion")
    results.track()
    assert results.client().get_model_version_by_alias("pcam", "champion").version == 1


def test_a_failed_trial_is_a_failed_run_with_its_reason_and_settings_and_without_scores(results):
    fail(results.trials[0])
    first = results.track()
    assert [run["status"] for run in first].count("FAILED") == 1
    failed = results.in_tracker()["round-0/trial-0"]
    assert (failed.info.status, failed.data.tags["failure"]) == ("FAILED", "died by SIGKILL")
    assert failed.data.params["learning_rate"] == "0.003" and failed.data.metrics == {}
    assert "weights_digest" not in failed.data.tags
    assert results.track() == first

    # Tried again, and finished: the failed run is gone.
    write_training(results.trials[0], 7)
    assert {run["status"] for run in results.track()} == {"FINISHED"}
    assert {run.info.status for run in results.in_tracker().values()} == {"FINISHED"}


def test_a_long_run_is_logged_at_evenly_spaced_steps(results):
    write_training(results.trials[0], 7, steps=2 * STEPS_LOGGED + 2)
    (record, _) = trial_records([str(folder) for folder in results.trials])
    steps = [step for name, _, step in record.metrics if name == "steps/loss"]
    assert steps == list(range(0, 2 * STEPS_LOGGED + 2, 3))


def test_the_provenance_of_a_run_is_that_of_its_training():
    sidecar = {
        "digests": {"weights": "w", "data": "d", "settings": "s", "code": "c"},
        "data_source": "SYNTHETIC SAMPLE",
        "seed": 1,
        "provenance": {**PROVENANCE, "commit": None},
        "trained_by": {**PROVENANCE, "commit": "of the training", "dirty": True},
    }
    assert tags_of(sidecar)["commit"] == "of the training"
    del sidecar["trained_by"]
    assert "commit" not in tags_of(sidecar)


def test_a_logged_config_holds_no_password_and_no_run_to_rebuild():
    config = {"seeds": [7], "run": "r", "tracking": {"experiment": "pcam", "uri": "http://user:secret@host"}}
    assert without_place(config) == {"seeds": [7], "run": None, "tracking": {"experiment": "pcam", "uri": None}}
    assert config["tracking"]["uri"], "the config of the workflow was changed"


def test_a_tracker_whose_experiment_was_deleted_can_be_moved(results, tmp_path):
    first = ids(results.track())
    results.client().delete_experiment(results.client().get_experiment_by_name("pcam").experiment_id)
    moved = Results(tmp_path / "elsewhere")
    shutil.move(results.tracking, moved.tracking)
    moved.track()
    assert set(moved.in_tracker()) == set(first)


def test_a_tracker_that_was_moved_still_gives_its_runs_and_logs_on(results, tmp_path):
    first = ids(results.track())
    moved = Results(tmp_path / "elsewhere")
    shutil.move(results.tracking, moved.tracking)
    assert read_run(moved.tracking, first["baseline/seed-7"]).seed == 7
    moved.track()
    assert set(moved.in_tracker()) == set(first)


# --- reading a run back ----------------------------------------------------------------------------------------------


def test_a_run_is_read_back_whole(logged):
    run = read_run(logged.tracking, ids(logged.first)["champion"])
    assert (run.name, run.kind, run.status, run.seed) == ("champion", "champion", "FINISHED", 7)
    assert run.config == CONFIG and run.settings == RECIPE
    assert run.provenance["commit"] == "of the training" and run.runtime["versions"]["torch"] == "2"
    assert run.digests["data"] == "d" * 64 and run.digests["weights"]
    assert run.metrics["valid_final_threshold"] == 0.4
    assert run.sidecar["temperature"] == 1.5
    assert read_run(logged.tracking, ids(logged.first)["search"]).kind == "search"


def test_what_is_no_run_of_ours_is_told_in_one_line(logged, tmp_path):
    with pytest.raises(InputError, match=r"run 0{32}: not in .*mlflow\.db; .*runs\.json lists the runs"):
        read_run(logged.tracking, "0" * 32)
    with pytest.raises(InputError, match=r"mlflow\.db: no such file; run `snakemake` first"):
        read_run(tmp_path, "0" * 32)
    foreign = logged.client().create_run("0").info.run_id
    with pytest.raises(InputError, match="not as a whole run of this pipeline"):
        read_run(logged.tracking, foreign)


def test_a_logged_metric_that_the_code_no_longer_has_is_named():
    logged = {"valid": {"roc_auc": 0.9, "gini": 0.8}, "test": {"roc_auc": 0.7}}
    assert not_compared(logged, {"valid": {"roc_auc": 0.9}}) == ["valid_final_gini", "test_final_roc_auc"]


def test_an_old_rebuild_that_cannot_be_removed_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "rebuilt").mkdir()

    def refuse(path, *of, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(InputError, match=r"rebuilt: cannot be removed \(Permission denied\); remove it and run again"):
        prepare(tmp_path, tmp_path / "data", {}, {})


# --- databases that cannot be used -----------------------------------------------------------------------------------


@contextmanager
def as_nobody():
    """Rights count for nothing while one is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def tracker(logged):
    """A copy of a tracker in a folder that everyone may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder) / "tracking"
        copy.mkdir()
        shutil.copy(logged.tracking / "mlflow.db", copy)
        yield copy


def opened(folder: Path) -> None:
    with open_client(folder) as client:
        client.search_experiments()


def test_a_sound_database_is_opened(tracker):
    opened(tracker)


@pytest.mark.parametrize("revision", ["0a8213491aaa", "of a later MLflow"])
def test_a_database_of_another_mlflow_is_told_in_one_line(tracker, revision):
    with closing(sqlite3.connect(tracker / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()
    with pytest.raises(InputError, match=rf"mlflow\.db: its schema is {revision}, MLflow .* move it away"):
        opened(tracker)


def test_a_locked_database_is_told_in_one_line(tracker, monkeypatch):
    monkeypatch.setattr("pcam.tracking.LOCK_WAIT_S", 0.1)
    with closing(sqlite3.connect(tracker / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match=r"mlflow\.db: another program holds its lock; stop that one"):
            opened(tracker)
    opened(tracker)


def test_a_database_that_is_locked_in_the_middle_is_told_in_one_line(tracker):
    error = mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database is locked\n[SQL: …]")
    with pytest.raises(InputError, match="another program holds its lock"), open_client(tracker):
        raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs.csv"), r"runs\.csv: cannot be used \(No space left on device\)"),
        (OperationalError("SELECT", {}, sqlite3.OperationalError("database is locked")), "another program holds"),
        (CommandError("Can't locate revision identified by 'x'"), "no database of MLflow .* move it away"),
    ],
)
def test_what_the_layers_below_mlflow_say_is_told_in_one_line(tracker, error, told):
    with pytest.raises(InputError, match=told) as caught, open_client(tracker):
        raise error
    assert "\n" not in str(caught.value)


MAKE = """
import os, signal, sys
sys.path[:] = {path!r}
from pathlib import Path
from pcam.tracking import open_client
from mlflow.store.db import utils
utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)
with open_client(Path({folder!r})):
    pass
"""


def test_one_killed_while_it_makes_the_database_leaves_none(tmp_path):
    script = MAKE.format(path=sys.path, folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "mlflow.db.new").exists() and not (tmp_path / "mlflow.db").exists()
    opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_read_only_database_or_folder_is_told_in_one_line(tracker):
    database = tracker / "mlflow.db"
    tracker.chmod(0o777)
    database.chmod(0o444)
    with as_nobody(), pytest.raises(InputError, match=r"mlflow\.db: cannot be written to; give yourself the right"):
        opened(tracker)
    tracker.chmod(0o555)
    with as_nobody(), pytest.raises(InputError, match="tracking: this folder cannot be written to"):
        opened(tracker)
    with as_nobody(), pytest.raises(InputError, match=r"below: cannot be made \(Permission denied\)"):
        opened(tracker / "below")


@pytest.mark.parametrize("letter", ["%", "?", "#"])
def test_a_folder_that_mlflow_cannot_name_is_told_in_one_line(tmp_path, letter):
    with pytest.raises(InputError, match="rename it"), open_client(tmp_path / f"50{letter}41" / "tracking"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database\n" * 100)
    with pytest.raises(InputError, match=r"mlflow\.db: no database of MLflow .* move it away"):
        opened(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(InputError, match="a_file: cannot be made"):
        opened(tmp_path / "a_file")


# --- two at a time ---------------------------------------------------------------------------------------------------


TRACK = """
import os, signal, sys
sys.path[:] = {path!r}
import pcam.tracking
from tracked_results import Results
from pathlib import Path
if {killed}:
    pcam.tracking.log_model = lambda *of: os.kill(os.getpid(), signal.SIGKILL)
Results(Path({root!r}), write=False).track()
"""


def start_tracking(results: Results, killed: bool = False) -> subprocess.Popen[bytes]:
    script = TRACK.format(path=sys.path, root=str(results.root), killed=killed)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_two_at_a_time_log_every_run_once(tmp_path):
    results = Results(tmp_path)  # without a database: the first one makes it
    processes = [start_tracking(results) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert set(results.in_tracker()) == set(ids(results.document()["runs"]))
    assert len(results.client().search_model_versions("name = 'pcam'")) == 1


@pytest.mark.slow
def test_one_killed_in_the_middle_leaves_nothing_half_logged(results):
    assert start_tracking(results, killed=True).wait() == -signal.SIGKILL
    (half,) = results.in_tracker()
    assert half == "baseline/seed-7"
    assert set(ids(results.track())) == set(results.in_tracker())
    assert {run.info.status for run in results.in_tracker().values()} == {"FINISHED"}
