"""A download is whole and right or one line that says why not; what came outlives a kill, and what is good stays."""

import gzip
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from download_pcam import download_pcam

from pcam.acquisition import Published, decompress, published_file, require_space
from pcam.download import BLOCK_BYTES, fetched
from pcam.facts import BYTES_GZ, FILE_SPLITS, MD5_H5, MD5_META, pcam_filename
from pcam.files import InputError
from workflow import snakemake, succeeded

SCRIPTS = ROOT / "workflow" / "scripts"
PLAIN = np.random.default_rng(0).bytes(1_000_000)
PACKED = gzip.compress(PLAIN, 1, mtime=0)
NAME = "x.h5"
PATIENCE_S = 120  # until a test that waits for an event calls it missing


def digests_of(content: bytes) -> dict[str, str]:
    return {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")}


WANTED = Published(f"{NAME}.gz", digests_of(PACKED), len(PACKED), hashlib.md5(PLAIN).hexdigest(), len(PLAIN))


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        with self.server.lock:
            self.server.asked.append((name, self.headers.get("Range")))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        # The client was killed, or hung up on purpose.
        with suppress(BrokenPipeError, ConnectionResetError):
            answer(self, self.server.files[name])

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    @property
    def start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked else 0

    def log_message(self, format: str, *args: object) -> None:
        pass


Answer = Callable[[Handler, bytes], None]


class Server(ThreadingHTTPServer):
    """Serves `files` from loopback; each request takes the next of `answers`, and the last one answers all others."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {WANTED.name: PACKED}
        self.answers: list[Answer] = [serve()]
        self.asked: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()
        self.holding, self.release = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.release.set()
        serving.shutdown()
        thread.join()


def serve(cut: int | None = None, *, hold: bool = False, etag: str = "v1", block: int = 1 << 16) -> Answer:
    """A right answer in writes of `block` bytes, of which only `cut` bytes come before it breaks off, or holds."""

    def answer(handler: Handler, content: bytes) -> None:
        start = handler.start
        body = content[start:]
        span = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.head(206 if start else 200, Content_Length=len(body), ETag=etag, **span)
        for at in range(0, len(body[:cut]), block):
            handler.wfile.write(body[:cut][at : at + block])
        if hold:
            handler.server.holding.set()
            handler.server.release.wait(PATIENCE_S)

    return answer


def say_status(code: int, **headers: object) -> Answer:
    def answer(handler: Handler, _: bytes) -> None:
        handler.head(code, Content_Type="text/html", **headers)
        handler.wfile.write(b"<html>no</html>")

    return answer


def send(body: bytes, **headers: object) -> Answer:
    """200 with these bytes, whatever range was asked for; without Content_Length they end with the connection."""

    def answer(handler: Handler, _: bytes) -> None:
        handler.head(200, **headers)
        handler.wfile.write(body)

    return answer


def hang_up(handler: Handler, _: bytes) -> None:
    handler.close_connection = True


PAGE = b"\n<!DOCTYPE html><html>quota exceeded</html>"


def fetch(server: Server, folder: Path, pauses: list[float] | None = None, wanted: Published = WANTED) -> bytes:
    pauses = [] if pauses is None else pauses
    with fetched(f"{server.url}/{wanted.name}", folder, wanted, tries=3, sleep=pauses.append) as path:
        return path.read_bytes()


def failure(server: Server, folder: Path, pauses: list[float] | None = None, wanted: Published = WANTED) -> str:
    with pytest.raises(InputError) as error:
        fetch(server, folder, pauses, wanted)
    line = str(error.value)
    assert line.startswith(f"{server.url}/{wanted.name}: ") and "\n" not in line
    return line


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def part_of(folder: Path) -> Path:
    return folder / f"{WANTED.name}.part"


def leave_part(server: Server, folder: Path, cut: int = 300_000) -> int:
    """What a run that always breaks off leaves; its size in bytes. Then the server is honest again."""
    server.answers = [serve(cut), hang_up]
    failure(server, folder)
    server.answers = [serve()]
    server.asked.clear()
    return part_of(folder).stat().st_size


def test_a_file_comes_whole_and_nothing_stays_beside_it(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "deep" / "folder") == PACKED
    assert server.ranges == [None] and files_in(tmp_path) == []


def test_what_breaks_off_goes_on_from_there(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(300_000), serve(200_000), serve()]
    pauses: list[float] = []
    assert fetch(server, tmp_path, pauses) == PACKED
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert pauses == [1, 2]


def test_after_some_attempts_without_progress_it_gives_up_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.answers = [serve(300_000), serve(0), serve(0), serve(0)]
    pauses: list[float] = []
    said = failure(server, tmp_path, pauses)
    assert "broke off at byte 300,000 (attempt 3 of 3)" in said and "kept" in said
    assert len(server.asked) == 3 and pauses == [1, 2]
    assert part_of(tmp_path).read_bytes() == PACKED[:300_000]


def test_progress_pays_for_further_attempts(server: Server, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(6 << 20)
    server.files["big.gz"] = content
    server.answers = [*[serve((1 << 20) + BLOCK_BYTES)] * 4, serve()]
    wanted = Published("big.gz", digests_of(content), len(content), None, 0)
    pauses: list[float] = []
    assert fetch(server, tmp_path, pauses, wanted) == content
    assert pauses == [1, 1, 1, 1]


CHILD = """
import sys
from pathlib import Path
from pcam.acquisition import Published
from pcam.download import fetched
with fetched(sys.argv[1], Path(sys.argv[2]), {wanted}, sleep=lambda pause_s: None):
    pass
"""


def child(server: Server, folder: Path, limit_bytes: int | None = None) -> "subprocess.Popen[str]":
    """A process that downloads; with a limit, as long as no file grows beyond it."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))) if limit_bytes else None
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(wanted=WANTED), f"{server.url}/{WANTED.name}", str(folder)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def test_a_killed_download_asks_only_for_what_is_missing(server: Server, tmp_path: Path) -> None:
    # The second request tells that the blocks of the first stand on the disk; the kill comes in the middle of it.
    server.answers = [serve(300_000), serve(200_000, hold=True), serve()]
    with child(server, tmp_path) as killed:
        assert server.holding.wait(PATIENCE_S)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
    came = part_of(tmp_path).stat().st_size
    assert 300_000 <= came <= 500_000
    server.asked.clear()
    assert fetch(server, tmp_path) == PACKED
    assert server.ranges == [f"bytes={came}-"] and files_in(tmp_path) == []


def test_a_part_that_was_whole_when_the_job_died_needs_no_network(server: Server, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        fetched(f"{server.url}/{WANTED.name}", tmp_path, WANTED) as path,
    ):
        assert path.read_bytes() == PACKED
        raise RuntimeError
    server.asked.clear()
    assert fetch(server, tmp_path) == PACKED and server.asked == []


def test_a_server_that_ignores_ranges_gives_the_whole_file(server: Server, tmp_path: Path) -> None:
    came = leave_part(server, tmp_path)
    server.answers = [send(PACKED, Content_Length=len(PACKED))]
    assert fetch(server, tmp_path) == PACKED and server.ranges == [f"bytes={came}-"]


def another_version(folder: Path, server: Server) -> None:
    server.answers = [serve(etag="v2")]


def another_place(folder: Path, server: Server) -> None:
    rest = PACKED[1:]
    server.answers = [
        lambda handler, _: (
            handler.head(206, Content_Length=len(rest), ETag="v1", Content_Range=f"bytes 1-{len(rest)}/{len(PACKED)}"),
            handler.wfile.write(rest),
        )[0],
        serve(),
    ]


def no_such_range(folder: Path, server: Server) -> None:
    server.answers = [say_status(416), serve()]


@pytest.mark.parametrize("prepare", [another_version, another_place, no_such_range])
def test_a_part_that_does_not_fit_is_never_continued(
    server: Server, tmp_path: Path, prepare: Callable[[Path, Server], None]
) -> None:
    came = leave_part(server, tmp_path)
    prepare(tmp_path, server)
    assert fetch(server, tmp_path) == PACKED
    assert server.ranges == [f"bytes={came}-", None]


def test_a_part_of_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path)
    with fetched(f"{server.url}/mirror/{WANTED.name}", tmp_path, WANTED) as path:
        assert path.read_bytes() == PACKED
    assert server.ranges == [None]


