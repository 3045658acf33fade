"""Whose a hand-in is: names as learning platforms, browsers and editors write them, and the roster of a class."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from course_utils.exercises.registry import list_exercises
from workshop.grade.spreadsheets import read_sheet

# How platforms name the file or folder of a student. What comes behind is the name that the student gave (`rest`).
_WRITTEN = [
    # Moodle, mod/assign/classes/downloader.php: folders, or in front of each name; an underscore at the end until 4.x
    r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+(?:_(?P<rest>.*))?",
    # Canvas, lib/content_zipper.rb, get_filename and add_upload_submission
    r"(?:(?P<late>LATE)_)?(?P<student>anon_[^_]+)_(?P<attempt>\d+)_(?P<rest>.+)",
    r"(?P<student>.+?)_(?:(?P<late>LATE)_)?(?P<id>\d+)_(?P<attempt>\d{3,})_(?P<rest>.+)",
    r"(?P<student>.+?)_(?:(?P<late>LATE)_)?(?P<id>\d+)_(?P<rest>(?:text|link)\.html)",
    # Blackboard, "Assignment File Download": HOMEWORK_LOGIN_attempt_TIME_NAME, and _attempt_TIME.txt
    r"(?P<whole>.+_(?P<student>[^_]+))_(?:attempt|poging|Versuch|intento|tentativ[ae]|tentative)_"
    r"(?P<attempt>\d{4}(?:-\d\d){5})(?:_(?P<rest>.+)|\.txt)?",
    # nbgrader's exchange: STUDENT+ASSIGNMENT+TIME+RANDOM
    r"(?P<student>[^+]+)\+[^+]+\+(?P<attempt>\d{4}-\d\d-\d\d [^+]+)(?:\+.*)?",
    # Brightspace: NUMBER-NUMBER - NAME - TIME - FILE
    r"\d+-\d+ ?- (?P<student>.+?) - (?P<attempt>[^-]*\d{4},? \d\d?:?\d\d [AP]M)(?: ?- (?P<rest>.+))?",
    # Sakai: LAST, FIRST(LOGIN)
    r"(?P<student>[^(),]+,[^(),]+)\((?P<id>[^(),]*[^\d(),][^(),]*)\)",
]
_PLATFORMS = [re.compile(pattern, re.DOTALL) for pattern in _WRITTEN]
_NOTEBOOK = re.compile(r"(?i)\.ipynb(?:[ ._-]?(?:txt|json|ipynb|download|bak|\(\d+\)))*\s*$")
_ARCHIVE = re.compile(r"(?i)\.(?:zip|tar|tgz|tbz2?|txz|tar\.\w+|7z|rar)(?: ?\(\d+\))?$")
_COPY_OF = re.compile(r"(?i)\b(?:copy|kopie|copie|copia)(?: \(?\d+\)?)? (?:of|von|de) ")
_COPY = re.compile(r"(?i)(?:[ _]*\((\d+)\)|(?:(?<=[\w)])[ _-]+)(?:copy|kopie|copie|copia)[ _-]*(?:\(?(\d+)\)?)?)$")
_VERSION = re.compile(
    r"(?i)[ _.-]+\(?(?:final|solved|solutions?|submission|abgabe|done|new|neu|main|master|"
    r"v(?:ersion ?)?(\d+)|attempt[ _-]?(\d+))\)?$"
)
_LATE = re.compile(r"(?i:[ _-]+\(?late\)?$|\A\(late\)[ _-]*)|\ALATE[ _-]+")
_HOMEWORK = re.compile(
    r"(?i)(?:(?:homework|hw|assignment|lab|exercises?|problem-?set|ps|project|task|uebung|week)-?\d*-)+(?=[^\W\d])"
)
_ENDS = " _-.+,"
_NO_TITLE = (  # what files are called that nobody named after a notebook
    r"(?i)(?<![^\W_])(?:untitled\d*|(?:homework|hw|assignment|exercise|problem[ _-]?set|ps|lab|sheet|notebook|nb|"
    r"abgabe|aufgabe|übung|blatt)[ _-]?\d+)(?![^\W_])"
)
_ANONYMOUS = re.compile(r"(?i)(?:participant|teilnehmer(?:/?in)?|participante?)")


@dataclass(frozen=True)
class Name:
    """What a name says. `rest` is the student's own name of the file, if a platform wrote something in front of it."""

    student: str
    id: str = ""
    stamp: str = ""  # of the attempt, as text that sorts
    number: int = 0  # of a copy or version
    late: bool = False
    rest: str = ""
    by_platform: bool = False
    folder: str = ""  # if the student was read from a part of it
    members: tuple[tuple[str, str], ...] = ()  # of a group: the name and id of each


