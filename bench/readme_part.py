"""A part of README.md that a script writes: what stands between its two marks."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from pcam.files import write_text  # noqa: E402

README = ROOT / "README.md"


def marks(part: str) -> tuple[str, str]:
    """What stands before the part and after it; `make readme-tables` writes all parts anew."""
    return f"<!-- {part}, by make readme-tables -->\n\n", f"\n<!-- end of {part} -->\n"


def write_part(part: str, text: str, readme: Path = README) -> None:
    """Put `text`, which ends with a line break, between the marks; SystemExit where they are not there."""
    begin, end = marks(part)
    before, found, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{readme}: the marks {begin.strip()} and {end.strip()} are not there")
    write_text(readme, f"{before}{begin}{text}{end}{after}")