def test_a_part_with_other_bytes_is_thrown_away_and_fetched_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    came = leave_part(server, tmp_path)
    part_of(tmp_path).write_bytes(bytes(came))
    assert fetch(server, tmp_path) == PACKED
    assert server.ranges == [f"bytes={came}-", None] and "starting over" in capsys.readouterr().out


def test_two_processes_never_write_one_part(server: Server, tmp_path: Path) -> None:
    with (
        fetched(f"{server.url}/{WANTED.name}", tmp_path, WANTED) as path,
        pytest.raises(InputError, match="another process is downloading this file"),
        fetched(f"{server.url}/{WANTED.name}", tmp_path, WANTED),
    ):
        pass
    assert not path.exists()


OTHER = PACKED[:-1] + bytes([PACKED[-1] ^ 1])
HOPELESS = {
    "html": (send(PAGE, Content_Type="text/html; charset=utf-8"), "answers with a web page"),
    "html in disguise": (send(PAGE, Content_Type="application/gzip", Content_Length=len(PAGE)), "with a web page"),
    "404": (say_status(404), "answers 404 Not Found; check data.url"),
    "403": (say_status(403), "answers 403 Forbidden; check data.url"),
    "shorter": (send(PACKED[:-9], Content_Length=len(PACKED) - 9), "announces 1,0.* bytes, the published file has"),
    "lies": (send(PACKED, Content_Length=len(PACKED) + 5), "announces .* bytes, the published file has"),
    "longer": (send(PACKED + b"more"), "sends more than the"),
    "other bytes": (send(OTHER, Content_Length=len(OTHER)), "wrong digest: md5 .*, the published file has"),
    "wait an hour": (say_status(429, Retry_After=3600), "429 Too Many Requests and asks to wait 3600 s"),
}


