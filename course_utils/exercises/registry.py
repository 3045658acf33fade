"""The table of the exercises: which object, from which module, in which notebook, how difficult.

Each check is in `checks`, one module for each notebook.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """One exercise."""

    id: str
    name: str
    module: str
    notebook: str
    title: str
    difficulty: int
    minutes: int

    @property
    def reference(self) -> Any:
        """The solution: the tested object of `course_utils`."""
        return getattr(importlib.import_module(f"course_utils.{self.module}"), self.name)

    @property
    def check(self) -> Callable[[Any], None]:
        """The function that raises `CheckFailed` for a wrong solution."""
        checks = importlib.import_module(f"course_utils.exercises.checks.notebook_{self.notebook[:2]}")
        return getattr(checks, f"check_{self.name}")


_TABLE = {
    "01_data_exploration": [
        ("1.1", "count_shapes", "exploration", "Count the image sizes", 1, 5),
        ("1.2", "intensity_statistics", "exploration", "Mean and standard deviation of all pixels", 2, 10),
        ("1.3", "standardize", "exploration", "Standardize an image", 1, 5),
        ("1.4", "split_train_val", "exploration", "Set validation images aside", 1, 5),
        ("1.5", "random_crop", "exploration", "Cut a random window from image and mask", 3, 15),
        ("1.6", "binary_target", "targets", "From a label image to a foreground target", 1, 5),
        ("1.7", "NucleiDataset", "dataset", "A dataset of random crops", 5, 45),
    ],
    "02_unet": [
        ("2.1", "ConvBlock", "unet", "Two convolutions", 2, 10),
        ("2.2", "UpBlock", "unet", "Up, concatenate, convolve", 3, 15),
        ("2.3", "UNet", "unet", "The whole network", 4, 40),
        ("2.4", "count_parameters", "unet", "Count the parameters", 1, 5),
        ("2.5", "pad_to_multiple", "unet", "Pad to a size the network accepts", 2, 10),
    ],
    "03_binary_training": [
        ("3.1", "binary_cross_entropy", "losses", "A cross entropy that survives large logits", 3, 15),
        ("3.2", "dice_score", "losses", "The Dice score", 2, 10),
        ("3.3", "train_epoch", "training", "One epoch of training", 3, 20),
        ("3.4", "validate", "training", "Measure without learning", 3, 15),
    ],
    "04_instance_evaluation": [
        ("4.1", "predict", "segmentation", "Predict an image of any size", 3, 15),
        ("4.2", "connected_components", "segmentation", "From probabilities to instances", 1, 5),
        ("4.3", "iou_matrix", "metrics", "Overlap of every prediction with every nucleus", 4, 25),
        ("4.4", "count_matches", "metrics", "Match one to one", 3, 15),
        ("4.5", "f1_score", "metrics", "The F1 score of a segmentation", 2, 10),
        ("4.6", "average_precision", "metrics", "Average precision at several thresholds", 2, 10),
    ],
    "05_boundary_watershed": [
        ("5.1", "boundary_target", "targets", "A target with a boundary class", 2, 10),
        ("5.2", "watershed_instances", "segmentation", "Grow instances with the watershed", 2, 10),
        ("5.3", "find_best_threshold", "segmentation", "Choose the threshold on validation images", 3, 15),
    ],
    "06_losses_and_tuning": [
        ("6.1", "multiclass_dice_loss", "losses", "The Dice loss of several classes", 3, 15),
        ("6.2", "class_weights", "losses", "Weights for unequal classes", 2, 10),
        ("6.3", "paired_bootstrap", "results", "Better, or only luck? A paired bootstrap", 3, 15),
    ],
    "07_denoising": [
        ("7.1", "add_noise", "denoising", "Add noise of mean zero", 1, 5),
        ("7.2", "psnr", "denoising", "The peak signal-to-noise ratio", 2, 10),
        ("7.3", "NoisyPairDataset", "denoising", "A dataset of noisy pairs", 4, 25),
    ],
    "08_own_images": [
        ("8.1", "median_diameter", "measurements", "The diameter of a typical nucleus", 2, 10),
        ("8.2", "measure_instances", "measurements", "Measure every nucleus", 3, 20),
    ],
}

_EXERCISES = {
    id_: Exercise(id_, name, module, notebook, title, difficulty, minutes)
    for notebook, rows in _TABLE.items()
    for id_, name, module, title, difficulty, minutes in rows
}


def list_exercises() -> list[Exercise]:
    """All exercises in the order of the course."""
    return list(_EXERCISES.values())


def get_exercise(exercise_id: str) -> Exercise:
    """The exercise with this id, as in `get_exercise("3.2")`. Raises `KeyError` listing the known ids."""
    if exercise_id not in _EXERCISES:
        raise KeyError(f"There is no exercise {exercise_id!r}. Known: {', '.join(_EXERCISES)}.")
    return _EXERCISES[exercise_id]
