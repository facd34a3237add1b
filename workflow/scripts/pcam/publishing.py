"""Bring documents, pictures and the champion of a run to their places in the repository, and say how to push them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from pcam.files import InputError, document_digest, file_digest, write_bytes
from pcam.remotes import changed, git, ignored

CHAMPION = "assets/champion"
DOCUMENTS = ("journal.md", "model_card.md", "data_card.md")


def image_links(markdown: str) -> list[str]:
    """The address of every image of a Markdown document, in order."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    blocks = parser.parse(markdown)
    return [str(part.attrs["src"]) for block in blocks for part in block.children or () if part.type == "image"]


def check_links(documents: Sequence[str | Path]) -> list[str]:
    """Paths of the pictures that the documents show, each once.

    Raises: InputError on an image that is not a file in assets/ beside its document, by its relative path.
    """
    found: dict[str, None] = {}
    for document in map(Path, documents):
        for link in image_links(document.read_text()):
            folder, _, name = link.rpartition("/")
            if folder != "assets" or not name:
                raise InputError(f"{document}: the image {link} is not at assets/NAME; write the document again")
            if not (document.parent / link).is_file():
                raise InputError(f"{document}: the image {link} does not exist; run the plot rules again")
            found[str(document.parent / link)] = None
    return list(found)


def places(documents: Sequence[str], pictures: Sequence[str], champion: Sequence[str]) -> dict[str, str]:
    """Where each file goes, relative to the repository: documents to its root, so that links to assets/ hold there."""
    where = {path: Path(path).name for path in documents}
    where |= {path: f"assets/{Path(path).name}" for path in pictures}
    return where | {path: f"{CHAMPION}/{Path(path).name}" for path in champion}


def repository_state(root: str | Path) -> str:
    """Digest of what a publication depends on besides the results: commit, upstream's, and what is not committed."""
    loose = changed(root, *DOCUMENTS, "assets")
    content = {path: file_digest(Path(root) / path) for path in loose or () if (Path(root) / path).is_file()}
    return document_digest([git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "@{upstream}"), loose, content])


def checked_out(root: str | Path) -> str:
    """The branch that is checked out. Raises: InputError where there is no repository, no commit or no branch."""
    if git(root, "rev-parse", "HEAD") is None:
        raise InputError(f"{root}: no git repository with a commit; begin with `git init` and a first commit")
    branch = git(root, "symbolic-ref", "--short", "HEAD")
    if branch is None:
        raise InputError(f"{root}: no branch is checked out; `git switch` to one and publish again")
    return branch


def _told(root: str | Path, paths: list[str] | None) -> list[str]:
    """Raises: InputError where git could not tell which paths."""
    if paths is None:
        raise InputError(f"{root}: git status or check-ignore fails, so nothing is copied; mend it, then publish again")
    return paths


def copy_files(where: Mapping[str, str], root: str | Path) -> list[str]:
    """Copy each file to its place; the places, of which git then sees a change, in order.

    Raises: InputError, before anything is copied, as checked_out does, when git ignores a place or cannot tell what is
    changed, and when a place holds content of its own that is not committed and would be lost.
    """
    checked_out(root)
    content = {place: Path(path).read_bytes() for path, place in where.items()}
    if hidden := _told(root, ignored(root, *content)):
        raise InputError(
            f"{', '.join(hidden)}: git ignores them, so no commit would hold them; take out the rule that "
            "`git check-ignore -v` tells, then publish again"
        )
    loose = _told(root, changed(root, *content))
    lost = [place for place in loose if (at := Path(root) / place).is_file() and at.read_bytes() != content[place]]
    if lost:
        raise InputError(
            f"{', '.join(lost)}: uncommitted changes would be replaced; commit or move them, then publish again"
        )
    for place, new in content.items():
        at = Path(root) / place
        if not at.is_file() or at.read_bytes() != new:
            write_bytes(at, new)
    return _told(root, changed(root, *content))


def push_commands(root: str | Path, paths: Sequence[str], message: str, link: str | None) -> list[str]:
    """The git commands that commit these files and push the branch that is checked out; none where nothing changed.

    `link`: where to push when the clone has no remote; None leaves the place open. Raises: InputError as checked_out.
    """
    branch = checked_out(root)
    known = (git(root, "remote") or "").split()
    own = git(root, "config", f"branch.{branch}.remote")
    remote = own or ("origin" if "origin" in known or not known else known[0])
    listed = shlex.join(paths)  # named again to commit them alone, whatever else is staged
    commands = [f"git add {listed}", f"git commit -m {shlex.quote(message)} -- {listed}"] if paths else []
    if not known:
        commands.append(f"git remote add {remote} {shlex.quote(link) if link else 'LINK_OF_YOUR_REPOSITORY'}")
    upstream = git(root, "rev-parse", "--abbrev-ref", f"{branch}@{{upstream}}")
    if not paths and upstream and git(root, "rev-list", "--count", f"{upstream}..{branch}") == "0":
        return []
    return [*commands, f"git push {'' if own else '--set-upstream '}{shlex.quote(remote)} {shlex.quote(branch)}"]
