"""Question 2 says what the evidence says: each condition of a sentence is forced by results, and nothing is made up."""

from collections.abc import Callable
from typing import Any

import pytest
from audit_evidence import audit_evidence, file_of, fold_scheme, line_of
from plain_text import read_plainly

from pcam import answers_audit as audit
from pcam import answers_findings as findings
from pcam import answers_leakage as leakage
from pcam import answers_splits as splits
from pcam.binding import take_marks
from pcam.documents import Missing, Node, Source
from pcam.facts import SWAP
from pcam.metrics import wilson_interval
from pcam.verdicts import cluster_card, data_card, twin_card

read_plainly(globals())

SOURCE = Source("results/audit/x.json", "audit_x")


def node(data: dict[str, Any]) -> Node:
    return Node(data, SOURCE)


def evidence(name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> Node:
    """Evidence of one audit, changed."""
    data = audit_evidence()[name]
    if change is not None:
        change(data)
    return node(data)


FUNCTIONS = [
    splits.identity_sentence, splits.identity_rows, splits.prior_rows, splits.covariate_rows, splits.slide_rows,
    splits.slide_sentence, splits.split_table, splits.partition, leakage.pair_rows, leakage.mix_rows,
    leakage.across_sentence, leakage.group_sentence, leakage.cluster_rows, leakage.coordinates_sentence,
    leakage.leaking_rows, leakage.leaking_sentence, leakage.fold_rows, audit.byte_rows, audit.factor_rows,
    audit.saving_rows, audit.storage_sentence, audit.stamp_rows, audit.stamp_sentence, audit.class_rows,
    audit.class_sentence, audit.label_sentence, audit.label_rows, audit.planted_rows, audit.suspect_rows,
    findings.truth_rows, lambda missing: findings.unseen_rows(missing, missing),
    lambda missing: findings.score_rows(missing, ["blackout"]), lambda missing: findings.verdict_rows(missing, ["x"]),
    lambda missing: findings.finding_rows(missing, True), lambda missing: findings.audit_sentence(missing, "leakage"),
    lambda missing: audit.saving_sentence(missing, missing),
    lambda missing: splits.shift_sentences(missing)[0], lambda missing: leakage.fold_sentences(missing)[0],
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_missing_stays_missing(function: Callable[[Any], Any]) -> None:
    assert isinstance(function(Missing(SOURCE)), Missing)


# Identity


def test_a_swap_and_the_same_pixels_twice_are_told() -> None:
    swapped, twice = evidence("checksums"), evidence("checksums")
    swapped._data["findings"][0].update(n=2, told=["valid_x.h5 is the published test file", "known of old: a slip"])
    assert "do not hold what their names say: valid_x.h5 is the published test file; known of old: a slip." in (
        splits.identity_sentence(swapped)
    )
    twice._data["findings"][1].update(n=1, told=["train_x.h5 holds the pixels of test_x.h5"])
    assert "train_x.h5 holds the pixels of test_x.h5" in splits.identity_sentence(twice)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("valid", "published", "v.h5"), ("test", "published", "t.h5")], SWAP),
        ([("train", "course", None)], "none holds another split's content"),
        ([("train", None, None)], "No file is a published one"),
    ],
)
def test_right_names_unknown_names_and_foreign_files_read_differently(files: list, expected: str) -> None:
    told = [{"split": split, "key": "x", "source": source, "published_as": name} for split, source, name in files]
    sentence = splits.identity_sentence(evidence("checksums", lambda data: data.update(files=told)))
    assert expected in sentence


# Shift, slides


def test_shift_sentences_follow_the_tests() -> None:
    told = " ".join(splits.shift_sentences(evidence("shift")))
    assert (
        "The share of tumour differs between splits by more than chance explains "
        "(train-valid: difference 0.333, p 0.001)" in told
    )
    assert "No difference of colour and texture is shown between train-valid." in told
    pair = ["valid", "test"]
    more = [{"kind": "covariate_shift", "splits": pair, "p": None, "effect": None, "found": None}]
    more += [{"kind": "prior_shift", "splits": pair, "p": 0.9, "effect": 0.001, "found": False}]
    told = " ".join(splits.shift_sentences(evidence("shift", lambda data: data["findings"].extend(more))))
    assert "Whether colour and texture differ between valid-test, this run cannot tell" in told
    assert "No other difference of the share of tumour is shown between valid-test." in told
    nothing = splits.shift_sentences(evidence("shift", lambda data: data.update(findings=[])))
    assert nothing[0] == "The share of tumour: no two splits could be compared, because labels are unknown."


