"""The course as a website: a start page, the executed solved notebooks, the pages in docs/, and the API reference.

Sphinx builds it with myst-nb and sphinx-book-theme from a copy of the texts with the same folders as the course, so
that links between them work. The pages need no network: formulas are MathML, pictures are inside the pages or beside
them, and scripts and fonts come with the theme. The start page is `start.md`, filled in; `website.css` changes the
theme.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import nbformat

from course_utils import get_profile, load_data, modules_by_name
from course_utils.data.download import cached_dsb2018
from course_utils.exercises import list_exercises
from workshop.paths import checkout, data_label, resolve_data_source
from workshop.run.course import run_course
from workshop.run.pages import HERE as PAGE_FILES
from workshop.run.pages import formula, page_notebook, with_scrolling_tables

HERE = Path(__file__).parent
PAGES = ("docs/students.md", "docs/instructors.md", "docs/grading.md", "docs/results.md", "docs/where-it-runs.md",
         "docs/contributors.md", "data/README.md", "data/checkpoints/README.md")  # fmt: skip
FILES = ("LICENSE", "docs/result.png", "docs/training_curve.png", "docs/peers.png", "docs/hard_images.png",
         "docs/badges/kaggle.svg", "docs/badges/colab.svg", "docs/badges/binder.svg", "docs/icon.svg")  # fmt: skip
IN_HTML = ("docs/result.png", "docs/result-narrow.png")  # pictures named in HTML, which Sphinx leaves as it is
LIST = ".files"  # in the website: its files, so that others are known
SETTINGS = {
    "project": "Nucleus segmentation with a U-Net",
    "html_title": "Nucleus segmentation with a U-Net",
    "author": "",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "workshop.publish.website"],
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"show_navbar_depth": 1, "home_page_in_toc": True, "use_fullscreen_button": False,
                           "navbar_persistent": []},
    "html_context": {"default_mode": "auto"},
    "html_static_path": ["_static"],
    "html_css_files": ["website.css"],
    "html_js_files": [("page.js", {"defer": "defer"})],
    "templates_path": [str(HERE / "templates")],
    "html_extra_path": ["extra"],
    "html_math_renderer": "mathml",
    "html_favicon": "docs/icon.svg",
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_domain_indices": False,
    "html_use_index": False,
    "html_last_updated_fmt": None,
    "myst_enable_extensions": ["dollarmath", "amsmath", "tasklist", "linkify", "deflist"],
    "myst_linkify_fuzzy_links": False,
    "myst_heading_anchors": 4,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "autodoc_inherit_docstrings": False,
    "autodoc_member_order": "bysource",
    "autodoc_typehints_format": "short",
    "autodoc_preserve_defaults": True,
    "python_use_unqualified_type_names": True,
    "add_module_names": False,
    "napoleon_use_rtype": False,
    "suppress_warnings": ["mystnb.unknown_mime_type", "app"],  # app: a second build in one process
}


class WebsiteError(ValueError):
    """The website cannot be built; the message says what was found and what to do."""


def build_website(
    out: Path | None = None, executed: Path | None = None, data: str | None = None, profile: str | None = None
) -> Path:
    """Build the website and return its folder.

    Args:
        out: folder of the pages, default `build/site`; an earlier website is replaced once the new one is complete,
            other files never are.
        executed: folder with the executed solved notebooks. By default that of `data` and `profile` in `build`, where
            notebooks that are missing or have changed since are executed first.
        data: the source to execute them on, by default the real images if they are in the cache, else the embedded.
        profile: by default "smoke" on the embedded images, else "laptop".

    Raises:
        WebsiteError: Sphinx is not installed, `out` holds something else or cannot be written to, or a page has a fault
            (a link that leads nowhere, say); the message lists them.
    """
    course = checkout()
    out = (out or course / "build" / "site").resolve()
    if others := _others(out):
        what = f"{others[0]} and {len(others) - 1} more" if others[1:] else others[0]
        raise WebsiteError(f"{out} holds what is not of the website ({what}): name an empty folder with --out.")
    if executed and (data or profile):
        raise WebsiteError("--executed names a finished run, --data and --profile ask for a new one: leave one out.")
    try:
        from sphinx.application import Sphinx
    except ImportError:
        raise WebsiteError(
            "the website needs Sphinx, which is not installed: pip install -e '.[site]', then start again."
        ) from None
    with _replaced(out) as building:
        executed = executed or execute_changed(course, data, profile)
        source, pages = building / "source", building / "pages"
        collect(course, executed, source)
        messages = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Sphinx's own parts, about each other
            application = Sphinx(
                str(source), None, str(pages), str(building / "doctrees"), "html", dict(SETTINGS), status=None,
                warning=messages, freshenv=True,
            )  # fmt: skip
            application.build()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", messages.getvalue())
        faults = [line for line in plain.splitlines() if line.strip()]
        if faults or application.statuscode:
            listed = "\n".join(f"  {line}" for line in faults)
            raise WebsiteError(f"Faults in the pages ({len(faults)}):\n{listed.replace(str(source), '')}")
        (pages / ".nojekyll").touch()  # GitHub Pages would leave out folders that start with an underscore
        (pages / LIST).write_text("\n".join([*_files(pages), LIST]), encoding="utf-8")
    return out


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _others(out: Path) -> list[str]:
    """What is in the place of the website and was not written by an earlier call: that is never replaced."""
    if out.is_file():
        return [out.name]
    listed = (out / LIST).read_text(encoding="utf-8").splitlines() if (out / LIST).is_file() else []
    return sorted(set(_files(out)) - set(listed))


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A folder beside `out`, whose folder "pages" takes the place of `out` in the end, but not after an error."""
    building = out.with_name(f".{out.name}-building")
    old = building / "old"

    def clean() -> None:
        if old.exists() and not out.exists():  # stopped between the two renames, perhaps in an earlier call
            old.rename(out)
        for path in building.glob("*/"):
            shutil.rmtree(path, ignore_errors=True)

    try:
        building.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(building / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            advice = "wait for it, or name another folder with --out"
            raise WebsiteError(f"another call is building {out}: {advice}.") from None
        try:
            clean()
            yield building
            if out.exists():
                out.rename(old)
            (building / "pages").rename(out)
        finally:
            clean()
            lock.release()
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise WebsiteError(f"the website was not written to {out}: {error}") from None


def execute_changed(course: Path, data: str | None = None, profile: str | None = None) -> Path:
    """The folder with the executed notebooks of solutions/; those that have changed are executed first."""
    data = resolve_data_source(data or ("dsb2018" if cached_dsb2018() else "embedded"))
    try:
        profile = get_profile(profile or ("smoke" if data == "embedded" else "laptop")).name
    except ValueError as error:
        raise WebsiteError(str(error)) from None
    folder = course / "build" / f"{data_label(data)}-{profile}"
    solved = sorted((course / "solutions").glob("[0-9][0-9]_*.ipynb"))
    if old := [one.stem for one in solved if not _is_run_of(folder / one.name, one)]:
        load_data(data)  # a source that cannot be read should fail before anything is said
        print(f"Executing {', '.join(old)} first, on {data} in the profile {profile}.", flush=True)
        results = run_course(data, profile, only=old)
        if failed := [result.notebook for result in results if result.error]:
            raise WebsiteError(f"{', '.join(failed)} failed; see above.")
    return folder


def _is_run_of(executed: Path, solved: Path) -> bool:
    """Whether an executed notebook has the cells of a solved one, and was executed to its end."""
    if not executed.exists():
        return False
    before, after = nbformat.read(solved, as_version=4), nbformat.read(executed, as_version=4)
    ran = [cell for cell in after.cells if not _is_injected(cell)]
    complete = all(cell.execution_count for cell in ran if cell.cell_type == "code" and cell.source.strip())
    return complete and [cell.source for cell in before.cells] == [cell.source for cell in ran]


def _is_injected(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill has inserted the cell."""
    return "injected-parameters" in cell.metadata.get("tags", [])


def collect(course: Path, executed: Path, source: Path) -> None:
    """Copy the texts into a folder, laid out as the course is: start.md as the first page, notebooks/ executed."""
    (source / "notebooks").mkdir(parents=True)
    names = sorted(path.stem for path in (course / "solutions").glob("[0-9][0-9]_*.ipynb"))
    if missing := [name for name in names if not (executed / f"{name}.ipynb").is_file()]:
        advice = "make them with `course.py run`, or leave --executed out"
        raise WebsiteError(f"{executed} lacks {', '.join(missing)}: {advice}.")
    run = _described(executed)
    for name in names:
        notebook = page_notebook(nbformat.read(executed / f"{name}.ipynb", as_version=4))
        notebook.cells = [cell for cell in notebook.cells if not _is_injected(cell)]
        if run and notebook.cells:
            said = rf"\1\n\n*Executed on {run}.*"
            notebook.cells[0].source = re.sub(r"^(# .*)", said, notebook.cells[0].source, count=1)
        nbformat.write(notebook, source / "notebooks" / f"{name}.ipynb")
    for name in (*PAGES, *FILES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(course / name, source / name)
    for name in IN_HTML:
        (source / "extra" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(course / name, source / "extra" / name)
    for name, text in reference_pages().items():
        (source / "reference").mkdir(exist_ok=True)
        (source / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    (source / "_static").mkdir()
    for path in (HERE / "website.css", PAGE_FILES / "page.js"):
        shutil.copyfile(path, source / "_static" / path.name)
    text = start_page(course, names, run)
    contents = {
        "Notebooks": [f"notebooks/{name}" for name in names],
        "More": ["For students <docs/students>", *(name.removesuffix(".md") for name in PAGES[1:]), "reference/index"],
    }
    for caption, pages in contents.items():
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
    (source / "index.md").write_text(text, encoding="utf-8")


def _described(executed: Path) -> str:
    """On which images a run was, in which profile, and when; "" if there is no record of it."""
    try:
        run = json.loads((executed / "summary.json").read_text(encoding="utf-8"))
        label = data_label(run["data"]["source"])
        images = {"embedded": "the synthetic images of the course", "dsb2018": "the real images of DSB2018"}
        return f"{images.get(label, f'the images of {label}')}, profile {run['profile']}, {run['date'][:10]}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def start_page(course: Path, names: list[str], run: str) -> str:
    """The first page: start.md with parts of the README (first paragraph, picture, comparison) and a schedule."""
    readme = (course / "README.md").read_text(encoding="utf-8")

    def part(pattern: str) -> str:
        found = re.search(pattern, readme, re.DOTALL | re.MULTILINE)
        return found[0] if found else ""

    rows = []
    for title, name, learnt in re.findall(r"^\| \[(.*?)\]\(notebooks/(\w+)\.ipynb\) \| (.*?) \|", readme, re.MULTILINE):
        minutes = [exercise.minutes for exercise in list_exercises() if exercise.notebook == name]
        rows.append(f"| [{title}](notebooks/{name}.ipynb) | {learnt} | {sum(minutes)} for {len(minutes)} exercises |")
    filled = {
        "lead": part(r"(?<=\n\n)\w.*?\n\n"), "picture": part(r"^<picture>.*?</picture>\n\n\*.*?\*\n\n"),
        "compared": part(r"^## Compared.*?(?=^## )"), "first": f"notebooks/{names[0]}.html", "rows": "\n".join(rows),
        "hours": f"{sum(exercise.minutes for exercise in list_exercises()) / 60:.0f}",
        "run": f"The notebooks on these pages were executed on {run}." if run else "",
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda name: filled[name[1]], (HERE / "start.md").read_text(encoding="utf-8"))


def reference_pages() -> dict[str, str]:
    """Pages with the docstrings of what the notebooks import, one for each module, by name; "index" leads to them."""
    about = "What the notebooks import from `course_utils`, one page for each module."
    index, pages = f"# Reference\n\n{about}\n", {}
    defined = modules_by_name()
    for module in sorted(set(defined.values()) - {"course_utils.__init__"}):
        name = module.removeprefix("course_utils.")
        about = (importlib.import_module(module).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        links = ", ".join(f"[{one}](#{module}.{one})" for one in defined if defined[one] == module)
        index += f"\n[{name}]({name}.md)\n: {about}\n\n  {links}\n"
        options = "   :members:\n   :ignore-module-all:\n"  # each object where it is defined
        pages[name] = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n"
    return pages | {"index": index + "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"}


def setup(app) -> dict:
    """Formulas become MathML, which needs no script; `code` in docstrings becomes code; wide tables scroll."""
    from docutils.nodes import SkipNode, math_block

    def draw(translator, node):
        translator.body.append(formula(node.astext(), as_block=isinstance(node, math_block)))
        raise SkipNode

    def mark_code(app, what, name, obj, options, lines):
        lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line) for line in lines]
        lines[:] = [re.sub(r"(?<=\w``)(?=\w)", r"\\ ", line) for line in lines]  # the plural of `code`: ``code``\ s

    def name_defaults(app, what, name, obj, options, signature, returned):
        """`= <function mean>` is no Python: Sphinx would show the whole signature unparsed, with every module."""
        if signature:
            return re.sub(r"<function (\w+)>", r"\1", signature).replace("<factory>", "..."), returned

    def wrap_tables(app, pagename, templatename, context, doctree):
        if "body" in context:
            context["body"] = with_scrolling_tables(context["body"])

    app.connect("html-page-context", wrap_tables)
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("autodoc-process-docstring", mark_code, priority=100)  # before napoleon, which splits lines at colons
    app.add_html_math_renderer("mathml", (draw, None), (draw, None))
    return {"parallel_read_safe": True}