@pytest.mark.parametrize(("answer", "said"), HOPELESS.values(), ids=HOPELESS)
def test_what_another_attempt_would_not_mend_is_said_at_once(
    server: Server, tmp_path: Path, answer: Answer, said: str
) -> None:
    server.answers = [answer]
    pauses: list[float] = []
    assert re.search(said, failure(server, tmp_path, pauses))
    assert pauses == [] and files_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["html", "404", "lies", "wait an hour"])
def test_a_wrong_answer_does_not_cost_the_part_that_came(server: Server, tmp_path: Path, kind: str) -> None:
    came = leave_part(server, tmp_path)
    server.answers = [HOPELESS[kind][0]]
    failure(server, tmp_path)
    server.answers = [serve()]
    assert fetch(server, tmp_path) == PACKED and server.ranges == [f"bytes={came}-"] * 2


def test_a_busy_server_is_asked_again_when_it_says(server: Server, tmp_path: Path) -> None:
    server.answers = [say_status(429, Retry_After=7), say_status(500), serve()]
    pauses: list[float] = []
    assert fetch(server, tmp_path, pauses) == PACKED and pauses == [7, 2]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (say_status(503), "answers 503 Service Unavailable"),
        (say_status(429, Retry_After="soon"), "429 Too Many Requests"),
        (hang_up, "no connection"),
        (send(PACKED[:300_000]), "stopped at byte 300,000 of"),
    ],
)
def test_a_server_that_never_gives_it_is_given_up(server: Server, tmp_path: Path, answer: Answer, said: str) -> None:
    server.answers = [answer]
    pauses: list[float] = []
    line = failure(server, tmp_path, pauses)
    assert said in line and "attempt 3 of 3" in line and pauses == [1, 2]


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with Server() as closed:
        pass
    said = failure(closed, tmp_path)
    assert "no connection" in said and "refused" in said and "data.directory" in said
    assert files_in(tmp_path) == []


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"http://\[/x: .*check data.url"), fetched("http://[/x", tmp_path, WANTED):
        pass


