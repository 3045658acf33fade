"""What the workflows and installations take from elsewhere is pinned, and what may publish runs no code of the course.

Each rule is proven: of the broken copies below, each is refused by the rule it is listed under.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import InvalidRequirement, Requirement

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
FILES = {path.relative_to(GITHUB).as_posix(): path.read_text(encoding="utf-8")
         for path in (*GITHUB.glob("workflows/*.y*ml"), *GITHUB.glob("actions/*/action.y*ml"))}  # fmt: skip
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

ACTIONS = {"cache", "checkout", "deploy-pages", "download-artifact", "setup-python", "upload-artifact",
           "upload-pages-artifact"}  # fmt: skip
READ = {"contents": "read"}
PERMISSIONS = {
    "gpu.yml": {"released": READ, "full": READ},
    "newest.yml": {"newest": READ, "oldest": READ, "slow": READ},
    "release.yml": {"tests": READ, "pack": READ, "publish": {"contents": "write"}},
    "site.yml": {"build": READ, "pages": {"pages": "write", "id-token": "write"}, "stand-alone": {"contents": "write"}},
    "tests.yml": {"course": READ},
}
# What a job that may write does, and the only programs that its commands start.
ACTIONS_OF_WRITERS = {"actions/download-artifact", "actions/deploy-pages"}
PROGRAMS_OF_WRITERS = {"echo", "base64", "sha256sum", "mkdir", "tar", "git", "gh"}
UNTRUSTED = re.compile(r"\$\{\{(?![^}]*\bhashFiles)[^}]*\b(github\.(event|head_ref|ref_name)|inputs|steps|needs)\b")


def steps_of(document: dict) -> list[dict]:
    jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
    return [step for job in jobs for step in job.get("steps", [])]


def may_write(job: dict) -> bool:
    granted = job.get("permissions", {})
    return granted == "write-all" or (isinstance(granted, dict) and "write" in granted.values())


def faults_of_a_writer(job: dict) -> bool:
    """Whether a job that may write does more than take files, check them and publish them."""
    steps = job.get("steps", [])
    commands = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    programs = {part.split()[0] for line in commands for part in re.split(r"\|\||&&|[|;]", line) if part.split()}
    uses = [step["uses"].split("@")[0] for step in steps if "uses" in step]
    checked = any("sha256sum --check --strict" in line for line in commands) or "actions/download-artifact" not in uses
    return bool(set(uses) - ACTIONS_OF_WRITERS or programs - PROGRAMS_OF_WRITERS or "uses" in job or not checked)


def faults_of_workflow(name: str, text: str) -> set[str]:
    """The names of the rules that a workflow, or the action of the course, breaks."""
    document, file = yaml.safe_load(text), name.split("/")[-1]
    steps, jobs, found = steps_of(document), document.get("jobs", {}), set()
    triggers = document.get(True) or {}  # `on` is the value True in YAML 1.1
    for uses in re.findall(r"\buses:(.*)", text):
        if not uses.strip().startswith("./") and not (
            (pinned := re.fullmatch(r" actions/([\w-]+)@[0-9a-f]{40}  # v\d+\.\d+\.\d+", uses)) and pinned[1] in ACTIONS
        ):
            found.add("pinned by commit")
    for step in steps:
        kept = (step.get("with") or {}).get("persist-credentials") is not False
        if "actions/checkout@" in step.get("uses", "") and kept:
            found.add("no credentials kept")
        if UNTRUSTED.search(step.get("run", "")):
            found.add("no input in commands")
    if jobs:
        if document.get("permissions") != {} or {
            job: content.get("permissions") for job, content in jobs.items()
        } != PERMISSIONS.get(file):
            found.add("permissions")
        if any("timeout-minutes" not in job for job in jobs.values() if "uses" not in job):
            found.add("time limit")
        if any(may_write(job) and faults_of_a_writer(job) for job in jobs.values()):
            found.add("writers run no code")
        if "pull_request_target" in triggers or "workflow_run" in triggers:
            found.add("triggers")
        if any(map(may_write, jobs.values())):
            setups = [part for part in [*steps, *jobs.values()] if part.get("uses", "").startswith("./")]
            if any((setup.get("with") or {}).get("cached") != "no" for setup in setups) or "actions/cache@" in text:
                found.add("no cache for what is published")
    if file == "gpu.yml" or "self-hosted" in text:
        hosted = [job for job in jobs.values() if "self-hosted" in str(job.get("runs-on"))]
        release = "\n".join(step.get("run", "") for step in jobs.get("released", {}).get("steps", []))
        if set(triggers) != {"schedule", "workflow_dispatch"} or "merge-base --is-ancestor" not in release:
            found.add("released code on own machines")
        for job in hosted:
            refs = [(step.get("with") or {}).get("ref") for step in job["steps"] if "checkout@" in step.get("uses", "")]
            if job.get("environment") != "gpu" or job.get("needs") != "released" or "concurrency" not in document:
                found.add("released code on own machines")
            if refs != ["${{ needs.released.outputs.commit }}"] or "self-hosted" in str(jobs.get("released")):
                found.add("released code on own machines")
    return found


def faults_of_lock(text: str, project: str = PROJECT) -> set[str]:
    """The names of the rules that the list of exact versions breaks."""
    found, names = set(), set()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    if "--only-binary :all:" not in lines:
        found.add("only wheels")
    for line in lines:
        if line.startswith("--"):
            if line != "--only-binary :all:":
                found.add("no place named")
            continue
        requirement, *hashes = line.split(" --hash=")
        if "://" in line:
            found.add("no place named")
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes):
            found.add("a hash for each")
        try:
            parsed = Requirement(requirement.strip())
        except InvalidRequirement:
            found.add("one exact version")
            continue
        names.add(parsed.name)
        if [one.operator for one in parsed.specifier] != ["=="] or "*" in str(parsed.specifier):
            found.add("one exact version")
    document = tomllib.loads(project)
    wanted = [*document["project"]["dependencies"], *document["dependency-groups"]["build"],
              *document["build-system"]["requires"],
              *sum(document["project"]["optional-dependencies"].values(), [])]  # fmt: skip
    if not {Requirement(one).name for one in wanted} <= names:
        found.add("covers all")
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_workflows_keep_the_rules(name):
    assert faults_of_workflow(name, FILES[name]) == set()


def test_each_workflow_is_known_and_the_lock_keeps_the_rules():
    assert {name.split("/")[1] for name in FILES if name.startswith("workflows")} == set(PERMISSIONS)
    assert faults_of_lock(LOCK) == set()


def test_torch_is_too_new_for_the_known_escapes():
    """CVE-2025-32434 is open below 2.6, CVE-2026-24747 below 2.10: a bound below that would admit them."""
    dependencies = map(Requirement, tomllib.loads(PROJECT)["project"]["dependencies"])
    bounds = {one.name: one.specifier for one in dependencies}
    assert not bounds["torch"].contains("2.9.1") and bounds["torch"].contains("2.10.0")
    assert not bounds["torchvision"].contains("0.24.1") and bounds["torchvision"].contains("0.25.0")


CHECKOUT = re.search(r"actions/checkout@\w+  # \S+", FILES["workflows/tests.yml"])[0]
SHA = re.search(r"checkout@(\w+)", CHECKOUT)[1]
PUBLISH = "        run: gh release"
KEEP = "          persist-credentials: false\n"
RUN = "      - run: python course.py site\n"
BROKEN = [  # rule, file, text, what stands there instead
    ("pinned by commit", "tests.yml", CHECKOUT, "actions/checkout@v5"),
    ("pinned by commit", "tests.yml", CHECKOUT, "actions/checkout@main"),
    ("pinned by commit", "tests.yml", SHA, SHA[:39]),
    ("pinned by commit", "tests.yml", SHA, SHA[:7]),
    ("pinned by commit", "tests.yml", CHECKOUT, f"actions/checkout@{SHA}"),
    ("pinned by commit", "site.yml", CHECKOUT, f"somebody/checkout@{SHA}  # v5.1.0"),
    ("pinned by commit", "newest.yml", "./.github/workflows/tests.yml", "a/b/.github/workflows/tests.yml@main"),
    ("no credentials kept", "tests.yml", KEEP, "          persist-credentials: true\n"),
    ("no credentials kept", "gpu.yml", KEEP, ""),
    ("no credentials kept", "release.yml", KEEP, "          fetch-depth: 1\n"),
    ("permissions", "tests.yml", "permissions: {}", "permissions: write-all"),
    ("permissions", "site.yml", "permissions: {}\n", ""),
    ("permissions", "tests.yml", "      contents: read", "      contents: write"),
    ("permissions", "newest.yml", "      contents: read", "      packages: write"),
    ("permissions", "release.yml", "      contents: read", "      id-token: write"),
    ("writers run no code", "release.yml", PUBLISH, PUBLISH.replace("gh", "python course.py build; gh")),
    ("writers run no code", "release.yml", "  publish:\n    needs: pack\n",
     "  publish:\n    needs: pack\n    uses: ./.github/workflows/tests.yml\n"),
    ("writers run no code", "release.yml", "      - name: Publish\n",
     f"      - uses: {CHECKOUT}\n      - name: Publish\n"),
    ("writers run no code", "release.yml", "sha256sum --check --strict", "cat"),
    ("writers run no code", "site.yml", "          mkdir notebooks\n", "          bash notebooks.sh\n"),
    ("writers run no code", "site.yml", "  pages:\n    if", "  pages:\n    uses: ./x.yml\n    if"),
    ("no input in commands", "site.yml", RUN, "      - run: echo ${{ github.event.head_commit.message }}\n"),
    ("no input in commands", "site.yml", RUN, "      - run: echo ${{ github.head_ref }}\n"),
    ("no input in commands", "gpu.yml", '"$REF^{commit}")', '"${{ inputs.ref }}")'),
    ("time limit", "site.yml", "    timeout-minutes: 60\n", ""),
    ("triggers", "tests.yml", "  pull_request:\n", "  pull_request_target:\n"),
    ("no cache for what is published", "site.yml", '          cached: "no"\n', '          cached: "yes"\n'),
    ("no cache for what is published", "release.yml", '      cached: "no"\n', '      locked: "yes"\n'),
    ("released code on own machines", "gpu.yml", "  workflow_dispatch:", "  pull_request:\n  workflow_dispatch:"),
    ("released code on own machines", "gpu.yml", "    environment: gpu\n", ""),
    ("released code on own machines", "gpu.yml", "          git merge-base --is-ancestor", "          echo"),
    ("released code on own machines", "gpu.yml", "${{ needs.released.outputs.commit }}", "${{ github.ref }}"),
    ("released code on own machines", "gpu.yml", "    needs: released\n", ""),
    ("released code on own machines", "tests.yml", "runs-on: ubuntu-latest", "runs-on: [self-hosted, gpu]"),
]  # fmt: skip
HASH = re.search(r"--hash=sha256:\w+", LOCK)[0]
BROKEN_LOCKS = [
    ("a hash for each", HASH, HASH[:-1]),
    ("a hash for each", HASH, "--hash=md5:d41d8cd98f00b204e9800998ecf8427e"),
    ("a hash for each", "--only-binary :all:\n", "--only-binary :all:\nsix==1.17.0\n"),
    ("one exact version", "torch==", "torch>="),
    ("one exact version", "numpy==2.", "numpy==2.*; #"),
    ("only wheels", "--only-binary :all:\n", ""),
    ("no place named", "--only-binary :all:\n", "--only-binary :all:\n--index-url https://example.org/simple\n"),
    ("no place named", "torch==", "torch @ https://example.org/torch.whl #"),
    ("covers all", "\nhatchling==", "\nhatchling-other=="),
    ("covers all", "\nscipy==", "\nscipy-other=="),
]


@pytest.mark.parametrize(("rule", "name", "text", "instead"), BROKEN)
def test_broken_workflows_are_refused(rule, name, text, instead):
    right = FILES[f"workflows/{name}"]
    assert text in right
    assert rule in faults_of_workflow(f"workflows/{name}", right.replace(text, instead))


@pytest.mark.parametrize(("rule", "text", "instead"), BROKEN_LOCKS)
def test_broken_locks_are_refused(rule, text, instead):
    assert text in LOCK
    assert rule in faults_of_lock(LOCK.replace(text, instead))
