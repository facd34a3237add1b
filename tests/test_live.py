"""Trainings report to a server while they run; one that is down, slow or dies costs a line and never a bit."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import train_trial
from mlflow.tracking import MlflowClient
from planted import killed_in_epoch_2
from training_files import SETTINGS, make_inputs, outputs, result

from pcam.files import TrainingFailed
from pcam.live import Live, LiveLog, live_of
from pcam.recipe import train_recipe
from pcam.settings import settings_digest

PROVENANCE = {"code": "c", "commit": "abc", "dirty": False}


def files_of(inputs: Path, folder: Path) -> tuple[Any, ...]:
    stores, tables = ({s: str(inputs / f"{s}.{kind}") for s in ("train", "valid")} for kind in ("npy", "csv"))
    return stores, tables, str(inputs / "normalisation.json"), outputs(folder)


def train_live(inputs: Path, folder: Path, live: Live | None) -> list[str]:
    """Train, and the warnings that came."""
    lines: list[str] = []
    train_recipe(
        str(inputs / "settings.json"), *files_of(inputs, folder), seed=0, data_label="test", report=lines.append,
        provenance=PROVENANCE, live=live,
    )  # fmt: skip
    return [line for line in lines if line.startswith("warning")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Inputs of a training, and what it gives without a server."""
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"))
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train_live(inputs, folder, None) == []
    return inputs, result(folder)


def live_at(uri: str) -> Live:
    return Live(uri, "pcam", 1.0, "baseline/seed-0")


RUN = {"info": {"run_id": "r", "run_uuid": "r", "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active"}}
ANSWERS = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "pcam", "lifecycle_stage": "active"}},
    "runs/search": {},
    "runs/create": {"run": RUN},
    "runs/get": {"run": RUN},
    "runs/log-batch": {},
    "runs/set-tag": {},
    "runs/update": {"run_info": RUN["info"]},
}


