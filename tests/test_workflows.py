"""The workflows: valid files, and every command of the course in them exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import benchmarks.__main__
from workshop.build.badges import BRANCH
from workshop.parser import make_parser

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
each = pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name)


def content(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict]:
    found = content(path)
    jobs = found["jobs"].values() if "jobs" in found else [found["runs"]]
    return [step for job in jobs for step in job.get("steps", [])]


def commands() -> list[str]:
    return [step["run"].strip() for path in (*WORKFLOWS, *ACTIONS) for step in steps(path) if "run" in step]


def script(beginning: str) -> str:
    """The whole text of a command, from its workflow."""
    [text] = {one for one in commands() if one.startswith(beginning)}
    return text


def run(command: list[str], folder: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize(("schema", "files"), [("github-actions", ACTIONS), ("github-workflows", WORKFLOWS)])
def test_the_files_follow_the_schema(schema, files):
    done = run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)])
    assert done.returncode == 0, done.stdout


def test_what_the_course_promises_is_there():
    """`on` is the value True in YAML 1.1."""
    folder = ROOT / ".github" / "workflows"
    tests, gpu, newest = (content(folder / f"{name}.yml") for name in ("tests", "gpu", "newest"))
    assert "pull_request" in tests[True] and "3.11" in tests["jobs"]["course"]["strategy"]["matrix"]["python"]
    assert gpu["jobs"]["full"]["runs-on"] == ["self-hosted", "gpu"]
    assert set(gpu[True]) == {"schedule", "workflow_dispatch"}
    assert newest["jobs"]["newest"]["with"]["locked"] == "no" and "schedule" in newest[True]
    lines = [step.get("run", "") for step in gpu["jobs"]["full"]["steps"]]
    [first_run] = [number for number, line in enumerate(lines) if line.startswith("python course.py run")]
    assert lines.index("python course.py doctor --gpu") < first_run


def test_pythons_are_those_of_the_package():
    tests = content(ROOT / ".github" / "workflows" / "tests.yml")
    pythons = json.loads(tests[True]["workflow_call"]["inputs"]["pythons"]["default"])
    assert json.dumps(pythons) in tests["jobs"]["course"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@each
def test_local_parts_are_there(path):
    for step in [*steps(path), *content(path).get("jobs", {}).values()]:
        if (uses := step.get("uses", "")).startswith("./"):
            place = ROOT / uses
            assert place.is_file() or (place / "action.yml").is_file(), uses


COURSE_COMMANDS = sorted({command for command in commands() if command.startswith("python course.py")})


@pytest.mark.parametrize("command", COURSE_COMMANDS)
def test_commands_of_the_course_have_arguments_that_it_knows(command):
    options, further = make_parser()[0].parse_known_args(shlex.split(command)[2:])
    assert options.passes_on or further == []
    files = [argument for argument in further if argument.startswith("tests/")]
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_commands_of_the_benchmarks_have_arguments_that_they_know(monkeypatch):
    asked = []
    monkeypatch.setattr("benchmarks.running.run_benchmarks", lambda *arguments: asked.append(arguments[:4]))
    monkeypatch.setattr("benchmarks.gate.run_gate", lambda *arguments: asked.append(arguments) or 0)
    lines = {line.strip() for command in commands() for line in command.splitlines()}
    for line in sorted(line for line in lines if line.startswith("python course.py bench")):
        assert benchmarks.__main__.main(shlex.split(line)[3:]) == 0
    assert asked == [(None, "dsb2018", False, Path("build/bench")), ("$base", False)]


@pytest.mark.parametrize("before", ["known", "0" * 40, "1" * 40, "", "--all", "no-such-branch"])
def test_the_speed_gate_has_a_commit_to_compare_with(tmp_path, before):
    """Also after a first push (zeros), a forced one (a commit that is gone), and a start by hand (nothing)."""
    found = steps(ROOT / ".github" / "workflows" / "tests.yml")
    [checkout] = [step for step in found if "actions/checkout@" in step.get("uses", "")]
    assert checkout["with"]["fetch-depth"] == 0
    for command in ("init -q", "commit -q --allow-empty -m one", "commit -q --allow-empty -m two", "tag known HEAD^"):
        run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *command.split()], tmp_path)
    [text] = [step["run"] for step in found if "--gate" in step.get("run", "")]
    variables = os.environ | {"BEFORE": before}
    done = run(["bash", "-e", "-c", text.replace("python course.py", "echo")], tmp_path, env=variables)
    [base] = re.findall(r"--base (\S+)", done.stdout)
    one, expected = (run(["git", "rev-parse", name], tmp_path).stdout for name in (base, "HEAD^"))
    assert done.returncode == 0 and one == expected != ""


def test_a_job_without_a_gpu_fails(tmp_path):
    command = [sys.executable, "-P", "-m", "workshop.command_line", "doctor", "--gpu"]
    done = run(command, tmp_path, env={**os.environ, "COURSE_DEVICE": "cpu"})
    assert done.returncode == 1 and "no working GPU" in done.stdout


def test_the_branch_of_the_stand_alone_notebooks_can_be_made(tmp_path):
    *made, push = script("git init -q -b stand-alone").splitlines()
    assert push.startswith("git push -f") and push.endswith(BRANCH)
    (tmp_path / "01_one").mkdir()
    (tmp_path / "01_one" / "01_one.ipynb").write_text("{}")
    done = run(["bash", "-e", "-c", "\n".join(made)], tmp_path, env={**os.environ, "GITHUB_SHA": "abc"})
    assert done.returncode == 0, done.stderr
    assert run(["git", "ls-tree", "-r", "--name-only", BRANCH], tmp_path).stdout == "01_one/01_one.ipynb\n"


def test_what_a_release_publishes_can_be_packed(tmp_path):
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "one.ipynb").write_text("{}")
    (tmp_path / "embedded-smoke" / "output").mkdir(parents=True)
    (tmp_path / "embedded-smoke" / "one.html").write_text("<p>")
    (tmp_path / "embedded-smoke" / "output" / "model.pt").write_text("weights")
    pack = script("python -m zipfile -c kaggle.zip kaggle").replace("python -m", f"{sys.executable} -m")
    done = run(["bash", "-e", "-c", pack], tmp_path)
    assert done.returncode == 0, done.stderr
    listed = run([sys.executable, "-m", "zipfile", "-l", "solved-html.zip"], tmp_path).stdout
    assert "one.html" in listed and "model.pt" not in listed
