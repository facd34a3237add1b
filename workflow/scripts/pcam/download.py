"""One published file over HTTP: continued where it was cut, asked for again after a pause, checked.

What has come stands in `{name}.part`, beside it `{name}.part.json` with the address and the ETag it came from: a part
of another address, or of what the server has replaced since, is never continued. Both outlive a killed job.
"""

import fcntl
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util.retry import Retry

from pcam.acquisition import Published, is_web_page, require_space, what_differs, writing
from pcam.files import InputError, read_json, write_json
from pcam.stage import say

BLOCK_BYTES = 1 << 17  # what a kill loses at most
TIMEOUT_S = (20, 60)  # until connected; between two bytes
TRIES = 7  # failures in a row, none of which brought PROGRESS_BYTES: a minute of pauses
PROGRESS_BYTES = 1 << 20
LONGEST_WAIT_S = 600
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
# The record's host has turned away the default names of HTTP clients and asks each to say who it is
# (github.com/fatiando/pooch/issues/502). identity: a packed file must not be packed once more on the way.
HEADERS = {"User-Agent": "pcam-pipeline", "Accept-Encoding": "identity"}
PROGRESS = "{n_fmt} of {total_fmt} ({percentage:.0f} %), {rate_fmt}, {remaining} left"


class _BrokenOffError(Exception):
    """This request failed and another may not; `wait_s` is the pause the server asked for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Part:
    """The bytes that have come, in one file that one process holds; without a byte it leaves no file.

    Raises: InputError when another process holds it, or when it cannot be written.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self._note = path.with_name(f"{path.name}.json")
        with writing(path):
            self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{path}: another process is downloading this file; wait for it or end it") from None
        except OSError:
            pass  # some network file systems have no locks; what two writers spoil, the digest finds
        if self._noted().get("url") != url:
            self.restart(None)

    def __enter__(self) -> "_Part":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.size:
            self.remove()
        self._file.close()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _noted(self) -> dict[str, object]:
        try:
            return read_json(self._note)
        except InputError:
            return {}

    def is_of(self, etag: str | None) -> bool:
        return self._noted().get("etag") == etag

    def restart(self, etag: str | None) -> None:
        if self.size:
            self._file.truncate(0)
        with writing(self._note):
            write_json(self._note, {"url": self.url, "etag": etag})

    def write(self, block: bytes) -> None:
        with writing(self.path):
            while block:
                block = block[self._file.write(block) :]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


