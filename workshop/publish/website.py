"""The course as a website: the executed solved notebooks, the pages for instructors and results, and the API reference.

Sphinx builds it with myst-nb and sphinx-book-theme from a copy of the texts with the same folders as the course, so
that links between them work. The pages need no network: formulas are MathML, pictures are inside the pages or beside
them, and scripts and fonts come with the theme.
"""

from __future__ import annotations

import io
import pkgutil
import re
import shutil
import warnings
from pathlib import Path

import nbformat

from workshop.paths import checkout
from workshop.run.course import run_course
from workshop.run.pages import page_notebook

PAGES = ("docs/students.md", "docs/instructors.md", "docs/grading.md", "docs/results.md", "docs/where-it-runs.md",
         "docs/contributors.md", "data/README.md", "data/checkpoints/README.md")  # fmt: skip
FILES = ("LICENSE", "docs/result.png", "docs/training_curve.png", "docs/badges/kaggle.svg", "docs/badges/colab.svg",
         "docs/badges/binder.svg", "docs/icon.svg")  # fmt: skip
SETTINGS = {
    "project": "Nucleus segmentation with a U-Net",
    "html_title": "Nucleus segmentation with a U-Net",
    "author": "",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "workshop.publish.website"],
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"show_navbar_depth": 1, "home_page_in_toc": True, "use_fullscreen_button": False,
                           "navbar_persistent": []},
    "html_context": {"default_mode": "auto"},
    "html_math_renderer": "mathml",
    "html_favicon": "docs/icon.svg",
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_domain_indices": False,
    "html_last_updated_fmt": None,
    "myst_enable_extensions": ["dollarmath", "amsmath", "tasklist", "linkify"],
    "myst_linkify_fuzzy_links": False,
    "myst_heading_anchors": 4,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "autodoc_member_order": "bysource",
    "autodoc_typehints": "none",
    "napoleon_use_rtype": False,
    "suppress_warnings": ["mystnb.unknown_mime_type", "app"],  # app: a second build in one process
}


class WebsiteError(ValueError):
    """The website cannot be built; the message says what was found and what to do."""


def build_website(out: Path | None = None, executed: Path | None = None) -> Path:
    """Build the website and return its folder.

    Args:
        out: folder of the pages, default `build/site`; an earlier website is replaced, other files never are.
        executed: folder with the executed solved notebooks, default `build/embedded-smoke`. There, notebooks that are
            missing or have changed since are executed first.

    Raises:
        WebsiteError: Sphinx is not installed, `out` holds something else, or a page has a fault (a link that leads
            nowhere, say); the message lists them.
    """
    course = checkout()
    out = (out or course / "build" / "site").absolute()
    if out.is_dir() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise WebsiteError(f"{out} is not a website of the course: name an empty folder with --out.")
    try:
        from sphinx.application import Sphinx
    except ImportError:
        raise WebsiteError(
            "the website needs Sphinx, which is not installed: pip install -e '.[site]', then start again."
        ) from None
    executed = executed or execute_changed(course)
    source = out.with_name(out.name + "-source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    collect(course, executed, source)
    messages = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Sphinx's own parts, about each other
        application = Sphinx(
            str(source), None, str(out), str(source / ".doctrees"), "html", dict(SETTINGS), status=None,
            warning=messages, freshenv=True,
        )  # fmt: skip
        application.build()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", messages.getvalue())
    faults = [line for line in plain.splitlines() if line.strip()]
    if faults or application.statuscode:
        listed = "\n".join(f"  {line}" for line in faults)
        raise WebsiteError(f"Faults in the pages ({len(faults)}):\n{listed.replace(str(source), '')}")
    shutil.rmtree(source)
    shutil.rmtree(out / ".doctrees", ignore_errors=True)
    (out / ".nojekyll").touch()  # GitHub Pages would leave out folders that start with an underscore
    return out


def execute_changed(course: Path) -> Path:
    """The folder with the executed notebooks of solutions/; those that have changed are executed first."""
    folder = course / "build" / "embedded-smoke"
    old = []
    for solved in sorted((course / "solutions").glob("[0-9][0-9]_*.ipynb")):
        if not _is_run_of(folder / solved.name, solved):
            old.append(solved.stem)
    if old:
        print(f"Executing {', '.join(old)} first.", flush=True)
        results = run_course(only=old)
        failed = [result.notebook for result in results if result.error]
        if failed:
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
    """Copy the texts into a folder, laid out as the course is: README.md as the first page, notebooks/ executed."""
    (source / "notebooks").mkdir(parents=True)
    names = sorted(path.stem for path in (course / "solutions").glob("[0-9][0-9]_*.ipynb"))
    if missing := [name for name in names if not (executed / f"{name}.ipynb").is_file()]:
        advice = "make them with `course.py run`, or leave --executed out"
        raise WebsiteError(f"{executed} lacks {', '.join(missing)}: {advice}.")
    for name in names:
        notebook = page_notebook(nbformat.read(executed / f"{name}.ipynb", as_version=4))
        notebook.cells = [cell for cell in notebook.cells if not _is_injected(cell)]
        nbformat.write(notebook, source / "notebooks" / f"{name}.ipynb")
    for name in (*PAGES, *FILES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(course / name, source / name)
    for name in PAGES:
        page = source / name
        page.write_text(_links_to_pages(page.read_text(encoding="utf-8")), encoding="utf-8")
    readme = (course / "README.md").read_text(encoding="utf-8")
    picture = r'<picture>.*?<img src="([^"]+)"[^>]* alt="([^"]+)">\n</picture>'
    text = _links_to_pages(re.sub(picture, r"![\2](\1)", readme, flags=re.DOTALL))
    contents = {
        "Notebooks": [f"notebooks/{name}" for name in names],
        "More": [*(name.removesuffix(".md") for name in PAGES), "reference"],
    }
    for caption, pages in contents.items():
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
    (source / "index.md").write_text(text, encoding="utf-8")
    (source / "reference.md").write_text(reference_page(), encoding="utf-8")


def _links_to_pages(text: str) -> str:
    """Links to the first page of the course lead to the first page of the website."""
    return re.sub(r"\]\(((?:\.\./)*)README\.md(#[^)]*)?\)", r"](\1index.md\2)", text)


def reference_page() -> str:
    """The page that shows the docstrings of what the notebooks import, the exercises' own package left out."""
    parts = ["# Reference", "The functions and classes of `course_utils`."]
    for name in reference_modules():
        parts += [f"## {name}", f"```{{eval-rst}}\n.. automodule:: course_utils.{name}\n   :members:\n```"]
    return "\n\n".join(parts) + "\n"


def reference_modules() -> list[str]:
    """The modules of `course_utils` and `course_utils.data`, as in "data.download"."""
    import course_utils
    from course_utils import data

    modules = [module.name for module in pkgutil.iter_modules(course_utils.__path__) if module.name != "exercises"]
    return sorted([*modules, *(f"data.{module.name}" for module in pkgutil.iter_modules(data.__path__))])


def setup(app) -> dict:
    """Docutils draws formulas as MathML, which needs no script; `code` in docstrings becomes code."""
    from docutils.writers.html5_polyglot import HTMLTranslator

    def draw(translator, node):
        translator.math_output, translator.math_options = "mathml", ""
        HTMLTranslator.visit_math(translator, node)

    def mark_code(app, what, name, obj, options, lines):
        lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line) for line in lines]

    app.connect("autodoc-process-docstring", mark_code, priority=100)  # before napoleon, which splits lines at colons
    app.add_html_math_renderer("mathml", (draw, None), (draw, None))
    return {"parallel_read_safe": True}
