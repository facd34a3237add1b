"""Copy documents, pictures and champion to where the repository keeps them, and print the git commands that push them.

Reads: results/journal.md and the cards, the pictures they show, results/champion.
Writes: in the repository journal.md, model_card.md, data_card.md and assets/; results/published.json. Commits nothing.
"""

from collections.abc import Mapping, Sequence

from pcam.checkpoint import load_checkpoint
from pcam.files import write_json
from pcam.publishing import check_links, copy_files, places, push_commands
from pcam.stage import run_stage, say


def publish_results(
    documents: Sequence[str],
    champion: Sequence[str],
    published_path: str,
    *,
    root: str,
    link: str | None,
    provenance: Mapping[str, object],
) -> None:
    """Copy, then say what to do. `champion`: weights.pt, then what lies beside it.

    Raises: InputError as check_links, load_checkpoint, copy_files and push_commands do.
    """
    sidecar = load_checkpoint(champion[0])[2]
    where = places(documents, check_links(documents), champion)
    paths = copy_files(where, root)
    digest = sidecar["digests"]["weights"][:12]
    message = f"Journal, cards and champion {digest} ({sidecar['data_source']})"
    commands = push_commands(root, paths, message, link)
    if commands:
        say(f"{len(where)} files lie in the repository at {root}. To commit and push them, there:\n")
        say("\n".join(f"    {command}" for command in commands))
        say("\nOnce pushed, a run closes the item on the checkpoint; publish once more to bring that journal, too.")
    else:
        say(f"{len(where)} files lie in the repository at {root}, committed and pushed as far as this clone knows.")
    write_json(published_path, {"files": sorted(where.values()), "commands": commands, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        publish_results(
            snakemake.input.documents,
            snakemake.input.champion,
            snakemake.output[0],
            root=snakemake.params.root,
            link=snakemake.params.link,
            provenance=provenance,
        )
