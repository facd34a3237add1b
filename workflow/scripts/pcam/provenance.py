"""Where a result comes from: commit, digest of the code, versions, device. Imports no torch: the Snakefile uses it."""

import ast
import hashlib
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
ROOT = SCRIPTS.parents[1]


class _WithoutDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body = (node.body[1:] or [ast.Pass()]) if documented else node.body
        return node


def _imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _source_of(module: str) -> Path | None:
    path = SCRIPTS.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@dataclass(frozen=True)
class _Module:
    code: str  # as the syntax tree gives it, without comments and docstrings
    imports: tuple[Path, ...]  # of modules below workflow/scripts


@cache
def _read_module(path: Path) -> _Module:
    """Each file is parsed once a process: the scripts of seventy rules share most of their modules."""
    tree = ast.parse(path.read_text())
    found = {source for name in _imported_modules(tree) if (source := _source_of(name)) is not None}
    bare = ast.fix_missing_locations(_WithoutDocstrings().visit(tree))
    return _Module(ast.unparse(bare), tuple(sorted(found)))


@cache
def import_closure(script: Path) -> tuple[Path, ...]:
    """The script and every module of `workflow/scripts` it imports, directly or not, sorted."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_read_module(path).imports)
    return tuple(sorted(found))


def program_files() -> list[str]:
    """Paths, relative to the repository, of all that inference.py and the selftest of its bundle import from here."""
    package = SCRIPTS / "pcam"
    closure = {*import_closure(ROOT / "inference.py"), *import_closure(package / "selftest.py")}
    return sorted(path.relative_to(ROOT).as_posix() for path in {*closure, package / "__init__.py"})


@cache
def code_digest(rule: str) -> str:
    """Digest of the syntax trees (no comments, no docstrings) of a rule's script and all it imports from here.

    Rules carry it as `params: code=`, so that a change of content reruns them and a touch does not: Snakemake itself
    does not see edits in imported modules.
    """
    digest = hashlib.sha256()
    for path in import_closure(SCRIPTS / f"{rule}.py"):
        digest.update(f"{path.name}\n{_read_module(path).code}\n".encode())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@cache
def git_state() -> dict[str, str | bool | None]:
    """`commit` (None outside a repository) and `dirty`: whether a tracked file differs from it."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}


@cache
def cpu_name() -> str:
    """The processor's name as the kernel prints it, else the platform's."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def package_versions(names: list[str]) -> dict[str, str | None]:
    """Installed version of each distribution, None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


_described: list[dict[str, object]] = []
_named: str | None = None
# Who else hears of the device once it is named: the log of a stage, the parent of a child.
hearers: list[Callable[[str], None]] = []


def describe(rule: str, code: str) -> dict[str, object]:
    """What every JSON result carries: rule, commit, dirty flag, code digest, device, Python.

    The device is the processor until `computed_on` names another.
    """
    told: dict[str, object] = {
        "rule": rule,
        **git_state(),
        "code": code,
        "device": _named or cpu_name(),
        "python": sys.version.split()[0],
    }
    _described.append(told)
    return told


def computed_on(device: str) -> None:
    """Name the device in what `describe` gives in this process, and tell `hearers`.

    Only torch, which is imported later or in a child alone, knows a GPU.
    """
    global _named
    if device == (_named or cpu_name()):
        return
    _named = device
    for told in _described:
        told["device"] = device
    for hear in hearers:
        hear(device)
