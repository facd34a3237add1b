"""Runs in an MLflow experiment on SQLite, told apart by what was logged: no server, no network, no telemetry."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# MLflow reads these when it is imported: no telemetry, and no word about its own database on every start.
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING")

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from pcam.files import document_digest, read_json

IDENTITY_TAG, DIGEST_TAG = "pcam.identity", "pcam.digest"
PAGE = 1000  # runs MLflow gives at once, and metrics it takes at once

Logged = list[tuple[str, float, int]]  # metric, value, step


@dataclass(frozen=True)
class Record:
    """One run as it stands in the tracker."""

    name: str
    kind: str  # train | trial | champion
    params: dict[str, str]
    metrics: Logged
    tags: dict[str, str]
    artifact: str
    status: str = "FINISHED"  # or FAILED, in MLflow's words

    def digest(self) -> str:
        """Of all that is logged, the artifact's content included."""
        logged = [self.name, self.kind, self.status, self.params, self.metrics, self.tags, read_json(self.artifact)]
        return document_digest(logged)


def open_experiment(folder: Path, name: str) -> tuple[MlflowClient, str]:
    """The experiment in the database of `folder`, made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    database, artifacts = folder.resolve() / "mlflow.db", folder.resolve() / "artifacts"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    found = client.get_experiment_by_name(name)
    if found is not None and Path(found.artifact_location) != artifacts:
        # MLflow keeps absolute paths. Where the folder was moved they lead nowhere, so its content is set aside.
        client.rename_experiment(found.experiment_id, f"{name} before {folder.name} moved ({found.experiment_id})")
        found = None
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return client, found.experiment_id if found else client.create_experiment(name, artifact_location=str(artifacts))


def log_record(client: MlflowClient, experiment: str, record: Record, digest: str) -> str:
    """Log one run; the tag with the digest comes last, so that an interrupted one is logged anew."""
    tags = {**record.tags, "kind": record.kind, IDENTITY_TAG: record.name}
    run_id = client.create_run(experiment, run_name=record.name, tags=tags).info.run_id
    client.log_batch(run_id, params=[Param(*item) for item in record.params.items()])
    for start in range(0, len(record.metrics), PAGE):
        page = record.metrics[start : start + PAGE]
        client.log_batch(run_id, metrics=[Metric(name, value, 0, step) for name, value, step in page])
    client.log_artifact(run_id, record.artifact)
    client.set_terminated(run_id, record.status)
    client.log_batch(run_id, tags=[RunTag(DIGEST_TAG, digest)])
    return str(run_id)


def known_runs(client: MlflowClient, experiment: str) -> dict[str, dict[str, str]]:
    """Digest of every run in the tracker by its identity and id; runs others logged there are left alone."""
    known: dict[str, dict[str, str]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=PAGE, page_token=token)
        for run in page:
            if IDENTITY_TAG in run.data.tags:
                known.setdefault(run.data.tags[IDENTITY_TAG], {})[run.info.run_id] = run.data.tags.get(DIGEST_TAG, "")
        if not (token := page.token):
            return known


@dataclass(frozen=True)
class Tracked:
    """A record and the run that holds it; `fresh` when it was logged just now."""

    record: Record
    digest: str
    run_id: str
    fresh: bool


def update_experiment(folder: Path, name: str, records: Sequence[Record]) -> list[Tracked]:
    """Bring the experiment up to date: a record that is there stays, one that changed replaces its predecessor."""
    client, experiment = open_experiment(folder, name)
    known = known_runs(client, experiment)
    tracked = []
    for record in records:
        digest, earlier = record.digest(), known.get(record.name, {})
        same = [run_id for run_id, other in earlier.items() if other == digest][:1]
        run_id = same[0] if same else log_record(client, experiment, record, digest)
        for outdated in earlier:
            if outdated != run_id:
                client.delete_run(outdated)
        tracked.append(Tracked(record, digest, run_id, fresh=not same))
    return tracked