@contextmanager
def fetched(
    url: str,
    folder: Path,
    published: Published,
    *,
    tries: int = TRIES,
    every_s: float = 10.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Path]:
    """The published file in `folder`, whole and checked; it goes when the block ends well and stays when it fails.

    `every_s` lies between two lines of progress (up to nine files write to one terminal), `sleep` takes the pauses.
    Raises: InputError when the file cannot be had; what came is kept for the next time, unless it is wrong.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _Part(folder / f"{published.name}.part", url) as part:
        require_space(folder, (published.size_bytes or 0) - part.size + published.unpacked_bytes, published.name)
        continued = part.size > 0
        _fill(part, published, tries, every_s, sleep)
        problem = what_differs(part.path, published.digests, published.size_bytes)
        if problem and continued:
            say(f"{published.name}: {problem}; starting over without what an earlier run left")
            part.restart(None)
            _fill(part, published, tries, every_s, sleep)
            problem = what_differs(part.path, published.digests, published.size_bytes)
        if problem:
            part.remove()
            raise InputError(f"{url}: {problem}; nothing is kept of it; check data.url, or fetch the file elsewhere")
        yield part.path
        part.remove()


def _fill(part: _Part, published: Published, tries: int, every_s: float, sleep: Callable[[float], object]) -> None:
    """Ask until the part is whole. Raises: InputError when that is hopeless or took too many requests."""
    if published.size_bytes is not None and part.size > published.size_bytes:
        part.restart(None)
    failures = 0
    while part.size != published.size_bytes:
        before = part.size
        try:
            _ask(part, published, every_s)
            return
        except _BrokenOffError as error:
            failures = 1 if part.size - before >= PROGRESS_BYTES else failures + 1
            if failures == tries or error.wait_s > LONGEST_WAIT_S:
                raise InputError(
                    f"{part.url}: {error} (attempt {failures} of {tries}); run it again later, the {part.size:,} bytes "
                    "that came are kept; or put the file into data.directory"
                ) from None
            wait_s = max(error.wait_s, 2.0 ** (failures - 1))
            say(f"{published.name}: {error}; going on from byte {part.size:,} in {wait_s:.0f} s")
            sleep(wait_s)


def _ask(part: _Part, published: Published, every_s: float) -> None:
    """One request for what is missing. Raises: _BrokenOffError, InputError when another would not help."""
    offset = part.size
    headers = HEADERS | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        with requests.get(part.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            _check_status(part, response)
            # raw, not decoded: servers that call a .gz file a gzip encoding would have it unpacked here.
            blocks = response.raw.stream(BLOCK_BYTES, decode_content=False)
            head = next(blocks, b"")
            total = _check_answer(part, published, response, head)
            started = shown = time.monotonic()
            for block in itertools.chain((head,), blocks):
                part.write(block)
                if total is None:
                    continue
                if part.size > total:
                    part.restart(None)
                    raise InputError(f"{part.url}: the server sends more than the {total:,} bytes of the file")
                if (now := time.monotonic()) - shown >= every_s:
                    shown = now
                    meter = tqdm.format_meter(
                        part.size, total, now - started, initial=offset, unit="B", unit_scale=True, bar_format=PROGRESS
                    )
                    say(f"{published.name}: {meter}")
    except requests.exceptions.SSLError as error:
        raise InputError(f"{part.url}: no safe connection ({_reason(error)}); check the certificates") from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _BrokenOffError(f"no connection ({_reason(error)})") from None
    except HTTPError:
        raise _BrokenOffError(f"the connection broke off at byte {part.size:,}") from None
    except requests.RequestException as error:
        raise InputError(f"{part.url}: {_reason(error)}; check data.url") from None
    if total is not None and part.size < total:
        raise _BrokenOffError(f"the server stopped at byte {part.size:,} of {total:,}")


def _check_status(part: _Part, response: requests.Response) -> None:
    answer = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in TRY_AGAIN:
        wait_s = _wait_s(response.headers.get("Retry-After", "0"))
        raise _BrokenOffError(answer + (f" and asks to wait {wait_s:.0f} s" if wait_s else ""), wait_s)
    if response.status_code == 416:
        part.restart(None)
        raise _BrokenOffError(f"{answer}: it has no such part of the file")
    if response.status_code not in (200, 206):
        raise InputError(f"{part.url}: {answer}; check data.url, or put the file into data.directory")


def _check_answer(part: _Part, published: Published, response: requests.Response, head: bytes) -> int | None:
    """Bytes of the whole file, None when nobody says. A whole answer empties the part; until here it is untouched."""
    whole = response.status_code == 200
    if "html" in response.headers.get("Content-Type", "").lower() or (whole and is_web_page(head)):
        raise InputError(f"{part.url}: the server answers with a web page, not the file; open it in a browser to see")
    etag = response.headers.get("ETag")
    if whole:
        announced = re.fullmatch(r"()(\d+)", response.headers.get("Content-Length", ""))
    else:
        announced = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if announced is None or int(announced[1]) != part.size or not part.is_of(etag):
            part.restart(None)
            raise _BrokenOffError("the server has other bytes than those that came")
    total = int(announced[2]) if announced else published.size_bytes
    if published.size_bytes is not None and total != published.size_bytes:
        raise InputError(
            f"{part.url}: the server announces {total:,} bytes, the published file has {published.size_bytes:,}; "
            "it gives another file: check data.url"
        )
    if whole:
        part.restart(etag)
    return total


def _wait_s(retry_after: str) -> float:
    try:
        return float(Retry().parse_retry_after(retry_after))
    except InvalidHeader:
        return 0.0


def _reason(error: Exception) -> str:
    """The innermost of the errors that HTTP libraries wrap in one another, in one line."""
    inner: object = error
    while isinstance(inner, Exception):
        error = inner
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    text = " ".join(str(error).split())
    return text.partition("): ")[2] or text
