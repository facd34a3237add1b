"""Each item of the submission checklist opens with its fault, says what to do, and closes when it is done."""

import re
import shutil
from pathlib import Path

import pytest
from check_submission import ITEMS, check_submission
from conftest import ROOT
from repository import make_repository, shell, write_checkpoint

from pcam.files import read_json
from pcam.remotes import same_place, submission_state
from pcam.submission import check_checkpoint, check_inference, check_members, check_repository, check_slurm

COMMITTED = "assets/champion/weights.pt"
SLURM = ("profiles/slurm/config.yaml", "profiles/slurm/head.sbatch", "profiles/slurm/preflight.sbatch")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repository(tmp_path)


@pytest.fixture
def champion(tmp_path: Path) -> str:
    return str(write_checkpoint(tmp_path / "run" / "weights.pt"))


def commit(root: Path, *paths: str) -> None:
    shell(root, f"git add {' '.join(paths) or '.'} && git commit -q -m next")


def checkpoint_item(champion: str, root: Path) -> tuple[bool, str, str]:
    return check_checkpoint(champion, str(root), submission_state(root))


def test_a_checkpoint_closes_its_item_once_committed_and_pushed(root: Path, champion: str) -> None:
    ok, found, todo = checkpoint_item(champion, root)
    assert not ok and "no checkpoint is tracked" in found and "snakemake publish" in todo
    write_checkpoint(root / COMMITTED)
    assert not checkpoint_item(champion, root)[0]  # there, and not tracked
    commit(root)
    ok, found, todo = checkpoint_item(champion, root)
    assert not ok and "no remote branch that this clone knows, as of 2" in found and "push" in todo
    shell(root, "git push -q")
    ok, found, todo = checkpoint_item(champion, root)
    assert ok and not todo
    head = shell(root, "git rev-parse HEAD")[:8]
    assert re.search(
        rf"is this run's champion .* commit {head} is on origin/main \(known since \d{{4}}-.*not asked", found
    )


def test_later_pushes_leave_the_item_as_it_is(root: Path, champion: str) -> None:
    write_checkpoint(root / COMMITTED)
    commit(root)
    shell(root, "git push -q")
    before = submission_state(root)
    (root / "journal.md").write_text("x")
    commit(root)
    shell(root, "git push -q && git fetch -q")
    assert submission_state(root) == before


def test_a_fetch_can_close_the_item_and_a_lost_reflog_is_said(root: Path, champion: str) -> None:
    shell(root, "git clone -q ../remote.git ../other")
    other = root.with_name("other")
    write_checkpoint(other / COMMITTED)
    commit(other)
    shell(other, "git push -q")
    shell(root, "git pull -q")
    assert checkpoint_item(champion, root)[0]
    shutil.rmtree(root / ".git" / "logs")
    ok, found, _ = checkpoint_item(champion, root)
    assert ok and "known since a time not recorded" in found


@pytest.mark.parametrize(
    ("fault", "found_there"),
    [
        ("true > weights.pt; git commit -q -a -m next", "does not load"),
        ("git rm -q --cached weights.json; git commit -q -m next", "weights.json is not"),
        ("sed -i s/SYNTHETIC/other/ weights.json", "not as committed: assets/champion/weights.json"),
        ("git remote remove origin", "this clone has no remote"),
    ],
)
def test_a_faulty_checkpoint_keeps_the_item_open(root: Path, champion: str, fault: str, found_there: str) -> None:
    write_checkpoint(root / COMMITTED)
    commit(root)
    shell(root, "git push -q")
    shell(root / "assets" / "champion", fault)
    ok, found, todo = checkpoint_item(champion, root)
    assert not ok and found_there in found and todo
    assert str(root) not in found


def test_the_checkpoint_of_another_run_is_told_from_this_ones_and_of_two_the_right_one_counts(
    root: Path, champion: str
) -> None:
    write_checkpoint(root / "assets" / "a" / "weights.pt", seed=1)
    commit(root)
    shell(root, "git push -q")
    ok, found, todo = checkpoint_item(champion, root)
    assert not ok and "another run's (SYNTHETIC SAMPLE, digest" in found and todo
    write_checkpoint(root / COMMITTED)
    commit(root)
    shell(root, "git push -q")
    assert checkpoint_item(champion, root)[0]


def test_in_a_subfolder_of_a_repository_what_is_changed_is_seen_and_named_from_there(root: Path, champion: str) -> None:
    project = root / "pcam"
    write_checkpoint(project / COMMITTED)
    commit(root)
    shell(root, "git push -q")
    assert checkpoint_item(champion, project)[0]
    shell(project, "sed -i s/SYNTHETIC/other/ assets/champion/weights.json")
    ok, found, _ = checkpoint_item(champion, project)
    assert not ok and found == "not as committed: assets/champion/weights.json"


