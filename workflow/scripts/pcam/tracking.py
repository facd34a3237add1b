"""Runs in an MLflow experiment on SQLite, told apart by what was logged: no server, no network, no telemetry.

A run's digest covers what the training and its evaluation gave. Three things follow it without making it another run:
the config that stood when it was first logged, its figures, and the parent it stands under.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# MLflow reads these when it is imported: no telemetry, and no word about its own database on every start.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"
)

import mlflow
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from pcam.files import InputError, document_digest, file_digest, read_json
from pcam.logged_model import log_model, register
from pcam.survival import lock_target

FORMAT = 2  # of what is logged; another one logs every run anew
IDENTITY_TAG, DIGEST_TAG, FIGURES_TAG = "pcam.identity", "pcam.digest", "pcam.figures"
VALUES_TAG, SECONDS_TAG, MODEL_TAG = "pcam.values", "pcam.seconds", "pcam.model"
CONFIG, DIGEST_LENGTH = "config.json", 36  # the longest digest of a data set that MLflow takes
PAGE = 1000  # runs MLflow gives at once, and metrics it takes at once
LOCK_WAIT_S = 5.0  # for another program that writes to the database

Logged = list[tuple[str, float, int]]  # metric, value, step


@dataclass(frozen=True)
class Record:
    """One run as it stands in the tracker. `parent` is the name of another record."""

    name: str
    kind: str  # train | trial | search | champion
    params: dict[str, str]
    metrics: Logged
    tags: dict[str, str]
    artifact: str
    status: str = "FINISHED"  # or FAILED, in MLflow's words
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    weights: str | None = None  # a checkpoint to log as a model
    parent: str | None = None

    def digest(self) -> str:
        """Of all that makes it this run, the content of its files included."""
        logged = [FORMAT, self.name, self.kind, self.status, self.params, self.metrics, self.tags]
        files = [read_json(self.artifact), *map(file_digest, self.tables)]
        return document_digest([*logged, *files, self.weights is not None])


@dataclass(frozen=True)
class Tracked:
    """A record and the run that holds it; `fresh` when logged just now. seconds: what logging its values took."""

    record: Record
    digest: str
    run_id: str
    fresh: bool
    values: int
    seconds: float
    model: str | None


@dataclass(frozen=True)
class LoggedRun:
    """What the tracker knows of one run. `sidecar` is its weights.json, for kind search its recipe.json."""

    run_id: str
    name: str
    kind: str
    status: str
    config: dict[str, Any]
    settings: dict[str, Any]
    seed: int | None
    digests: dict[str, str | None]
    provenance: dict[str, Any]
    runtime: dict[str, Any]
    metrics: dict[str, float]
    sidecar: dict[str, Any]


def check_database(path: Path) -> None:
    """Raises: InputError when this MLflow cannot write to the database, with the way out."""
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = database.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
            database.execute("CREATE TABLE probe (value)")  # a read-only database refuses no earlier
            database.rollback()
    except sqlite3.Error as error:
        raise InputError(_in_words(path, error)) from None
    head = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
    if found is not None and found[0] != head:
        raise InputError(
            f"{path}: its schema is {found[0]}, MLflow {mlflow.__version__} needs {head}; upgrade an older one with "
            f"`mlflow db upgrade sqlite:///{path}`, or move it away: the next run logs everything anew from the files"
        )


def _in_words(path: Path, error: Exception) -> str:
    """One line for what SQLite says, whoever passed it on."""
    told = str(error).splitlines()[0]
    if "locked" in told:
        return f"{path}: another program holds its lock; stop that one and run again"
    if "readonly" in told or "unable to open" in told:
        return f"{path}: cannot be written to; give yourself the right, or move it away"
    return f"{path}: no database of MLflow ({told}); move it away: the next run logs everything anew from the files"


def make_folder(folder: Path) -> None:
    """Raises: InputError when it can neither be found nor made, or not be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); move what is in its way") from None
    if not os.access(folder, os.W_OK, effective_ids=True):
        raise InputError(f"{folder}: this folder cannot be written to; give yourself the right, or move it away")


def _make_database(path: Path) -> None:
    """Under another name until it is whole: MLflow refuses one that was killed while it was set up."""
    unfinished = path.with_name("mlflow.db.new")
    for left in path.parent.glob("mlflow.db.new*"):  # with SQLite's own journal
        left.unlink()
    SqlAlchemyStore(f"sqlite:///{unfinished}", str(path.parent / "artifacts")).engine.dispose()  # type: ignore[no-untyped-call]
    unfinished.rename(path)


@contextmanager
def open_client(folder: Path) -> Iterator[MlflowClient]:
    """A client for the database of `folder`. One that is not there is made: the caller then holds the folder's lock.

    Raises: InputError when the database is of another version, locked, read-only or no database, also in the block.
    """
    database = folder.resolve() / "mlflow.db"
    if strange := sorted(set("%?#") & set(str(database))):
        raise InputError(f"{database}: MLflow opens no database below a name with {strange[0]} in it; rename it")
    make_folder(folder)
    uri = f"sqlite:///{database}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        (check_database if database.exists() else _make_database)(database)
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be used ({error.strerror}); put that right") from None
    except (MlflowException, SQLAlchemyError, CommandError) as error:
        if not isinstance(error, MlflowException) or "sqlite3." in str(error):
            raise InputError(_in_words(database, error)) from None
        raise


def open_experiment(client: MlflowClient, folder: Path, name: str) -> str:
    """The experiment's id; it is made when it is not there."""
    artifacts = folder.resolve() / "artifacts"
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if found is not None and Path(found.artifact_location) != artifacts:
        # MLflow keeps absolute paths. Where the folder was moved they lead nowhere, so its content is set aside.
        client.rename_experiment(found.experiment_id, f"{name} before {folder.name} moved ({found.experiment_id})")
        found = None
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=str(artifacts)))