def test_a_pair_of_splits_that_cannot_be_compared_says_why_in_the_table() -> None:
    def change(data: dict) -> None:
        data["pairs"][0].update(two_sample=None, reason="fewer than two units on a side")

    assert "cannot tell: fewer than two units on a side" in splits.covariate_rows(evidence("shift", change))[0]
    assert splits.covariate_rows(evidence("shift"))[0][3:6] == ["0.631", "0.498; 0.588", "0.041"]


def test_priors_of_unknown_labels_and_of_published_counts() -> None:
    def change(data: dict) -> None:
        data["prior"]["splits"]["train"]["counts_equal"] = ["PatchCamelyon train", "the course's train file"]

    rows = splits.prior_rows(evidence("shift", change))
    assert rows[0][-1] == "PatchCamelyon train and the course's train file"
    assert rows[1] == ["test", "labels unknown", "–", "–", "–"]


@pytest.mark.parametrize(
    ("slides", "expected"),
    [
        ({"known": False}, "do not tell which slide"),
        ({"shared": {"train-test": ["a", "b", "c", "d"]}}, "train and test share 4 slides (a, b, c …)"),
        ({}, "No slide stands in two splits."),
    ],
)
def test_slides_known_shared_and_unknown(slides: dict, expected: str) -> None:
    shift = evidence("shift", lambda data: data["slides"].update(slides))
    assert expected in splits.slide_sentence(shift)
    assert bool(splits.slide_rows(shift)) is slides.get("known", True)


# Leakage


def test_kinds_found_carry_their_blank_patches_and_kinds_that_could_not_be_looked_for_are_not_called_absent() -> None:
    sentence = findings.audit_sentence(evidence("leakage"), "leakage")
    assert "Of 4 kinds of leakage looked for, 2 were found" in sentence
    assert "exact duplicate 9, of which 4 of one colour" in sentence
    assert "not found: near duplicate, slide overlap" in sentence

    def change(data: dict) -> None:
        data["method"]["slides_known"] = 0

    blind = evidence("leakage", change)
    passed = {"verdict": "pass", "reason": "none"}
    found = {name: node({}) for name in ("score", "folds", "seeds", "leaking")}
    found["verdicts"] = node({"overlap": passed, "slide_overlap": passed})
    found["leakage"] = blind
    told = leakage.leakage_answers(found)
    assert "slide overlap" not in told["leakage_sentence"]
    assert [row[0] for row in told["leakage_verdicts"]] == ["overlap"]  # nor is one judged clean
    assert "**could not be looked for**" in told["coordinates_sentence"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train-train": 5, "train-test": 2}, "2 pairs across splits (overlap 2) and 5 pairs within one"),
        ({"train-train": 5, "train-test": 0}, "No pair across splits and 5 pairs within one"),
    ],
)
def test_pairs_across_splits_are_told_apart_from_those_within(counts: dict, expected: str) -> None:
    assert expected in leakage.across_sentence(node({"pairs": {"overlap": counts}}))


def test_groups_are_told_in_sizes_that_double() -> None:
    sentence = leakage.group_sentence(node({"group_sizes": {"2": 3, "3": 1, "9": 2}}))
    assert (
        "6 groups of 27 patches in all: 4 of 2 to 3 patches and 2 of 8 to 15 patches; the largest holds 9" in sentence
    )
    assert "there are no groups" in leakage.group_sentence(node({"group_sizes": {}}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "the pixel search confirms 25 (96.15 %). The other 1 share too little texture"),
        ({"pairs_confirmed": 26}, "confirms 26 (100.00 %), all of them."),
        ({"pairs_comparable": 0}, "name no pair that pixels could confirm"),
        ({"unit_measured_on": 0}, "for want of overlaps to measure it on"),
    ],
)
def test_coordinates_check_the_pixel_search(change: dict, expected: str) -> None:
    assert expected in leakage.coordinates_sentence(
        evidence("leakage", lambda data: data["coordinates"].update(change))
    )


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ({"value": -0.012, "interval": [-0.02, -0.004]}, "baseline -0.0120 (-0.0200 to -0.0040), lower without them"),
        ({"value": 0.012, "interval": [0.004, 0.02]}, "higher without them"),
        ({"value": 0.001, "interval": [-0.004, 0.02]}, "no change that is shown"),
        ({"value": None, "reason": "one class only"}, "the difference is undefined, one class only"),
    ],
)
def test_what_leaking_rows_change_is_said_with_its_interval(difference: dict, expected: str) -> None:
    leaking = evidence("leaking", lambda data: data["variants"]["baseline"].update(difference=difference))
    assert expected in leakage.leaking_sentence(leaking)


