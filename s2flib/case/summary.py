"""A case as text to read."""

from __future__ import annotations

import textwrap

from s2flib.case.archive import Case, Entry
from s2flib.errors import printable

WIDTH = 100
LONG = 2000  # characters of a text that are shown


def summary(case: Case) -> str:
    """What was done, step by step, and the statement. Texts of a stranger's case are shown as plain characters."""
    lines = [f"{case.path.name}: {len(case.entries)} steps, {len(case.members)} files"]
    for entry in case.entries:
        who = f" by {printable(entry.who)}" if entry.who else ""
        lines.append(f"{entry.index:4d}  {entry.time[:19]}Z{who}  {entry.action}")
        lines += [f"      {line}" for text in told(entry) for line in textwrap.wrap(printable(text, LONG), WIDTH)]
    lines += ["", *textwrap.wrap(printable(case.first.get("statement"), LONG), WIDTH)]
    problems = case.problems()
    lines += ["", *(f"CHANGED: {printable(problem)}" for problem in problems)] if problems else []
    lines += ["", f"hash of the last step: {case.head}", "note it elsewhere: it shows if steps are cut off later"]
    return "\n".join(lines)


def told(entry: Entry) -> list[str]:
    """One entry's content, in lines; a field that is missing or of another type shows as it is."""
    data = entry.data
    notes = data.get("notes")
    told = [f"note: {note}" for note in notes] if isinstance(notes, list) else []
    if entry.action == "new":
        how = f"preset {data.get('preset')}, seed {data.get('seed')}"
        return [f"{data.get('n')} faces of {data.get('drawing_name')} ({how})", *told]
    if entry.action == "choose":
        rejected = data.get("rejected")
        why = rejected.items() if isinstance(rejected, dict) else []
        return [
            f"{data.get('face')}: {data.get('reason')}",
            *(f"rejected {k}: {v or 'no reason given'}" for k, v in why),
        ]
    if entry.action == "edit":
        options = data.get("options")
        seed = options.get("seed") if isinstance(options, dict) else None
        return [f"{data.get('source')}: {data.get('instruction')} (seed {seed}) -> {', '.join(entry.members)}", *told]
    gallery, result = data.get("gallery"), data.get("result")
    if not isinstance(gallery, dict) or not isinstance(result, dict):
        return ["an unreadable line-up"]
    top, shuffled, ceiling = (result.get(k) for k in ("top", "shuffled", "photo_against_photo"))
    against = f"{gallery.get('people')} people ({gallery.get('kind')} {gallery.get('name')})"
    lines = [f"{data.get('probe')} against {against}, {result.get('judge')}"]
    for place, hit in enumerate(top[:5] if isinstance(top, list) else [], start=1):
        if isinstance(hit, dict):
            lines.append(f"{place}. {hit.get('photo')}  similarity {hit.get('similarity')}")
    if isinstance(shuffled, dict):
        lines.append(
            f"shuffled control: {shuffled.get('as_high_as_the_probe')} of {shuffled.get('n')} {shuffled.get('what')} "
            "reach the first place's similarity"
        )
    left_out = gallery.get("left_out")
    if left_out:
        lines.append(f"{len(left_out)} photos left out: they do not show exactly one face")
    chance = result.get("chance")
    if isinstance(chance, dict):
        lines.append(f"chance: rank-1 {_percent(chance.get('rank1'))}, rank-10 {_percent(chance.get('rank10'))}")
    if isinstance(ceiling, dict):
        lines.append(
            f"photo against photo: rank-1 {_percent(ceiling.get('rank1'))}, rank-10 {_percent(ceiling.get('rank10'))} "
            f"of {ceiling.get('n')} second photos"
        )
    else:
        lines.append("photo against photo: not measured, nobody has a second photo")
    return lines


def _percent(value) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) else "?"
