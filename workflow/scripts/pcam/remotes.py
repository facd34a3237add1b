"""What git knows of a repository's remotes: where they are, and what their branches held when this clone last asked.

Nothing here reaches the network: a remote branch is as the last fetch or push from this clone left it.
"""

import re
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any


def git(root: str | Path, *arguments: str, accept: Collection[int] = (0,)) -> str | None:
    """What git prints; None where it fails, with an exit code other than `accept`, or there is no git."""
    try:
        done = subprocess.run(("git", "-C", str(root), *arguments), capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode in accept else None


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def same_place(url: str) -> str:
    """host/path of a repository, alike for every way to write it and without user, password, port and `.git`."""
    found = re.fullmatch(r"[\w+.-]+://(?:[^/]*@)?([^/:@]+)(?::\d+)?/(.*)", url) or re.fullmatch(
        r"(?!.*://)(?:[^/]*@)?([^/:@]+):(.*)", url
    )
    # A password with a slash in it makes an address that git itself cannot use: all before the last @ is left out.
    place = "/".join(found.groups()) if found else re.sub(r"^.*://.*@", "", url)
    return place.rstrip("/").removesuffix(".git").rstrip("/").casefold()


def remotes(root: str | Path) -> dict[str, str]:
    """Place of each remote by its name, see same_place."""
    named = {name: git(root, "remote", "get-url", name) for name in _lines(git(root, "remote"))}
    return {name: same_place(url) for name, url in named.items() if url}


def _updates(root: str | Path, branch: str) -> list[tuple[str, str]]:
    """Commit and time (ISO 8601) of each change that this clone saw of a remote branch, newest first."""
    text = git(root, "log", "--walk-reflogs", "--date=iso-strict", "--format=%H %gd", f"refs/remotes/{branch}", "--")
    seen = []
    for line in _lines(text):
        commit, _, selector = line.partition(" ")
        seen.append((commit, selector.rpartition("@{")[2].rstrip("}")))
    return seen


def last_asked(root: str | Path) -> str | None:
    """When a remote branch last changed as this clone sees it (ISO 8601); None where that is not recorded."""
    branches = _lines(git(root, "branch", "--remotes", "--format=%(refname:lstrip=2)"))
    return max((updates[0][1] for branch in branches if (updates := _updates(root, branch))), default=None)


def holds(root: str | Path, commit: str) -> dict[str, str | None]:
    """The remote branches that hold a commit, each with the time since when this clone knows it; None: not recorded.

    That time stays the same at later fetches and pushes, so that what is written with it does, too.
    """
    told: dict[str, str | None] = {}
    for branch in _lines(git(root, "branch", "--remotes", "--contains", commit, "--format=%(refname:lstrip=2)")):
        since = None
        for update, time in _updates(root, branch):
            if git(root, "merge-base", "--is-ancestor", commit, update) is None:
                break
            since = time
        if not branch.endswith("/HEAD"):  # another name of a branch
            told[branch] = since
    return told


def tracked(root: str | Path, *folders: str) -> list[str]:
    """Files below these folders that git tracks, relative to the repository."""
    return sorted(_lines(git(root, "ls-files", "--", *folders)))


def changed(root: str | Path, *paths: str) -> list[str] | None:
    """Those of these files or folders whose content is not what the last commit holds, untracked ones too.

    Paths are relative to `root`, which may lie deeper than the repository's top. None where git cannot tell.
    """
    status = git(root, "status", "--porcelain", "--untracked-files=all", "-z", "--no-renames", "--", *paths)
    prefix = git(root, "rev-parse", "--show-prefix")
    if status is None or prefix is None:
        return None
    return sorted(entry[3:].removeprefix(prefix) for entry in status.split("\0") if entry)


def ignored(root: str | Path, *paths: str) -> list[str] | None:
    """Those of these paths that git would neither show nor add; a tracked one never is. None where git cannot tell."""
    told = git(root, "check-ignore", "--", *paths, accept=(0, 1))  # 1: none of them
    return None if told is None else _lines(told)


def submission_state(root: str | Path) -> dict[str, Any]:
    """All that the submission checklist asks git: a rule carries it as a parameter, so that a change reruns it.

    tracked: files below profiles/slurm, checkpoints below assets and their sidecars; remotes: place by name; asked: see
    last_asked, None once a remote branch holds every checkpoint; checkpoints: of each tracked one its path, its commit
    (the last that touched it or its sidecar), changed (see there) and branches (see holds).
    """
    assets = set(tracked(root, "assets"))
    weights = sorted(path for path in assets if path.endswith(".pt"))
    files = [*weights, *sorted(assets & {_sidecar(path) for path in weights}), *tracked(root, "profiles/slurm")]
    checkpoints: list[dict[str, Any]] = []
    for path in weights:
        pair = (path, _sidecar(path))
        commit = git(root, "log", "-1", "--format=%H", "--", *pair) or None
        branches = holds(root, commit) if commit else {}
        checkpoints.append({"path": path, "commit": commit, "changed": changed(root, *pair), "branches": branches})
    pushed = bool(checkpoints) and all(entry["branches"] for entry in checkpoints)
    asked = None if pushed else last_asked(root)
    return {"tracked": files, "remotes": remotes(root), "asked": asked, "checkpoints": checkpoints}


def _sidecar(weights: str) -> str:
    return weights.removesuffix(".pt") + ".json"