def test_no_leaking_row_and_an_undefined_part_are_said_to_be() -> None:
    leaking = evidence("leaking", lambda data: data.update(n_leaking=0))
    assert "None of the 41 test rows had a partner in the file of train and valid" in leakage.leaking_sentence(leaking)
    assert leakage.leaking_rows(evidence("leaking"))[2][-1] == "undefined: one class only"


# Folds


@pytest.mark.parametrize(
    ("between_folds", "between_seeds", "expected"),
    [
        ((0.02, 0.012, 0.06), (0.006, 0.004, 0.009), "matters more than the seed"),
        ((0.002, 0.001, 0.003), (0.006, 0.004, 0.009), "the seed matters more"),
        ((0.008, 0.005, 0.02), (0.006, 0.004, 0.009), "which varies more, this run cannot tell"),
        ((0.008, 0.005, 0.02), (0.0, 0.0, 0.0), "Seeds change nothing"),
    ],
)
def test_folds_against_seeds_follows_the_intervals(between_folds: tuple, between_seeds: tuple, expected: str) -> None:
    def change(data: dict) -> None:
        data["schemes"]["grouped"] = fold_scheme(between_folds, between_seeds)

    folds = evidence("folds", change)
    assert expected in leakage.fold_sentences(folds)[0]
    assert len(leakage.fold_rows(folds)) == 2


@pytest.mark.parametrize(
    ("expected_sd", "words"),
    [(0.001, "slides or groups differ"), (0.0213, "is not shown"), (0.5, "more than they do")],
)
def test_the_number_of_patches_explains_the_folds_or_does_not(expected_sd: float, words: str) -> None:
    def change(data: dict) -> None:
        data["schemes"]["grouped"]["spread"]["expected_from_patches_sd"] = expected_sd

    assert words in leakage.fold_sentences(evidence("folds", change))[1]


@pytest.mark.parametrize(
    ("optimism", "words"),
    [
        ({"mean": 0.016, "interval": [0.01, 0.02]}, "flatter the model by 0.0160"),
        ({"mean": -0.016, "interval": [-0.02, -0.01]}, "score lower by 0.0160"),
        ({"mean": 0.001, "interval": [-0.02, 0.02]}, "whether they flatter, this run cannot tell"),
        ({"mean": 0.001, "interval": None}, "could not be compared"),
        (None, "could not be compared"),
    ],
)
def test_how_much_random_folds_flatter(optimism: dict | None, words: str) -> None:
    told = leakage.fold_sentences(evidence("folds", lambda data: data.update(optimism_of_random_folds=optimism)))
    assert words in told[2]


def test_folds_that_cannot_be_dealt_say_why() -> None:
    def change(data: dict) -> None:
        data["schemes"]["grouped"] = {"reason": "too few units", "units": 2, "spread": None}

    folds = evidence("folds", change)
    assert leakage.fold_sentences(folds) == [
        "Folds could not be compared (too few units), so this run cannot tell whether folds or seeds vary more."
    ]
    assert "cannot tell: too few units" in leakage.fold_rows(folds)[0]


# Storage


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(4.0, "The reason: wide."), (0.8, "smaller than bare bytes"), (1.0, "no mystery here")],
)
def test_the_factor_is_read_for_what_it_is(factor: float, expected: str) -> None:
    assert expected in audit.storage_sentence(node({"files": [file_of(factor=factor)]}))


