"""Git histories made here, each read for what it is; nothing of the machine's own git settings reaches them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from collaboration_evidence import collaboration_results
from describe_collaboration import describe_collaboration
from plot_history import lanes_of, plot_history

from pcam import history
from pcam.answers_collaboration import collaboration_answers
from pcam.binding import take_marks
from pcam.ci_checks import describe_ci
from pcam.documents import Missing, Source, open_evidence
from pcam.history import history_state, read_history
from pcam.rendering import in_markdown, loose_digits

ANA, BEN = "Ana", "Ben $x$"


class Repository:
    """A repository with a clock of its own: each commit an hour after the one before."""

    def __init__(self, root: Path) -> None:
        self.root, self.hour = root, 0
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *arguments: str, who: str = ANA, check: bool = True) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        when = f"{1_700_000_000 + 3600 * self.hour} +0000"
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        for role in ("AUTHOR", "COMMITTER"):
            own |= {f"GIT_{role}_NAME": who, f"GIT_{role}_EMAIL": "secret@example.org", f"GIT_{role}_DATE": when}
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, env={**kept, **own}, capture_output=True, text=True, check=check
        )
        return done.stdout.strip()

    def commit(self, message: str, who: str = ANA, **files: str) -> str:
        """Write `files` (two underscores stand for the dot) and commit them."""
        for name, text in files.items():
            (self.root / name.replace("__", ".")).write_text(text)
        self.hour += 1
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, who=who)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, at: str = "HEAD") -> None:
        self.git("checkout", "--quiet", "-b", name, at)

    def merge(self, branch: str, message: str, who: str = ANA, **resolved: str) -> str:
        """Merge into main; files of a conflict get the text of `resolved`."""
        self.git("checkout", "--quiet", "main")
        self.git("merge", "--no-ff", "--no-commit", branch, who=who, check=False)
        return self.commit(message, who, **resolved)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Two branches of Ben's: one merges by itself, one conflicts in three files, each resolved in another way."""
    repository = Repository(tmp_path_factory.mktemp("merged") / "repository")
    repository.commit("first", one__txt="1\n", two__txt="2\n", three__txt="3\n")
    repository.branch("clean")
    repository.commit("its own file", BEN, four__txt="4\n")
    repository.merge("clean", "Merge pull request #1 from someone/feature/clean")
    repository.branch("rival")
    repository.commit("his version", BEN, one__txt="his 1\n", two__txt="his 2\n", three__txt="his 3\n")
    repository.commit("more of it", BEN, five__txt="5\n")
    repository.git("checkout", "--quiet", "main")
    repository.commit("hers", one__txt="her 1\n", two__txt="her 2\n", three__txt="her 3\n")
    repository.commit("a reviewed change (#7)", six__txt="6\n")
    repository.merge("rival", "Merge branch 'rival'", BEN, one__txt="her 1\n", two__txt="his 2\n", three__txt="both\n")
    return repository


def told(root: Path, most: int = 100) -> dict[str, Any]:
    found = read_history(root, most)
    assert found["history"] is not None, found["note"]
    return found["history"]


def sentences(tmp_path: Path, root: Path, **changed: Any) -> dict[str, Any]:
    """The answers of question 7 on this repository, as Markdown without marks; each digit is bound to the result."""
    path = tmp_path / "collaboration.json"
    describe_collaboration(str(path), root=str(root), provenance={"rule": "describe_collaboration"})
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return rendered(path)


def rendered(path: Path) -> dict[str, Any]:
    answers = collaboration_answers({"collaboration": open_evidence(Source(str(path), "describe_collaboration"))})

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        text = str(in_markdown(value))
        assert loose_digits(text) == []
        return take_marks(text)[0]

    return {name: plain(list(value) if isinstance(value, list) else value) for name, value in answers.items()}


