"""Epochs of a training sent to an MLflow server while it runs, from a thread of its own.

A server that is down, slow or dies costs one line and a few times `timeout_s`, never the training and never a bit.
"""

import importlib
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from pcam.files import TrainingFailed

LIVE_TAG = "pcam.live"
FAILURES = 2  # after which the server is left alone
WAITING = 1000  # most epochs that wait to be sent; what comes then is left out


@dataclass(frozen=True)
class Live:
    """The server, and under what name a training reports to it."""

    uri: str
    experiment: str
    timeout_s: float
    name: str


def live_of(tracking: Mapping[str, Any], name: str) -> Live | None:
    """Of the config's part `tracking`; None where no server is named."""
    if tracking["uri"] is None:
        return None
    return Live(tracking["uri"], tracking["experiment"], tracking["timeout_s"], name)


class LiveLog:
    """Sends rows of history to one run of the server. `key` tells this training: a run that has it already goes on."""

    def __init__(
        self,
        live: Live,
        key: str,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        columns: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self.live, self.key, self.params, self.tags = live, key, params, tags
        self.columns, self.report = columns, report
        # One try, and no longer than told: MLflow's own are five of two minutes. It takes whole seconds.
        os.environ.update(
            MLFLOW_HTTP_REQUEST_TIMEOUT=str(math.ceil(live.timeout_s)),
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_LOGGING_LEVEL="ERROR",
        )
        # Here and not above: the import takes seconds, which a training without a server need not spend.
        importlib.import_module("mlflow.tracking")
        self.run_id: str | None = None
        self.unsent: list[tuple[int, Sequence[float]]] = []  # with the time each came
        self.known: set[int] = set()  # epochs that an earlier process sent
        self.status, self.failure = "FINISHED", ""
        self.given_up = False
        self.rows: queue.Queue[tuple[int, Sequence[float]] | None] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    @cached_property
    def client(self) -> Any:
        """Made by the thread that sends: whatever is wrong with the address is caught there."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.live.uri)

    def epoch(self, row: Sequence[float]) -> None:
        """Hand over a row of history; never waits."""
        if not self.given_up and not self.rows.full():
            self.rows.put_nowait((int(time.time() * 1000), row))

    def close(self, failure: str | None = None) -> None:
        """Send the rest and end the run; `failure` says why the training failed."""
        if failure is not None:
            self.status, self.failure = "FAILED", failure
        if not self.rows.full():
            self.rows.put_nowait(None)
        self.thread.join((FAILURES + 1) * self.live.timeout_s)
        if self.thread.is_alive():
            self._give_up("it is too slow")

    def _work(self) -> None:
        failures, ended = 0, False
        while not self.given_up:
            if not ended:
                row = self.rows.get()
                ended = row is None
                if row is not None:
                    self.unsent.append(row)
            try:
                self._send(ended)
            except Exception as error:  # whatever goes wrong with a server, the training must not
                failures += 1
                if failures == FAILURES:
                    told = (str(error).splitlines() or [type(error).__name__])[0]
                    self._give_up(told.replace(self.live.uri, "it")[:160])
            else:
                failures = 0
                if ended:
                    return

    def _give_up(self, reason: str) -> None:
        if not self.given_up:
            self.given_up = True
            try:
                place = urlsplit(self.live.uri).netloc.rpartition("@")[2]  # without a password
            except ValueError:
                place = "the address in tracking: uri"
            self.report(
                f"warning: the MLflow server at {place} is left alone ({reason}); the training goes on, and its files "
                "hold everything"
            )

    def _send(self, ended: bool) -> None:
        from mlflow.entities import Metric

        if self.run_id is None:
            self.run_id = self._begin()
        values = [
            Metric(name, value, came, int(row[0]))
            for came, row in self.unsent
            if int(row[0]) not in self.known
            for name, value in zip(self.columns[1:], row[1:], strict=True)
            if math.isfinite(value)
        ]
        if values:
            self.client.log_batch(self.run_id, metrics=values)
        self.unsent.clear()
        if ended:
            if self.failure:
                self.client.set_tag(self.run_id, "failure", self.failure)
            self.client.set_terminated(self.run_id, self.status)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.live.experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(self.live.experiment))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._experiment()  # another training was quicker

    def _begin(self) -> str:
        """The run of this training: the one that an earlier process or try began, else a new one."""
        from mlflow.entities import Param

        experiment = self._experiment()
        earlier = self.client.search_runs([experiment], f"tags.`{LIVE_TAG}` = '{self.key}'")
        if earlier:
            run_id = str(earlier[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            histories = [self.client.get_metric_history(run_id, column) for column in self.columns[1:]]
            self.known = {metric.step for history in histories for metric in history}
        else:
            tags = {name: str(value) for name, value in self.tags.items() if value is not None}
            run = self.client.create_run(experiment, tags={**tags, LIVE_TAG: self.key}, run_name=self.live.name)
            run_id = str(run.info.run_id)
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in self.params.items()])
        return run_id


@contextmanager
def reporting(log: LiveLog | None) -> Iterator[Callable[[Sequence[float]], None]]:
    """What to call with each row of history; the run on the server ends as the block does."""
    if log is None:
        yield lambda row: None
        return
    try:
        yield log.epoch
    except TrainingFailed as error:
        log.close(str(error))
        raise
    else:
        log.close()
