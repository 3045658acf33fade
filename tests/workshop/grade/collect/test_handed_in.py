"""Nothing that is handed in is lost: every file of a class has a line, and every line the right student."""

import io
import json
import os
import re
import stat
import tarfile
import time
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workshop.grade.collect import archives, search
from workshop.grade.collect.handed_in import HandInError, find_handed_in
from workshop.grade.collect.students import Name, Roster, RosterError, read_name, read_roster

posix_only = pytest.mark.skipif(os.name != "posix", reason="links, pipes and names as on Linux and macOS")


def notebook(number=1, text=""):
    cell = {"cell_type": "code", "id": f"exercise-{number}-1", "metadata": {}, "execution_count": None, "outputs": [],
            "source": [f"x = {text!r}"]}  # fmt: skip
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


N, N2 = notebook(), notebook(2)


def zipped(files, **info):
    """The bytes of a zip of name -> content; a pair of content and year dates it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            content, year = content if isinstance(content, tuple) else (content, 2026)
            one = zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0))
            one.external_attr = info.get("mode", 0o644) << 16
            archive.writestr(one, content)
    return stream.getvalue()


def tarred(files, mode="w:gz"):
    """The bytes of a tar of name -> content, or -> TarInfo for what is no file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return stream.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def write(folder, files):
    """Files and (for None) folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def find(tmp_path, files, roster="", **options):
    if roster:
        (tmp_path / "roster.csv").write_text(roster, encoding="utf-8")
        options["roster"] = tmp_path / "roster.csv"
    (tmp_path / "unpacked").mkdir(parents=True)
    return find_handed_in(write(tmp_path / "in", files), tmp_path / "unpacked", **options)


def graded(lines):
    return [(line.student, line.file) for line in lines if line.to_grade]


# --- names ------------------------------------------------------------------------------------------------------------

WRITTEN = [
    # Moodle: mod/assign/classes/downloader.php, load_submissionplugin_filelist
    ("Kim Lee_1234567_assignsubmission_file_/x.ipynb", "Kim Lee"),
    ("Kim Lee_1234567_assignsubmission_file/x.ipynb", "Kim Lee"),
    ("Kim Lee_1234567_assignsubmission_file_01_data.ipynb", "Kim Lee"),
    ("Zoë Lee-Berg_7_assignsubmission_onlinetext/onlinetext.html", "Zoë Lee-Berg"),
    ("Participant_1234567_assignsubmission_file_/x.ipynb", "Participant 1234567"),
    # Canvas: lib/content_zipper.rb, get_filename and add_upload_submission
    ("leekim_12345_678901_01_data_exploration-1.ipynb", "leekim"),
    ("leekim_LATE_12345_678901_01_data_exploration.ipynb", "leekim"),
    ("anon_x7Gh2_678901_01_data.ipynb", "anon_x7Gh2"), ("LATE_anon_x7Gh2_678901_01_data.ipynb", "anon_x7Gh2"),
    ("leekim_12345_text.html", "leekim"), ("leekim_12345_678901_hw.zip", "leekim"),
    # Blackboard, "Assignment File Download"; nbgrader's docs, plugins/zipcollect, have it as the example
    ("Homework 1_kl123_attempt_2026-11-20-23-59-01_01_data.ipynb", "kl123"),
    ("Homework 1_kl123_attempt_2026-11-20-23-59-01.txt", "kl123"),
    ("ps1_bitdiddle_attempt_2016-01-30-15-00-00_problem1.ipynb", "bitdiddle"),
    # Google Classroom, Colab, browsers, Jupyter, macOS, Windows in English and German
    ("Kim Lee - 01_data_exploration.ipynb", "Kim Lee"), ("Kim Lee - Copy of 01_data_exploration.ipynb", "Kim Lee"),
    ("Kopie von 01_data_exploration - Kim Lee.ipynb", "Kim Lee"), ("kim_01_data_exploration (1).ipynb", "kim"),
    ("01_data_exploration_kim-Copy1.ipynb", "kim"), ("kim 01_data_exploration copy.ipynb", "kim"),
    ("kim 01_data_exploration copy 2.ipynb", "kim"), ("kim-01_data_exploration - Copy (2).ipynb", "kim"),
    ("kim-01_data_exploration - Kopie.ipynb", "kim"), ("kim (1)/x.ipynb", "kim"), ("kim (2).zip", "kim"),
    # nbgrader's exchange, Brightspace, Sakai
    ("kim+ps1+2026-11-20 12:00:00.123 UTC+a1/x.ipynb", "kim"),
    ("178539-290324 - Kim Lee - Nov 20, 2026 1159 PM - 01_data.ipynb", "Kim Lee"),
    ("Lee, Kim(kl123)/Submission attachment(s)/x.ipynb", "Lee, Kim"),
    # by hand
    ("01_data_exploration_kim.ipynb", "kim"), ("kim-01_data_exploration.ipynb", "kim"), ("kim.ipynb", "kim"),
    ("01 Data Exploration Kim Lee.IPYNB", "Kim Lee"), ("Lee_Kim_01_data_v3_final.ipynb.txt", "Lee_Kim"),
    ("smith_12_01_data_exploration-1.ipynb", "smith_12"), ("kim_unet_boundary.ipynb", "kim_unet_boundary"),
    ("01_data_exploration.ipynb", "01_data_exploration"), ("anna-lena/x.ipynb", "anna-lena"),
    ("kim_hw1.ipynb", "kim"), ("HW 2 - Kim Lee.ipynb", "Kim Lee"), ("Kim Lee - Untitled0.ipynb", "Kim Lee"),
    ("[Kim Lee] 02-unet.ipynb", "Kim Lee"), ("Untitled.ipynb", "Untitled"), ("hw1/x.ipynb", "hw1"),
    ("homework-1-kimlee-main.zip", "kimlee"), ("kim@example.edu_02_unet.ipynb", "kim@example.edu"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "student"), WRITTEN)
def test_whose_it_is(tmp_path, path, student):
    content = N if "zip" not in path else zipped({"x.ipynb": N})
    assert {line.student for line in find(tmp_path, {path: content})} == {student}


@pytest.mark.parametrize(("path", "student"), [pair for pair in WRITTEN if "(1)" not in pair[0] and "/" not in pair[0]])
def test_one_file_alone_or_in_an_archive_of_the_class(tmp_path, path, student):
    """The download of a whole class holds somebody else as well."""
    if path.endswith(".zip"):
        return
    other = "bergana" + path if path.startswith("leekim") else "Ana_3_assignsubmission_file_/x.ipynb"
    lines = find(tmp_path, {"hw.zip": zipped({path: N, other: N})})
    assert student in {line.student for line in lines} and len(lines) == 2


def test_two_people_of_one_name_are_told_apart_by_the_number_of_the_platform(tmp_path):
    names = ["Kim Lee_1_assignsubmission_file_/x.ipynb", "Kim Lee_2_assignsubmission_file_/x.ipynb"]
    lines = find(tmp_path, dict.fromkeys([*names, "Ana_3_assignsubmission_file_/x.ipynb"], N))
    assert [line.student for line in lines] == ["Ana", "Kim Lee (1)", "Kim Lee (2)"]


def test_late_marks_are_kept(tmp_path):
    files = ["leekim_LATE_12_345_01_data.ipynb", "ana_01_data_late.ipynb", "ben (late)/x.ipynb", "Latea/x.ipynb"]
    found = {line.student: line.late for line in find(tmp_path, dict.fromkeys(files, N))}
    assert found == {"leekim": True, "ana": True, "ben": True, "Latea": False}


METADATA = """---
submission_1:
  :submitters:
  - :name: Kim Lee
    :sid: '123'
    :email: kim@example.edu
  :created_at: 2026-11-20 10:00:00.000000000 Z
  :results:
    :name: no name