def test_a_linear_history_has_no_merge_and_its_commits_are_direct(repository: Repository, tmp_path: Path) -> None:
    repository.commit("first", one__txt="1\n")
    repository.commit("second", BEN)
    repository.commit("third", BEN)
    found = told(repository.root)
    assert (found["commits"], found["roots"], found["people"]) == (3, 1, 2)
    assert [(p["name"], p["commits"], p["first"]) for p in found["contributors"]] == [
        (BEN, 2, "2023-11-15 00:13"),
        (ANA, 1, "2023-11-14 23:13"),
    ]
    # The first commit has nothing that it could have been merged into.
    assert found["main_line"] == {
        "commits": 3, "merges": 0, "squashed": 0, "direct": 2, "direct_by": [{"name": BEN, "commits": 2}]
    }  # fmt: skip
    assert found["merges"]["found"] == 0
    answers = sentences(tmp_path, repository.root)
    assert "no merge" in answers["merges_sentence"] and "No merge could conflict" in answers["conflict_sentence"]
    assert "2 direct commits" in answers["main_sentence"]


def test_merges_are_replayed_and_each_conflict_tells_whose_version_the_merge_holds(merged: Repository) -> None:
    before = merged.git("count-objects", "-v")
    found = told(merged.root)
    assert merged.git("count-objects", "-v") == before  # read, not written
    rival, clean = found["merges"]["newest"]
    assert (clean["outcome"], clean["kind"], clean["branch"]) == ("clean", "pull request", "feature/clean")
    assert (clean["by"], clean["authors"], clean["commits"], clean["conflicts"]) == (ANA, [BEN], 1, [])
    assert (rival["outcome"], rival["kind"], rival["branch"], rival["by"]) == ("conflicts", "branch", "rival", BEN)
    assert {conflict["path"]: conflict["resolved"] for conflict in rival["conflicts"]} == {
        "one.txt": "first side",
        "two.txt": "second side",
        "three.txt": "a version of its own",
    }
    assert rival["commits"] == 2 and rival["days"] == pytest.approx(4 / 24)
    assert (found["merges"]["clean"], found["merges"]["conflicting"], found["merges"]["files_in_conflict"]) == (1, 1, 3)
    assert (found["main_line"]["merges"], found["main_line"]["squashed"], found["main_line"]["direct"]) == (2, 1, 1)


def test_the_answers_say_it(merged: Repository, tmp_path: Path) -> None:
    answers = sentences(tmp_path, merged.root)
    assert "(2), 2 were merged again from the two parents" in answers["conflict_sentence"]
    assert "1 goes together by itself and 1 conflicts" in answers["conflict_sentence"]
    assert {row[3]: row[4] for row in answers["conflict_table"]} == {
        "one.txt": "the version of the line merged into",
        "two.txt": "the version of the branch",
        "three.txt": "a version of its own",
    }
    assert "2 merges, 1 squashed pull request (told by the subject) and 1 direct commit." in answers["main_sentence"]
    # Ana merged a branch of Ben's; his own he merged himself.
    assert "(2) lived 1.0 hours to 4.0 hours" in answers["merges_sentence"]
    assert "1 of them by somebody who had no commit" in answers["merges_sentence"]
    assert "secret@example.org" not in (tmp_path / "collaboration.json").read_text()


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("Merge branch 'main' of github.com:a/b", "pull of the same branch"),
        ("Merge branch 'dev' of github.com:a/b into dev", "pull of the same branch"),
        ("Merge remote-tracking branch 'origin/main'", "pull of the same branch"),
        ("Merge remote-tracking branch 'refs/remotes/origin/x/y' into x/y", "pull of the same branch"),
        ("Merge remote-tracking branch 'origin/feature-x'", "branch"),
        ("Merge branch 'feature' of github.com:a/b into main", "branch"),
        ("Merge branch 'main' of github.com:a/b into feature", "branch"),
        ("Merge branch 'main' into feature", "branch"),
    ],
)
def test_a_pull_is_told_from_a_branch_that_came_by_a_remote(repository: Repository, subject: str, kind: str) -> None:
    repository.commit("first", one__txt="1\n")
    repository.branch("other")
    repository.commit("second", BEN, two__txt="2\n")
    repository.merge("other", subject)
    [merge] = told(repository.root)["merges"]["newest"]
    assert merge["kind"] == kind