def log_record(client: MlflowClient, experiment: str, record: Record, digest: str, config: dict[str, Any]) -> str:
    """Log one run; the tag with the digest comes last, so that an interrupted one is logged anew."""
    tags = {**record.tags, "kind": record.kind, IDENTITY_TAG: record.name}
    run_id = str(client.create_run(experiment, run_name=record.name, tags=tags).info.run_id)
    client.log_batch(run_id, params=[Param(*item) for item in record.params.items()])
    now, started = int(time.time() * 1000), time.monotonic()
    for start in range(0, len(record.metrics), PAGE):
        page = record.metrics[start : start + PAGE]
        client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value, step in page])
    seconds = f"{time.monotonic() - started:.3f}"
    if "data_digest" in record.tags:
        source = record.tags["data_source"]
        data = Dataset(source, record.tags["data_digest"][:DIGEST_LENGTH], "local", f'{{"source": "{source}"}}')
        client.log_inputs(run_id, [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])])
    for path in (record.artifact, *record.tables):
        client.log_artifact(run_id, path)
    client.log_dict(run_id, config, CONFIG)
    ended = [RunTag(VALUES_TAG, str(len(record.metrics)))]
    if record.weights is not None:
        ended.append(RunTag(MODEL_TAG, log_model(run_id, record.weights)))
    client.set_terminated(run_id, record.status)
    client.log_batch(run_id, tags=[*ended, RunTag(SECONDS_TAG, seconds), RunTag(DIGEST_TAG, digest)])
    return run_id


def known_runs(client: MlflowClient, experiment: str) -> dict[str, dict[str, dict[str, str]]]:
    """Tags of every run in the tracker by its identity and id; runs others logged there are left alone."""
    known: dict[str, dict[str, dict[str, str]]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=PAGE, page_token=token)
        for run in page:
            if IDENTITY_TAG in run.data.tags:
                known.setdefault(run.data.tags[IDENTITY_TAG], {})[run.info.run_id] = run.data.tags
        if not (token := page.token):
            return known


def _bring_up_to_date(client: MlflowClient, run_id: str, record: Record, parent: str | None) -> dict[str, str]:
    """Figures and parent, where they changed. The run's tags."""
    tags: dict[str, str] = client.get_run(run_id).data.tags
    drawn = document_digest([[Path(path).name, file_digest(path)] for path in record.figures])
    if tags.get(FIGURES_TAG) != drawn:
        for path in record.figures:
            client.log_artifact(run_id, path, "figures")
        client.set_tag(run_id, FIGURES_TAG, drawn)
    if parent is not None and tags.get(MLFLOW_PARENT_RUN_ID) != parent:
        client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)
    return tags


def update_experiment(
    folder: Path,
    name: str,
    records: Sequence[Record],
    config: dict[str, Any],
    report: Callable[[str], None],
) -> tuple[list[Tracked], dict[str, str | None]]:
    """Bring the experiment up to date: a record that is there stays, one that changed replaces its predecessor.

    Parents come before their children. The second value is the champion in the registry: name, version, alias. One
    process at a time: others wait.

    Raises: InputError when the database cannot be used.
    """
    tracked: list[Tracked] = []
    make_folder(folder)
    with lock_target(folder, report, "logs to it as well"), open_client(folder) as client:
        experiment = open_experiment(client, folder, name)
        known, ids = known_runs(client, experiment), dict[str, str]()
        for record in records:
            digest, earlier = record.digest(), known.get(record.name, {})
            same = [run_id for run_id, tags in earlier.items() if tags.get(DIGEST_TAG) == digest][:1]
            ids[record.name] = run_id = same[0] if same else log_record(client, experiment, record, digest, config)
            tags = _bring_up_to_date(client, run_id, record, ids[record.parent] if record.parent else None)
            for outdated in earlier:
                if outdated != run_id:
                    client.delete_run(outdated)
            taken = int(tags[VALUES_TAG]), float(tags[SECONDS_TAG]), tags.get(MODEL_TAG)
            tracked.append(Tracked(record, digest, run_id, not same, *taken))
        champion = next((run for run in tracked if run.record.kind == "champion"), None)
        registered = register(client, name, champion.run_id, champion.model) if champion and champion.model else {}
    return tracked, registered


def read_run(folder: str | Path, run_id: str) -> LoggedRun:
    """A run of the tracker in `folder`, from its database and its files.

    Raises: InputError when there is no database, no such run in it, or the run was not logged by this pipeline.
    """
    database = Path(folder) / "mlflow.db"
    if not database.exists():
        raise InputError(f"{database}: no such file; run `snakemake` first, which logs every run there")
    with open_client(Path(folder)) as client:
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise InputError(f"run {run_id}: not in {database}; {Path(folder) / 'runs.json'} lists the runs") from None
    tags = run.data.tags
    if DIGEST_TAG not in tags:
        raise InputError(f"run {run_id}: {database} holds it, but not as a whole run of this pipeline; choose another")
    files = Path(folder) / "artifacts" / run_id / "artifacts"  # also right where the folder was moved
    sidecar = read_json(files / ("recipe.json" if tags["kind"] == "search" else "weights.json"))
    return LoggedRun(
        run_id=run_id,
        name=tags[IDENTITY_TAG],
        kind=tags["kind"],
        status=run.info.status,
        config=read_json(files / CONFIG),
        settings=sidecar.get("settings", {}),
        seed=sidecar.get("seed"),
        digests=sidecar.get("digests", {}),
        provenance=sidecar.get("trained_by", sidecar["provenance"]),
        runtime=sidecar.get("runtime", {}),
        metrics=dict(run.data.metrics),
        sidecar=sidecar,
    )
