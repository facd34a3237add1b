"""What the documents say of question 7: who worked how, merges and their conflicts, what CI checks and lets through.

As in answers_data: evidence in, table rows or a sentence out, and what is missing stays missing. Git knows neither
intentions nor the rules of a server; those are the group's to fill in.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pcam.binding import count_of, distinct
from pcam.documents import Missing, counted, percent

Rows = list[list[Any]] | Missing
MOST_ROWS = 20  # of a table; the result file has the rest
SIDES = {"first side": "the version of the line merged into", "second side": "the version of the branch"}


def listed(values: Iterable[Any]) -> str:
    """Texts of the results joined; `str` keeps what each of them cites. What is missing says so."""
    return str(values) if isinstance(values, Missing) else ", ".join(str(value) for value in values)


def verb(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def duration(days: float) -> str:
    return f"{24 * days:.1f} hours" if days < 1 else f"{days:.1f} days"


def history_sentence(told: Any) -> Any:
    """How far back the history reaches, and by how many; why there is none."""
    history = told.history
    if isinstance(history, Missing):
        return history
    if history is None:
        return f"Git tells nothing here: {told.note}."
    text = (
        f"The history holds {counted(history.commits, 'commit')} by {counted(history.people, 'contributor')}, authored "
        f"from {history.first} to {history.last} UTC; a contributor is an author's name, as a .mailmap joins them."
    )
    return f"{text} Mind that {told.note}." if told.note else text


def origin_sentence(history: Any) -> str:
    """Where the history begins: several beginnings are repositories joined with their histories."""
    if history.shallow is True:
        return "Where the history begins lies outside the shallow clone."
    if history.roots == 1:
        return f"It grew from {counted(history.roots, 'first commit')}: no other repository's history was merged in."
    return f"It has {counted(history.roots, 'first commit')}: histories of several repositories were joined."


def people_rows(history: Any) -> Rows:
    people = history.contributors[:MOST_ROWS]
    if isinstance(people, Missing):
        return people
    return [[p.name, p.commits, percent(p.share), p.merges, p.first, p.last] for p in people]


def main_sentence(main: Any) -> str:
    """Merges against direct commits on the main line, and by whom the direct ones are."""
    text = (
        f"The main line (first parents of the commit that ran) holds {counted(main.commits, 'commit')}: "
        f"{counted(main.merges, 'merge')}, {counted(main.squashed, 'squashed pull request')} (told by the subject) and "
        f"{main.direct:,} direct {verb(main.direct, 'commit', 'commits')}."
    )
    if main.direct:
        people = main.direct_by[:MOST_ROWS]
        missing = isinstance(people, Missing)
        by = listed(people if missing else [f"{person.name} {person.commits:,}" for person in people])
        text += f" Direct ones by author: {by}."
    return f"{text} A branch that was rebased or fast-forwarded leaves no merge, so its commits count as direct."


def merges_sentence(merges: Any) -> str:
    """How many merges there are, how long their branches lived and who merged them."""
    if merges.found == 0:
        return "There is no merge in the history, so it shows no branch and how long it lived."
    limit = f" The newest {merges.looked_at:,} were looked at one by one." if merges.found > merges.looked_at else ""
    branches = [m for m in merges.newest if m.on_main is True and m.kind != "pull of the same branch" and m.authors]
    if not branches:
        none = "none of them tells of a whole branch merged into the main line"
        return f"There {verb(merges.found, 'is', 'are')} {counted(merges.found, 'merge')}; {none}.{limit}"
    lived = sorted((m.days for m in branches if m.days is not None), key=float)
    span = " to ".join(distinct(duration(days) for days in lived[:1] + lived[-1:]))
    span = f" lived {span}" if lived else " tell no duration"
    other = [merge for merge in branches if merge.by not in list(merge.authors)]
    return (
        f"The history holds {counted(merges.found, 'merge')}.{limit} Branches merged into the main line "
        f"({count_of(branches):,}){span}, from the first commit of a branch to its merge; "
        f"{counted_or_none(other)} of them by somebody who had no commit on the branch."
    )


def counted_or_none(things: Sequence[Any]) -> str:
    return f"{count_of(things):,}" if things else "none"


def branch_rows(merges: Any) -> Rows:
    if isinstance(merges.newest, Missing):
        return merges.newest
    return [
        [
            merge.branch or "not named",
            merge.kind,
            "undefined" if merge.commits is None else merge.commits,
            listed(merge.authors) or "undefined",
            "undefined" if merge.days is None else duration(merge.days),
            merge.by,
            merge.at,
        ]
        for merge in merges.newest[:MOST_ROWS]
    ]


def conflict_sentence(merges: Any) -> str:
    """What replaying the merges found."""
    if merges.found == 0:
        return "No merge could conflict, because there is none. Conflicts of a rebase leave no trace in git."
    notes = "; ".join(distinct(str(merge.note) for merge in merges.newest if merge.note is not None))
    replayed = merges.looked_at - merges.not_replayed
    if replayed == 0:
        return (
            f"None of the newest merges ({merges.looked_at:,}) could be merged again, so whether they conflicted is "
            f"not known: {notes}."
        )
    text = (
        f"Of the newest merges ({merges.looked_at:,}), {replayed:,} {verb(replayed, 'was', 'were')} merged again from "
        f"the two parents: {merges.clean:,} {verb(merges.clean, 'goes', 'go')} together by "
        f"{verb(merges.clean, 'itself', 'themselves')} and {merges.conflicting:,} "
        f"{verb(merges.conflicting, 'conflicts', 'conflict')}."
    )
    if merges.files_in_conflict:
        text += f" In conflict: {counted(merges.files_in_conflict, 'file')}, each told by what the merge commit holds."
    if merges.not_replayed:
        text += f" Not replayed: {merges.not_replayed:,} ({notes})."
    return f"{text} Conflicts of a rebase leave no trace in git."


def conflict_rows(merges: Any) -> Rows:
    for needed in (merges.newest, *(merge.conflicts for merge in merges.newest)):
        if isinstance(needed, Missing):
            return needed
    rows = [
        [merge.commit[:8], merge.at, merge.by, conflict.path, SIDES.get(conflict.resolved, conflict.resolved)]
        for merge in merges.newest
        for conflict in merge.conflicts
    ]
    return rows[:MOST_ROWS]


def permissions_of(permissions: Any) -> str:
    if permissions is None:
        return "not limited"
    if isinstance(permissions, str):
        return permissions
    return listed(f"{name}: {permissions[name]}" for name in permissions) or "none"


def ci_rows(workflows: Any) -> Rows:
    """A line a job: when it runs, after what, what it runs, within what limits."""
    if isinstance(workflows, Missing):
        return workflows
    rows = []
    for workflow in workflows:
        if workflow.error is not None:
            rows.append([workflow.file, f"not readable: {workflow.error}", "", "", ""])
        for job in workflow.jobs:
            steps = [line for step in job.steps for line in (step.run or ([step.uses] if step.uses else []))]
            when = listed(workflow.triggers) + (f", only if {job.only_if}" if job.only_if is not None else "")
            granted = workflow.permissions if job.permissions is None else job.permissions
            minutes = "no limit set" if job.minutes is None else f"{job.minutes} min"
            rows.append(
                [f"{workflow.file}: {job.job}", when, "; ".join(map(str, steps)), permissions_of(granted), minutes]
            )
    return rows


def ci_sentence(ci: Any) -> Any:
    """What CI checks."""
    if isinstance(ci, Missing):
        return ci
    if ci.jobs == 0:
        text = "No workflow with a job was found, so nothing is checked by a server that git would know of."
    else:
        text = (
            f"{counted(ci.jobs, 'job')}. Uses of actions: {ci.actions:,}, of them {ci.pinned:,} pinned to a commit or "
            "lying in the repository."
        )
    if ci.script is not None:
        text += f" {ci.script} checks, in this order: {listed(ci.script_steps)}."
    if ci.hooks is None:
        return f"{text} There are no readable pre-commit hooks."
    hooks = ci.hooks if isinstance(ci.hooks, Missing) else [hook.hook for hook in ci.hooks]
    return f"{text} Hooks before a commit: {listed(hooks) or 'none'}."


def open_doors(told: Any) -> list[Any]:
    """What CI as it stands would let through."""
    ci, history = told.ci, told.history
    if isinstance(ci, Missing):
        return [ci]
    doors = [
        "Whether a server protects the branch is not in git: without such a rule, anyone who may push can push past CI."
    ]
    if not isinstance(history, Missing) and history is not None and history.main_line.direct:
        direct = counted(history.main_line.direct, "direct commit")
        doors.append(f"{direct} on the main line: what reaches it so is checked afterwards, if at all.")
    if not ci.on_pull_request:
        doors.append("No workflow runs on pull requests, so nothing is checked before a merge.")
    if not ci.on_push:
        doors.append("No workflow runs on a push, so what was pushed directly is never checked.")
    if len(ci.unpinned):
        doors.append(f"Actions that are not pinned to a commit can change under their name: {listed(ci.unpinned)}.")
    if len(ci.writing_jobs):
        doors.append(f"Jobs whose token is not limited to reading: {listed(ci.writing_jobs)}.")
    if ci.without_limit:
        doors.append(f"Jobs without a time limit of their own: {ci.without_limit:,}.")
    if ci.may_fail:
        doors.append(f"Jobs and steps that may fail without failing CI: {ci.may_fail:,}.")
    if not ci.owners:
        doors.append("No CODEOWNERS file asks anyone for a review.")
    if ci.hooks is not None and len(ci.hooks):
        doors.append("Hooks before a commit run only where somebody installed them, and can be skipped.")
    return doors


def collaboration_answers(found: Mapping[str, Any]) -> dict[str, Any]:
    """All that the journal's template needs for question 7, by name."""
    told = found["collaboration"]
    history = told.history
    known = not isinstance(history, Missing) and history is not None
    return {
        "has_history": known,
        "history_sentence": history_sentence(told),
        "origin_sentence": origin_sentence(history) if known else None,
        "people_table": people_rows(history) if known else [],
        "main_sentence": main_sentence(history.main_line) if known else None,
        "merges_sentence": merges_sentence(history.merges) if known else None,
        "branch_table": branch_rows(history.merges) if known else [],
        "conflict_sentence": conflict_sentence(history.merges) if known else None,
        "conflict_table": conflict_rows(history.merges) if known else [],
        "ci_job_table": ci_rows(told.ci.workflows),
        "ci_sentence": ci_sentence(told.ci),
        "open_doors": open_doors(told),
    }
