"""Every public function that takes arrays or numbers, called with ones that nobody planned for.

Each call gives a result, or a ValueError or TypeError that the course raises itself and that the docstring names. No
call changes its arguments, and the layout of an array in memory changes nothing.

The functions are found by a scan of the package; their arguments by their names, which mean the same in all of them.
Run as a program, this file counts the calls that end in an error of somebody else.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import random
import re
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import course_utils
from course_utils import display

torch.set_num_threads(1)

IMAGE = np.random.default_rng(0).random((12, 10))
LABELS = np.zeros((12, 10), np.int32)
LABELS[1:5, 1:5], LABELS[5:9, 1:5], LABELS[6:11, 6:9] = 3, 7, 2
CLASSES = np.minimum(LABELS, 2)
LOGITS = torch.from_numpy(IMAGE[None, None].astype(np.float32))
AXES = Figure().subplots()

# A right value for every argument, by its name; a list stands for a plural. Of numbers the first is used.
RIGHT = {
    **dict.fromkeys(("image", "grey", "reference", "probability", "foreground", "boundary"), IMAGE),
    **dict.fromkeys(("mask", "labels", "prediction", "truth"), LABELS),
    **dict.fromkeys(("images", "probabilities", "foregrounds", "boundaries"), [IMAGE, IMAGE[:7]]),
    **dict.fromkeys(("masks", "truths", "predictions"), [LABELS, LABELS[:7]]),
    **dict.fromkeys(("size", "crop_size", "multiple", "every", "min_size", "rows", "columns", "side", "batch_size"), 4),
    **dict.fromkeys(("tile", "margin"), 16),
    "diameter": 20.0,
    **dict.fromkeys(("min_area", "min_distance", "depth", "base_channels", "ndim", "largest"), 1),
    **dict.fromkeys(("mean", "std", "sigma", "threshold", "iou_threshold", "width", "height", "pixel_size"), 0.5),
    **dict.fromkeys(("data_range", "factor"), 0.5),
    "zoom": 2.0,
    **dict.fromkeys(("thresholds", "iou_thresholds"), [0.5, 0.7]),
    "low": 1.0, "high": 99.0, "samples": [1, 2, 3], "iou": np.eye(3, 2), "mode": "inner", "target": CLASSES,
    "methods": {"one": [LABELS, LABELS[:7]]}, "logits": LOGITS, "rng": np.random.default_rng(0),
    "model": torch.nn.Conv2d(1, 1, 1), "axes": AXES,
    "strength": IMAGE, "scores": [0.5, 0.75, 1.0], "other_scores": [0.25, 1.0, 0.0], "repeats": 20, "level": 0.9,
    "targets": [torch.from_numpy(CLASSES.astype(np.int64))], "n_classes": 3,
    "target_transform": lambda mask: torch.from_numpy(mask.astype(np.float32))[None],
}  # fmt: skip
FLOATS = (torch.from_numpy(IMAGE[None, None] > 0.5).float(), torch.from_numpy(CLASSES[None].astype(np.int64)))
OWN = {  # where a name means something else
    **dict.fromkeys(("binary_cross_entropy", "dice_score", "hard_dice_score"), {"target": FLOATS[0]}),
    **dict.fromkeys(
        ("foreground_dice_score", "boundary_loss", "multiclass_dice_loss"),
        {"target": FLOATS[1], "logits": torch.zeros(1, 3, 12, 10)},
    ),
    "jitter_intensity": {"images": LOGITS},
    "grid": {"width": 1.0, "height": 1.0},
    "draw_tint": {"colour": "#0072B2"},
    "segment_image": {"model": torch.nn.Conv2d(1, 3, 1)},
}
FIXED = {"axes", "target_transform", "title", "colorbar", "legend", "colour", "width", "height", "names"}

# Functions that take neither arrays nor numbers of the user, and classes that are no data sets
NO_ARRAYS = {
    "no arguments": """modules_by_name checkpoint_folder embedded_folder available_sources cache_folder cached_dsb2018
        choose_device cpu_has_fast_bfloat16 keep_freed_memory return_freed_memory in_notebook launched_by_torchrun
        current_process_group leave_process_group use_course_style""",
    "files, folders and words, tested with what they read": """save_model load_model load_data find_kaggle_input
        fetch_dsb2018 read_samples read_image decode get_profile prepare_output record_scores replacing writing_into
        model_path load_or_train summarize_error main write_dataset did_you_mean script_as_html framed save_sealed
        load_sealed seal remove_unfinished save_state load_state free_name""",
    "objects of the course, made by its own functions": """load_pretrained fingerprint normalized_arrays training_config
        binary_dataset boundary_dataset train_network binary_model boundary_model foreground_model resumable
        own_network noisy_arrays denoising_model tiles_of
        plot_training plot_f1_curves score_table summarize_scores browse_images redraw_on_change training_loader""",
    "networks and devices, of which nothing is asked but torch's own methods": """choose_precision in_precision
        prepare_model fast_layout keep_order describe_device join_process_group count_parameters without_boundary_weight
        memory_explained return_freed_memory digest_network""",
    "training, tested with loaders": "train_epoch validate fit",
    "figures and progress, shown as they are": "show show_frames figure_as_html show_box draw_line",
    "the synthetic images, drawn from values of their own": """log_uniform smooth_noise draw_shape paste draw_nucleus
        free_part place_freely slide_against place_nuclei render_nuclei draw_spot draw_fibres render_background expose
        shuffle_ids image_order generate_image""",
    "files that were read, tested with data sets": """decode_file reason check_image check_mask
        merge_masks has_dark_nuclei check_label_images check_claim check_tiff check_bmp check_png check_jpeg first_image
        pixels_of_page decode_pillow check_members member_name
        open_zip read_member""",
    "any value": "digest loader_generators tensors_in all_finite",
    "the checks themselves": """as_list check_arguments check_finite check_logits check_class_logits check_targets
        check_crop_fits""",
}
NO_ARRAYS = {name: reason for reason, names in NO_ARRAYS.items() for name in names.split()}
DATA_SETS = ("NucleiDataset", "ZoomedDataset", "FullImageDataset", "NoisyPairDataset", "ClippedPairDataset")


@functools.cache
def public_objects() -> dict:
    """The functions of the package by name, and the classes that take arrays."""
    found = {name: getattr(course_utils, name) for name in course_utils.modules_by_name()}
    return {name: one for name, one in found.items() if not inspect.isclass(one) or name in DATA_SETS}


def arguments_of(name: str) -> dict:
    """The right arguments of a function; none if one of its parameters has no right value here."""
    right = RIGHT | OWN.get(name, {})
    found = {}
    for parameter in inspect.signature(public_objects()[name]).parameters.values():
        if parameter.name in right:
            found[parameter.name] = right[parameter.name]
        elif parameter.default is parameter.empty:
            return {}
    return found


CALLED = [name for name in public_objects() if name not in NO_ARRAYS]


# what else an argument may be


def other_layouts(array: np.ndarray) -> dict:
    """The same values, stored in another way."""
    read_only = array.copy()
    read_only.flags.writeable = False
    spread = np.zeros((array.shape[0] * 2, array.shape[1] * 3), array.dtype)[::2, ::3]
    spread[:] = array
    return {
        "read-only": read_only,
        "columns first": np.asfortranarray(array),
        "strided": spread,
        "reversed": array[::-1, ::-1].copy()[::-1, ::-1],
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
    }


def other_arrays(array: np.ndarray) -> dict:
    dtypes = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "O", "U4", "M8[s]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {f"dtype {dtype}": array.astype("i8").astype(dtype) for dtype in dtypes}
    found |= {
        "1-D": array.ravel(), "3-D": np.stack([array] * 3), "channels last": np.dstack([array] * 3), "0-D": array[0, 0],
        "no dimension": np.array(3.0), "no rows": array[:0], "no columns": array[:, :0], "nothing": array[:0, :0],
        "one pixel": array[:1, :1], "one row": array[:1], "one column": array[:, :1], "transposed": array.T,
    }  # fmt: skip
    for value in (np.nan, np.inf, -np.inf, -1.0, 1e300):
        found[f"a {value}"] = np.where(np.arange(array.size).reshape(array.shape) == 5, value, array)
    for value in (-1, 255, 2**31, 2**62):
        found[f"the integer {value}"] = np.where(np.arange(array.size).reshape(array.shape) == 5, value, LABELS.max())
    found["constant"] = np.ones_like(array)
    found["0 and 255"] = ((array > 0) * 255).astype(np.uint8)
    found["masked"] = np.ma.masked_array(array, array > 0)
    found |= {"list": array.tolist(), "ragged list": [[1, 2], [3]], "tensor": torch.from_numpy(array)}
    return found | OTHER_THINGS


def other_tensors(tensor: torch.Tensor) -> dict:
    dtypes = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64)
    found = {str(dtype): tensor.to(dtype) for dtype in dtypes}
    found |= {"one less": tensor[0], "one more": tensor[None], "nothing": tensor[:0], "no pixels": tensor[..., :0]}
    found |= {"no dimension": tensor.flatten()[0], "cropped": tensor[..., :5], "transposed": tensor.mT}
    found |= {f"times {value}": tensor * value for value in (255, -1, float("nan"), float("inf"))}
    found |= {"array": tensor.numpy(), "list": tensor.tolist(), "gradient": tensor.clone().float().requires_grad_()}
    return found | OTHER_THINGS


OTHER_THINGS = {
    "None": None, "word": "abc", "number": 3, "dict": {"a": 1}, "empty list": [], "class": int,
    "empty array": np.array([]), "bytes": b"abc",
}  # fmt: skip


def other_lists(items: list) -> dict:
    found = {"tuple": tuple(items), "one less": items[:-1], "one more": [*items, items[0]], "shuffled": items[::-1]}
    found |= {"nested": [items], "first alone": items[0], "with None": [*items[:-1], None]}
    found |= {"dict": dict(enumerate(items))}
    if isinstance(items[0], np.ndarray):
        found["stack"] = np.stack([items[0]] * 2)
        found |= {f"list of {kind}": [value, *items[1:]] for kind, value in other_arrays(items[0]).items()}
    else:
        found |= {"array": np.array(items), "set": set(items)}
        found |= {f"list of {kind}": [value, *items[1:]] for kind, value in other_numbers().items()}
    return found | OTHER_THINGS


def other_numbers() -> dict:
    values = (
        0, 1, 2, -1, 2.5, 1e300, float("nan"), float("inf"), -0.5, True, 10**30, 1j, "2", None, [2], np.int8(2),
        np.uint64(2), np.float16(0.5), np.array(2), np.array([2]), torch.tensor(2), np.bool_(True), np.str_("inner"),
    )  # fmt: skip
    return {repr(value): value for value in values}


def others(value) -> dict:
    """Other values for an argument than a right one, by what they are."""
    if isinstance(value, np.ndarray):
        return other_arrays(value) | other_layouts(value)
    if isinstance(value, torch.Tensor):
        return other_tensors(value)
    if isinstance(value, list):
        return other_lists(value) | {"generator": (one for one in value)}
    if isinstance(value, (int, float, str)):
        return other_numbers() | OTHER_THINGS
    return dict(OTHER_THINGS)


# calls, and what becomes of them


def outcome(name: str, arguments: dict) -> str:
    """What is wrong with how a call ended; an empty text if nothing is."""
    function = public_objects()[name]
    before = {key: copy.deepcopy(value) for key, value in arguments.items() if _can_change(value)}
    problem = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**arguments)
        except Exception as error:
            problem = _wrong_with(error, function)
    AXES.clear()
    changed = [key for key, value in before.items() if not _same(arguments[key], value)]
    return problem or (f"changes {', '.join(changed)}" if changed else "")


def _wrong_with(error: Exception, function) -> str:
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    if not isinstance(error, (ValueError, TypeError)) or not raised_by_the_course(error):
        return f"raw {said}"
    documented = f"{function.__doc__} {sys.modules[function.__module__].__doc__}"
    return "" if type(error).__name__ in documented else f"undocumented {said}"


@functools.cache
def raising_lines(path: Path) -> set[int]:
    return {node.lineno for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Raise)}


def raised_by_the_course(error: Exception) -> bool:
    """Whether a `raise` in the package made an error, rather than a library or the interpreter."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(last.filename)
    return Path(course_utils.__file__).parent in path.parents and last.lineno in raising_lines(path)


