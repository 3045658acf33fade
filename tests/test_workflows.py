"""The workflows: valid files, and every command in them is one that runs."""

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

from workshop.build.badges import BRANCH
from workshop.command_line import make_parser

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
each = pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name)

# The test that runs a command of a workflow, or why none does. Scripts of several lines are named by their first one.
RUN_BY = {
    "python course.py build --check": "test_workflows.test_the_generated_files_are_up_to_date",
    "python course.py build": "test_authoring.test_building_again_changes_nothing",
    "python course.py doctor --download": "test_doctor.test_the_real_images_are_downloaded_only_if_asked_for",
    "python course.py doctor --gpu": "test_workflows.test_a_job_without_a_gpu_fails",
    "python course.py release build/student.zip": "test_workflows.test_what_a_release_publishes_can_be_packed",
    "python course.py run --minimum-scores": "test_notebooks.test_the_scores_reach_their_floors",
    "python course.py site": "test_website.test_the_command_builds_it",
    "python course.py test": "not here: these are its tests",
    "python course.py test -m slow tests/test_versions.py": "not here: minutes, therefore slow",
    "python course.py test tests/test_versions.py -k nbval": "test_versions.test_nbval_passes",
    "python course.py test tests/test_device.py tests/test_training.py tests/test_data_parallel.py":
        "not here: they are run without a GPU",
    "python course.py test -m slow tests/test_oldest.py": "not here: gigabytes, therefore slow",
    "python course.py run --data dsb2018 --profile full --minimum-scores": "not here: needs a GPU",
    "python course.py bench --data dsb2018 --out build/bench": "test_benchmarks.test_every_benchmark_runs",
    '.venv/bin/python -m pip install -c requirements.lock -e ".[bench]"': "not here: it changes the environment",
    "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0": "not here: it changes the machine",
    'cat build/dsb2018-full/summary.md >> "$GITHUB_STEP_SUMMARY"': "test_workflows.test_the_summary_can_be_shown",
    "python -m zipfile -c kaggle.zip kaggle": "test_workflows.test_what_a_release_publishes_can_be_packed",
    'gh release create "$GITHUB_REF_NAME" build/student.zip build/kaggle.zip build/solved-html.zip --generate-notes':
        "not here: it publishes",
    "git init -q -b stand-alone": "test_workflows.test_the_branch_of_the_stand_alone_notebooks_can_be_made",
}  # fmt: skip
COURSE_COMMANDS = [line for line in RUN_BY if line.startswith("python course.py")]


def content(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict]:
    found = content(path)
    jobs = found["jobs"].values() if "jobs" in found else [found["runs"]]
    return [step for job in jobs for step in job.get("steps", [])]


def commands() -> list[str]:
    return [step["run"].strip() for path in (*WORKFLOWS, *ACTIONS) for step in steps(path) if "run" in step]


def script(first_line: str) -> str:
    """The whole text of a command, from its workflow."""
    [text] = {one for one in commands() if one.splitlines()[0] == first_line}
    return text


def run(command: list[str] | str, folder: Path = ROOT, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **options)


# The files themselves


@each
def test_the_file_follows_the_schema(path):
    schema = "vendor.github-actions" if path in ACTIONS else "vendor.github-workflows"
    done = run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("runs-on: ubuntu-latest", "run-on: ubuntu-latest"), ("steps:", "step:"), ("- uses: actions/", "- use: actions/")],
)
def test_the_schema_finds_faults(tmp_path, right, wrong):
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert right in text
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace(right, wrong))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(broken)]
    assert run(command).returncode != 0


def test_what_the_course_promises_is_there():
    """`on` is the value True in YAML 1.1."""
    folder = ROOT / ".github" / "workflows"
    tests, gpu, newest = (content(folder / f"{name}.yml") for name in ("tests", "gpu", "newest"))
    assert "pull_request" in tests[True] and "3.11" in tests["jobs"]["course"]["strategy"]["matrix"]["python"]
    assert gpu["jobs"]["full"]["runs-on"] == ["self-hosted", "gpu"]
    assert set(gpu[True]) == {"schedule", "workflow_dispatch", "pull_request"}
    assert newest["jobs"]["newest"]["with"]["locked"] == "no" and "schedule" in newest[True]
    lines = [step.get("run", "") for step in gpu["jobs"]["full"]["steps"]]
    [first_run] = [number for number, line in enumerate(lines) if line.startswith("python course.py run")]
    assert lines.index("python course.py doctor --gpu") < first_run


def test_pythons_are_those_of_the_package():
    """The classifiers would be a second place; the lowest one is in pyproject.toml."""
    tests = content(ROOT / ".github" / "workflows" / "tests.yml")
    pythons = json.loads(tests[True]["workflow_call"]["inputs"]["pythons"]["default"])
    assert json.dumps(pythons) in tests["jobs"]["course"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]
    assert f'requires-python = ">={pythons[0]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@each
def test_local_parts_are_there_and_others_have_a_version(path):
    for step in [*steps(path), *content(path).get("jobs", {}).values()]:
        if uses := step.get("uses"):
            if uses.startswith("./"):
                place = ROOT / uses
                assert place.is_file() or (place / "action.yml").is_file(), uses
            else:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", uses), uses


# The commands in them


def test_every_command_is_accounted_for():
    assert {command.splitlines()[0] for command in commands()} == set(RUN_BY)


@pytest.mark.parametrize("named", sorted(value for value in RUN_BY.values() if not value.startswith("not here: ")))
def test_the_tests_that_run_them_are_there(named):
    file, name = named.split(".")
    assert f"def {name}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COURSE_COMMANDS)
def test_commands_of_the_course_have_arguments_that_it_knows(command):
    options, further = make_parser().parse_known_args(shlex.split(command)[2:])
    assert options.passes_on or further == []
    for argument in further:
        assert not argument.startswith("tests/") or (ROOT / argument).is_file(), argument


def course(arguments: str, folder: Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "workshop.command_line", *shlex.split(arguments)]
    return run(command, folder, **options)


def test_the_generated_files_are_up_to_date(tmp_path):
    done = course("build --check", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_without_a_gpu_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert course("doctor", tmp_path).returncode == 0
    done = course("doctor --gpu", tmp_path)
    assert done.returncode == 1 and "no working GPU" in done.stdout


def test_the_summary_can_be_shown(tmp_path):
    (tmp_path / "build" / "dsb2018-full").mkdir(parents=True)
    (tmp_path / "build" / "dsb2018-full" / "summary.md").write_text("## Executed notebooks\n")
    command = script('cat build/dsb2018-full/summary.md >> "$GITHUB_STEP_SUMMARY"')
    done = run(["bash", "-e", "-c", command], tmp_path, env={**os.environ, "GITHUB_STEP_SUMMARY": "page.md"})
    assert done.returncode == 0 and (tmp_path / "page.md").read_text() == "## Executed notebooks\n"


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
    assert course(f"release {tmp_path / 'student.zip'}", tmp_path).returncode == 0
