"""Lines that tell how a training goes."""

import math
import time
from collections.abc import Callable, Sequence

REPORT_EVERY_S = 30.0


class Progress:
    """Lines that say how fast a training goes and how long it will still take."""

    def __init__(self, report: Callable[[str], None], epochs: int, total: int, done: int, size: int) -> None:
        self.report, self.epochs, self.total, self.size = report, epochs, total, size
        self.started, self.first, self.told = time.monotonic(), done, time.monotonic()

    def _pace(self, done: int) -> str:
        pace = max(time.monotonic() - self.started, 1e-9) / max(done - self.first, 1)
        left = math.ceil(pace * (self.total - done))
        return f"{self.size / pace:,.0f} images/s, " + (f"{left // 60} min {left % 60} s left" if left else "done")

    def within(self, epoch: int, step: int, steps: int, done: int) -> None:
        if time.monotonic() - self.told > REPORT_EVERY_S:
            self.told = time.monotonic()
            self.report(f"epoch {epoch + 1}/{self.epochs} step {step}/{steps}, {self._pace(done)}")

    def epoch(self, row: Sequence[float], done: int) -> None:
        self.told = time.monotonic()
        epoch, train_loss, valid_loss, auc, *_ = row
        self.report(
            f"epoch {epoch:.0f}/{self.epochs} loss {train_loss:.4f} valid loss {valid_loss:.4f} "
            f"ROC-AUC {auc:.4f}, {self._pace(done)}"
        )
