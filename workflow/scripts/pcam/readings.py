"""What a check of incoming patches says: a reading of each statistic, and the verdict in words and as a table."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """A statistic of a set: its mean on validation and here, its mean distance, and what chance allows that to be.

    outside: share of the patches outside the middle 98 % of validation.
    """

    statistic: str
    validation: float
    here: float
    distance: float
    least: float
    most: float
    outside: float

    @property
    def alarm(self) -> bool:
        return not self.least <= self.distance <= self.most

    @property
    def beyond(self) -> float:
        """How far past the nearer limit, in widths of what is allowed; negative inside."""
        return max(self.distance - self.most, self.least - self.distance) / (self.most - self.least)

    @property
    def limit(self) -> float:
        """The nearer one."""
        return self.most if 2 * self.distance >= self.least + self.most else self.least


@dataclass(frozen=True)
class Verdict:
    """What a check says of a set of n patches, one reading a statistic in the order of STATISTICS.

    share: of tumour that the answers speak for, None where validation does not tell; prior: that of validation.
    """

    n: int
    readings: tuple[Reading, ...]
    strange: int
    first_strange: int | None
    share: float | None
    prior: float
    false_alarm_rate: float
    holds_for: str

    @property
    def pixels(self) -> tuple[Reading, ...]:
        return self.readings[:-1]

    @property
    def answers(self) -> Reading:
        return self.readings[-1]

    @property
    def worst(self) -> Reading:
        """The property of the pixels whose mean distance comes nearest to its limit, or lies furthest beyond."""
        return max(self.pixels, key=lambda reading: reading.beyond)

    @property
    def warns(self) -> bool:
        """Whether the pixels left what chance allows."""
        return any(reading.alarm for reading in self.pixels)

    @property
    def alarm(self) -> bool:
        """Whether the pixels or the answers did."""
        return self.warns or self.answers.alarm

    def sentence(self) -> str:
        """The finding on the pixels, in words."""
        worst = self.worst
        side = "above" if worst.distance > worst.limit else "below"
        return (
            f"{worst.statistic} lies {side} that of validation patches: mean distance {worst.distance:.2f}, chance "
            f"allows {worst.limit:.2f}; {100 * worst.outside:.0f} % of {self.n:,} patches outside their middle 98 %"
        )

    def tumour_sentence(self) -> str:
        """The finding on the answers, in words."""
        answers = self.answers
        least, most = (min(1.0, max(0.0, answers.validation + limit)) for limit in (answers.least, answers.most))
        told = "a share that the answers do not tell" if self.share is None else f"about {100 * self.share:.0f} %"
        return (
            f"mean probability of tumour {answers.here:.3f} against {answers.validation:.3f} on validation, chance "
            f"allows {least:.3f} to {most:.3f}; share of tumour {told} against {100 * self.prior:.0f} %, if the model "
            "errs as it did there"
        )

    def conclusion(self) -> str:
        """One sentence of the watch."""
        rate = f"the limits allow {100 * self.false_alarm_rate:g} % of sound sets an alarm ({self.holds_for})"
        noun = "patch" if self.n == 1 else "patches"
        if not self.alarm:
            return f"no alarm: no difference from validation was found ({self.n:,} {noun}); {rate}"
        if not self.answers.alarm:
            return f"ALARM: {self.sentence()}; {rate}"
        if not self.warns:
            told = "the pixels raise none, so another share of tumour is one explanation"
            return f"ALARM: {told}: {self.tumour_sentence()}; {rate}"
        return f"ALARM: {self.sentence()}; and the answers changed, with the pixels or on their own: " + (
            f"{self.tumour_sentence()}; {rate}"
        )

    def table(self) -> list[str]:
        """Lines, a heading and one for each statistic."""
        lines = [f"{'statistic':<20}{'validation':>12}{'here':>12}{'distance':>10}{'chance allows':>20}  alarm"]
        for told in self.readings:
            allowed = f"{told.least:.3f} to {told.most:.3f}"
            lines.append(
                f"{told.statistic:<20}{told.validation:>12.3f}{told.here:>12.3f}{told.distance:>10.3f}{allowed:>20}"
                f"  {'ALARM' if told.alarm else 'no'}"
            )
        return lines

    def as_document(self) -> dict[str, Any]:
        """Keys as the journal and the picture read them; `answers` is the reading of the answers."""
        return {
            "warns": self.warns,
            "property": self.worst.statistic,
            "distance": self.worst.distance,
            "limit": self.worst.limit,
            "share_outside": self.worst.outside,
            "strange": self.strange,
            "answers": {**asdict(self.answers), "warns": self.answers.alarm, "share": self.share},
        }