def test_a_gzip_file_that_the_server_calls_an_encoding_comes_as_it_is(server: Server, tmp_path: Path) -> None:
    server.answers = [send(PACKED, Content_Length=len(PACKED), Content_Encoding="gzip")]
    assert fetch(server, tmp_path) == PACKED


def test_the_client_says_who_it_is(server: Server, tmp_path: Path) -> None:
    agents: list[str] = []
    server.answers = [
        lambda handler, content: (agents.append(handler.headers["User-Agent"]), serve()(handler, content))[1]
    ]
    fetch(server, tmp_path)
    assert agents == ["pcam-pipeline"]


def test_progress_is_a_line_with_share_rate_and_rest(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [serve(block=1000)]
    with fetched(f"{server.url}/{WANTED.name}", tmp_path, WANTED, every_s=0):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == -(-len(PACKED) // BLOCK_BYTES)
    assert all(re.fullmatch(r"x\.h5\.gz: \S+ of 1\.00M \(\d+ %\), \S+B/s, \S+ left", line) for line in lines), lines
    assert "(100 %)" in lines[-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"x\.h5\.gz\.part: cannot be written \(No space left on device\)"):
        fetch(server, tmp_path)
    assert files_in(tmp_path) == []


def test_a_disk_that_fills_up_keeps_what_came_for_the_next_time(server: Server, tmp_path: Path) -> None:
    with child(server, tmp_path, limit_bytes=300_000) as limited:
        said = limited.communicate()[1].splitlines()[-1]
    assert "x.h5.gz.part: cannot be written (File too large)" in said and limited.returncode == 1
    server.asked.clear()
    assert fetch(server, tmp_path) == PACKED and server.ranges == ["bytes=300000-"]


def test_unpacking_on_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    packed, target = tmp_path / "x.gz", tmp_path / "x"
    packed.write_bytes(PACKED)
    target.write_bytes(b"old")
    code = f"from pathlib import Path; from pcam.acquisition import decompress; decompress({packed!r}, {target!r})"
    done = subprocess.run(
        [sys.executable, "-c", code.replace("PosixPath", "Path")],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{target}: cannot be written (File too large); make room" in done.stderr.splitlines()[-1]
    assert target.read_bytes() == b"old" and files_in(tmp_path) == ["x", "x.gz"]


def test_too_little_space_is_said_before_a_byte_is_asked_for(server: Server, tmp_path: Path) -> None:
    huge = Published(WANTED.name, WANTED.digests, 10**18, WANTED.unpacked_md5, 10**18)
    with pytest.raises(InputError, match=r"needs 2,000,000,000\.00 GB and .* GB are free; make room"):
        fetch(server, tmp_path, wanted=huge)
    assert server.asked == [] and files_in(tmp_path) == []
    require_space(tmp_path, 1, "x")


def test_what_unpacks_to_something_else_is_not_kept(tmp_path: Path) -> None:
    packed = tmp_path / "x.gz"
    packed.write_bytes(PACKED)
    with pytest.raises(InputError, match="wrong digest: it unpacks to md5"):
        decompress(packed, tmp_path / "x", md5="0" * 32)
    assert files_in(tmp_path) == ["x.gz"]


def test_facts_know_every_file_of_the_record() -> None:
    names = [*MD5_H5, *MD5_META]
    assert set(names) == {pcam_filename(s, p) for s in FILE_SPLITS for p in ("x.h5", "y.h5", "meta.csv")}
    found = [published_file(name) for name in names]
    assert len({digest for file in found for digest in file.digests.values()}) == 6 * 2 + 3
    assert all(len(file.digests["md5"]) == 32 and len(file.digests.get("sha256", "0" * 64)) == 64 for file in found)
    assert sum(BYTES_GZ.values()) == 8_028_222_167
    assert published_file(pcam_filename("train", "x.h5")).unpacked_bytes == 7_247_757_312


# The stage: what is at hand, else the network.


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "data" / "pcam").mkdir(parents=True)
    return tmp_path / "data" / "pcam" / NAME


def have(target: Path, server: Server, directory: Path | None = None, wanted: Published = WANTED) -> None:
    download_pcam(str(target), url=server.url, directory=str(directory) if directory else None, published=wanted)


def test_the_stage_downloads_unpacks_and_needs_no_network_again(server: Server, target: Path) -> None:
    have(target, server)
    assert target.read_bytes() == PLAIN and len(server.asked) == 1
    assert files_in(target.parent) == [f"downloads/{NAME}", NAME]
    target.unlink()  # as Snakemake does before it runs a job again
    have(target, server)
    assert target.read_bytes() == PLAIN and len(server.asked) == 1
    moved = target.parent.rename(target.parent.with_name("moved"))
    assert (moved / NAME).read_bytes() == PLAIN


def test_a_csv_is_kept_as_it_comes(server: Server, target: Path) -> None:
    server.files["meta.csv"] = b"a,b\n1,2\n"
    wanted = Published("meta.csv", {"md5": hashlib.md5(b"a,b\n1,2\n").hexdigest()}, None, None, 0)
    meta = target.with_name("meta.csv")
    have(meta, server, wanted=wanted)
    assert meta.read_bytes() == b"a,b\n1,2\n" and files_in(target.parent) == ["downloads/meta.csv", "meta.csv"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["directory", "target"])
def test_a_published_file_at_hand_is_used_without_network(
    server: Server, target: Path, tmp_path: Path, packed: bool, place: str
) -> None:
    folder = tmp_path / "mine" if place == "directory" else target.parent
    folder.mkdir(exist_ok=True)
    mine = folder / (WANTED.name if packed else NAME)
    mine.write_bytes(PACKED if packed else PLAIN)
    have(target, server, tmp_path / "mine" if place == "directory" else None)
    assert target.read_bytes() == PLAIN and server.asked == []
    assert mine.read_bytes() == (PACKED if packed else PLAIN)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (WANTED.name, PAGE, "a web page under the name of a data file"),
        (WANTED.name, PACKED[:500_000], "cut short: 500,000 bytes, the published file has"),
        (WANTED.name, PACKED + b"0", "too long: "),
        (WANTED.name, OTHER, "wrong digest: md5"),
        (NAME, PAGE, "a web page under the name of a data file"),
        (NAME, PLAIN[:-1], "wrong digest: md5"),
        (NAME, b"", "wrong digest: md5"),
    ],
)
def test_a_file_at_hand_that_is_not_the_published_one_is_named_and_left(
    server: Server, target: Path, name: str, content: bytes, said: str
) -> None:
    wrong = target.with_name(name)
    wrong.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        have(target, server)
    assert str(error.value).startswith(f"{wrong}: ") and "delete it" in str(error.value)
    assert wrong.read_bytes() == content and server.asked == [] and files_in(target.parent) == [name]


