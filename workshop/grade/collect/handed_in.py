"""What was handed in: every file below a folder, as a notebook to grade or as a line that says why it is none.

Archives are unpacked, names are read as learning platforms write them, and of several attempts at one notebook the last
one that can be read counts: a damaged upload has its own line and takes nothing from the student. Left out are only
hidden files and what operating systems, Jupyter and the platforms put there themselves.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from pathlib import Path

from workshop.grade.collect.archives import safe_name
from workshop.grade.collect.content import cells_of, which_notebook, without_notebook
from workshop.grade.collect.search import File, Search
from workshop.grade.collect.students import (
    Name,
    Roster,
    own_number,
    read_name,
    read_roster,
    stamp_of,
    title_in,
    without_assignment,
)

# Texts of the platforms: comments on a hand-in, and what was typed instead of handing in a file.
_TYPED = re.compile(r"(?i).*_(attempt|poging|versuch|intento)_[\d-]{19}\.txt|timestamp\.txt|onlinetext.*|"
                    r".*_\d+_(text|link)\.html|.*_assignsubmission_onlinetext_.*|comments\.txt")  # fmt: skip
_WRAPPER = re.compile(r"(?i)submitted|(.*[-_ ])?submissions|assignment_\d+_export")
# Folders in which one student keeps things: their names are not those of people.
_NO_NAME = re.compile(
    r"(?i)[\W\d_]*(?:attempt|old|alt|backup|new|neu|final|draft|copy|version|v|notebooks?|solutions?|weeks?|woche|part|"
    r"teil|home ?work|hw|assignments?|exercises?|uebung|übung|labs?|src|code|data|results?|output|images?|docs?|work|"
    r"first|second|task|aufgabe|submission|abgabe|versuch|untitled|course|kurs)[\W\d_]*"
)
_ASIDE = re.compile(r"(?i)old|backups?|drafts?|solutions?|originals?|templates?|archives?|alt|source|release|starter")
# What a file is that is not a notebook, and what to ask for.
_KINDS = {
    r"\.py[iw]?": "a Python file",
    r"\.x?html?|\.mht(ml)?|\.webarchive": "a web page",
    r"\.pdf|\.docx?|\.odt|\.rtf|\.pages|\.tex|\.md|\.pptx?": "a document",
    r"\.png|\.jpe?g|\.gif|\.heic|\.webp|\.tiff?|\.bmp|\.svg": "a picture",
}
_NO_NOTEBOOK = "This is {}, not a notebook: ask for the .ipynb itself."


class HandInError(ValueError):
    """Nothing can be found out about what was handed in; the text says in one sentence what to do."""


@dataclass(frozen=True)
class HandedIn:
    """A notebook to grade, or if one of the four reasons is set, a line that says what else there is.

    `broken`: why it can't be graded; `superseded`: which other attempt counts; `missing`: who is on the roster and
    handed in nothing; `extra`: the student's other files. `note` is said beside any of them.
    """

    student: str
    path: Path
    file: str  # path below the folder, through archives: "kim.zip/01_data_exploration.ipynb"
    broken: str = ""
    superseded: str = ""
    missing: str = ""
    extra: str = ""
    note: str = ""
    late: bool = False
    modules: tuple[Path, ...] = ()  # Python files beside the notebook, which it may import
    folder: Path | None = None  # where these and all other files beside it lie, and nothing of other students
    count: int = 1  # files that the line stands for

    @property
    def to_grade(self) -> bool:
        return not (self.broken or self.superseded or self.missing or self.extra)


def find_handed_in(
    folder: Path, unpacked: Path, roster: Path | None = None, pattern: str | None = None,
    leave_out: Collection[Path] = (),
) -> list[HandedIn]:  # fmt: skip
    """Who handed in what: a line for every file below the folder, sorted by student and file.

    Args:
        folder: with a folder, a file or an archive for each student; or one of these alone.
        unpacked: a temporary folder of the caller, for what archives hold.
        roster: a CSV file with names, ids or e-mail addresses of the class.
        pattern: a regular expression with `(?P<student>...)`, for paths that no known system writes.
        leave_out: files and folders that belong to the grader.

    Raises:
        HandInError: the folder, the roster or the pattern can't be used.
    """
    if not folder.exists():
        raise HandInError(f"{folder} was not found: give the folder, or the archive, with what was handed in.")
    people = Roster(read_roster(roster)) if roster else None
    search = Search(unpacked, {path.absolute() for path in (*leave_out, *([roster] if roster else []))})
    search.look(folder.absolute())
    found = without_notebook(_named(search, people), people)
    if pattern:
        found = _by_pattern(found, pattern)
    found = [one for file in found for one in _of_each_member(file)]
    names = {file.name for file in found}
    ids = Counter(student for student, _ in {(name.student, name.id) for name in names if name.id})
    known = {name: people.find(name) if people else (None, "") for name in names}
    students: dict[str, list[File]] = defaultdict(list)
    for file in found:
        name, (person, said) = file.name, known[file.name]
        label = f"{name.student} ({name.id})" if name.id and ids[name.student] > 1 else name.student
        note = f"{file.note} {said}".strip()
        students[person.label if person else label].append(replace(file, note=note))
    lines = [line for student, files in students.items() for line in _lines(student, files, search)]
    for one in people.people if people else ():
        if one.label not in students:
            unclear = any(one.label in line.note for line in lines)
            missing = "Handed in nothing under a name that is clear." if unclear else "Handed in nothing."
            lines.append(HandedIn(one.label, folder, "", missing=missing, count=0))
    return sorted(_with_twins(lines), key=lambda line: (line.student, line.file, line.broken, str(line.path)))


# Whose they are


def _named(search: Search, people: Roster | None) -> list[File]:
    """The files, each with the name of the folder, archive or file that is one student's."""
    roots = _roots(search, people)
    logins = {}
    for root in roots:
        folders = {_name(search, one).student for one in search.containers if one[:-1] == root}
        cloned = {one[-1] for one in search.repositories if one and one[:-1] == root}
        logins[root] = without_assignment(folders, cloned)
    names: dict[tuple[str, ...], Name] = {}
    files = []
    for file in search.found:
        root = max((file.parts[:end] for end in range(len(file.parts)) if file.parts[:end] in roots), key=len)
        own = file.parts[: len(root) + 1]
        if own not in names:
            names[own] = _name(search, own)
            if own in search.containers and (login := logins[root].get(names[own].student)):
                names[own] = replace(names[own], student=login, folder=own[-1])
        files.append(replace(file, name=names[own], is_loose=own == file.parts and own not in search.containers))
    # Blackboard's logins may have underscores: what stands before them is what all have in common.
    whole = {file.name.folder for file in files if file.name.by_platform and file.name.folder}
    start = commonprefix(list(whole)).rfind("_") + 1 if len(whole) > 1 else 0
    for place, file in enumerate(files):
        if start and file.name.folder in whole and file.name.by_platform:
            files[place] = replace(file, name=replace(file.name, student=file.name.folder[start:]))
    return files