@cache
def _titles() -> dict[str, str]:
    """For each notebook its names as people write them: `01_data_exploration`, `01 Data Exploration`, `01_data`."""
    found = {}
    for notebook in sorted({exercise.notebook for exercise in list_exercises()}):
        number, first, *more = notebook.split("_")
        tail = "".join(rf"(?:[ _-]*{word}" for word in more) + ")?" * len(more)
        without_number = "|" + "[ _-]*".join((first, *more)) if more else ""
        found[notebook] = rf"(?i)(?<![^\W_])(?:0?{int(number)}[ _-]*{first}{tail}{without_number})(?![^\W_])"
    return found


def title_in(name: str) -> str:
    """The notebook that a file's name speaks of, or nothing.

    >>> title_in("kim 01 Data-Exploration (2).ipynb")
    '01_data_exploration'
    """
    return next((notebook for notebook, title in _titles().items() if re.search(title, name)), "")


def is_notebook_name(name: str) -> bool:
    return bool(_NOTEBOOK.search(name))


def read_name(name: str, is_folder: bool = False) -> Name:
    """The student in the name of a file, a folder or an archive.

    >>> read_name("leekim_LATE_12345_678901_01_data_exploration-1.ipynb").student
    'leekim'
    >>> read_name("Kim Lee - Copy of 01_data_exploration (1).ipynb").student
    'Kim Lee'
    """
    name = unicodedata.normalize("NFC", name)
    for platform in _PLATFORMS:
        if found := platform.fullmatch(name):
            parts = {key: value or "" for key, value in found.groupdict().items()}
            student, rest = parts["student"].strip(), parts.get("rest", "")
            if _ANONYMOUS.fullmatch(student):
                student = f"{student} {parts['id']}"
            number = own_number(rest) or int((re.search(r"-(\d+)(?:\.|$)", rest) or "00")[1])
            late = bool(parts.get("late"))
            id_, stamp, whole = (parts.get(key, "") for key in ("id", "attempt", "whole"))
            return Name(student, id_, stamp_of(stamp), number, late, rest, True, whole)
    stem = name if is_folder else Path(_ARCHIVE.sub("", _NOTEBOOK.sub("", name)) or name).name
    if not is_folder and stem == name:
        stem = Path(name).stem
    late = bool(_LATE.search(stem))
    bare = _strip(stem)
    for title in (*(title + r"(?:-\d+$)?" for title in _titles().values()), _NO_TITLE):
        bare = _strip(re.sub(title, " ", bare).strip(_ENDS))
    bare = re.sub(r"\A[(\[]([^()\[\]]+)[)\]]\Z", r"\1", re.sub(r"[ _-]*_[ _-]*", "_", bare))
    return Name(bare or stem, number=own_number(name), late=late)


def _strip(text: str) -> str:
    """Without marks of copies, versions and lateness, and what then hangs over at the ends."""
    before = None
    while text != before:
        before = text
        for mark in (_COPY_OF, _COPY, _VERSION, _LATE):
            text = mark.sub("", text).strip(_ENDS) or text
    return text


def own_number(name: str) -> int:
    """The number that browsers and editors give to copies: `(2)`, `-Copy1`, ` copy 2`, `_v3`."""
    stem = re.sub(r"\.[A-Za-z]\w{0,5}$", "", _ARCHIVE.sub("", _NOTEBOOK.sub("", name)))
    suffix = name[len(stem) :]
    if found := re.search(r"\((\d+)\)", suffix) or _COPY.search(stem) or _VERSION.search(stem):
        return next((int(group[:9]) for group in found.groups() if group), 1)
    return 1 if _COPY_OF.search(stem) else 0


def stamp_of(text: str) -> str:
    """The time or number of an attempt, so that the later one sorts last."""
    months = "jan feb mar apr may jun jul aug sep oct nov dec".split()
    if found := re.search(r"(?i)\b([a-z]{3})[a-z]*\b", text):
        date = re.search(r"(\d{4}),? (\d\d?):?(\d\d) ([AP])M", text)
        if date and found[1].lower() in months:
            day = re.search(r"\d{1,2}", text)[0]
            hour = int(date[2]) % 12 + 12 * (date[4] == "P")
            return f"{date[1]}{months.index(found[1].lower()) + 1:02}{int(day):02}{hour:02}{date[3]}00".zfill(20)
    return "".join(re.findall(r"\d+", text)).zfill(20) if text else ""


