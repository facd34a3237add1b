"""The repository's own files keep their promises: CI pins and limits what it runs, and the guides name what exists."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from pcam.ci_checks import describe_ci

# Read in the files of public workflows that pin them; a commit that nobody could look up is none of these.
PINS = {
    "actions/checkout": ("de0fac2e4500dabe0009e67214ff5f5447ce83dd", "v6.0.2"),
    "actions/setup-python": ("a309ff8b426b58ec0e2a45f0f869d46889d02405", "v6"),
    "actions/upload-artifact": ("bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7"),
}
CI_FILES = sorted((ROOT / ".github").rglob("*.y*ml"))
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def steps() -> list[dict[str, Any]]:
    """Of every job and of the actions that lie here."""
    action = yaml.safe_load((ROOT / ".github" / "actions" / "setup" / "action.yml").read_text())
    return [*action["runs"]["steps"], *(step for job in CI["jobs"].values() for step in job["steps"])]


def test_every_action_is_pinned_to_a_known_commit_with_its_release_beside_it() -> None:
    used = [(name, line) for path in CI_FILES for line in path.read_text().splitlines()
            for name in re.findall(r"uses: (\S+)", line)]  # fmt: skip
    assert len(used) > 6
    for name, line in used:
        if name.startswith("./"):
            assert (ROOT / name / "action.yml").is_file()
        else:
            action, _, commit = name.partition("@")
            assert (commit, line.partition("# ")[2]) == PINS[action]


def test_ci_grants_reading_alone_keeps_no_token_and_ends() -> None:
    ci = describe_ci(ROOT)
    assert ci["workflows"][0]["permissions"] == {"contents": "read"}
    assert (ci["writing_jobs"], ci["unpinned"], ci["without_limit"], ci["may_fail"]) == ([], [], 0, 0)
    assert ci["on_pull_request"] and ci["on_push"]
    assert "pull_request_target" not in str(CI)
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout")]
    assert len(checkouts) == len(CI["jobs"])
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_style_comes_before_tests_and_tests_before_the_workflow_whose_report_is_kept() -> None:
    jobs = CI["jobs"]
    assert "needs" not in jobs["style"]
    assert (jobs["unit"]["needs"], jobs["workflow"]["needs"]) == ("style", "unit")
    bundle = jobs["workflow"]["steps"][-2]
    assert bundle["with"] == {"name": "bundle", "path": "results/handover"} and bundle["if"] == "always()"
    for job in ("workflow", "everything"):
        checkout, kept = jobs[job]["steps"][0], jobs[job]["steps"][-1]
        assert checkout["with"]["fetch-depth"] == 0  # else the journal knows one commit
        assert "results/report.html" in kept["with"]["path"].split() and kept["if"] == "always()"


def test_each_command_of_ci_is_a_make_target_or_the_script() -> None:
    commands = [line for step in steps() for line in step.get("run", "").splitlines()]
    # As root, who alone may install Slurm and start it: else the job is green with its tests skipped.
    whole = 'sudo -E env "PATH=$PATH" .ci/run'
    assert {"make style", "make test", "make tiny-bundle", "make scan", whole} <= set(commands)
    for command in commands:
        name, _, target = command.partition(" ")
        assert command == whole or (name == "make" and target in TARGETS), command


def test_hooks_run_what_ci_runs_each_of_a_stated_version() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    hooks = {hook["id"]: hook for hook in local["hooks"]}
    assert {"ruff", "ruff-format", "snakefmt", "check-yaml", "check-added-large-files", "detect-secrets"} <= set(hooks)
    pins = (ROOT / "requirements-dev.txt").read_text()
    for hook in hooks.values():
        if hook["language"] == "system":
            assert re.search(rf"^{Path(hook['entry'].split()[0]).name}==", pins, re.MULTILINE)
        else:
            assert all(re.fullmatch(r"[a-z-]+==[\d.]+", name) for name in hook["additional_dependencies"])
    assert hooks["detect-secrets"]["additional_dependencies"][0] in MAKEFILE


def test_newer_releases_are_looked_for_wherever_something_is_pinned() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    found = {update["package-ecosystem"]: update for update in updates}
    assert set(found) == {"pip", "github-actions"}
    folders = {path.parent for path in CI_FILES if path.name == "action.yml"}
    assert {ROOT / folder.strip("/") for folder in found["github-actions"]["directories"]} >= folders


def test_the_layer_picture_is_that_of_the_checked_layers() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    place = {module: i for i, layer in enumerate(layers) for module in layer.split(" : ")}
    picture = re.findall(r"```text\n(.*?)```", CONTRIBUTING, re.DOTALL)[0].splitlines()[2:]
    rows = [line[15:].split() for line in picture]
    assert len(rows) > 10
    assert all(len({place[module] for module in row}) == 1 for row in rows)
    order = [place[row[0]] for row in rows]
    assert order == sorted(set(order)) and order[-1] == len(layers) - 1


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_every_target_file_and_link_that_a_guide_names_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(re.findall(r"`[^`]+`|^make .*$", text, re.M)))) <= TARGETS
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    files = re.findall(r"`((?:workflow|tests|config|profiles|bench|assets)/[\w./-]+)`", text)
    assert links or files
    for place in (*links, *files):
        assert (ROOT / place).exists(), place


def test_a_module_or_script_that_contributing_names_holds_what_it_says() -> None:
    scripts = ROOT / "workflow" / "scripts" / "pcam"
    for module, names in {"model": ("MODELS", "Classifier", "build_model", "Architecture"), "policy": ("SUSPICIONS",),
                          "attributes": ("ATTRIBUTES", "UNITS")}.items():  # fmt: skip
        text = (scripts / f"{module}.py").read_text()
        for name in names:
            assert f"`{name}`" in CONTRIBUTING
            assert re.search(rf"^(class |def )?{name}\b", text, re.MULTILINE)


def test_citation_has_what_its_format_requires() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software" and cited["license"] == "MIT"
    assert all(cited[key] for key in ("message", "title", "authors"))
    for author in (*cited["authors"], *(a for reference in cited["references"] for a in reference["authors"])):
        assert set(author) in ({"name"}, {"family-names", "given-names"})
    assert all({"type", "title", "authors"} <= set(reference) for reference in cited["references"])


def test_make_knows_every_target_it_declares() -> None:
    declared = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert declared == TARGETS
    done = subprocess.run(["make", "--dry-run", "scan"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--exclude-secrets '^secret$'" in done.stdout
