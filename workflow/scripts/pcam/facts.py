"""Published constants of PatchCamelyon and how its files are named.

Sources: Veeling et al. 2018 (arXiv 1806.03962); the record Zenodo 2546921 for sizes and digests.
"""

PATCH_SHAPE = (96, 96, 3)
PATCH_BYTES = 96 * 96 * 3
CENTRE = slice(32, 64)  # the 32x32 centre that decides the label
FILE_SPLITS = ("train", "valid", "test")
PATCHES = {"train": 262_144, "valid": 32_768, "test": 32_768}
CLASSES = (0, 1)
GRID_PX = 16  # PCam was cut on a 16-pixel grid of the 10x image

# md5 of the published files. The benchmark's own README prints valid and test exchanged; its author calls that a slip
# of the table, and these are the right ones.
MD5_GZ = {
    "camelyonpatch_level_2_split_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    "camelyonpatch_level_2_split_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    "camelyonpatch_level_2_split_valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    "camelyonpatch_level_2_split_valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    "camelyonpatch_level_2_split_test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    "camelyonpatch_level_2_split_test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
}
SHA256_GZ = {
    "camelyonpatch_level_2_split_train_x.h5.gz": "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c",
    "camelyonpatch_level_2_split_train_y.h5.gz": "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a",
    "camelyonpatch_level_2_split_valid_x.h5.gz": "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2",
    "camelyonpatch_level_2_split_valid_y.h5.gz": "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c",
    "camelyonpatch_level_2_split_test_x.h5.gz": "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245",
    "camelyonpatch_level_2_split_test_y.h5.gz": "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef",
}
BYTES_GZ = {
    "camelyonpatch_level_2_split_train_x.h5.gz": 6_421_353_462,
    "camelyonpatch_level_2_split_train_y.h5.gz": 21_378,
    "camelyonpatch_level_2_split_valid_x.h5.gz": 805_965_320,
    "camelyonpatch_level_2_split_valid_y.h5.gz": 3_038,
    "camelyonpatch_level_2_split_test_x.h5.gz": 800_875_929,
    "camelyonpatch_level_2_split_test_y.h5.gz": 3_040,
}
MD5_H5 = {
    "camelyonpatch_level_2_split_train_x.h5": "01844da899645b4d6f84946d417ba453",
    "camelyonpatch_level_2_split_train_y.h5": "0781386bf6c2fb62d58ff18891466aca",
    "camelyonpatch_level_2_split_valid_x.h5": "81cf9680f1724c40673f10dc88e909b1",
    "camelyonpatch_level_2_split_valid_y.h5": "94d8aacc249253159ce2a2e78a86e658",
    "camelyonpatch_level_2_split_test_x.h5": "2614b2e6717d6356be141d9d6dbfcb7e",
    "camelyonpatch_level_2_split_test_y.h5": "11ed647efe9fe457a4eb45df1dba19ba",
}
MD5_META = {
    "camelyonpatch_level_2_split_train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    "camelyonpatch_level_2_split_valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
    "camelyonpatch_level_2_split_test_meta.csv": "3455fd69135b66734e1008f3af684566",
}
# Negative and positive labels of each published split, and of the course's modified train file (derived: every negative
# and a fifth of the positives). Valid and test have the same shape; these counts tell them apart.
LABEL_COUNTS = {"train": (131_072, 131_072), "valid": (16_399, 16_369), "test": (16_391, 16_377)}
COURSE_LABEL_COUNTS = {"train": (131_072, 26_214)}
SWAP = (
    "the benchmark's own README prints the md5 of valid and test exchanged, by its author a slip of the table, "
    "and downloaders that rename the files by it end up selecting models on the test split"
)
META_COLUMNS = ("coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")


def pcam_filename(split: str, part: str) -> str:
    """Name of a published file; `part` is "x.h5", "y.h5", "x.h5.gz", "y.h5.gz" or "meta.csv"."""
    return f"camelyonpatch_level_2_split_{split}_{part}"


def split_paths(folder: str, part: str) -> dict[str, str]:
    """One file per split by role, such as train_x, valid_x, test_x for part "x.h5"."""
    key = part.partition(".")[0]
    return {f"{split}_{key}": f"{folder}/{pcam_filename(split, part)}" for split in FILE_SPLITS}


def hospital_of(slide: str) -> str:
    """Hospital of a Camelyon16 slide name such as `camelyon16_train_tumor_071`; "" when the name does not tell.

    RUMC scanned normal_001-100 and tumor_001-070, UMCU normal_101-160 and tumor_071-110.
    """
    kind, _, digits = slide.rpartition("_")
    last_rumc = {"normal": 100, "tumor": 70}.get(kind.rpartition("_")[2])
    if last_rumc is None or not digits.isdigit():
        return ""
    return "RUMC" if int(digits) <= last_rumc else "UMCU"
