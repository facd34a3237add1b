"""What a run made comes into the repository as its documents expect it, and nothing of the group's is lost."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from publish_results import publish_results
from repository import make_repository, shell, write_checkpoint

from pcam.files import InputError, read_json
from pcam.publishing import check_links, image_links, repository_state

PNG = b"\x89PNG not a real picture"
JOURNAL = "# Journal\n\n![a picture](assets/a.png)\n\n| x |\n| --- |\n| ![b](assets/b.png) |\n\n`![no](other.png)`\n"

RULES = Path(__file__).resolve().parents[1] / "workflow" / "rules"
CHAMPION = ("weights.pt", "weights.json", "guard.json", "weights.onnx", "onnx.json")


class Run:
    """Results of a run, and the repository that they are published to."""

    def __init__(self, folder: Path) -> None:
        self.root = make_repository(folder)
        self.results = folder / "results"
        (self.results / "assets").mkdir(parents=True)
        for name in ("a", "b", "unused"):
            (self.results / "assets" / f"{name}.png").write_bytes(PNG)
        self.documents = [str(self.results / f"{name}.md") for name in ("journal", "model_card", "data_card")]
        for path in self.documents:
            Path(path).write_text("No picture.\n")
        Path(self.documents[0]).write_text(JOURNAL)
        weights = write_checkpoint(self.results / "champion" / "weights.pt")
        for name in ("guard.json", "weights.onnx", "onnx.json"):
            (weights.parent / name).write_text(f"not a real {name}\n")
        self.champion = [str(weights.parent / name) for name in CHAMPION]

    def publish(self) -> list[str]:
        told = self.results / "published.json"
        publish_results(
            self.documents, self.champion, str(told), root=str(self.root), link="https://host/a/b", provenance={}
        )
        return read_json(told)["commands"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_documents_pictures_and_champion_come_and_the_printed_commands_push_them(run: Run) -> None:
    head = shell(run.root, "git rev-parse HEAD")
    commands = run.publish()
    assert shell(run.root, "git rev-parse HEAD") == head and shell(run.root, "git diff --cached") == ""
    published = run.root / "journal.md"
    assert published.read_text() == JOURNAL
    assert all((run.root / link).read_bytes() == PNG for link in image_links(JOURNAL))
    assert not (run.root / "assets" / "unused.png").exists()
    for path in run.champion:
        assert (run.root / "assets" / "champion" / Path(path).name).read_bytes() == Path(path).read_bytes()
    shell(run.root, "\n".join(commands))
    assert shell(run.root, "git status --porcelain") == ""
    assert shell(run.root, "git rev-parse origin/main") == shell(run.root, "git rev-parse HEAD") != head
    assert run.publish() == []


def test_the_rule_publishes_all_that_inference_loads_from_a_champion() -> None:
    asked = re.search(r"champion=\[(.*?)\]", (RULES / "publish.smk").read_text(), re.DOTALL)
    assert asked is not None and tuple(re.findall(r'"(\w+\.\w+)"', asked[1])) == CHAMPION


def test_only_what_changed_is_added_and_a_commit_that_waits_is_pushed(run: Run) -> None:
    shell(run.root, "\n".join(run.publish()))
    Path(run.documents[0]).write_text(JOURNAL + "More.\n")
    add, commit, push = run.publish()
    assert add == "git add journal.md" and push == "git push origin main"
    (run.root / "README.md").write_text("staged\n")
    shell(run.root, f"git add README.md && {add} && {commit}")
    assert shell(run.root, "git diff --cached --name-only") == "README.md"  # is not committed along with it
    assert run.publish() == [push]


def test_uncommitted_changes_of_the_group_are_never_replaced(run: Run) -> None:
    shell(run.root, "\n".join(run.publish()))
    mine = run.root / "assets" / "a.png"
    mine.write_bytes(b"mine")
    (run.root / "journal.md").write_text("mine")
    (run.results / "assets" / "b.png").write_bytes(b"new")
    with pytest.raises(InputError, match=r"assets/a\.png, journal\.md: uncommitted changes would be replaced"):
        run.publish()
    assert mine.read_bytes() == b"mine" and (run.root / "assets" / "b.png").read_bytes() == PNG  # nothing was begun
    shell(run.root, "git commit -q -a -m mine")
    run.publish()
    assert mine.read_bytes() == PNG


def test_in_a_subfolder_of_a_repository_the_same_holds(run: Run) -> None:
    run.root = run.root / "pcam"
    run.root.mkdir()
    shell(run.root, "\n".join(run.publish()))
    assert shell(run.root, "git status --porcelain") == "" and run.publish() == []
    assert "pcam/assets/champion/weights.pt" in shell(run.root, "git ls-tree -r --full-tree --name-only HEAD")
    (run.root / "journal.md").write_text("mine")
    Path(run.documents[0]).write_text(JOURNAL + "More.\n")
    with pytest.raises(InputError, match=r"^journal\.md: uncommitted changes would be replaced"):
        run.publish()
    assert (run.root / "journal.md").read_text() == "mine"


def test_a_place_that_git_ignores_is_refused_and_a_file_there_stays(run: Run) -> None:
    (run.root / ".gitignore").write_text("*.pt\n")
    mine = run.root / "assets" / "champion" / "weights.pt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"^assets/champion/weights\.pt: git ignores them"):
        run.publish()
    assert mine.read_bytes() == b"mine" and not (run.root / "journal.md").exists()
    shell(run.root, "git add --force assets && git commit -q -m mine")  # tracked: no rule hides it any more
    assert "assets/champion/weights.pt" in run.publish()[0]


def test_where_git_status_fails_nothing_is_copied(run: Run) -> None:
    (run.root / "journal.md").write_text("mine")
    shell(run.root, "git config status.showUntrackedFiles nonsense")
    with pytest.raises(InputError, match="git status or check-ignore fails"):
        run.publish()
    assert (run.root / "journal.md").read_text() == "mine"
    assert repository_state(run.root)


def test_a_file_git_does_not_know_is_not_replaced_either_and_what_was_published_before_is(run: Run) -> None:
    (run.root / "model_card.md").write_text("mine")
    with pytest.raises(InputError, match="model_card"):
        run.publish()
    (run.root / "model_card.md").unlink()
    assert run.publish() == run.publish()  # published and not yet committed: the same commands again


@pytest.mark.parametrize(
    "link", ["/tmp/a.png", "https://host/a.png", "a.png", "assets/../a.png", "assets/gone.png", "assets/deep/a.png"]
)
def test_a_link_that_is_not_below_assets_or_leads_nowhere_is_refused(run: Run, link: str) -> None:
    Path(run.documents[1]).write_text(f"![x]({link})\n")
    with pytest.raises(InputError, match=re.escape(link)):
        run.publish()
    assert not (run.root / "journal.md").exists()


def test_a_picture_is_shown_from_a_table_too_and_one_in_code_is_none(run: Run) -> None:
    assert [Path(path).name for path in check_links(run.documents)] == ["a.png", "b.png"]


def test_without_a_remote_the_commands_name_the_group_s_link(run: Run) -> None:
    shell(run.root, "git remote remove origin")
    assert run.publish()[2:] == ["git remote add origin https://host/a/b", "git push --set-upstream origin main"]


def test_another_branch_and_another_remote_are_named_as_they_are(run: Run) -> None:
    shell(run.root, "git remote rename origin group && git switch -q -c ours")
    assert run.publish()[-1] == "git push --set-upstream group ours"


def test_outside_a_repository_or_a_branch_nothing_is_published(run: Run) -> None:
    shell(run.root, "git switch -q --detach")
    with pytest.raises(InputError, match="no branch"):
        run.publish()
    assert not (run.root / "journal.md").exists()
    run.root = run.root.parent / "nowhere"
    run.root.mkdir()
    with pytest.raises(InputError, match="no git repository"):
        run.publish()


def test_a_damaged_champion_is_not_published(run: Run) -> None:
    Path(run.champion[0]).write_bytes(b"")
    with pytest.raises(InputError, match="readable checkpoint"):
        run.publish()
    assert not (run.root / "assets").exists()


def test_asking_again_is_new_work_whenever_the_repository_changed(run: Run) -> None:
    seen = [repository_state(run.root)]
    commands = run.publish()
    seen.append(repository_state(run.root))
    for command in commands[1:]:
        shell(run.root, f"{commands[0]} && {command}")
        seen.append(repository_state(run.root))
    (run.root / "assets" / "a.png").write_bytes(b"mine")
    seen.append(repository_state(run.root))
    assert all(one != other for one, other in combinations(seen, 2))
    assert repository_state(run.root) == seen[-1]
