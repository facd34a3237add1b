"""Watch the patches that pass by, and say afterwards whether they were like those that the threshold was chosen on."""

import numpy as np

from pcam.guard import Guard, Tally, watched_values
from pcam.inputs import Block
from pcam.readings import Verdict


class Watch:
    """Collects what the guard must know of patches, in memory that does not grow with them."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.tally: Tally | None = None
        self.first_strange = ""

    def see(self, blocks: list[Block], pixels: np.ndarray, probabilities: np.ndarray) -> None:
        """Blocks of patches, all their pixels uint8 (n,96,96,3), and the answers (n,)."""
        seen = self.guard.tally(watched_values(pixels, probabilities))
        if seen.first_strange is not None and not self.first_strange:
            place = seen.first_strange
            for block in blocks:
                if place < len(block):
                    self.first_strange = block.where(place)
                    break
                place -= len(block)
        self.tally = seen if self.tally is None else self.tally + seen

    def verdict(self) -> Verdict | None:
        """On all patches as one set; None before the first."""
        return None if self.tally is None else self.guard.verdict(self.tally)

    def findings(self) -> tuple[str | None, str | None]:
        """What speaks against the pixels as a set, and what is worth a note about single patches; None: nothing."""
        verdict = self.verdict()
        if verdict is None:
            return None, None
        note = None
        if verdict.strange:
            note = (
                f"{verdict.strange} of {verdict.n:,} patches are unlike any validation patch, "
                f"the first is {self.first_strange}"
            )
        return verdict.sentence() if verdict.warns else None, note

    def report(self) -> list[str]:
        """Lines: the table of all statistics and the conclusion."""
        verdict = self.verdict()
        return ["no patch was seen"] if verdict is None else [*verdict.table(), verdict.conclusion()]
