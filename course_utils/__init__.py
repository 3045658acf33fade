"""Helper package of the nucleus segmentation course.

Every function and class that the exercises ask for is here under its own name:

>>> import course_utils
>>> course_utils.count_shapes.__module__
'course_utils.exploration'

Modules are imported when a name of theirs is first used, so `import course_utils` alone is quick and
does not load torch. Which module stands behind which notebook:

    01_data_exploration     data, reading, download, synthetic, exploration, targets, dataset
    02_unet                 unet
    03_binary_training      losses, training, recipes, device, profiles
    04_instance_evaluation  segmentation, metrics
    05_boundary_watershed   targets, segmentation

`plotting` and `widgets` draw for all of them. `exercises`, `authoring`, `running` and `command_line` are the
workshop in which the notebooks are made and executed; nothing above imports them.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "data": ["CourseData", "DataError", "Sample", "load_data"],
    "exploration": [
        "count_shapes", "intensity_statistics", "standardize", "normalize_percentiles", "split_train_val",
        "random_crop",
    ],
    "targets": ["binary_target", "boundary_target"],
    "dataset": ["NucleiDataset"],
    "unet": ["ConvBlock", "UpBlock", "UNet", "count_parameters", "pad_to_multiple"],
    "losses": ["binary_cross_entropy", "dice_score"],
    "training": ["train_epoch", "validate", "fit"],
    "profiles": ["Profile", "get_profile"],
    "metrics": ["iou_matrix", "count_matches", "f1_score"],
    "segmentation": ["predict", "connected_components", "watershed_instances", "find_best_threshold"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'course_utils' has no attribute {name!r}")
    return getattr(importlib.import_module(f"course_utils.{_MODULE_OF[name]}"), name)


def __dir__():
    return sorted(__all__)