submission_2:
  :submitters:
  - :name: "Ana Berg"
    :sid:
  - :name: Ben Carr
    :sid: '5'
"""


def test_exports_of_gradescope(tmp_path):
    files = {f"assignment_9_export/submission_{number}/01.ipynb": N for number in (1, 2, 3)}
    lines = find(tmp_path, files | {"assignment_9_export/submission_metadata.yml": METADATA})
    assert [line.student for line in lines] == ["Ana Berg", "Ben Carr", "Kim Lee", "submission_3"]


def test_what_a_group_has_handed_in_is_of_each_of_its_members(tmp_path):
    roster = "name,id,email\nKim Lee,1,\nBen Carr,5,\nBen Carr,6,\nAna Berg,7,ana@example.edu\n"
    files = {"export/submission_2/01.ipynb": N, "export/submission_2/helper.py": "x = 1",
             "export/submission_metadata.yml": METADATA}  # fmt: skip
    lines = find(tmp_path, files, roster)
    assert graded(lines) == [(who, "export/submission_2/01.ipynb") for who in ("Ana Berg", "Ben Carr (5)")]
    assert [line.student for line in lines if line.missing] == ["Ben Carr (6)", "Kim Lee"]
    assert all(line.modules for line in lines if line.to_grade)


@pytest.mark.parametrize(("files", "students"), [
    ({"kim_01": 1, "kim_02": 2, "Kim-3": 3}, {"kim", "Kim"}), ({"kim_unet": 2, "kim_data": 1}, {"kim"}),
    ({"01 - kim": 1, "2.kim": 2}, {"kim"}), ({"kim_01": 1, "kim_01 (1)": 1, "kim_02": 2}, {"kim"}),
    ({"kim": 1, "kim_02": 2}, {"kim"}), ({"kim_1/x": 1, "kim_2/y": 2}, {"kim"}),
    # nobody's work is taken for an attempt of somebody else, and numbers of people stay
    ({"lee_1": 1, "lee_2": 1}, {"lee_1", "lee_2"}), ({"lee": 2, "lee_2": 2}, {"lee", "lee_2"}),
    ({"lee_1": 1, "lee_2": 2, "lee_3": 2}, {"lee_1", "lee_2", "lee_3"}), ({"lee_02": 1}, {"lee_02"}),
    ({"student_1": 1, "student_2": 2}, {"student_1", "student_2"}), ({"kim1": 1, "kim2": 2}, {"kim1", "kim2"}),
])  # fmt: skip
def test_a_number_in_a_name_that_is_the_notebooks_is_not_the_students(tmp_path, files, students):
    lines = find(tmp_path, {f"{name}.ipynb": notebook(number) for name, number in files.items()})
    assert {line.student for line in lines} == students


def test_a_number_that_the_roster_knows_stays(tmp_path):
    lines = find(tmp_path, {"lee_1.ipynb": N, "lee_2.ipynb": N2}, "login,name\nlee_1,Kim Lee\nlee_2,Ann Lee\n")
    assert [line.student for line in lines] == ["Ann Lee", "Kim Lee"]


def test_other_files_have_a_place(tmp_path):
    """What Blackboard writes beside each attempt."""
    start = "Homework 1_kim_attempt_2026-11-2"
    one, two = f"{start}0-10-00-00.txt", f"{start}1-10-00-00.txt"
    lines = find(tmp_path, {one: "x", two: "x", f"{start}1-10-00-00_01.ipynb": N})
    assert [line.file for line in lines if line.extra] == [one]


@pytest.mark.parametrize("top", ["", "homework-1-submissions/", "submitted/"])
def test_clones_of_github_classroom(tmp_path, top):
    files = {f"{top}homework-1-{login}/{file}": N for login in ("kimlee", "ana-b") for file in ("x.ipynb", ".git/HEAD")}
    assert [line.student for line in find(tmp_path, files)] == ["ana-b", "kimlee"]


def test_clones_with_any_name_of_the_assignment(tmp_path):
    files = {f"unet-{login}/{file}": N for login in ("kimlee", "ana-b") for file in ("x.ipynb", ".git/HEAD")}
    assert [line.student for line in find(tmp_path, files)] == ["ana-b", "kimlee"]


@pytest.mark.parametrize(
    ("files", "students"),
    [
        (["submitted/kim/ps1/01_data.ipynb", "submitted/ana/ps1/01_data.ipynb"], ["ana", "kim"]),
        (["hw1/kim/01_data.ipynb", "hw1/ana/01_data.ipynb"], ["ana", "kim"]),
        (["hw1/kim/01_data.ipynb", "hw1/ana/01_data.ipynb", "hw2/kim/02_unet.ipynb", "hw2/ana/02_unet.ipynb"],
         ["ana", "ana", "kim", "kim"]),
        (["d/Homework 1/Kim Lee - 01_data.ipynb", "d/Homework 1/Ana Berg - 01_data.ipynb"], ["Ana Berg", "Kim Lee"]),
        (["d/hw/Kim Lee_1_assignsubmission_file_/x.ipynb"], ["Kim Lee"]),
        (["hw_1_k_lee_attempt_2026-11-20-10-00-00_x.ipynb", "hw_1_a_lee_attempt_2026-11-20-10-00-00_x.ipynb"],
         ["a_lee", "k_lee"]),
        (["kim/01_data/01_data.ipynb", "kim/02_unet/02_unet.ipynb", "kim/old/01_data.ipynb"], ["kim"] * 3),
        (["kim/week1/01_data.ipynb", "kim/week2/01_data.ipynb", "ana/01_data.ipynb"], ["ana", "kim", "kim"]),
        (["kim/01_data_v1.ipynb", "kim/01_data_final.ipynb", "kim/01_data.ipynb"], ["kim"] * 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_folders_of_a_class_and_folders_of_one_student(tmp_path, files, students, packed):
    made = {}
    for file in files:
        top, _, rest = file.partition("/")
        made.setdefault(f"{top}.zip", {})[rest or file] = N
    made = {name: zipped(inner) for name, inner in made.items()} if packed else dict.fromkeys(files, N)
    assert [line.student for line in find(tmp_path, made)] == students


# --- a class of odd hand-ins ------------------------------------------------------------------------------------------

TWO_LINKS = {"a.ipynb": special("a.ipynb", tarfile.SYMTYPE, "/etc/passwd"), "b": special("b", tarfile.CHRTYPE)}
# student -> files, and what becomes of them: "graded", "extra", "superseded" or the reason for which it is broken
ODD = {
    "plain": ({"01_data.ipynb": N}, ["graded"]),
    "upper": ({"01_DATA.IPYNB": N}, ["graded"]),
    "mailed": ({"01_data.ipynb.txt": N}, ["graded"]),
    "json": ({"01_data.ipynb.json": N}, ["graded"]),
    "only_json": ({"01_data.json": N}, ["graded"]),
    "script": ({"01_data.py": "x = 1"}, ["Python file"]),
    "page": ({"01_data.html": "<html>"}, ["web page"]),
    "paper": ({"01_data.pdf": "%PDF"}, ["document"]),
    "word": ({"answers.docx": zipped({"a.xml": "x"})}, ["document"]),
    "photo": ({"IMG_1.HEIC": "x"}, ["picture"]),
    "unknown": ({"data.bin": "x"}, ["not a notebook"]),
    "all_but": ({"a.py": "", "b.py": "", "c.html": "", "d.csv": ""}, ["Python file.*b.py", "web page", "extra"]),
    "empty": (None, ["folder is empty"]),
    "hidden_only": ({".DS_Store": "x", ".ipynb_checkpoints/01_data-checkpoint.ipynb": N}, ["folder is empty"]),
    "no_stem": ({".ipynb": N}, ["graded"]),
    "nothing_in_it": ({"01_data.ipynb": ""}, ["file is empty"]),
    "folder_as_notebook": ({"x.ipynb": None}, ["folder is empty"]),
    "folder_named_notebook": ({"x.ipynb/01_data.ipynb": N}, ["graded"]),
    "with_files": ({"01_data.ipynb": N, "a.py": "", "d.csv": "", "p/q.png": "", "n/": None}, ["graded", "extra"]),
    "two_notebooks": ({"01_data.ipynb": N, "02_unet.ipynb": N2}, ["graded", "graded"]),
    "two_attempts": ({"01_data.ipynb": N, "01_data (1).ipynb": N}, ["graded", "superseded"]),
    "good_and_bad": ({"01_data.ipynb": N, "01_data (1).ipynb": N[:50]}, ["graded", "graded"]),
    "rar": ({"hw.rar": "Rar!"}, ["unpack it by hand"]),
    "seven": ({"hw.7z": "7z"}, ["unpack it by hand"]),
    "gz": ({"01_data.ipynb.gz": "x"}, ["unpack it by hand"]),
    "zip": ({"hw.zip": zipped({"01_data.ipynb": N, "helper.py": ""})}, ["graded", "extra"]),
    "zip_in_zip": ({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"01_data.ipynb": N})})})}, ["graded"]),
    "deep_zip": ({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"d.zip": ""})})})}, ["in 3 archives"]),
    "zip_as_notebook": ({"01_data.ipynb": zipped({"01_data.ipynb": N})}, ["graded"]),
    "no_zip": ({"hw.zip": "<html>Please log in"}, ["not an archive"]),
    "cut_zip": ({"hw.zip": zipped({"01_data.ipynb": N})[:-30]}, ["cut off"]),
    "empty_zip": ({"hw.zip": zipped({})}, ["archive is empty"]),
    "slip": ({"hw.zip": zipped({"../../slip.ipynb": N, "/root.ipynb": N, "C:\\x.ipynb": N, "ok.ipynb": N})},
             ["graded", "leads out.*The same holds for .*_root.ipynb"]),
    "windows": ({"hw.zip": zipped({"work\\01_data.ipynb": N, "work\\..\\..\\x.ipynb": N})}, ["graded", "leads out"]),
    "zip_link": ({"hw.zip": zipped({"x.ipynb": "/etc/passwd"}, mode=stat.S_IFLNK | 0o777)}, ["is a link"]),
    "mac_zip": ({"hw.zip": zipped({"01_data.ipynb": N, "__MACOSX/._01_data.ipynb": "x"})}, ["graded"]),
    "twice": ({"hw.zip": zipped({"01_data.ipynb": N, "./01_data.ipynb": N})}, ["graded", "superseded"]),
    "tgz": ({"hw.tgz": tarred({"w/01_data.ipynb": N})}, ["graded"]),
    "tar": ({"hw.tar": tarred({"01_data.ipynb": N}, "w")}, ["graded"]),
    "tar_bz2": ({"hw.tar.bz2": tarred({"01_data.ipynb": N}, "w:bz2")}, ["graded"]),
    "tar_xz": ({"hw.tar.xz": tarred({"01_data.ipynb": N}, "w:xz")}, ["graded"]),
    "tar_links": ({"hw.tar": tarred({"x.ipynb": N} | TWO_LINKS, "w")}, ["graded", "is a link", "is a device"]),
    "cut_tar": ({"hw.tgz": tarred({"01_data.ipynb": N, "b.txt": os.urandom(9000).hex()})[:9000]},
                ["graded", "damaged", "cut off"]),
    "git": ({".git/HEAD": "x", "01_data.ipynb": N, "README.md": "x"}, ["graded", "extra"]),
    "deep": ({"/".join("d" * 300) + "/01_data.ipynb": N}, ["graded"]),
    "esc\x1b[31m": ({"01_data.ipynb": N}, ["graded"]),
    "new\nline": ({"01_data.ipynb": N}, ["graded"]),
    "=formula": ({"01_data.ipynb": N}, ["graded"]),
    "Case": ({"01_data.ipynb": N}, ["graded"]),
    "case": ({"01_data.ipynb": N}, ["graded"]),
}  # fmt: skip


@posix_only
def test_every_one_of_a_class_of_odd_hand_ins_is_accounted_for(tmp_path):
    assert len(ODD) >= 40
    files = {student: None for student in ODD}
    for student, (inner, _) in ODD.items():
        files |= {f"{student}/{name}".rstrip("/"): content for name, content in (inner or {}).items()}
    folder = write(tmp_path / "in", files)
    (folder / "linked").mkdir()
    (folder / "linked" / "01_data.ipynb").symlink_to(folder / "plain" / "01_data.ipynb")
    (folder / "linked folder").symlink_to("/etc")
    os.mkfifo(folder / "pipe.ipynb")
    write(folder, {os.fsdecode(b"caf\xe9/01_data.ipynb"): N, "Thumbs.db": "x", "desktop.ini": "x"})
    write(folder, {"grades.csv": "student,notebook,exercise\n", "grades.csv.results/a.json": "{}"})

    expected = {search.shown(student): outcomes for student, (_, outcomes) in ODD.items()}
    expected |= {"linked": ["is a link"], "linked folder": ["is a link"], "pipe": ["pipe"], "caf\\xe9": ["graded"]}
    lines = find(tmp_path, {})
    found = {}
    for line in lines:
        kinds = {"graded": line.to_grade, "extra": line.extra, "superseded": line.superseded, line.broken: line.broken}
        found.setdefault(line.student, []).append(next(kind for kind, holds in kinds.items() if holds))
    assert found.keys() == expected.keys()
    for student, outcomes in found.items():
        wanted = list(expected[student])
        for outcome in outcomes:
            fitting = [one for one in wanted if one == outcome or re.search(one, outcome)]
            assert fitting, (student, outcome)
            wanted.remove(fitting[0])
        assert not wanted, student
    assert lines == sorted(lines, key=lambda line: (line.student, line.file))
    assert not list(tmp_path.rglob("slip.ipynb")) and not Path("/root.ipynb").exists()
    assert {line.note for line in lines if line.student == "case"} == {"Another name differs only in capitals: Case."}
    assert all(line.path.read_bytes().startswith((b"{", b"\n{")) for line in lines if line.to_grade)
    assert all("\x1b" not in line.student + line.file for line in lines)


PART = st.sampled_from(
    "kim ana 01_data x.ipynb X.ipynb a.py b.html c d.csv .git hw.zip Thumbs.db leekim_12345_678901_x.ipynb "
    "Kim_1_assignsubmission_file_ Kim_2_assignsubmission_file_01.ipynb submitted 1.json".split()
)
PATH = st.lists(PART, min_size=1, max_size=4).map(tuple)
TREES = st.dictionaries(PATH, st.sampled_from(["", N, N2, "x"]), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES)
def test_all_files_are_counted_once(tmp_path_factory, tree):
    """In folders and packed: a file is in a line, or is left out by its name."""
    kept = {}
    for parts, content in tree.items():
        begins = {parts[:end] for end in range(1, len(parts))}
        if not begins & set(kept) and not any(other[: len(parts)] == parts for other in kept):
            kept[parts] = content
    wanted = [parts for parts in kept if not {".git", "Thumbs.db"} & set(parts)]
    files = {"/".join(parts): content for parts, content in kept.items()}
    for made in (files, {"all.zip": zipped(files)} if wanted else {}):
        lines = find(tmp_path_factory.mktemp("tree"), made)
        assert sum(line.count for line in lines) == (len(wanted) if made else 0)
        assert all(line.student and (line.to_grade or line.broken or line.superseded or line.extra) for line in lines)


def test_a_class_of_500_takes_less_than_two_seconds(tmp_path):
    files = {f"{student} Lee_{student}_assignsubmission_file_/{name}": N for student in range(500)
             for name in ("01_data.ipynb", "helper.py")}  # fmt: skip
    write(tmp_path / "in", files)
    roster = "ID number,Full name\n" + "".join(f"{student},{student} Lee\n" for student in range(500))
    before = time.process_time()
    lines = find(tmp_path, {}, roster)
    assert time.process_time() - before < 2
    assert len(lines) == 1000


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"hw_kim_attempt_2026-11-20-10-00-00_x.ipynb": N, "hw_kim_attempt_2026-11-20-09-00-00_x.ipynb": N}, [0]),
        ({"leekim_12_345_01_data.ipynb": N, "leekim_12_346_01_data-1.ipynb": N}, [1]),
        ({"kim_01_data.ipynb": N, "kim_01_data (9).ipynb": N, "kim_01_data (10).ipynb": N}, [2]),
        ({"kim_01_data_v2.ipynb": N, "kim_01_data_v1.ipynb": N}, [0]),
        ({"kim/01_data-Copy1.ipynb": N, "kim/01_data.ipynb": N}, [0]),
        ({"kim (1).zip": zipped({"01_data.ipynb": N}), "kim.zip": zipped({"01_data.ipynb": N})}, [0]),
        ({"kim.zip": zipped({"a.ipynb": (N, 2026), "b.ipynb": (N, 2025)})}, [0]),
        ({"kim.zip": zipped({"a.ipynb": (N, 2026), "old/a.ipynb": (N, 2027)})}, [0]),
        ({"kim/01_data.ipynb": N, "kim/solutions/01_data.ipynb": N}, [0]),
        ({"kim/Untitled.ipynb": N, "kim/Untitled1.ipynb": N}, [1]),
        ({"kim/attempt 9/01_data.ipynb": N, "kim/attempt 10/01_data.ipynb": N}, [1]),
        ({"kim/a.ipynb": N, "kim/b.ipynb": N2}, [0, 1]),  # what is inside decides, not the name
        ({"kim/01_data.ipynb": N, "kim/02_unet.ipynb": N}, [1]),
        ({"kim_01_data.ipynb": "{}", "kim_02_unet.ipynb": "{}"}, [0, 1]),  # else the name
        ({"kim/01_data.ipynb": "{}", "kim/01_data (1).ipynb": "{}"}, [1]),
        ({"01_data_exploration.ipynb": N, "01_data_exploration (1).ipynb": N}, [0, 1]),  # nobody knows whose they are
        ({"+Kim/01_data.ipynb": N, "kim/01_data.ipynb": N}, [0, 1]),
    ],
)  # fmt: skip
def test_the_last_attempt_counts_and_the_others_are_listed(tmp_path, files, counts):
    lines = find(tmp_path, files)
    names = list(files) if len(files) > 1 else [line.file for line in lines]
    assert {line.file.removesuffix("/01_data.ipynb") if ".zip" in line.file and len(files) > 1 else line.file
            for line in lines if line.to_grade} == {names[number] for number in counts}  # fmt: skip
    assert len(lines) == max(len(files), 2)
    kept = {line.file for line in lines if line.to_grade}
    assert all(any(file in line.superseded for file in kept) for line in lines if not line.to_grade)


def test_a_later_attempt_that_can_not_be_read_has_its_line_and_takes_nothing(tmp_path):
    first, damaged, old = find(tmp_path, {"kim/01_data (2).ipynb": N[:40], "kim/01_data (1).ipynb": N,
                                          "kim/01_data.ipynb": N})  # fmt: skip
    assert first.to_grade and "kim/01_data (2).ipynb, can't be read" in first.note
    assert damaged.to_grade and "an earlier attempt counts: kim/01_data (1).ipynb" in damaged.note
    assert old.superseded == "Another attempt counts: kim/01_data (1).ipynb."


def test_the_same_name_however_it_is_encoded_is_one_student(tmp_path):
    names = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    lines = find(tmp_path, {f"{name}/0{n}_x.ipynb": notebook(n) for n, name in enumerate(names, 1)})
    assert {line.student for line in lines} == {"Zoë"} and len(graded(lines)) == 2


def test_what_lies_beside_a_notebook_and_nothing_of_others(tmp_path):
    files = {"leekim_12_345_01_data.ipynb": N, "leekim_12_346_helper-1.py": "x", "leekim_12_347_d.csv": "x",
             "ana_13_348_helper.py": "y", "kim/x.ipynb": N, "kim/helper.py": "z", "ben_01_data.ipynb": N}  # fmt: skip
    lines = {line.student: line for line in find(tmp_path, files) if line.to_grade}
    assert sorted(path.name for path in lines["leekim"].folder.iterdir()) == ["d.csv", "helper.py"]
    assert [path.read_text() for one in ("leekim", "kim") for path in lines[one].modules] == ["x", "z"]
    assert (lines["ben"].folder, lines["ben"].modules) == (None, ())


# --- archives ---------------------------------------------------------------------------------------------------------


def reason(tmp_path, content, name="kim.zip"):
    lines = find(tmp_path, {name: content})
    assert lines and not graded(lines)
    return lines[0].broken


def test_bombs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000_000)
    inner = zipped({f"{number}.bin": bytes(4_000_000) for number in range(2)})
    assert "far more than a hand-in" in reason(tmp_path / "1", zipped({"a.ipynb": N, "b.bin": bytes(11_000_000)}))
    nested = zipped({f"{number}.zip": inner for number in range(4)})
    assert "far more" in " ".join(line.broken for line in find(tmp_path / "2", {"kim.zip": nested}))
    bomb = tarred({"a": "x" * 30_000_000})
    assert "far more" in reason(tmp_path / "3", bomb, "kim.tgz")
    hidden = tarred({".hidden/a": "x" * 30_000_000, "b": "x"})  # it would have to be read nevertheless
    assert "far more" in reason(tmp_path / "4", hidden, "kim.tgz")
    header = tarfile.TarInfo("x")
    header.pax_headers = {"comment": "x" * 18_000_000}
    assert "far more" in reason(tmp_path / "5", tarred({"x": header}), "kim.tgz")
    assert sum(path.stat().st_size for path in tmp_path.rglob("unpacked/*/*")) < 40_000_000


def test_too_many_files_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    monkeypatch.setattr(archives.Budget, "members", 50)
    monkeypatch.setattr(archives.Budget.__init__, "__defaults__", (50,))
    assert "far more" in reason(tmp_path, zipped({f"{number}.ipynb": N for number in range(51)}))
    assert not list((tmp_path / "unpacked").iterdir())


def test_passwords(tmp_path):
    content = bytearray(zipped({"01_data.ipynb": N}))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    assert "locked with a password" in reason(tmp_path, bytes(content))


@pytest.mark.parametrize("name", ["Übung.ipynb", unicodedata.normalize("NFD", "Übung.ipynb"), "作业.ipynb"])
@pytest.mark.parametrize("flag", [True, False])
def test_names_in_zips(tmp_path, name, flag):
    content = bytearray(zipped({name: N}))
    if not flag:  # as macOS writes it
        content[7] &= ~8
        content[content.index(b"PK\1\2") + 9] &= ~8
    (line,) = find(tmp_path, {"kim.zip": bytes(content)})
    assert line.file == f"kim.zip/{name}" and line.to_grade


def test_damage_anywhere_is_a_line(tmp_path):
    """A zip and a tar with single bytes changed: nothing raises, and nothing is written elsewhere."""
    wholes = {"zip": zipped({"a/01_data.ipynb": N, "b.py": "x" * 99}), "tgz": tarred({"a.ipynb": N, "b": "x"})}
    for suffix, whole in wholes.items():
        made = {}
        for place in range(0, len(whole), 7):
            changed = bytearray(whole)
            changed[place] ^= 0xFF
            made[f"s{place}.{suffix}"] = bytes(changed)
        lines = find(tmp_path / suffix, made)
        assert {line.student for line in lines} == {name.partition(".")[0] for name in made}


# --- the roster -------------------------------------------------------------------------------------------------------

ROSTERS = {
    "plain": "id,name,email\n17,Kim Lee,kim.lee@example.edu\n18,Zoë Müller,zm@example.edu\n",
    "Moodle": '"First name",Surname,"ID number",Institution,Department,"Email address"\n'
    "Kim,Lee,17,,,kim.lee@example.edu\nZoë,Müller,18,,,zm@example.edu\n",
    "Moodle in German": "\ufeffVorname;Nachname;ID-Nummer;E-Mail-Adresse\nKim;Lee;17;kim.lee@example.edu\n"
    "Zoë;Müller;18;zm@example.edu\n",
    "Moodle's worksheet": "Identifier,Full name,Email address,Status\nParticipant 17,Kim Lee,kim.lee@example.edu,\n"
    "Participant 18,Zoë Müller,zm@example.edu,\n",
    "Canvas": "Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"
    '"Lee, Kim",17,0099,kim.lee,A\n"Müller, Zoë",18,0098,zm,A\n"Student, Test",19,,abc,A\n',
    "Blackboard": '"Last Name"\t"First Name"\t"Username"\t"Student ID"\n'
    "Lee\tKim\tkim.lee\t17\nMüller\tZoë\tzm\t18\n",
    "GitHub": "assignment_name,github_username,roster_identifier,student_repository_name\n"
    "hw,kim.lee,Kim Lee,hw-1-kim.lee\n"
    "hw,zm,Zoë Müller,hw-1-zm\n",
    "German": "Name,Vorname,Matrikelnummer,E-Mail\nLee,Kim,17,kim.lee@example.edu\nMüller,Zoë,18,zm@example.edu\n",
}


@pytest.mark.parametrize("kind", ROSTERS)
def test_columns_are_found_by_their_headers(tmp_path, kind):
    for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16"):
        path = tmp_path / "roster.csv"
        path.write_text(ROSTERS[kind].lstrip("\ufeff"), encoding=encoding)
        people = read_roster(path)
        if kind == "GitHub":
            assert [person.ids[1] for person in people] == ["kim.lee", "zm"]
            continue
        assert [person.names[0] for person in people] == ["Kim Lee", "Zoë Müller"]
        assert [person.label for person in people] == ["Kim Lee", "Zoë Müller"]


@pytest.mark.parametrize("kind", [kind for kind in ROSTERS if kind != "GitHub"])
@pytest.mark.parametrize(
    "path",
    [
        "Kim Lee_17_assignsubmission_file_/x.ipynb", "leekim_1_234_01_data.ipynb", "Lee, Kim/x.ipynb",
        "kim lee/x.ipynb", "17/x.ipynb",
        "hw_kim.lee_attempt_2026-11-20-10-00-00_x.ipynb", "LEE_KIM.zip", "Kim_Lee_01_data.ipynb", "kimlee/x.ipynb",
        "Kim  Lee - 01_data.ipynb", "KIM.LEE/x.ipynb", "homework-1-kimlee/x.ipynb", "Group A-Kim Lee/x.ipynb",
        "0017_01_data.ipynb", "kim_lee_hw3.ipynb",
    ],
)  # fmt: skip
def test_names_are_matched_however_they_are_written(tmp_path, kind, path):
    content = zipped({"x.ipynb": N}) if path.endswith("zip") else N
    lines = find(tmp_path, {path: content}, ROSTERS[kind])
    assert [(line.student, line.missing, line.note) for line in lines] == [
        ("Kim Lee", "", ""), ("Zoë Müller", "Handed in nothing.", "")]  # fmt: skip


@pytest.mark.parametrize("name", ["Zoë Müller", "Zoe Mueller", "zoe muller", "MÜLLER, ZOË", "Zoë_Müller", "muellerzoe",
                                  unicodedata.normalize("NFD", "Zoë Müller"), "zm", "ZM", "18"])  # fmt: skip
def test_accents_are_matched_however_they_are_written(tmp_path, name):
    lines = find(tmp_path, {f"{name}/x.ipynb": N}, ROSTERS["plain"].replace("ü", unicodedata.normalize("NFD", "ü")))
    assert [line.student for line in lines if line.to_grade] == ["Zoë Müller"]


def test_a_name_without_accents_is_the_one_without_if_there_are_both():
    both = Roster(read_roster_of("name\nJosé Müller\nJose Muller\n"))
    for written, meant in {"José Müller": "José Müller", "jose muller": "Jose Muller", "MullerJose": ""}.items():
        person, note = both.find(Name(written))
        assert (person.label if person else "") == meant and bool(note) == (not person)


def read_roster_of(text):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "roster.csv").write_text(text, encoding="utf-8")
        return read_roster(Path(folder) / "roster.csv")


def test_nobody_or_two_people_are_said_and_not_guessed(tmp_path):
    roster = "id,name\n1,Kim Lee\n2,Kim Lee\n3,Kim Park\n4,Ana Berg\n"
    files = ["Kim Lee_1_assignsubmission_file_/x.ipynb", "Kim Lee/x.ipynb", "kim/x.ipynb", "b/x.ipynb", "berg/x.ipynb"]
    lines = {line.file: line for line in find(tmp_path, dict.fromkeys(files, N), roster)}
    assert lines[files[0]].student == "Kim Lee (1)" and not lines[files[0]].note
    assert lines[files[1]].student == "Kim Lee" and "Kim Lee (1), Kim Lee (2)" in lines[files[1]].note
    assert lines[files[2]].student == "kim" and "Several people" in lines[files[2]].note
    assert lines[files[3]].note == "Nobody on the roster has this name."
    assert lines[files[4]].student == "Ana Berg" and "by a part of the name" in lines[files[4]].note
    assert len([line for line in find_missing(tmp_path)]) == 2


def find_missing(tmp_path):
    lines = find_handed_in(tmp_path / "in", tmp_path / "unpacked", tmp_path / "roster.csv")
    return [line.student for line in lines if line.missing]


def test_two_ways_to_write_one_person_are_attempts_of_one(tmp_path):
    files = {"Kim Lee/01_data.ipynb": N, "leekim_1_234_01_data.ipynb": N, "17_02_unet.ipynb": N2}
    lines = find(tmp_path, files, ROSTERS["Canvas"])
    assert {line.student for line in lines if not line.missing} == {"Kim Lee"} and len(graded(lines)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a,b\n1,2\n", "no column of names or ids: its first line is 'a, b'"), (b"", "no column"),
     (b"PK\3\4", "save it as CSV"), (b"\xff\xfe\x00", "no column")],
)  # fmt: skip
def test_a_roster_that_is_none_says_what_is_expected(tmp_path, content, message):
    (tmp_path / "roster.csv").write_bytes(content)
    with pytest.raises(RosterError, match=message):
        read_roster(tmp_path / "roster.csv")
    with pytest.raises(RosterError, match="cannot be read"):
        read_roster(tmp_path / "none.csv")


def test_the_roster_and_tables_of_the_class_beside_the_hand_ins_are_left_out(tmp_path):
    files = {"kim/x.ipynb": N, "grades.csv": "github_username,roster_identifier\n", "r.csv": ROSTERS["plain"]}
    assert [line.file for line in find(tmp_path, files, leave_out=[tmp_path / "in" / "other"])] == ["kim/x.ipynb"]
    assert find_handed_in(tmp_path / "in", tmp_path / "unpacked", leave_out=[tmp_path / "in" / "kim"]) == []


# --- the pattern ------------------------------------------------------------------------------------------------------


def test_a_pattern_names_the_students(tmp_path):
    files = {"a/ws26-kim-try2.ipynb": N, "a/ws26-kim-try10.ipynb": N, "b/ws26-ana-try1.ipynb": N, "b/notes.ipynb": N}
    lines = find(tmp_path, files, pattern=r"ws26-(?P<student>\w+)-try(?P<attempt>\d+)")
    last = {"ana": "b/ws26-ana-try1.ipynb", "b": "b/notes.ipynb", "kim": "a/ws26-kim-try10.ipynb"}
    assert dict(graded(lines)) == last and len(lines) == 4
    assert [line.note for line in lines if line.file == "b/notes.ipynb"] == ["It does not fit --pattern."]


@pytest.mark.parametrize("pattern", ["(", "x", "(?P<name>.)", "(?P<student>zzz)"])
def test_a_wrong_pattern_shows_one_that_works(tmp_path, pattern):
    with pytest.raises(HandInError, match=r"--pattern.*\(\?P<student>"):
        find(tmp_path, {"kim/x.ipynb": N}, pattern=pattern)


def test_one_file_or_archive_can_be_given(tmp_path):
    both = zipped({"kim/x.ipynb": N, "ana/x.ipynb": N})
    write(tmp_path, {"submissions.zip": both, "kim_01_data.ipynb": N, "u/": None})
    assert graded(find_handed_in(tmp_path / "kim_01_data.ipynb", tmp_path / "u")) == [("kim", "kim_01_data.ipynb")]
    lines = find_handed_in(tmp_path / "submissions.zip", tmp_path / "u")
    assert graded(lines) == [("ana", "submissions.zip/ana/x.ipynb"), ("kim", "submissions.zip/kim/x.ipynb")]
    with pytest.raises(HandInError, match="nowhere"):
        find_handed_in(tmp_path / "nowhere", tmp_path / "u")


def test_reading_a_name_does_not_take_long():
    before = time.process_time()
    for part in ("_1", "a (1)", " - copy", "LATE_", "01_data", "(", "é", "_attempt_", "1-", "+"):
        read_name((part * 255)[:255])
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    "inside",
    [
        {"submission_metadata.yml": b"kim:\n  :submitters:\n  - :name: mallory\n"},
        {"kim_1234_5678_01_data-9.ipynb": N, "ana_1235_5679_01_data-9.ipynb": N},
        {"submissions/kim/x.ipynb": N, "submissions/ana/x.ipynb": N},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_nobody_hands_in_for_others(tmp_path, inside, packed):
    own = {"x.ipynb": N, **inside}
    files = {"mallory.zip": zipped(own)} if packed else {f"mallory/{name}": content for name, content in own.items()}
    lines = find(tmp_path, {"kim/x.ipynb": N, "ana/x.ipynb": N, **files})
    assert {("kim", "kim/x.ipynb"), ("ana", "ana/x.ipynb")} <= set(graded(lines))
    assert all(line.student == "mallory" for line in lines if line.file.startswith("mallory"))
