"""The zip of a case: reading one from a stranger, its chain of hashes, and adding a step to it.

The chain shows a change of any entry or picture, a missing entry in the middle, and pictures that no entry lists. It
cannot show that the last steps were cut off together with their pictures, nor that somebody wrote a whole case anew:
for that, note the last entry's hash (``s2f case show``) outside of the file, and pass it to ``s2f case verify --head``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s2flib.errors import DataError, S2FError, printable
from s2flib.files import atomic_path

SUFFIX = ".s2fcase"
FORMAT, VERSION = "s2fcase", 1
FIRST = "case.json"
ACTIONS = ("new", "choose", "edit", "lineup")
START = "0" * 64  # what the first entry follows
MAX_MEMBERS, MAX_MEMBER, MAX_TOTAL = 1000, 1 << 25, 1 << 28  # number; bytes of one and of all, unpacked
MAX_JSON = 1 << 20  # bytes of one log entry
NAMES = re.compile(
    r"case\.json|log/[0-9]{4}\.json|drawing\.[a-z0-9]{2,5}|faces/[0-9]{2}\.png|edits/[0-9]{4}_[0-9]{2}\.png"
)
ABSENT = "{} does not exist or is a folder: choose a case file (s2f case new makes one)."
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One step. previous: the hash of the entry before; hash: of this one (:func:`entry_hash`)."""

    index: int
    time: str  # ISO 8601, UTC
    action: str  # one of ACTIONS
    who: str | None
    data: dict[str, Any]
    members: dict[str, str]  # the files added by this step → SHA-256
    previous: str
    hash: str = ""


@dataclass(frozen=True)
class Case:
    """A case as read: its entries in order, and the contents of every other member."""

    path: Path
    entries: list[Entry]
    members: dict[str, bytes]
    absent: list[str] = field(default_factory=list)  # log entries that are missing before the last one

    @property
    def head(self) -> str:
        """The hash of the last entry: it stands for the whole case."""
        return self.entries[-1].hash

    @property
    def first(self) -> dict[str, Any]:
        return self.entries[0].data

    def problems(self) -> list[str]:
        """What was changed since the steps were written, one sentence each: [] for a sound case."""
        found = [f"{name} is missing" for name in self.absent]
        for i, entry in enumerate(self.entries):
            name = member_of(entry.index)
            if entry_hash(entry) != entry.hash:
                found.append(f"{name} was changed: its hash does not match")
            previous = START if i == 0 else self.entries[i - 1].hash
            if entry.previous != previous and not self.absent:
                found.append(f"{name} does not follow the entry before it")
        listed = {name: digest for entry in self.entries for name, digest in entry.members.items()}
        for name, digest in listed.items():
            if name not in self.members:
                found.append(f"{name} is missing")
            elif hashlib.sha256(self.members[name]).hexdigest() != digest:
                found.append(f"{name} was changed: its hash does not match")
        found += [f"{name} is in no log entry" for name in self.members if name not in listed]
        return found


def member_of(index: int) -> str:
    """The name of an entry's file."""
    return FIRST if index == 0 else f"log/{index:04d}.json"


