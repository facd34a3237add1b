"""What a repository's history tells of how its authors worked together: all of it from git, which is only read."""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SHOWN = 80  # newest commits of the graph: more are no picture
REPLAYS_SINCE = (2, 38)  # git merge-tree --write-tree
TOO_OLD = f"git {'.'.join(map(str, REPLAYS_SINCE))} or newer is needed to replay a merge"
NO_BASE = "no common commit of its two sides is at hand"
SECONDS_A_DAY = 86400
SECONDS = 120  # of one git command: a broken file system must not hold the run up
_FIELD = "\x1f"
_LOG = ("log", "-z", "--no-show-signature", "--encoding=UTF-8", "--date-order")
_PULL_REQUEST = re.compile(r"Merge pull request #\d+ from [^/\s]+/(\S+)|Merged in (\S+) \(pull request #\d+\)")
_BRANCH = re.compile(r"Merge (remote-tracking )?branch '([^']+)'( of \S+)?(?: into '?([^\s']+))?")
_MAIN = ("main", "master")  # git leaves the target out of a subject where it is the main branch
_SQUASHED = re.compile(r"\(#\d+\)$")


class NoHistoryError(Exception):
    """Why there is no history, as a sentence without its point."""


@dataclass(frozen=True)
class Commit:
    id: str
    parents: tuple[str, ...]
    authored: int  # seconds since 1970, UTC; what a rebase leaves as it was
    committed: int
    contributor: str
    subject: str