def test_bytes_add_up_or_are_said_not_to() -> None:
    assert "to the byte" in audit.storage_sentence(node({"files": [file_of()]}))
    off = audit.storage_sentence(node({"files": [file_of(bytes_other=0)]}))
    assert "do not add up to the size of train_x.h5" in off
    assert audit.storage_sentence(node({"files": []})) == "No file was looked at."


def test_savings_are_told_as_less_more_exact_and_undefined() -> None:
    def told(**changed: Any) -> str:
        return str(audit.saving_sentence(node({"files": [file_of(**changed)]}), node({})))

    assert "take 29,899 bytes less, and gzipped as well (level 4) 32,993 bytes less" in told()
    assert "take 5 bytes more, and" in told(saving_as_uint8=-5)
    assert "take as many bytes as now, and" in told(saving_as_uint8=0)
    assert "is undefined" in told(saving_as_uint8=None)
    kept = node({name: {"n": 2} for name in ("train", "valid", "test", "unlabelled")})
    assert "holds the 8 kept patches so, in 221,184 bytes" in str(audit.saving_sentence(evidence("storage"), kept))
    estimated, whole, none = (
        audit.saving_rows(node({"files": [file_of(**changed)]}))[0]
        for changed in ({}, {"bytes_gzip_interval": None}, {"bytes_gzip_estimate": None})
    )
    assert estimated[2] == "7,007 (6,006 to 8,008)"
    assert whole[2] == "7,007, exactly"
    assert none[2] is None
    assert audit.factor_rows(node({"files": [file_of(factors=None)]}))[0][3] == "–"


# Poison


def test_stamps_are_described_and_a_stamp_of_one_class_is_named_for_what_it_looks_like() -> None:
    assert "what a backdoor looks like" in audit.stamp_sentence(evidence("poison"))
    assert audit.stamp_rows(evidence("poison"))[0][:3] == ["6 × 7 px, textured", 16, "12 places"]

    def change(data: dict) -> None:
        data["stamps"][0].update(place=[3, 90], flat=True, classes={"0": 5, "1": 11})
        data["stamps"] *= 9

    many = evidence("poison", change)
    assert "9 always at one place, 0 at several" in audit.stamp_sentence(many)
    assert "backdoor" not in audit.stamp_sentence(many)
    assert audit.stamp_sentence(many).endswith("The first of them are listed.")
    assert audit.stamp_rows(many)[0][:3] == ["6 × 7 px, of one colour", 16, "fixed, row 3, column 90"]
    assert "no stamped trigger was found" in audit.stamp_sentence(
        evidence("poison", lambda data: data.update(stamps=[]))
    )


def test_damage_that_goes_with_the_class_is_told_and_else_not() -> None:
    assert "blackout in train, 8.7 % of no tumour against 7.1 % of tumour" in audit.class_sentence(evidence("poison"))
    none = evidence("poison", lambda data: data["by_class"][0].update(depends=False))
    assert "no kind is shown to strike one class more" in audit.class_sentence(none)
    assert "Holm-adjusted, at the level 3 %" in audit.class_sentence(none)
    assert audit.class_rows(none)[0][-1] == "not shown to"
    assert "holds damage to compare" in audit.class_sentence(evidence("poison", lambda data: data.update(by_class=[])))


def test_label_flips_claimed_not_claimed_unlabelled_and_unknown_are_told_apart() -> None:
    assert "flips are claimed in train, with 8 suspects listed" in audit.label_sentence(evidence("labels"))
    empty = {"n": 0, "classes": {}, "roc_auc": None, "roc_auc_interval": None, "smallest_rate_seen": None}

    def change(data: dict) -> None:
        data["splits"] = {
            "train": {**empty, "verdict": "none claimed", "reason": "errors"},
            "valid": {**empty, "verdict": "cannot tell", "reason": "too few slides"},
            "test": {**empty, "verdict": "unlabelled", "reason": "no labels"},
        }

    others = evidence("labels", change)
    told = audit.label_sentence(others)
    assert "none are claimed in train; of valid it cannot be told (too few slides); test holds no labels" in told
    assert audit.label_rows(others)[1][2:] == ["cannot tell", None, "undefined", "undefined", "none of those tried"]
    claims = {
        "verdict": "flips",
        "classes": {"0": {"flip_rate": 0.02, "flip_rate_interval": [0.01, 0.04], "claimed": True}},
    }

    def together(data: dict) -> None:
        change(data)
        data["together"] = {**empty, **claims, "n": 77}

    assert "claimed in all splits taken together, and in none alone" in audit.label_sentence(
        evidence("labels", together)
    )
    row = audit.label_rows(evidence("labels", together))[-1]
    assert row[:5] == ["together", 77, "flips", None, "2.0 % (1.0 % to 4.0 %), claimed"]
    assert "3.1 % (1.0 % to 6.0 %), claimed; 37 fit" in audit.label_rows(evidence("labels"))[0]