def entry_hash(entry: Entry) -> str:
    """SHA-256 of everything in an entry but its own hash, as JSON with sorted keys and without spaces."""
    content = {k: v for k, v in asdict(entry).items() if k != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_case(path: str | Path) -> Case:
    """A case file, whoever it comes from; DataError, which names the file, when it is none.

    Nothing is unpacked to disk. Number, names and sizes of the members are checked before one is read, and every field
    of the log is checked. Whether anything was changed is another question: :meth:`Case.problems`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(ABSENT.format(path))
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_members(path, infos)
            contents = {info.filename: archive.read(info) for info in infos}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({printable(error)}): check its permissions.") from None
    except Exception as error:  # zipfile and zlib raise anything on damaged data
        raise DataError(f"{path} is truncated, damaged or no case file ({printable(error)}): copy it again.") from None
    names = sorted(name for name in contents if name.endswith(".json"))  # case.json sorts before log/0001.json
    if FIRST not in names:
        raise DataError(f"{path} has no {FIRST}, so it is no case file: choose one that s2f case new made.")
    entries = [_entry(path, name, contents.pop(name)) for name in names]
    first = entries[0].data
    if first.get("format") != FORMAT or first.get("version") != VERSION:
        found = printable(f"{first.get('format')} {first.get('version')}", 40)
        raise DataError(f"{path} is a case of the kind {found}, not {FORMAT} {VERSION}: open it with its own version.")
    last = entries[-1].index
    absent = [member_of(i) for i in range(last) if member_of(i) not in names]
    return Case(path, entries, contents, absent)


def load_case(path: str | Path) -> Case:
    """:func:`read_case`; DataError also for a case that was changed since it was written."""
    case = read_case(path)
    if problems := case.problems():
        raise DataError(f"{case.path} was changed ({problems[0]}): run s2f case verify to see what, or use a copy.")
    return case


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """DataError for too many members, too large ones, or names that no case has (absolute ones, with .., twice)."""
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"{path} has {len(infos):,} members, more than any case: do not trust it.")
    names = [info.filename for info in infos]
    for info in infos:
        if not NAMES.fullmatch(info.filename):
            raise DataError(f"{path} contains {printable(info.filename, 60)!r}, which no case has: do not trust it.")
        limit = MAX_JSON if info.filename.endswith(".json") else MAX_MEMBER
        if info.file_size > limit:
            raise DataError(f"{path}: {info.filename} unpacks to {info.file_size:,} bytes, too many: do not trust it.")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: {info.filename} is encrypted or packed in another way: do not trust it.")
    if sum(info.file_size for info in infos) > MAX_TOTAL:
        raise DataError(f"{path} unpacks to more than {MAX_TOTAL >> 20} MB, too many for a case: do not trust it.")
    if len(set(names)) != len(names):
        raise DataError(f"{path} contains a member twice, as no case does: do not trust it.")


def _entry(path: Path, name: str, content: bytes) -> Entry:
    """One log entry, checked field by field; DataError."""

    def refuse(why: str) -> DataError:
        return DataError(f"{path}: {name} is no log entry ({why}): it was not written by s2f case.")

    def no_constant(word: str):
        raise ValueError(f"{word} in it")

    try:
        raw = json.loads(content.decode("utf-8"), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise refuse(printable(error, 80)) from None
    if not isinstance(raw, dict) or set(raw) != set(Entry.__dataclass_fields__):
        raise refuse("its fields are not those of one")
    try:
        datetime.fromisoformat(raw["time"])
    except (TypeError, ValueError):
        raise refuse("its time is none") from None
    members = raw["members"]
    checks = {
        "index": type(raw["index"]) is int and name == member_of(raw["index"]),
        "action": raw["action"] in ACTIONS[1:] if name != FIRST else raw["action"] == ACTIONS[0],
        "who": raw["who"] is None or isinstance(raw["who"], str),
        "data": isinstance(raw["data"], dict),
        "members": isinstance(members, dict) and all(map(_is_hash, members.values())),
        "previous": _is_hash(raw["previous"]),
        "hash": _is_hash(raw["hash"]),
    }
    wrong = [key for key, fine in checks.items() if not fine]
    if wrong:
        raise refuse(f"its {wrong[0]} is wrong")
    if not all(NAMES.fullmatch(k) and not k.endswith(".json") for k in members):
        raise refuse("it lists members that no case has")
    return Entry(**raw)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


@contextlib.contextmanager
def locked(path: Path, new: bool = False) -> Iterator[None]:
    """Keep a case file to this process; S2FError while another one writes to it, when there is none, or, if it is to be
    new, when there is one."""
    from filelock import FileLock, Timeout

    if new and path.exists():
        raise S2FError(f"{path} exists already, and a case is never overwritten: choose another name.")
    if not new and not path.is_file():
        raise DataError(ABSENT.format(path))
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise S2FError(f"{path} is in use by another s2f process: run the command again when that is done.") from None
    except OSError as error:
        raise S2FError(f"{path} cannot be written ({printable(error)}): choose another folder.") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is still locked
        lock.release()


def add(
    path: Path,
    case: Case | None,  # None: a new file
    action: str,
    data: Mapping[str, Any],
    members: Mapping[str, bytes],  # the step's own files
    who: str | None = None,
) -> Case:
    """Write the case with one more entry, as a whole or not at all; call it inside :func:`locked`, with the case that
    was read there. S2FError when the file has changed since, or the disk is full."""
    before = [] if case is None else case.entries
    earlier = {} if case is None else case.members
    digests = {name: hashlib.sha256(blob).hexdigest() for name, blob in members.items()}
    previous = before[-1].hash if before else START
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    plain = json.loads(json.dumps(dict(data), allow_nan=False))  # as it will be read: tuples become lists
    entry = Entry(len(before), now, action, who, plain, digests, previous)
    entry = replace(entry, hash=entry_hash(entry))
    written = Case(path, [*before, entry], {**earlier, **members})
    with atomic_path(path) as part:
        with zipfile.ZipFile(part, "w") as archive:
            for each in written.entries:
                text = json.dumps(asdict(each), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
                content = text.encode("utf-8", "backslashreplace")  # a file name may hold any byte: \\udcff is JSON
                archive.writestr(member_of(each.index), content, zipfile.ZIP_DEFLATED)
            for name, blob in written.members.items():
                archive.writestr(name, blob, zipfile.ZIP_STORED)
        if (case is None) == path.exists() or (case is not None and read_case(path).head != previous):
            raise S2FError(f"{path} was changed by another program meanwhile: nothing was written; run it again.")
    return written
