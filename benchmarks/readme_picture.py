"""The picture at the top of the README: three embedded test images, what notebook 05 makes of them, and the truth.

    python benchmarks/readme_picture.py --output build/embedded-laptop/output --profile laptop

takes the network that `course.py run` saved there, else the pretrained one, else trains one. Writes docs/result.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from course_utils import find_best_threshold, get_profile, load_data, plotting, predict, watershed_instances
from course_utils.exploration import split_train_val
from course_utils.metrics import classify_errors
from course_utils.networks import boundary_model, normalized_arrays
from course_utils.segmentation import remove_small

THRESHOLDS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--output", default="build/embedded-laptop/output", help="folder that holds models/")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data, profile = load_data("embedded"), get_profile(options.profile)
    model = boundary_model(data, profile, options.seed, options.output)
    _, val = split_train_val(data.train, profile.validation_every)
    images, masks = normalized_arrays(val)
    predictions = [predict(model, image) for image in images]
    best, _ = find_best_threshold([p[1] for p in predictions], [p[2] for p in predictions], masks, THRESHOLDS)

    plotting.use_course_style()
    shown = [sample for sample in data.test if sample.mask.shape == (256, 256)]
    shown = sorted(shown, key=lambda sample: len(np.unique(sample.mask)))[:: len(shown) // 3][1:4]
    figure, axes = plotting.grid(3, 3, width=2.6, height=2.8)
    for column, (sample, image) in enumerate(zip(shown, normalized_arrays(shown)[0], strict=True)):
        prediction = predict(model, image)
        found = remove_small(watershed_instances(prediction[1], prediction[2], best), 20)
        errors = classify_errors(found, sample.mask)
        wrong = f"{len(errors.missed)} missed, {len(errors.false_positive)} wrong"
        plotting.draw_image(axes[0, column], sample.image, "synthetic test image")
        plotting.draw_labels(axes[1, column], plotting.with_matching_ids(found, sample.mask), f"found: {wrong}")
        plotting.draw_labels(axes[2, column], sample.mask, f"truth: {np.count_nonzero(np.unique(sample.mask))} nuclei")
        print(f"{sample.name}: {errors}")
    path = Path(__file__).resolve().parents[1] / "docs" / "result.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print(f"Wrote {path} (threshold {best}).")


if __name__ == "__main__":
    main()