def without_assignment(names: Iterable[str], repositories: Iterable[str]) -> dict[str, str]:
    """Folders of GitHub Classroom are `ASSIGNMENT-LOGIN`: the login of each, for those that look like it."""
    names, repositories = sorted(names), sorted(repositories)
    logins = {name: name[found.end() :] for name in names if (found := _HOMEWORK.match(name))}
    if len(repositories) > 1:
        first, last = repositories[0], repositories[-1]
        same = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
        start = first.rfind("-", 0, same) + 1
        logins |= {name: name[start:] for name in repositories if start and name not in logins}
    return logins


# The roster


class RosterError(ValueError):
    """The roster can't be read; the text says what was found and what to do."""


@dataclass(frozen=True)
class Person:
    """One line of a roster. `label` names nobody else on it."""

    label: str
    names: tuple[str, ...]
    ids: tuple[str, ...]  # numbers, logins and addresses, as written
    lines: tuple[int, ...] = ()  # that are about this person, in the order of the file


_COLUMNS = {
    "first": "firstname vorname vornamen givenname forename rufname",
    "last": "lastname surname nachname familienname familyname",
    "name": "name fullname student studentname studentin studierende vollstandigername teilnehmer teilnehmerin"
    " displayname sortablename anzeigename",
    "id": "id studentid idnumber idnummer matrikelnummer matrikelnr matrikel matrnr sid sisuserid identifier userid"
    " personid participant teilnehmernummer kennung studentnumber studentennummer rosteridentifier identifikator"
    " orgdefinedid universityid githubid",
    "email": "email emailaddress emailadresse mail mailadresse",
    "login": "login username sisloginid loginid benutzername githubusername githublogin anmeldename nutzername user"
    " netid uniqname kurzel studentrepositoryname",
}
_KIND = {header: kind for kind, headers in _COLUMNS.items() for header in headers.split()}