def test_a_folder_that_is_not_there_is_named(server: Server, target: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; set data.directory"):
        have(target, server, Path("nowhere"))


# The workflow.


def config_for(server: Server, folder: Path) -> Path:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "pcam", "url": server.url}}))
    return config


def test_jobs_download_side_by_side_and_a_wrong_file_is_one_line(server: Server, tmp_path: Path) -> None:
    names = [pcam_filename(split, "y.h5.gz") for split in ("train", "valid")]
    server.files = {name: bytes(BYTES_GZ[name]) for name in names}
    both = threading.Barrier(2)

    def together(handler: Handler, content: bytes) -> None:
        both.wait(PATIENCE_S)
        serve()(handler, content)

    server.answers = [together]
    targets = [f"data/pcam/{name.removesuffix('.gz')}" for name in names]
    done = snakemake(tmp_path, "--keep-going", *targets, config=config_for(server, tmp_path), cores=2)
    assert done.returncode != 0 and "Traceback" not in done.stdout and not both.broken
    for name in names:
        lines = [line for line in done.stdout.splitlines() if f"{name}: wrong digest" in line]
        assert lines and all(line.strip().startswith(f"error: {server.url}/{name}: ") for line in lines), done.stdout
    assert files_in(tmp_path / "data") == []


@pytest.mark.slow
def test_a_killed_run_goes_on_and_a_repeated_one_needs_no_network(server: Server, tmp_path: Path) -> None:
    names = [*MD5_H5, *MD5_META]
    contents = {name: np.random.default_rng(i).bytes(600_000) for i, name in enumerate(names)}
    served = {f"{n}.gz" if n in MD5_H5 else n: gzip.compress(c) if n in MD5_H5 else c for n, c in contents.items()}
    server.files = served
    # A copy of the project whose facts are those of the stand-ins.
    root = tmp_path / "project"
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml", "requirements.txt", "inference.py"):
        shutil.copy(ROOT / name, root / name)
    packed = {name: content for name, content in served.items() if name.endswith(".gz")}
    facts = {
        "MD5_GZ": {name: digests_of(content)["md5"] for name, content in packed.items()},
        "SHA256_GZ": {name: digests_of(content)["sha256"] for name, content in packed.items()},
        "BYTES_GZ": {name: len(content) for name, content in packed.items()},
        "MD5_H5": {name: digests_of(contents[name])["md5"] for name in MD5_H5},
        "MD5_META": {name: digests_of(contents[name])["md5"] for name in MD5_META},
        "PATCHES": dict.fromkeys(FILE_SPLITS, 1),
    }
    with (root / "workflow" / "scripts" / "pcam" / "facts.py").open("a") as handle:
        handle.writelines(f"\n{name} = {table!r}\n" for name, table in facts.items())
    folder = tmp_path / "data" / "pcam"
    config = config_for(server, tmp_path)

    server.answers = [serve(300_000), serve(200_000, hold=True), serve()]
    command = [sys.executable, "-m", "snakemake", "--snakefile", root / "Snakefile", "--directory", tmp_path]
    command += ["--cores", 1, "--configfile", config, "--nolock", f"data/pcam/{names[0]}"]
    with subprocess.Popen(
        [*map(str, command)], cwd=root, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        assert server.holding.wait(PATIENCE_S)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    came = (folder / "downloads" / f"{names[0]}.gz.part").stat().st_size
    assert came >= 300_000 and files_in(folder) == [f"downloads/{names[0]}.gz.part{end}" for end in ("", ".json")]

    server.asked.clear()
    targets = [f"data/pcam/{name}" for name in names]
    succeeded(snakemake(tmp_path, "--nolock", *targets, root=root, config=config, cores=4))
    assert dict(server.asked) == {**dict.fromkeys(served), f"{names[0]}.gz": f"bytes={came}-"}
    assert len(server.asked) == 9 and {name: (folder / name).read_bytes() for name in names} == contents
    assert files_in(folder) == sorted([*names, *(f"downloads/{name}" for name in names)])

    server.asked.clear()
    succeeded(snakemake(tmp_path, "--forcerun", "download_pcam", "--", *targets, root=root, config=config, cores=4))
    assert server.asked == [] and {name: (folder / name).read_bytes() for name in names} == contents