@contextmanager
def serving(mode: str) -> Iterator[tuple[str, list[str]]]:
    """A server that fails in one way until the block ends: its address, and the calls it got."""
    calls: list[str] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            call = self.path.partition("mlflow/")[2].partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            dead = mode == "dies" and any(b'"metrics": [{' in known.encode() for known in calls)
            calls.append(call + body.decode())
            if mode == "hangs" or dead:
                if mode == "hangs":
                    over.wait()
                self.close_connection = True
                return
            status, told = (500, {"error_code": "INTERNAL_ERROR"}) if mode == "500" else (200, ANSWERS.get(call))
            content = json.dumps(told or {}).encode()
            self.send_response(404 if told is None else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serves(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None, within_s: float = 120
) -> Iterator[list[str]]:
    """What an MLflow server told until it served. However the block ends, it ends with all its children.

    One that does not serve in time is ended as well, and what it told is the failure.
    """
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        deadline = threading.Timer(within_s, os.killpg, (process.pid, signal.SIGKILL))
        try:
            assert process.stdout
            deadline.start()
            lines = list[str]()
            for line in process.stdout:
                lines.append(line)
                if "Application startup complete" in line:
                    break
            else:
                pytest.fail("the server did not start: " + "".join(lines))
            deadline.cancel()
            threading.Thread(target=process.stdout.read, daemon=True).start()  # or a full pipe would hold it up
            yield lines
        finally:
            deadline.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_server_that_never_serves_fails_the_test_with_what_it_told(tmp_path):
    never = [sys.executable, "-c", "import threading; print('about to', flush=True); threading.Event().wait()"]
    with pytest.raises(pytest.fail.Exception, match="did not start: about to"), serves(never, tmp_path, within_s=3):
        pass


def test_a_server_that_is_well_gets_every_epoch_and_the_end(undisturbed, tmp_path):
    inputs, whole = undisturbed
    with serving("well") as (uri, calls):
        warnings = train_live(inputs, tmp_path, live_at(uri))
    assert warnings == [], [call.partition("{")[0] for call in calls[-4:]]
    sent = "".join(call for call in calls if call.startswith("runs/log-batch"))
    assert sent.count('"key": "valid_roc_auc"') == SETTINGS.epochs
    assert calls[-1].startswith("runs/update") and "FINISHED" in calls[-1]
    assert result(tmp_path) == whole


@pytest.mark.parametrize("mode", ["hangs", "500", "dies"])
def test_a_server_that_fails_costs_one_line_and_no_bit(undisturbed, tmp_path, mode):
    inputs, whole = undisturbed
    with serving(mode) as (uri, calls):
        warnings = train_live(inputs, tmp_path, live_at(uri))  # ends while the server still hangs
    assert calls, "the training never asked the server"
    assert len(warnings) == 1 and "is left alone" in warnings[0] and "\n" not in warnings[0]
    assert result(tmp_path) == whole


def test_a_server_that_is_down_costs_one_line_and_no_bit_and_its_password_stays_secret(undisturbed, tmp_path):
    inputs, whole = undisturbed
    (warning,) = train_live(inputs, tmp_path, live_at(f"http://user:secret@127.0.0.1:{free_port()}"))
    assert "the MLflow server at 127.0.0.1:" in warning and "secret" not in warning
    assert result(tmp_path) == whole


def test_a_server_that_drips_is_left_behind(undisturbed, tmp_path, monkeypatch):
    """What each call gets is in time, and all of them together are not."""
    inputs, whole = undisturbed
    never = threading.Event()
    monkeypatch.setattr("pcam.live.LiveLog._send", lambda *of: never.wait())
    (warning,) = train_live(inputs, tmp_path, live_at("http://127.0.0.1:1"))
    never.set()
    assert "it is too slow" in warning
    assert result(tmp_path) == whole


def test_an_address_that_is_none_costs_one_line_and_no_bit(undisturbed, tmp_path):
    inputs, whole = undisturbed
    (warning,) = train_live(inputs, tmp_path, live_at("http://user:secret@[::1"))
    assert "tracking: uri is left alone" in warning and "secret" not in warning
    assert result(tmp_path) == whole


def test_a_server_that_fails_now_and_then_still_gets_every_epoch(undisturbed, tmp_path, monkeypatch):
    """A try a row and one for the end: the first and the third of them fail."""
    inputs, _ = undisturbed
    send, tries = LiveLog._send, list[bool]()

    def unsteady(log: LiveLog, ended: bool) -> None:
        tries.append(ended)
        if len(tries) in (1, 3):
            raise ConnectionError("planted")
        send(log, ended)

    monkeypatch.setattr(LiveLog, "_send", unsteady)
    with serving("well") as (uri, calls):
        assert train_live(inputs, tmp_path, Live(uri, "pcam", 60.0, "baseline/seed-0")) == []
    sent = "".join(call for call in calls if call.startswith("runs/log-batch"))
    assert sent.count('"key": "valid_roc_auc"') == SETTINGS.epochs
    assert "FINISHED" in calls[-1]


def test_a_training_that_fails_after_its_last_epoch_ends_as_failed(undisturbed, tmp_path, monkeypatch):
    inputs, _ = undisturbed

    def fail(*of: Any) -> None:
        raise TrainingFailed("planted")

    monkeypatch.setattr("pcam.recipe.save_checkpoint", fail)
    with serving("well") as (uri, calls), pytest.raises(TrainingFailed):
        train_live(inputs, tmp_path, Live(uri, "pcam", 60.0, "baseline/seed-0"))
    assert "FAILED" in calls[-1] and not any("FINISHED" in call for call in calls)


def test_a_run_that_was_only_begun_is_completed_and_a_second_training_is_no_second_run(
    undisturbed, tmp_path, monkeypatch
):
    """On SQLite: the first try makes the run, and its params do not arrive."""
    inputs, _ = undisturbed
    live = Live(f"sqlite:///{tmp_path}/mlflow.db", "pcam", 60.0, "baseline/seed-0")
    log_batch, batches = MlflowClient.log_batch, list[Any]()

    def lose_the_first(client: MlflowClient, run_id: str, **batch: Any) -> None:
        batches.append(batch)
        if len(batches) == 1:
            raise ConnectionError("planted")
        log_batch(client, run_id, **batch)

    monkeypatch.setattr(MlflowClient, "log_batch", lose_the_first)
    for folder in ("first", "second"):
        assert train_live(inputs, tmp_path / folder, live) == []
        client, (run,) = runs_at(live.uri, "pcam")
        assert run.info.status == "FINISHED"
        assert run.data.params["learning_rate"] == str(SETTINGS.learning_rate)
        curve = client.get_metric_history(run.info.run_id, "valid_roc_auc")
        assert sorted(metric.step for metric in curve) == [1, 2, 3, 4]


def test_an_epoch_is_known_by_any_of_its_values(monkeypatch):
    """The first column was not finite, and was not sent."""
    client = MagicMock()
    client.search_runs.return_value = [MagicMock()]
    client.get_metric_history.side_effect = lambda run, column: [MagicMock(step=7)] if column == "c" else []
    monkeypatch.setattr(LiveLog, "client", client)
    log = LiveLog(live_at("http://127.0.0.1:1"), "key", {}, {}, ("epoch", "a", "b", "c"), print)
    log.close()
    assert log.known == {7}


def test_a_config_without_a_server_reports_to_none():
    assert live_of({"experiment": "pcam", "uri": None, "timeout_s": 5}, "a") is None
    assert live_of({"experiment": "x", "uri": "http://h", "timeout_s": 5}, "a") == Live("http://h", "x", 5, "a")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1,
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with serves(list(map(str, command)), folder, environment):
        yield f"http://127.0.0.1:{port}"


def runs_at(uri: str, experiment: str) -> tuple[MlflowClient, list[Any]]:
    client = MlflowClient(tracking_uri=uri)
    return client, list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


@pytest.mark.slow
def test_a_real_server_shows_a_run_with_its_curve(server, undisturbed, tmp_path):
    inputs, whole = undisturbed
    assert train_live(inputs, tmp_path, Live(server, "whole", 60.0, "baseline/seed-0")) == []
    client, (run,) = runs_at(server, "whole")
    assert (run.info.run_name, run.info.status) == ("baseline/seed-0", "FINISHED")
    assert run.data.params["learning_rate"] == str(SETTINGS.learning_rate)
    assert run.data.tags["settings_digest"] == settings_digest(SETTINGS) and run.data.tags["commit"] == "abc"
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert [metric.step for metric in curve] == [1, 2, 3, 4]
    assert result(tmp_path) == whole


@pytest.mark.slow
def test_a_real_server_sees_a_training_fail(server, tmp_path):
    inputs = make_inputs(tmp_path / "inputs", learning_rate=1e30)
    with pytest.raises(TrainingFailed):
        train_live(inputs, tmp_path, Live(server, "failing", 60.0, "round-0/trial-0"))
    _, (run,) = runs_at(server, "failing")
    assert run.info.status == "FAILED" and "diverged" in run.data.tags["failure"]


@pytest.mark.slow
def test_a_real_server_sees_a_killed_trial_fail_and_then_go_on(server, undisturbed, tmp_path, monkeypatch):
    inputs, whole = undisturbed

    def try_trial() -> None:
        train_trial.train_trial(
            str(inputs / "settings.json"), None, *files_of(inputs, tmp_path), seed=0, data_label="test",
            name="trial", provenance=PROVENANCE, live=Live(server, "killed", 60.0, "round-0/trial-0"),
        )  # fmt: skip

    with monkeypatch.context() as planted:
        planted.setattr(train_trial, "train_recipe", killed_in_epoch_2)
        try_trial()
    _, (run,) = runs_at(server, "killed")
    assert run.info.status == "FAILED" and "SIGKILL" in run.data.tags["failure"]
    try_trial()
    client, (again,) = runs_at(server, "killed")
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert sorted(metric.step for metric in curve) == [1, 2, 3, 4]
    assert result(tmp_path) == whole
