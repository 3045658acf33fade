"""environment.yml and requirements.lock agree with pyproject.toml, whose bounds allow what Kaggle and Colab have."""

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from workshop.command_line import LAB_PORT
from workshop.doctor import check_packages

CHECKOUT = Path(__file__).resolve().parents[1]
EXTRAS = runpy.run_path(str(CHECKOUT / "course.py"))["EXTRAS"]
INSTALLED = ("notebooks", *EXTRAS["test"])  # what the tests run with
CONDA_NAMES = {"torch": "pytorch"}  # the others have one name in both worlds

# What notebooks find there without installing anything (Kaggle's image of May 2026, Colab's of the same time).
# The first cell of a notebook installs packages that an image does not have; the extras are not used there.
KAGGLE = {"python": "3.12", "torch": "2.10.0", "torchvision": "0.25.0", "numpy": "2.0.2", "scipy": "1.16.3",
          "scikit-image": "0.25.2", "matplotlib": "3.10.0", "ipywidgets": "8.1.5"}  # fmt: skip
COLAB = {"python": "3.13", "torch": "2.11.0", "ipywidgets": "7.7.1"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((CHECKOUT / "environment.yml").read_text(encoding="utf-8"))


def by_name(requirements):
    parsed = [Requirement(text) for text in requirements]
    return {CONDA_NAMES.get(one.name, one.name): one.specifier for one in parsed}


def test_the_same_packages_and_bounds_both_ways(project, conda):
    wanted = by_name([*project["dependencies"], *project["optional-dependencies"]["notebooks"]])
    # "name>=1.2" is the same for conda and for pip; Python and pip themselves are not in pyproject.toml
    listed = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    offered = by_name([entry for entry in listed if not entry.startswith("python=") and entry != "pip"])
    assert offered == wanted


def test_course_py_and_pyproject_name_the_same_extras(project):
    assert set(project["optional-dependencies"]) == {"notebooks"}.union(*EXTRAS.values())
    assert EXTRAS["install"] == set().union(*EXTRAS.values())


def test_conda_takes_a_python_we_support_and_installs_nothing_but_the_package_with_pip(project, conda):
    (python,) = [entry for entry in conda["dependencies"] if isinstance(entry, str) and entry.startswith("python=")]
    assert SpecifierSet(project["requires-python"]).contains(python.removeprefix("python="))
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e ."]  # conda allows no options such as --no-deps in this list
    assert "pip" in conda["dependencies"], "conda warns if pip itself is not listed"
    assert conda["channels"][0] == "conda-forge"
    assert set(conda) == {"name", "channels", "dependencies"}


@pytest.mark.parametrize("image", [KAGGLE, COLAB], ids=["kaggle", "colab"])
def test_lower_bounds_allow_what_the_cloud_offers(project, image):
    assert SpecifierSet(project["requires-python"]).contains(image["python"])
    specifiers = {Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]}
    refused = {
        name: f"{version} is not {specifiers[name]}"
        for name, version in image.items()
        if name != "python" and not specifiers[name].contains(version)
    }
    assert refused == {}


def test_every_dependency_gives_a_reason_and_a_lower_bound():
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)["project"]
    all_requirements = [*document["dependencies"], *sum(document["optional-dependencies"].values(), [])]
    for requirement in all_requirements:
        assert re.search(r">=\d", requirement), f"{requirement} has no lower bound"
        assert "<" not in requirement and "==" not in requirement, f"{requirement} shuts out newer versions"
        lines = [line for line in text.splitlines() if line.strip().startswith(f'"{requirement}"')]
        assert lines and all(re.search(r"#\s*\S.{5,}", line) for line in lines), f"{requirement} gives no reason"


def test_the_environment_at_hand_satisfies_the_bounds():
    assert [check for check in check_packages(INSTALLED) if check.status == "problem"] == []


def locked_versions():
    lines = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]


def test_every_requirement_is_locked_to_a_version_that_it_allows(project):
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for group in extras.values() for text in group)]
    for python in ("3.11", "3.12", "3.13"):
        place = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux",
                 "platform_machine": "x86_64"}  # fmt: skip
        found = {}
        for one in locked_versions():
            if one.marker is None or one.marker.evaluate(place):
                assert one.name not in found, f"{one.name} twice for Python {python}"
                found[one.name] = one.specifier
        for requirement in map(Requirement, wanted):
            [exact] = found[requirement.name]
            assert exact.operator == "==" and requirement.specifier.contains(exact.version), requirement


def test_ci_uses_the_documented_command():
    script = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert "python3 course.py test" in script.splitlines()


def test_the_dev_container_uses_the_documented_command():
    text = (CHECKOUT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert container["postCreateCommand"] == "python3 course.py doctor"
    [python] = re.findall(r"python:(\d\.\d+)", container["image"])
    requires = re.search(r'requires-python = "([^"]+)"', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    assert SpecifierSet(requires[1]).contains(python)
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == container["containerEnv"]["COURSE_VENV"] + "/bin/python"
    assert container["forwardPorts"] == [LAB_PORT]