def _can_change(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_can_change(one) for one in value)
    return isinstance(value, (np.ndarray, int, float, str)) or (torch.is_tensor(value) and not value.requires_grad)


def _same(one, other) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return str(one) == str(other)


def calls(name: str):
    """Calls with one other argument, and some with several: what is other, and the arguments."""
    right = arguments_of(name)
    alternatives = {key: others(value) for key, value in right.items() if key not in FIXED}
    for key, values in alternatives.items():
        for kind, value in values.items():
            yield f"{key}: {kind}", right | {key: value}
    rng = random.Random(name)
    for _ in range(30 if len(alternatives) > 1 else 0):
        chosen = {key: rng.choice(sorted(values)) for key, values in alternatives.items() if rng.random() < 0.6}
        if not any("generator" == kind for kind in chosen.values()):
            yield f"{chosen}", right | {key: alternatives[key][kind] for key, kind in chosen.items()}


@pytest.fixture(autouse=True)
def figures_are_not_rendered(monkeypatch):
    monkeypatch.setattr(display, "_picture", lambda figure, caption: ({"image/png": ""}, {}))


def test_every_public_function_is_called_or_has_a_reason():
    unknown = [name for name in CALLED if not arguments_of(name)]
    assert unknown == [], "give their arguments a right value in RIGHT, or the functions a reason in NO_ARRAYS"
    assert [name for name in NO_ARRAYS if name not in public_objects()] == [], "these are gone"