def test_a_file_that_one_side_removed_and_a_merge_of_three_branches(repository: Repository, tmp_path: Path) -> None:
    repository.commit("first", gone__txt="1\n")
    for name in ("a", "b"):
        repository.branch(name, "main")
        repository.commit(name, BEN, **{f"{name}__txt": "1\n"})
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "-m", "Merge branches 'a' and 'b'", "a", "b")
    repository.branch("edit")
    repository.commit("edited", BEN, gone__txt="2\n")
    repository.git("checkout", "--quiet", "main")
    repository.git("rm", "--quiet", "gone.txt")
    repository.commit("removed")
    repository.git("merge", "--no-commit", "edit", check=False)
    repository.git("rm", "--quiet", "gone.txt", check=False)
    repository.commit("Merge branch 'edit'")
    removed, octopus = told(repository.root)["merges"]["newest"]
    assert removed["conflicts"] == [{"path": "gone.txt", "resolved": "first side"}]
    assert (octopus["outcome"], octopus["note"]) == (None, "it has more than two parents")
    said = sentences(tmp_path, repository.root)["conflict_sentence"]
    assert "Of the newest merges (2), 1 was merged again" in said
    assert "0 go together by themselves and 1 conflicts" in said
    assert "Not replayed: 1 (it has more than two parents)." in said


def test_only_the_newest_merges_are_replayed_and_that_is_said(merged: Repository, tmp_path: Path) -> None:
    found = told(merged.root, most=1)["merges"]
    assert (found["found"], found["looked_at"], found["clean"], found["conflicting"]) == (2, 1, 0, 1)
    assert [merge["branch"] for merge in found["newest"]] == ["rival"]
    answers = sentences(tmp_path, merged.root, **read_history(merged.root, 1))
    assert "The newest 1 were looked at" in answers["merges_sentence"]