def test_what_was_not_found_carries_the_rate_that_would_have_been_seen() -> None:
    def found(kind: str, split: str, n: int) -> dict:
        return {"kind": kind, "split": split, "class": None, "n": n, "of": 200}

    poison = node(
        {
            "findings": [
                found("constant", "train", 0), found("constant", "valid", 7), found("trigger", "train", 0),
                found("blackout", "train", 2), found("washout", "train", 0), found("non_finite", "train", 0),
            ]
        }
    )  # fmt: skip
    score = node(
        {"planted": [line_of("constant", 0.8), line_of("trigger", 0.0), line_of("non_finite", 0.0001)], "limits": []}
    )
    rows = {row[0]: row[1:] for row in findings.unseen_rows(poison, score)}
    bound = wilson_interval(0, 200)[1] / 0.8
    assert rows["constant"] == ["0.80 (0.79 to 0.80)", f"{100 * bound:.2f} %", "found (7)", "cannot tell"]
    assert rows["trigger"][:2] == ["0.00 (0.00 to 0.00)", "cannot tell"]  # never found when planted
    assert rows["washout"][:2] == ["not measured", "cannot tell"]
    assert rows["non finite"][1] == "cannot tell"  # the bound would exceed all patches
    # Of two files with no patch in valid and test nothing can be told there.
    assert rows["trigger"][2:] == ["cannot tell", "cannot tell"]
    assert "blackout" not in rows  # found wherever it was looked for


@pytest.mark.parametrize(
    ("reached", "sampled", "expected"),
    [
        (0.1, 0.001, "10.00 %"),
        (0.001, 0.001, "2.09 %"),
        (0.001, 0.2, "20.00 %"),
        (0.001, None, "cannot tell"),
        ("not reached", 0.001, "cannot tell"),
    ],
)
def test_a_trigger_s_bound_is_never_below_the_share_at_which_it_is_found(
    reached: float | str, sampled: float | None, expected: str
) -> None:
    found = [{"kind": "trigger", "split": "train", "class": None, "n": 0, "of": 200}]
    method = {"stamp_share_seen": dict.fromkeys(("train", "valid", "test"), sampled)}
    poison = node({"findings": found, "method": method})
    limits = [{"kind": "trigger", "variant": None, "by": "rate", "limit": reached}]
    limits += [{"kind": "trigger", "variant": "fixed_flat", "by": "rate", "limit": 0.0001}]
    score = node({"planted": [line_of("trigger", 0.9)], "limits": limits})
    assert findings.unseen_rows(poison, score)[0][2] == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"by": "rate", "limit": 0.002}, "from 0.2 % of patches"),
        ({"by": "rate", "limit": "not reached", "tried": [0.01, 0.02]}, "not reached (tried to 2 %)"),
        ({"by": "pixels", "variant": "band_white", "limit": 12}, "band white from 12 px"),
        ({"by": "rate", "variant": "fixed_flat", "level": 6, "limit": 0.005}, "fixed flat 6 px from 0.5 % of patches"),
        ({"by": "share", "variant": "darkened", "limit": 0.5, "direction": "up to"}, "darkened up to 0.5 share"),
        ({"by": "sigma", "variant": "gaussian", "limit": "not reached"}, "gaussian not reached (tried to 1)"),
    ],
)
def test_detection_limits_in_words(limit: dict, expected: str) -> None:
    base = {"kind": "k", "variant": None, "level": None, "direction": "from", "tried": [1]}
    assert findings.limit_words(node({**base, **limit})) == expected


# The first screen


SPLITS = {"train": {"n": 1500}, "valid": {"n": 300}, "test": {"n": 200}, "test_carved_from_valid": False}


