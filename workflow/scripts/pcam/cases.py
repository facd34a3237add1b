"""The patches an audit may learn from: what is known of each, without those that other audits found broken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pcam.cheap_model import joined_units
from pcam.facts import FILE_SPLITS
from pcam.features import FEATURES, open_features
from pcam.files import InputError, read_csv
from pcam.hdf5 import read_labels


@dataclass(frozen=True)
class Cases:
    """Sound patches of all splits in order of split and row, one entry each.

    split: 0, 1, 2 for train, valid, test.  label: 0, 1, or -1 when unknown.  slide, group: "" when unknown or none.
    unit: number of what shares slide or tissue, also in chains.  features: float32 (N,F).
    labels: every label of each split's file, None when it has none.  excluded: broken patches of each split.
    """

    split: np.ndarray
    row: np.ndarray
    label: np.ndarray
    slide: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    features: np.ndarray
    labels: dict[str, np.ndarray | None]
    excluded: dict[str, int]

    def chosen(self, mask: np.ndarray) -> "Cases":
        """Some of the cases; what is told of the files stays."""
        arrays = {
            name: getattr(self, name)[mask] for name in ("split", "row", "label", "slide", "group", "unit", "features")
        }
        return replace(self, **arrays)

    @property
    def grouped_by(self) -> str:
        """What keeps patches together, in words."""
        return "slide and leak group" if np.any(self.slide != "") else "leak group alone: no slide is known"


def read_cases(
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    feature_files: Mapping[str, str],
    leakage_path: str,
    broken_paths: Sequence[str],
) -> Cases:
    """Raises: InputError when a file is missing or malformed, or two of them differ in the number of patches."""
    labels = {split: read_labels(y_files[split]) for split in FILE_SPLITS}
    features = {
        split: open_features(feature_files[split], None if known is None else len(known))
        for split, known in labels.items()
    }
    sizes = {split: len(each) for split, each in features.items()}
    start = dict(zip(FILE_SPLITS, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))

    def places(path: str, lines: list[dict[str, str]]) -> np.ndarray:
        for line in lines:
            if line["split"] not in sizes or not 0 <= int(line["row"]) < sizes[line["split"]]:
                raise InputError(f"{path}: row {line['row']} of split {line['split']} does not exist; rebuild it")
        return np.array([start[line["split"]] + int(line["row"]) for line in lines], np.int64)

    n = sum(sizes.values())
    sound = np.ones(n, bool)
    for path in broken_paths:
        sound[places(path, read_csv(path, ("split", "row")))] = False
    group = np.full(n, "", dtype=object)
    grouped = [line for line in read_csv(leakage_path, ("split", "row", "group")) if line["group"]]
    group[places(leakage_path, grouped)] = [line["group"] for line in grouped]
    slide = np.full(n, "", dtype=object)
    for split, path in meta_files.items():
        names = [line["wsi"] for line in read_csv(path, ("wsi",))]
        if len(names) not in (0, sizes[split]):
            raise InputError(
                f"{path}: {len(names)} rows for {sizes[split]} patches; take the CSV that belongs to this x file"
            )
        slide[start[split] : start[split] + len(names)] = names

    code = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    row = np.concatenate([np.arange(size) for size in sizes.values()])
    kept = np.empty((int(sound.sum()), FEATURES), np.float32)
    done = 0
    for split, each in features.items():
        mine = np.flatnonzero(sound[start[split] : start[split] + sizes[split]])
        kept[done : done + len(mine)] = each[mine]
        done += len(mine)
    label = np.concatenate(
        [np.full(sizes[split], -1) if known is None else known.astype(np.int64) for split, known in labels.items()]
    )
    slide, group = slide.astype(str), group.astype(str)
    return Cases(
        code[sound],
        row[sound],
        label[sound],
        slide[sound],
        group[sound],
        joined_units(slide[sound], group[sound]),
        kept,
        labels,
        {split: int((~sound[code == k]).sum()) for k, split in enumerate(FILE_SPLITS)},
    )