def _git(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Within a hook, git's variables name the hook's repository. A partial clone must not fetch what it lacks.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    fixed = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    return subprocess.run(
        ("git", "-C", str(root), *arguments), env={**kept, **fixed, **variables}, timeout=SECONDS,
        capture_output=True, text=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def _told(root: Path, *arguments: str) -> str:
    done = _git(root, *arguments)
    if done.returncode != 0:
        print(f"git {arguments[0]}: {done.stderr.strip()}")
        raise NoHistoryError("git could not read the repository; the log of this rule has its message")
    return done.stdout


def _person(name: str) -> str:
    """An author's name; of an address that stands as one, the part before the @."""
    return " ".join(name.partition("@")[0].split()) or "(no name)"


def _commits(root: Path, *revisions: str) -> list[Commit]:
    """Newest first, no commit before all that follow from it."""
    form = "--format=" + "%x1f".join(("%H", "%P", "%at", "%ct", "%aN", "%s"))
    commits = []
    for line in filter(None, _told(root, *_LOG, form, *revisions, "--").split("\0")):
        commit, parents, authored, committed, name, subject = line.split(_FIELD, 5)
        commits.append(Commit(commit, tuple(parents.split()), int(authored), int(committed), _person(name), subject))
    return commits


def _open(root: Path) -> None:
    """Raises: NoHistoryError when there is no git, no repository of these files or no commit."""
    if shutil.which("git") is None:
        raise NoHistoryError("git is not installed where the run was made")
    inside = _git(root, "rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 and "not a git repository" in inside.stderr:
        raise NoHistoryError("the files that ran stand in no git repository")
    _told(root, "rev-parse", "--is-inside-work-tree")
    if _git(root, "rev-parse", "--quiet", "--verify", "HEAD").returncode != 0:
        raise NoHistoryError("the repository has no commit yet")
    if not _told(root, "ls-tree", "--name-only", "HEAD", "--", "./"):
        raise NoHistoryError("the files that ran stand in no git repository of their own")


def version(text: str) -> tuple[int, int]:
    """Of `git version 2.39.5`, (2, 39)."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _origin(merge: Commit) -> tuple[str, str | None]:
    """The kind of a merge and the branch that went in, as its subject tells."""
    if found := _PULL_REQUEST.match(merge.subject):
        return "pull request", found[1] or found[2]
    if found := _BRANCH.match(merge.subject):
        tracking, branch, place, target = found.groups()
        name = branch.removeprefix("refs/remotes/").partition("/")[2] if tracking else branch
        pulled = (tracking or place) and (name == target if target else name in _MAIN)
        return "pull of the same branch" if pulled else "branch", branch
    return "other", None


def _main_line(commits: Sequence[Commit]) -> list[Commit]:
    """From the newest commit along first parents."""
    by_id = {commit.id: commit for commit in commits}
    line, at = [], commits[0].id if commits else None
    while at in by_id:
        line.append(by_id[at])
        at = next(iter(line[-1].parents), None)
    return line


def _counted(names: Iterable[str]) -> list[dict[str, Any]]:
    counts = Counter(names)
    return [{"name": name, "commits": counts[name]} for name in sorted(counts, key=lambda name: (-counts[name], name))]


def _contributors(commits: Sequence[Commit]) -> list[dict[str, Any]]:
    told = _counted(commit.contributor for commit in commits)
    for person in told:
        own = [commit for commit in commits if commit.contributor == person["name"]]
        person["share"] = len(own) / len(commits)
        person["merges"] = sum(len(commit.parents) > 1 for commit in own)
        person["first"], person["last"] = (_utc(of(commit.authored for commit in own)) for of in (min, max))
    return told


def _blobs(root: Path, commit: str) -> dict[str, str]:
    """Mode and digest of every file of a commit."""
    entries = filter(None, _told(root, "ls-tree", "-r", "-z", "--full-tree", commit).split("\0"))
    return {path: entry for entry, _, path in (line.partition("\t") for line in entries)}


def _resolutions(root: Path, merge: Commit, paths: Sequence[str]) -> list[dict[str, str]]:
    """Of each file in conflict, whose version the merge commit holds."""
    ours, theirs, merged = (_blobs(root, commit) for commit in (*merge.parents, merge.id))

    def resolved(path: str) -> str:
        if path not in ours and path not in theirs:
            return "moved or renamed"
        for side, name in ((ours, "first side"), (theirs, "second side")):
            if merged.get(path) == side.get(path):
                return name
        return "removed" if path not in merged else "a version of its own"

    return [{"path": path, "resolved": resolved(path)} for path in paths]


def _not_replayed(note: str) -> dict[str, Any]:
    return {"outcome": None, "note": note, "conflicts": []}


def replay(root: Path, merge: Commit, objects: str) -> dict[str, Any]:
    """Merge the parents of a merge again: `outcome` clean, conflicts, or None with the reason in `note`.

    What git has to write goes to the folder `objects`, not into the repository.
    """
    if len(merge.parents) != 2:
        return _not_replayed("it has more than two parents")
    stored = Path(root, _told(root, "rev-parse", "--git-path", "objects").strip()).resolve()
    merging = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", *merge.parents)
    done = _git(root, *merging, GIT_OBJECT_DIRECTORY=objects, GIT_ALTERNATE_OBJECT_DIRECTORIES=str(stored))
    if done.returncode not in (0, 1):
        print(f"merge {merge.id}: {done.stderr.strip()}")
        unrelated = "unrelated" in done.stderr
        return _not_replayed(NO_BASE if unrelated else "git could not replay it; the log of this rule has its message")
    paths = sorted(filter(None, done.stdout.split("\0")[1:]))
    conflicts = _resolutions(root, merge, paths) if done.returncode else []
    return {"outcome": "conflicts" if done.returncode else "clean", "note": None, "conflicts": conflicts}


def _merge(root: Path, merge: Commit, on_main: bool, cut: bool, replayed: dict[str, Any]) -> dict[str, Any]:
    """One merge; `cut`: the clone is shallow, so a branch that reaches its end has unknown commits before."""
    kind, branch = _origin(merge)
    own = _commits(root, *merge.parents[1:], f"^{merge.parents[0]}")
    whole = bool(own) and not (cut and any(not commit.parents for commit in own))
    lived = (merge.committed - min(commit.authored for commit in own)) / SECONDS_A_DAY if whole else -1.0
    return {
        "commit": merge.id,
        "at": _utc(merge.committed),
        "by": merge.contributor,
        "kind": kind,
        "branch": branch,
        "on_main": on_main,
        "commits": len(own) if whole else None,
        "authors": [person["name"] for person in _counted(commit.contributor for commit in own)] if whole else [],
        "days": lived if lived >= 0 else None,  # clocks may disagree
        **replayed,
    }


def _merges(root: Path, commits: Sequence[Commit], main: Sequence[Commit], most: int, cut: bool) -> dict[str, Any]:
    """The newest merges, each replayed, and how many of each outcome."""
    found = [commit for commit in commits if len(commit.parents) > 1]
    on_main = {commit.id for commit in main}
    able = version(_told(root, "version")) >= REPLAYS_SINCE
    told = []
    with tempfile.TemporaryDirectory() as objects:
        for merge in found[:most]:
            replayed = replay(root, merge, objects) if able else _not_replayed(TOO_OLD)
            told.append(_merge(root, merge, merge.id in on_main, cut, replayed))
    outcomes = Counter(merge["outcome"] for merge in told)
    return {
        "found": len(found),
        "looked_at": len(told),
        "most": most,
        "clean": outcomes["clean"],
        "conflicting": outcomes["conflicts"],
        "not_replayed": outcomes[None],
        "files_in_conflict": sum(len(merge["conflicts"]) for merge in told),
        "newest": told,
    }


def history_state(root: Path) -> str | None:
    """What changes whenever there is other history to read: the commit, and how many stand behind it. None without."""
    try:
        commit, count = (_git(root, *asked, "HEAD") for asked in (("rev-parse",), ("rev-list", "--count")))
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit.stdout.strip()} {count.stdout.strip()}" if commit.returncode == count.returncode == 0 else None


def read_history(root: Path, most: int) -> dict[str, Any]:
    """`history` of the commit that is checked out in `root`, or None with the reason in `note`.

    At most the `most` newest merges are looked at one by one. The first parents from that commit count as the main
    line; of its commits those with a parent, that are no merge and name no pull request are `direct`.
    """
    try:
        _open(root)
        commits = _commits(root, "HEAD")
        main = _main_line(commits)
        squashed = [c for c in main if len(c.parents) == 1 and _SQUASHED.search(c.subject)]
        direct = [c for c in main if len(c.parents) == 1 and not _SQUASHED.search(c.subject)]
        shallow = _told(root, "rev-parse", "--is-shallow-repository").strip() == "true"
        hours = Counter((_utc(c.authored)[:13], c.contributor) for c in commits)
        history = {
            "commits": len(commits),
            "shallow": shallow,
            "roots": sum(not c.parents for c in commits),
            "first": _utc(min(c.authored for c in commits)),
            "last": _utc(max(c.authored for c in commits)),
            "people": len({c.contributor for c in commits}),
            "contributors": _contributors(commits),
            "main_line": {
                "commits": len(main),
                "merges": sum(len(c.parents) > 1 for c in main),
                "squashed": len(squashed),
                "direct": len(direct),
                "direct_by": _counted(c.contributor for c in direct),
            },
            "merges": _merges(root, commits, main, most, shallow),
            "hours": [
                {"hour": f"{hour}:00", "contributor": who, "commits": n} for (hour, who), n in sorted(hours.items())
            ],
            "graph": [
                {"commit": c.id, "parents": list(c.parents), "contributor": c.contributor} for c in commits[:SHOWN]
            ],
        }
    except NoHistoryError as reason:
        return {"history": None, "note": str(reason)}
    except subprocess.TimeoutExpired as late:
        return {"history": None, "note": f"git did not answer within {late.timeout:g} seconds"}
    depth = f"the clone is shallow: it holds {len(main)} commits of the main line, and nothing older counts"
    return {"history": history, "note": depth if shallow else None}