def test_where_git_status_fails_nothing_counts_as_committed(root: Path, champion: str) -> None:
    write_checkpoint(root / COMMITTED)
    commit(root)
    shell(root, "git push -q && git config status.showUntrackedFiles nonsense")
    ok, found, todo = checkpoint_item(champion, root)
    assert not ok and "git status" in found and todo


def test_a_champion_that_does_not_load_is_named(root: Path, champion: str) -> None:
    Path(champion).write_bytes(b"")
    ok, found, _ = checkpoint_item(champion, root)
    assert not ok and champion in found


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/group/project",
        "https://github.com/Group/project.git",
        "https://user:secret@github.com/group/project.git/",
        "git@github.com:group/project.git",
        "ssh://git@github.com:22/group/project",
    ],
)
def test_a_link_is_the_remotes_however_it_is_written(url: str) -> None:
    assert same_place(url) == "github.com/group/project"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:p@ss@host/x/y.git",
        "https://user:p@ss@host:8443/x/y",
        "https://user:p/ss@host/x/y.git",
        "git+ssh://p@ss@host/x/y",
        "p@ss@host:x/y.git",
    ],
)
def test_no_part_of_a_password_is_in_a_place(url: str) -> None:
    assert same_place(url) == "host/x/y"


def test_the_link_is_compared_with_the_remote(root: Path) -> None:
    assert check_repository(None, {})[0] is False
    ok, found, _ = check_repository("https://host/a/b", {})
    assert ok and "no remote to compare it with" in found
    shell(root, "git remote set-url origin git@host:a/b.git")
    known = submission_state(root)["remotes"]
    assert check_repository("https://host/a/b", known)[0]
    ok, found, todo = check_repository("https://host/a/c", known)
    assert not ok and "origin is host/a/b" in found and todo


def test_slurm_files_are_those_that_their_settings_make(root: Path) -> None:
    shutil.copytree(ROOT / "profiles", root / "profiles", ignore=shutil.ignore_patterns("__pycache__"))
    assert not check_slurm(str(root), SLURM, submission_state(root)["tracked"])[0]
    commit(root)
    tracked = submission_state(root)["tracked"]
    ok, found, _ = check_slurm(str(root), SLURM, tracked)
    assert ok, found
    head = root / SLURM[1]
    head.write_text(head.read_text() + "#\n")
    ok, found, todo = check_slurm(str(root), SLURM, tracked)
    assert not ok and "head.sbatch" in found and "make sbatch" in todo
    (root / SLURM[0]).write_text("executor: slurm\n")
    ok, found, todo = check_slurm(str(root), SLURM, tracked)
    assert not ok and "cannot be made" in found and todo
    head.unlink()
    assert check_slurm(str(root), SLURM, tracked)[1] == f"missing: {SLURM[1]}"


def test_members_have_name_and_id_and_stand_once() -> None:
    assert check_members([])[0] is check_members(["A"])[0] is check_members(["A / 1", "A / 1"])[0] is False
    assert check_members(["A / 1", "B / 2"]) == (True, "2 members with name and id", "")


def test_a_script_that_answers_otherwise_keeps_its_item_open(root: Path, champion: str) -> None:
    script = root / "inference.py"
    assert "does not exist" in check_inference(str(script), champion, str(root), [])[1]
    # A script that fails with a committed checkpoint alone.
    script.write_text(
        "import sys\nif 'assets' in sys.argv[1]:\n    sys.exit('error: damaged')\nprint('probability')\nprint(0.5)\n"
    )
    assert check_inference(str(script), champion, str(root), [])[0]
    ok, found, todo = check_inference(str(script), champion, str(root), [COMMITTED])
    assert not ok and f"with {COMMITTED}: exit code 1, 0 lines; error: damaged" in found and todo


def test_all_six_items_of_a_finished_submission_are_closed(root: Path, champion: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", root / "profiles", ignore=shutil.ignore_patterns("__pycache__"))
    write_checkpoint(root / COMMITTED)
    commit(root)
    shell(root, "git push -q && git remote set-url origin https://host/a/b.git")
    picture = tmp_path / "results" / "assets" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.touch()
    script = tmp_path / "inference.py"  # what it takes to run the real one: tests/test_inference.py
    script.write_text("print('probability')\nprint(0.5)\n")
    given = {"repository": "https://host/a/b", "members": ["A / 1"]}
    told = tmp_path / "results" / "checklist.json"
    check_submission(
        champion, [str(picture)], str(told), inference_path=str(script), root=str(root),
        state=submission_state(root), slurm_files=SLURM, journal=given, provenance={},
    )  # fmt: skip
    checklist = read_json(told)
    assert [entry["item"] for entry in checklist["items"]] == list(ITEMS)
    assert checklist["open"] == 0, checklist
    assert f"and the same with {COMMITTED}" in checklist["items"][2]["found"]