@pytest.mark.parametrize("name", CALLED)
def test_right_arguments_give_a_result(name):
    assert outcome(name, arguments_of(name)) == ""


@pytest.mark.parametrize("name", CALLED)
def test_other_arguments_give_a_result_or_an_error_of_the_course(name):
    wrong = {kind: said for kind, arguments in calls(name) if (said := outcome(name, arguments))}
    assert wrong == {}


@pytest.mark.parametrize("name", CALLED)
def test_the_layout_of_an_array_changes_no_result(name):
    def result(**other):
        rng = {"rng": np.random.default_rng(0)} if "rng" in right else {}
        found = public_objects()[name](**right | other | rng)
        # the byte order of a result may be that of the argument: crops keep their dtype
        return found.tolist() if hasattr(found, "tolist") else re.sub(r",\s+dtype='?>?\w+'?", "", str(found))

    right = arguments_of(name)
    arrays = {key: value for key, value in right.items() if isinstance(value, np.ndarray)}
    expected = result() if arrays and "axes" not in right else None
    for key, value in arrays.items() if expected is not None else ():
        for kind, other in other_layouts(value).items():
            assert result(**{key: other}) == expected, f"{key}: {kind}"


if __name__ == "__main__":
    display._picture = lambda figure, caption: ({"image/png": ""}, {})
    total, kinds = 0, Counter()
    for function in CALLED:
        if not arguments_of(function):
            continue
        said = [outcome(function, arguments) for _, arguments in calls(function)]
        bad = [one for one in said if one]
        total += len(said)
        kinds.update(one.split()[0] for one in bad)
        print(f"{function:32s} {len(bad):4d} of {len(said)}", *Counter(one[:60] for one in bad).most_common(1))
    print(f"{total} calls, {sum(kinds.values())} end wrong: {dict(kinds)}", file=sys.stderr)