def test_a_shallow_clone_says_so_and_claims_nothing_of_what_it_lacks(merged: Repository, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth", "2", merged.root.as_uri(), shallow], check=True)
    found = read_history(shallow, 100)
    assert found["history"]["shallow"] is True
    assert found["note"] == "the clone is shallow: it holds 2 commits of the main line, and nothing older counts"
    [rival] = found["history"]["merges"]["newest"]
    assert (rival["outcome"], rival["note"]) == (None, history.NO_BASE)
    assert (rival["commits"], rival["days"]) == (None, None)
    answers = sentences(tmp_path, shallow)
    assert "the clone is shallow" in answers["history_sentence"] and "outside" in answers["origin_sentence"]
    assert answers["branch_table"][0][2:5] == ["undefined"] * 3
    assert answers["conflict_sentence"] == (
        "None of the newest merges (1) could be merged again, so whether they conflicted is not known: "
        f"{history.NO_BASE}."
    )
    before = history_state(shallow)
    subprocess.run(["git", "-C", shallow, "fetch", "--quiet", "--unshallow"], check=True)
    assert history_state(shallow) != before and told(shallow)["merges"]["conflicting"] == 1


def test_state_moves_with_the_commit_and_with_nothing_else(repository: Repository) -> None:
    assert history_state(repository.root) is None
    repository.commit("first", one__txt="1\n")
    before = history_state(repository.root)
    (repository.root / "one.txt").write_text("2\n")
    assert history_state(repository.root) == before
    repository.commit("second")
    assert history_state(repository.root) != before


def without_git(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    monkeypatch.setenv("PATH", str(root))
    return root


def no_commit(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    return Repository(root / "empty").root


def inside_another(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    outer = Repository(root / "outer")
    outer.commit("of something else", note__txt="1\n")
    (outer.root / "unpacked").mkdir()
    return outer.root / "unpacked"


def broken(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    repository = Repository(root / "broken")
    repository.commit("first")
    (repository.root / ".git" / "config").write_text("[core\n")
    return repository.root


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda _, root: root, "stand in no git repository"),
        (without_git, "git is not installed"),
        (no_commit, "has no commit yet"),
        (inside_another, "no git repository of their own"),
        (broken, "git could not read the repository"),
    ],
)
def test_no_history_is_no_error(made: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()
    root = made(monkeypatch, tmp_path / "place")
    answers = sentences(tmp_path, root)
    assert said in answers["history_sentence"]
    assert answers["has_history"] is False and answers["people_table"] == [] == answers["branch_table"]
    plot_history(str(tmp_path / "collaboration.json"), str(tmp_path / "h.png"), str(tmp_path / "h.txt"), label="L")
    assert said in (tmp_path / "h.txt").read_text() and (tmp_path / "h.png").stat().st_size > 1000


def test_an_old_git_replays_nothing_and_says_which_is_needed(
    merged: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history.version("git version 2.39.5") == (2, 39)
    assert history.version("git version 2.50.1 (Apple Git-155)") == (2, 50)
    monkeypatch.setattr(history, "REPLAYS_SINCE", (99, 0))
    found = told(merged.root)["merges"]
    assert found["not_replayed"] == 2 and "2.38" in found["newest"][0]["note"]


def test_an_address_for_a_name_is_cut_and_the_picture_takes_any_name(repository: Repository, tmp_path: Path) -> None:
    repository.commit("first", "someone@example.org", one__txt="1\n")
    for i in range(8):
        repository.commit("next", f"_{i} $\\frac$ |x|")
    assert "someone" in {person["name"] for person in told(repository.root)["contributors"]}
    answers = sentences(tmp_path, repository.root)
    assert "\\|x\\|" in answers["people_table"][0][0]
    plot_history(str(tmp_path / "collaboration.json"), str(tmp_path / "h.png"), str(tmp_path / "h.txt"), label="L")
    assert "contributors 9" in (tmp_path / "h.txt").read_text()


def test_lanes_keep_a_first_parent_and_branch_off_the_second() -> None:
    graph = [("m", ["b", "x"]), ("x", ["a"]), ("b", ["a"]), ("a", [])]
    assert lanes_of([{"commit": commit, "parents": parents} for commit, parents in graph]) == [0, 1, 0, 0]


def test_a_missing_result_is_missing_in_every_sentence(tmp_path: Path) -> None:
    found = {"collaboration": open_evidence(Source(str(tmp_path / "none.json"), "describe_collaboration"))}
    answers = collaboration_answers(found)
    assert all(isinstance(answers[name], Missing) for name in ("history_sentence", "ci_sentence", "ci_job_table"))
    assert isinstance(answers["open_doors"][0], Missing)


WORKFLOW = """\
on:
  push: {branches: [main, dev]}
permissions: {contents: read}
jobs:
  loose:
    permissions: {contents: write}
    steps:
      - uses: some/action@v3
      - uses: some/pinned@0123456789abcdef0123456789abcdef01234567
      - run: make test
        continue-on-error: true
  tight:
    needs: loose
    timeout-minutes: 5
    steps:
      - uses: ./.github/actions/setup
"""


def test_what_ci_would_let_through_is_found(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "ci.yml").write_text(WORKFLOW)
    (folder / "odd.yaml").write_text("a: [")
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: [{repo: local, hooks: [{id: ruff}]}]")
    ci = describe_ci(tmp_path)
    assert ci["workflows"][0]["triggers"] == ["push to main, dev"]
    assert (ci["jobs"], ci["actions"], ci["pinned"], ci["unpinned"]) == (2, 3, 2, ["some/action"])
    assert ci["writing_jobs"] == [".github/workflows/ci.yml: loose"]
    assert (ci["without_limit"], ci["may_fail"], ci["on_pull_request"], ci["owners"]) == (1, 1, False, False)
    assert ci["hooks"] == [{"hook": "ruff", "repository": "local"}]
    answers = sentences(tmp_path, tmp_path)
    doors = " ".join(answers["open_doors"])
    for said in ("pull requests", "some/action", "loose", "time limit", "may fail", "CODEOWNERS", "Hooks"):
        assert said in doors
    assert "not readable: it is no YAML file" in answers["ci_job_table"][-1][1]


def test_ci_files_that_are_no_text_or_no_file_and_a_job_that_calls_another_workflow(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    (folder / "a.yml").mkdir(parents=True)
    (folder / "b.yml").write_text("jobs: {call: {uses: o/r/.github/workflows/x.yml@main}}")
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes(b'step "lint"\n# caf\xe9\nstep "tests"\n')
    ci = describe_ci(tmp_path)
    assert [workflow["file"] for workflow in ci["workflows"]] == [".github/workflows/b.yml"]
    assert (ci["actions"], ci["pinned"], ci["unpinned"]) == (1, 0, ["o/r/.github/workflows/x.yml"])
    assert ci["script_steps"] == ["lint", "tests"]


def test_numbers_of_the_evidence_stand_in_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "collaboration.json"
    path.write_text(json.dumps(collaboration_results()["collaboration"]))
    text = str(rendered(path))
    for said in ("6,021 commits", "5,023", "5,059", "2.6", "17 min", "src/shared.py", "Ana \\\\<b\\\\>", "feedc0de"):
        assert said in text