def read_roster(path: Path) -> list[Person]:
    """The people of a CSV file, whose columns are found by their headers in English or German."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RosterError(f"The roster {path} cannot be read ({error.strerror}): check the path.") from error
    if content.startswith((b"PK", b"\xd0\xcf")):
        raise RosterError(f"The roster {path.name} is a workbook or an archive: save it as CSV (UTF-8) and give that.")
    header, *rows = read_sheet(content).lines or [[]]
    kinds = _kinds(header)
    if not any(kinds):
        raise RosterError(
            f"The roster {path.name} has no column of names or ids: its first line is {', '.join(header)[:100]!r}. "
            "Expected are headers, as in: id,first name,last name,email"
        )
    if "last" not in kinds and "first" in kinds:  # Vorname, Name
        kinds = ["last" if kind == "name" else kind for kind in kinds]
    people: dict[tuple, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        cells: dict[str, list[str]] = defaultdict(list)
        for kind, cell in zip(kinds, row, strict=False):
            if kind and cell.strip():
                cells[kind].append(unicodedata.normalize("NFC", " ".join(cell.split())))
        first, last = " ".join(cells["first"]), " ".join(cells["last"])
        full = f"{first} {last}".strip()
        names = tuple(dict.fromkeys([*([full] if full else []), *(_turned(name) for name in cells["name"])]))
        ids = tuple(dict.fromkeys([*cells["id"], *cells["login"], *cells["email"]]))
        if (names or ids) and not (names and names[0] in ("Points Possible", "Test Student")):  # lines of Canvas
            people[names, ids].append(number)
    labels = [(*names, *ids)[0] for names, ids in people]
    count = Counter(labels)
    return [
        Person(f"{label} ({ids[0]})" if count[label] > 1 and ids else label, names, ids, (*lines,))
        for label, ((names, ids), lines) in zip(labels, people.items(), strict=True)
    ]


def _kinds(header: list[str]) -> list[str]:
    """What each column holds, by its name: a key of `_COLUMNS`, or nothing."""
    return [_KIND.get(re.sub(r"[\W_]", "", fold(text)), "") for text in header]


def is_header(line: bytes) -> bool:
    """Whether a line is the first one of a roster, of a platform's table of marks, or of the grader's own table."""
    (header, *_) = read_sheet(line).lines or [[]]
    return sum(map(bool, _kinds(header))) > 1 or line.lstrip(b"\xef\xbb\xbf").startswith(b"student,notebook,")


def read_submitters(text: str) -> dict[str, Name]:
    """Whose the folders are that Gradescope exports, from its `submission_metadata.yml`.

    >>> read_submitters("submission_7:\\n  :submitters:\\n  - :name: Kim Lee\\n    :sid: '123'")["submission_7"].student
    'Kim Lee'
    """
    found: dict[str, Name] = {}
    for block in re.split(r"(?m)^(?=\S)", text):
        submitters = re.split(r"(?m)^  :", block.partition(":submitters:")[2])[0]
        people = []
        for one in re.split(r"(?m)^ *- *", submitters)[1:]:
            said = {key: value.strip("'\" ") for key, value in re.findall(r"(?m)^\s*:(\w+): *(\S.*?) *$", one)}
            if "name" in said:
                people.append((said["name"], said.get("sid") or said.get("email", "")))
        if people:
            student, id_ = people[0] if len(people) == 1 else (" and ".join(name for name, _ in people), "")
            group = tuple(people) if len(people) > 1 else ()
            found[block.partition(":")[0].strip("'\" ")] = Name(student, id_, by_platform=True, members=group)
    return found


def _turned(name: str) -> str:
    """`Lee, Kim` is Kim Lee."""
    last, comma, first = name.partition(",")
    return f"{first.strip()} {last.strip()}" if comma and first.strip() else name.strip(" ,")


_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def fold(text: str, umlauts: bool = False) -> str:
    """Lower case without accents; or with `ä` written as `ae`."""
    text = unicodedata.normalize("NFC", text.casefold())
    text = unicodedata.normalize("NFKD", (text.translate(_UMLAUTS) if umlauts else text).translate(_LETTERS))
    return "".join(letter for letter in text if not unicodedata.combining(letter))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text))


def _plain_id(text: str) -> str:
    """Numbers count without zeros in front, and as `Participant 123` too."""
    flat = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return re.sub(r"\A(?:[^\W\d_]+ )?0*(\d+)\Z", r"\1", flat)


def _ways(name: str) -> list[set]:
    """The keys of a name, from exactly as written to letters only: equal keys are equal names."""
    exact = _words(unicodedata.normalize("NFC", name).casefold())
    folded = [_words(fold(name)), _words(fold(name, umlauts=True))]
    turned = [words[i:] + words[:i] for words in folded for i in range(len(words))]
    return [{tuple(sorted(exact))}, {tuple(sorted(words)) for words in folded}, {"".join(words) for words in turned}]


@dataclass
class Roster:
    """The people of a class, found by whatever a hand-in says of one."""

    people: list[Person]
    _index: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index = [defaultdict(set) for _ in range(4)]
        for number, person in enumerate(self.people):
            for one in person.ids:
                keys = {_plain_id(one), _plain_id(one.partition("@")[0])} if "@" in one else {_plain_id(one)}
                for key in keys:
                    self._index[0][key].add(number)
            for one in person.names:
                for index, keys in zip(self._index[1:], _ways(one), strict=True):
                    for key in keys:
                        index[key].add(number)

    def find(self, name: Name) -> tuple[Person | None, str]:
        """Whose hand-in it is, and what is to be said if that is nobody's, several people's or not sure.

        The first way to write a name that fits somebody counts; of several people the following ways, then the number
        of the platform decide. Nothing is guessed.
        """
        ids, *ways = self._index
        texts = {name.student, name.folder} - {""}
        keys = _ways(_turned(name.student))
        steps = [set().union(*(index.get(key, ()) for key in keys[level])) for level, index in enumerate(ways)]
        steps.insert(1, set().union(*(ids.get(_plain_id(text), ()) for text in texts)))
        steps.append(set(ids.get(_plain_id(name.id), ())) if name.id else set())
        found: set[int] = set()
        for step in steps:
            found = found & step or found if found else step
            if len(found) == 1:
                return self.people[found.pop()], ""
        note = ""
        if not found:
            found, note = self._by_parts(name.student, name.folder)
        if len(found) == 1:
            return (person := self.people[found.pop()]), note and f"Taken for {person.label} of the roster by {note}."
        if found:
            who = ", ".join(sorted(self._told(number) for number in found)[:4])
            return None, f"Several people on the roster may be meant: {who}; rename it, or write --pattern."
        return None, "Nobody on the roster has this name."

    def _told(self, number: int) -> str:
        person = self.people[number]
        return person.label if not person.ids or person.label.endswith(")") else f"{person.label} ({person.ids[0]})"

    def _by_parts(self, student: str, folder: str) -> tuple[set[int], str]:
        """People of whom a whole name or id stands in the text; or else a part of whose name is the text."""
        words = set(_words(fold(student))) | set(_words(fold(student, umlauts=True)))
        whole, part = set(), set()
        for number, person in enumerate(self.people):
            names = [set(_words(fold(one))) for one in person.names]
            ids = {_plain_id(one.partition("@")[0]) for one in person.ids}
            if any(own and own <= words for own in names if len(own) > 1) or any(
                len(one) > 2 and (one in words or folder.casefold().endswith(f"-{one}")) for one in ids
            ):
                whole.add(number)
            elif words and any(words <= own for own in names):
                part.add(number)
        return (whole, "") if whole else (part, "a part of the name")
