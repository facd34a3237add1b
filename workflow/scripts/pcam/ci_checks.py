"""What a repository's own files say about its continuous integration: workflows, the script behind them, hooks."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

OWNERS = ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NotYamlError(Exception):
    """A file that is not what its name says, in a sentence without its point."""


def _mapping(path: Path) -> dict[Any, Any]:
    try:
        told = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        raise NotYamlError("it is no YAML file") from None
    if not isinstance(told, dict):
        raise NotYamlError("it holds no mapping")
    return told


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _inner(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _triggers(told: Mapping[Any, Any]) -> list[str]:
    """Such as "push to main"; YAML reads the key `on` as true."""
    on = told.get("on", told.get(True))
    if not isinstance(on, dict):
        return [str(name) for name in _listed(on)]
    branches = {name: [str(branch) for branch in _listed(_inner(how).get("branches"))] for name, how in on.items()}
    return [f"{name}{' to ' + ', '.join(to) if to else ''}" for name, to in branches.items()]


def _step(step: Mapping[Any, Any]) -> dict[str, Any]:
    uses = step.get("uses")
    action, _, at = str(uses or "").partition("@")
    local = action.startswith("./")
    return {
        "uses": action or None,
        "pinned": None if not uses else local or bool(_COMMIT.fullmatch(at)),
        "run": [line.strip() for line in str(step.get("run") or "").splitlines() if line.strip()],
        "may_fail": bool(step.get("continue-on-error", False)),
    }


def _job(name: str, job: Mapping[Any, Any]) -> dict[str, Any]:
    # A job that calls another workflow has no steps: the call counts as its one step.
    steps = [{"uses": job["uses"]}] if "uses" in job else _listed(job.get("steps"))
    return {
        "job": name,
        "needs": [str(other) for other in _listed(job.get("needs"))],
        "minutes": job.get("timeout-minutes"),
        "permissions": job.get("permissions"),
        "only_if": str(job["if"]) if "if" in job else None,
        "may_fail": bool(job.get("continue-on-error", False)),
        "steps": [_step(step) for step in steps if isinstance(step, dict)],
    }


def _workflow(path: Path, name: str) -> dict[str, Any]:
    try:
        told = _mapping(path)
    except NotYamlError as error:
        return {"file": name, "error": str(error), "triggers": [], "permissions": None, "jobs": []}
    jobs = [_job(str(job), how) for job, how in _inner(told.get("jobs")).items() if isinstance(how, dict)]
    return {
        "file": name,
        "error": None,
        "triggers": _triggers(told),
        "permissions": told.get("permissions"),
        "jobs": jobs,
    }


def _hooks(path: Path) -> list[dict[str, Any]] | None:
    """Hooks of pre-commit's file; None when there is none or it is not readable."""
    try:
        told = _mapping(path) if path.is_file() else None
    except NotYamlError:
        return None
    if told is None:
        return None
    repositories = [repository for repository in _listed(told.get("repos")) if isinstance(repository, dict)]
    return [
        {"hook": str(hook.get("id")), "repository": str(repository.get("repo"))}
        for repository in repositories
        for hook in _listed(repository.get("hooks"))
        if isinstance(hook, dict)
    ]


def _steps(workflows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (step for workflow in workflows for job in workflow["jobs"] for step in job["steps"])


def _may_write(permissions: Any) -> bool:
    """Whether a token may change anything: what nobody limits may."""
    if isinstance(permissions, dict):
        return any(value == "write" for value in permissions.values())
    return permissions not in ("read-all", "none")


def _writing(workflows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Jobs whose token may write, as file: job."""
    return [
        f"{workflow['file']}: {job['job']}"
        for workflow in workflows
        for job in workflow["jobs"]
        if _may_write(workflow["permissions"] if job["permissions"] is None else job["permissions"])
    ]


def describe_ci(root: Path, script: str = ".ci/run") -> dict[str, Any]:
    """Workflows with triggers, permissions, jobs and steps; steps of the script; hooks; what all of it leaves open."""
    folder = root / ".github" / "workflows"
    paths = sorted(path for pattern in ("*.yml", "*.yaml") for path in folder.glob(pattern) if path.is_file())
    workflows = [_workflow(path, path.relative_to(root).as_posix()) for path in paths]
    actions = [step for step in _steps(workflows) if step["uses"]]
    jobs = [job for workflow in workflows for job in workflow["jobs"]]
    triggers = [trigger for workflow in workflows for trigger in workflow["triggers"]]
    shell = (root / script).read_text(errors="replace") if (root / script).is_file() else None
    hooks = _hooks(root / ".pre-commit-config.yaml")
    return {
        "workflows": workflows,
        "jobs": len(jobs),
        "actions": len(actions),
        "pinned": sum(step["pinned"] for step in actions),
        "unpinned": sorted({step["uses"] for step in actions if not step["pinned"]}),
        "writing_jobs": _writing(workflows),
        "without_limit": sum(job["minutes"] is None for job in jobs),
        "may_fail": sum(job["may_fail"] for job in jobs) + sum(step["may_fail"] for step in _steps(workflows)),
        "on_pull_request": any(trigger.startswith("pull_request") for trigger in triggers),
        "on_push": any(trigger.startswith("push") for trigger in triggers),
        "script": script if shell is not None else None,
        "script_steps": re.findall(r'^\s*step "([^"$]+)"', shell, re.MULTILINE) if shell is not None else None,
        "hooks": hooks,
        "owners": any((root / name).is_file() for name in OWNERS),
    }