def plain(card: dict[str, Any]) -> dict[str, Any]:
    """A statement without the marks of its figures."""
    return {key: value if isinstance(value, Missing) else take_marks(str(value))[0] for key, value in card.items()}


def test_the_data_card_counts_every_verdict_and_is_good_only_without_waiver_and_suspicion() -> None:
    def card(**kinds: str) -> dict[str, Any]:
        return plain(data_card(node({"open": True, "kinds": kinds}), node(SPLITS)))

    told = card(a="repaired", b="pass", c="pass", d="kept", e="waived")
    assert told["text"] == (
        "5 kinds of defect judged: 1 found and repaired, 1 waived with a reason, 1 suspected, kept and reported, "
        "2 clean. Patches after repair: train 1,500, valid 300, test 200."
    )
    assert told["state"] == "open"
    assert card(a="repaired", b="pass")["state"] == "good"
    assert card(a="kept")["state"] == "open"
    closed = plain(data_card(node({"open": False, "kinds": {"a": "fail", "b": "pass"}}), node(SPLITS)))
    assert (closed["state"], closed["head"]) == ("bad", "Gate not passed")
    assert "1 neither repaired nor waived" in closed["text"]
    assert data_card(Missing(SOURCE), node(SPLITS))["state"] == "missing"
    carved = data_card(node({"open": True, "kinds": {"a": "pass"}}), node(SPLITS | {"test_carved_from_valid": True}))
    assert "No test labels: what is called test is a part of the validation file." in plain(carved)["text"]


def test_the_cluster_card_names_slurm_s_jobs_and_what_preflight_would_have_fixed() -> None:
    def card(preflight: dict[str, Any] | None, *jobs: str) -> dict[str, Any]:
        machines = [{"partition": f"p{i}", "device": "a GPU", "job_id": job} for i, job in enumerate(jobs)]
        return plain(cluster_card(node({"machines": machines}), None if preflight is None else node(preflight)))

    def table(**results: str) -> dict[str, Any]:
        checks = [{"check": check, "result": result} for check, result in results.items()]
        return {"result": "fix" if "fix" in results.values() else "pass", "checks": checks,
                "provenance": {"commit": "1234567890", "dirty": False}}  # fmt: skip

    passed, faulty = table(account="pass", git="does not apply"), table(account="fix", git="pass")
    local = card(None, "local")
    assert (local["head"], local["state"]) == ("Not run on a cluster", "open")
    assert local["text"] == "p0: a GPU, no Slurm job. No pre-flight table lies beside this run."
    both = card(passed, "4711", "local")
    assert (both["head"], both["state"]) == ("1 Slurm job measured", "good")
    assert both["text"].startswith("p0: a GPU, job 4711; p1: a GPU, no Slurm job. ")
    assert both["text"].endswith(". Pre-flight at commit 12345678: nothing to fix.")
    unsure = card(table(account="not known", time="not known", git="warn"), "4711")
    assert unsure["state"] == "open" and unsure["text"].endswith("nothing to fix; warn: 1; not known: 2.")
    assert card(passed, "local")["state"] == "open"
    assert card(None, "4711")["state"] == "open"
    stopped = card(faulty, "4711")
    assert stopped["state"] == "bad" and "12345678: to fix: account." in stopped["text"]
    assert cluster_card(Missing(SOURCE), None)["state"] == "missing"


def test_the_twin_card_is_good_only_when_the_bits_agree_and_the_audit_of_controls_holds() -> None:
    def card(same: bool, holds: bool) -> dict[str, Any]:
        twin = {"same_bits": same, "variant": "baseline", "seed": 3, "verdict": "the verdict"}
        return plain(twin_card(node(twin), node({"audit_holds": holds, "sentence": "6 of 8 part"})))

    assert (card(True, True)["state"], card(True, True)["head"]) == ("good", "Twin runs: the same bits")
    assert "baseline, seed 3, trained twice" in card(True, True)["text"] and "the verdict." in card(True, True)["text"]
    assert (card(False, True)["state"], card(False, True)["head"]) == ("bad", "Twin runs: other bits")
    assert card(True, False)["state"] == "bad"
    assert twin_card(Missing(SOURCE), node({"audit_holds": True, "sentence": "s"}))["state"] == "missing"
