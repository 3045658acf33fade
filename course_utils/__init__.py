"""Helper package of the nucleus segmentation course.

Every public function and class of the modules of this package is here under its own name, and so is the object of every
exercise:

>>> import course_utils
>>> course_utils.count_shapes.__module__
'course_utils.exploration'

A module is imported when a name of it is first used, so `import course_utils` alone is quick and does not load torch.

What notebooks teach stands beside this file, one module for each topic; `data` is where images come from, and
`exercises` checks solutions. How the notebooks are made, executed and graded stands in the package `workshop`.
"""

import functools
import importlib
import re
from pathlib import Path

__version__ = "0.1.0"


@functools.cache
def modules_by_name() -> dict[str, str]:
    """Each public function or class, and the module that defines it."""
    folder, found = Path(__file__).parent, {}
    for path in sorted([*folder.glob("*.py"), *folder.glob("data/*.py")]):
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = f"{__name__}.{module}"
    return found


def __getattr__(name: str):
    if name not in modules_by_name():
        raise AttributeError(f"module 'course_utils' has no attribute {name!r}")
    return getattr(importlib.import_module(modules_by_name()[name]), name)


def __dir__():
    return sorted([*globals(), *modules_by_name()])