def _of_each_member(file: File) -> list[File]:
    """What a group has handed in, for each of its members."""
    members = [replace(file.name, student=student, id=id_, members=()) for student, id_ in file.name.members]
    return [replace(file, name=name) for name in members] or [file]


def _name(search: Search, parts: tuple[str, ...]) -> Name:
    is_folder = parts in search.containers and parts not in search.archives
    return search.submitters.get(parts) or read_name(parts[-1], is_folder)


def _roots(search: Search, people: Roster | None) -> set[tuple[str, ...]]:
    """The folders and archives whose files are those of a class: the folder itself, and perhaps some in it."""
    below: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for parts in sorted(search.containers | {file.parts for file in search.found}):
        below[parts[:-1]].append(parts)
    notebooks: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in search.found:
        for end in range(len(file.parts) + 1):
            if file.is_notebook:
                notebooks[file.parts[:end]].append(title_in(file.parts[-1]) or file.parts[-1].casefold())

    def is_person(parts: tuple[str, ...]) -> bool:
        name = _name(search, parts)
        return name.by_platform or bool(people and people.find(name)[0])

    def only_folder(parts: tuple[str, ...]) -> tuple[str, ...] | None:
        (one, *others) = below[parts] or [()]
        return one if one in search.containers and not others and not is_person(one) else None

    def is_wrapper(parts: tuple[str, ...]) -> bool:
        return bool(_WRAPPER.fullmatch(_name(search, parts).student) or _WRAPPER.fullmatch(parts[-1]))

    def is_class(parts: tuple[str, ...]) -> bool:
        if inner := only_folder(parts):
            return is_class(inner)
        inside = [one for one in below[parts] if one in search.containers]
        wrapper = is_wrapper(parts)
        students = {_name(search, one).student for one in below[parts] if is_person(one)}
        alone = len(below[()]) == 1
        return bool(wrapper and (inside or students)) or len(students) > (0 if alone else 1)

    def is_like_a_class(parts: tuple[str, ...]) -> bool:
        """Several folders or files with names hold the same notebook."""
        if inner := only_folder(parts):
            return is_like_a_class(inner)
        same: dict[str, set[str]] = defaultdict(set)
        for one in below[parts]:
            name = _name(search, one).student
            if not _NO_NAME.fullmatch(name) and not title_in(name):
                titles = set(notebooks[one]) if one in search.containers else {title_in(one[-1])} - {""}
                for title in titles:
                    same[title].add(name.casefold())
        return any(len(names) > 1 for names in same.values())

    roots: set[tuple[str, ...]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        root = waiting.pop()
        roots.add(root)
        inside = [one for one in below[root] if one in search.containers and not is_person(one)]
        classes = [one for one in inside if is_class(one)]
        if any(notebooks[one] for one in below[root] if one not in classes):
            # Beside those of students, a folder of a class must say so: a student may name files after others.
            classes = [one for one in classes if is_wrapper(one)]
        if not classes and len(inside) == len(below[root]) and all(map(is_like_a_class, inside)):
            classes = inside
        waiting += classes
    return roots


def _by_pattern(files: list[File], pattern: str) -> list[File]:
    """The files with the names that a regular expression finds in their paths."""
    example = "(?P<student>[^/_]+)_(?P<attempt>\\d+)"
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise HandInError(f"--pattern is not a regular expression ({error}); one is {example!r}.") from None
    if "student" not in expression.groupindex:
        raise HandInError(f"--pattern needs the group (?P<student>...), as in {example!r}; it is {pattern!r}.")
    named = []
    for file in files:
        groups = found.groupdict() if (found := expression.search(file.file)) else {}
        if student := (groups.get("student") or "").strip():
            stamp = stamp_of(groups.get("attempt") or "")
            file = replace(file, name=replace(file.name, student=student, id="", stamp=stamp, folder=""))
            named.append(file)
        else:
            named.append(replace(file, note="It does not fit --pattern."))
    if files and all(file.note for file in named):
        raise HandInError(f"--pattern fits none of {len(files)} paths, of which the first is {files[0].file!r}; "
                          f"a pattern is {example!r}, and yours is {pattern!r}.")  # fmt: skip
    return named


# What becomes of the files of one student


def _lines(student: str, files: list[File], search: Search) -> list[HandedIn]:
    """A line for each notebook and for each reason why others can't be read, and one for all that lies beside them."""
    files.sort(key=lambda file: file.parts)
    notebooks = [file for file in files if file.is_notebook and not file.broken]
    others = [file for file in files if not (file.is_notebook or file.broken or file.is_folder)]
    reasons: dict[str, list[File]] = defaultdict(list)
    for file in files:
        if file.broken:
            reasons[f"{file.file}: {file.broken}" if file.is_notebook else file.broken].append(file)
    if not notebooks and not reasons:
        for file in list(others):
            if reason := _kind(file):
                reasons[reason].append(file)
                others.remove(file)
        if others and not reasons:
            reasons[_NO_NOTEBOOK.format("another file")], others = others, []
        if not reasons:
            reasons["The folder is empty: ask for the notebook."] = files
    lines = _attempts(student, notebooks, files, search)
    for group in reasons.values():
        reason = group[0].broken or next(text for text, same in reasons.items() if same is group)
        lines.append(_line(student, group[0], broken=reason + _more(group), count=sum(not f.is_folder for f in group)))
    if others:
        where = "/".join(commonprefix([file.parts[:-1] for file in others])) if len(others) > 1 else ""
        text = f"{len(others)} other file{'s' * (len(others) > 1)}, not graded: {_listed(others)}."
        lines.append(replace(_line(student, others[0], extra=text, count=len(others)), file=where or others[0].file))
    return lines


def _line(student: str, file: File, **more) -> HandedIn:
    late = file.name.late or read_name(file.parts[-1]).late
    return HandedIn(student, file.path, file.file, **{"note": file.note, "late": late} | more)


def _kind(file: File) -> str:
    if _TYPED.fullmatch(file.parts[-1]) or "_assignsubmission_onlinetext" in file.file:
        return _NO_NOTEBOOK.format("text typed into the platform")
    suffix = Path(file.parts[-1]).suffix.lower()
    return next((_NO_NOTEBOOK.format(kind) for pattern, kind in _KINDS.items() if re.fullmatch(pattern, suffix)), "")


def _listed(files: Sequence[File]) -> str:
    names = [file.parts[-1] for file in files[:5]]
    return ", ".join(names) + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def _more(files: Sequence[File]) -> str:
    return f" The same holds for {_listed(files[1:])}." if len(files) > 1 else ""


def _attempts(student: str, notebooks: list[File], files: list[File], search: Search) -> list[HandedIn]:
    """The lines of the notebooks: of several attempts at one, the last that can be read counts."""
    groups: dict[str, list[File]] = defaultdict(list)
    readable = {}
    given = _as_given(files, search)
    for file in notebooks:
        cells = cells_of(file.path) if len(notebooks) > 1 else []
        readable[file] = cells is not None
        groups[which_notebook(cells or [], file)].append(file)
    lines = []
    for group in groups.values():
        group.sort(key=_age)
        *_, last = [file for file in group if readable[file]] or group
        for file in group:
            line = replace(_line(student, file), **_beside(given if file.is_loose else file.path.parent))
            if _age(file) > _age(last):
                note = f"{line.note} This can't be read, so an earlier attempt counts: {last.file}.".strip()
                line = replace(line, note=note)
            elif file is not last:
                line = replace(line, superseded=f"Another attempt counts: {last.file}.")
            elif last is not group[-1]:
                line = replace(line, note=f"{line.note} A later attempt, {group[-1].file}, can't be read.".strip())
            lines.append(line)
    return lines


def _age(file: File) -> tuple:
    """The later an attempt is, the larger: by what platforms write, by the number of a copy, by the time in an archive.

    What lies in a folder for old things comes before all others. The time of a file on the disk says nothing: it may be
    that of the download.
    """
    aside = any(_ASIDE.fullmatch(part) for part in file.parts[:-1])
    number = own_number(file.name.rest or file.parts[-1])
    stem = str(Path(file.file).with_suffix(""))
    natural = tuple((len(word), word) if word.isdigit() else (0, word) for word in re.split(r"(\d+)", stem))
    time = not file.time, file.time  # what was handed in as it is comes last
    return not aside, file.name.stamp, file.name.number, number, time, -len(file.parts), natural, file.file


def _as_given(files: list[File], search: Search) -> Path | None:
    """A folder with the other files of a student, under the names that they had before a platform renamed them."""
    renamed = [one for one in files if one.is_loose and one.name.rest and not (one.is_notebook or one.broken)]
    if not renamed:
        return None
    folder = search.fresh()
    folder.mkdir(parents=True)
    for one in renamed:
        shutil.copyfile(one.path, folder / safe_name(re.sub(r"-\d+(?=\.\w+$)", "", one.name.rest)))
    return folder


def _beside(folder: Path | None) -> dict:
    """The folder with what a notebook may read, and the files that it may import."""
    paths = folder.glob("*.py") if folder else []
    modules = sorted(path for path in paths if path.is_file() and not path.is_symlink())
    return {"folder": folder, "modules": tuple(modules)}


def _with_twins(lines: list[HandedIn]) -> list[HandedIn]:
    """Students whose names differ only in capitals are different students, but somebody should look."""
    spelled: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        spelled[line.student.casefold()].add(line.student)
    told = []
    for line in lines:
        twins = sorted(spelled[line.student.casefold()] - {line.student})
        note = f"{line.note} Another name differs only in capitals: {', '.join(twins)}.".strip() if twins else line.note
        told.append(replace(line, note=note))
    return told
