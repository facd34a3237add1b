"""A collaboration.json as describe_collaboration writes it, each number its own."""

from typing import Any

_HISTORY = ("collaboration", "history")
# Numbers whose change must change the journal.
SHOWN = [
    (*_HISTORY, "commits"), (*_HISTORY, "people"), (*_HISTORY, "contributors", 0, "share"),
    (*_HISTORY, "main_line", "direct"), (*_HISTORY, "main_line", "squashed"), (*_HISTORY, "merges", "found"),
    (*_HISTORY, "merges", "conflicting"), (*_HISTORY, "merges", "files_in_conflict"),
    (*_HISTORY, "merges", "newest", 0, "days"), (*_HISTORY, "merges", "newest", 0, "commits"),
    ("collaboration", "ci", "jobs"), ("collaboration", "ci", "pinned"), ("collaboration", "ci", "without_limit"),
    ("collaboration", "ci", "workflows", 0, "jobs", 0, "minutes"),
]  # fmt: skip
PERSON = {"name": "Ana <b>|</b>", "commits": 6007, "share": 0.9977, "merges": 31, "first": "2026-01-02 03:04"}
MERGE = {
    "commit": "feedc0de" * 5,
    "at": "2026-02-03 04:05",
    "by": "Ben",
    "kind": "pull request",
    "branch": "audit-2",
    "on_main": True,
    "commits": 13,
    "authors": ["Ana"],
    "days": 2.57,
    "outcome": "conflicts",
    "note": None,
    "conflicts": [{"path": "src/shared.py", "resolved": "a version of its own"}],
}


def collaboration_results() -> dict[str, Any]:
    step = {"uses": "act/ion", "pinned": False, "run": [], "may_fail": False}
    return {
        "collaboration": {
            "note": None,
            "history": {
                "commits": 6021,
                "shallow": False,
                "roots": 1,
                "first": "2026-01-02 03:04",
                "last": "2026-03-04 05:06",
                "people": 4,
                "contributors": [{**PERSON, "last": "2026-03-04 05:06"}],
                "main_line": {
                    "commits": 5059,
                    "merges": 29,
                    "squashed": 7,
                    "direct": 5023,
                    "direct_by": [{"name": "Ana", "commits": 5023}],
                },
                "merges": {
                    "found": 31,
                    "looked_at": 1,
                    "most": 1,
                    "clean": 0,
                    "conflicting": 1,
                    "not_replayed": 0,
                    "files_in_conflict": 1,
                    "newest": [MERGE],
                },
                "hours": [],
                "graph": [],
            },
            "ci": {
                "workflows": [
                    {
                        "file": "ci.yml",
                        "error": None,
                        "triggers": ["push to main"],
                        "permissions": {"contents": "read"},
                        "jobs": [
                            {
                                "job": "all",
                                "needs": [],
                                "minutes": 17,
                                "permissions": None,
                                "only_if": None,
                                "may_fail": False,
                                "steps": [step],
                            }
                        ],
                    }
                ],
                "jobs": 1,
                "actions": 1,
                "pinned": 0,
                "unpinned": ["act/ion"],
                "writing_jobs": [],
                "without_limit": 0,
                "may_fail": 0,
                "on_pull_request": False,
                "on_push": True,
                "script": None,
                "script_steps": None,
                "hooks": [],
                "owners": False,
            },
        }
    }
