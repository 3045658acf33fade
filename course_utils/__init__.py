"""What the notebooks of the nucleus segmentation course import.

Every public function and class of the modules beside this file and in `data` is also found here, by its name alone:

>>> import course_utils
>>> course_utils.count_shapes.__module__
'course_utils.exploration'

A module is imported when one of its names is first used, so `import course_utils` alone is quick and does not load
torch.

Each module covers one topic of the notebooks; `data` loads the images, and `exercises` checks solutions. The package
`workshop` builds, executes and grades the notebooks. The modules behind each notebook (the build writes these lines):

    01_data_exploration: exploration, targets, dataset, data
    02_unet: unet
    03_binary_training: losses, training, checkpoints, device, networks
    04_instance_evaluation: segmentation, metrics
    05_boundary_watershed: targets, segmentation
    06_losses_and_tuning: losses, results
    07_denoising: denoising
    08_own_images: measurements, own_images
"""

import difflib
import functools
import importlib
import re
from collections.abc import Iterable
from pathlib import Path

__version__ = "0.1.0"


@functools.cache
def modules_by_name() -> dict[str, str]:
    """`{name of a public function or class: full name of the module that defines it}`, read from the source files."""
    folder, found = Path(__file__).parent, {}
    for path in sorted([*folder.glob("*.py"), *folder.glob("data/*.py")]):
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = f"{__name__}.{module}"
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the most similar known word, with a space before it; empty if none is similar.

    >>> did_you_mean("lapto", ["smoke", "laptop"])
    ' Did you mean laptop?'
    """
    by_small_letters = {one.lower(): one for one in known}
    similar = difflib.get_close_matches(word.lower(), by_small_letters, n=1)
    return f" Did you mean {by_small_letters[similar[0]]}?" if similar else ""


def __getattr__(name: str):
    if name not in modules_by_name():
        raise AttributeError(f"module 'course_utils' has no attribute {name!r}")
    return getattr(importlib.import_module(modules_by_name()[name]), name)


def __dir__():
    return sorted([*globals(), *modules_by_name()])
