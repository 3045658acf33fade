"""Interactive figures; in the notebooks each follows a static figure that shows the same for a few values.

They need ipywidgets and a running kernel: in an HTML page, or in a notebook without a kernel, they show nothing.
Only `explore_iou` needs neither.

The figure is drawn into an HTML widget rather than captured from the output of the cell: it is replaced without
flicker, has an alternative text, and does not depend on how a front end captures output.
Nothing to show is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from IPython.display import HTML as Page
from ipywidgets import HTML, BoundedIntText, FloatSlider, IntSlider, VBox, Widget
from matplotlib.figure import Figure

from course_utils import display, plotting
from course_utils.arguments import check_arguments
from course_utils.data import Sample
from course_utils.metrics import f1_score
from course_utils.segmentation import connected_components, watershed_instances

WIDE = {"description_width": "7em"}
# Draw when the slider is released: computing every step on the way would be too slow.
# The default handle is white, and invisible on a white page.
SLIDER = {"style": WIDE | {"handle_color": plotting.BLUE}, "continuous_update": False}


def redraw_on_change(draw: Callable[..., tuple[Figure, str]], **controls: Widget) -> VBox:
    """Controls above a figure that is redrawn when one of them changes.

    Args:
        draw: takes the value of each control by its name, and returns the figure and its alternative text.
        controls: widgets with a `value`.
    """
    picture = HTML()

    def update(change=None):
        figure, description = draw(**{name: control.value for name, control in controls.items()})
        picture.value = display.figure_as_html(figure, description)

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return VBox([*controls.values(), picture])


def browse_images(samples: Sequence[Sample]) -> VBox:
    """A slider through images, their masks, sizes and numbers of nuclei; `ValueError` without any."""
    if len(samples) == 0:
        raise ValueError("There are no images to browse.")

    def draw(index):
        sample = samples[index]
        height, width = sample.image.shape
        n_nuclei = np.count_nonzero(np.unique(sample.mask))
        figure, axes = plotting.grid(1, 2, width=4)
        plotting.draw_image(axes[0, 0], sample.image, f"{sample.name[:24]}, {height} x {width}")
        plotting.draw_labels(axes[0, 1], sample.mask, f"{n_nuclei} nuclei")
        return figure, f"Image {index} of {height} x {width} pixels and its mask with {n_nuclei} nuclei."

    return redraw_on_change(draw, index=IntSlider(0, 0, len(samples) - 1, description="image", **SLIDER))


def explore_threshold(
    images: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> VBox:
    """Components, errors and F1 of one image, with controls for the image, `threshold` and `iou_threshold`.

    Args:
        images, truths: images and label images `(H, W)`.
        probabilities: foreground probabilities `(H, W)` of each image.
    """
    check_arguments(images=images, probabilities=probabilities, truths=truths, least=1)
    return _explore(images, truths, lambda index, threshold: connected_components(probabilities[index], threshold))


def explore_watershed(
    images: Sequence[np.ndarray],
    foregrounds: Sequence[np.ndarray],
    boundaries: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> VBox:
    """`explore_threshold` for `watershed_instances`; `threshold` is that of the seeds."""
    check_arguments(images=images, foregrounds=foregrounds, boundaries=boundaries, truths=truths, least=1)
    return _explore(
        images, truths, lambda index, threshold: watershed_instances(foregrounds[index], boundaries[index], threshold)
    )


def _explore(images, truths, segment: Callable[[int, float], np.ndarray]) -> VBox:
    def draw(index, threshold, iou_threshold):
        image, truth, prediction = images[index], truths[index], segment(index, threshold)
        score = f1_score(prediction, truth, iou_threshold)
        n_found = np.count_nonzero(np.unique(prediction))
        figure, axes = plotting.grid(1, 3, width=3.6, height=4.3)
        plotting.draw_labels(
            axes[0, 0], plotting.with_matching_ids(prediction, truth), f"prediction, {n_found} instances"
        )
        plotting.draw_labels(axes[0, 1], truth, "truth")
        plotting.draw_errors(axes[0, 2], image, prediction, truth, iou_threshold, f"F1 = {score:.3f}")
        found = f"{n_found} instances found, F1 {score:.3f} at an IoU threshold of {iou_threshold:.2f}"
        return figure, f"Image {index}: {found}."

    return redraw_on_change(
        draw,
        index=BoundedIntText(0, min=0, max=len(images) - 1, description="image", style=WIDE),
        threshold=FloatSlider(0.5, min=0.05, max=0.95, step=0.05, description="threshold", **SLIDER),
        iou_threshold=FloatSlider(0.5, min=0.05, max=0.95, step=0.05, description="iou_threshold", **SLIDER),
    )


def explore_iou(iou_threshold: float = 0.5) -> Page:
    """Two equal discs, a nucleus and its prediction, of which the second can be dragged, or moved with a slider.

    Shows their IoU beside `iou_threshold`, and whether they match. It is a script in the page and needs no kernel.
    """
    check_arguments(iou_threshold=iou_threshold)
    return Page(display.script_as_html(DISCS_SCRIPT, {"threshold": float(iou_threshold)}))


# Two discs of radius r, d apart, share 2 r² acos(d / 2r) - d/2 sqrt(4r² - d²); the part is drawn as two arcs.
DISCS_SCRIPT = """(place, { threshold }) => {
    const r = 50, x0 = 140, y0 = 90, bar = 20 + 360 * threshold;
    place.innerHTML = `<svg viewBox="0 0 400 245" role="img" font-size="13" stroke-width="2.5"
            style="display: block; width: 100%; max-width: 34em; background: white">
        <circle cx="${x0}" cy="${y0}" r="${r}" fill="#56B4E9" fill-opacity="0.35" stroke="#0072B2"></circle>
        <path></path>
        <circle r="${r}" fill="#E69F00" fill-opacity="0.25" stroke="#A33E00" stroke-dasharray="7 4"
            style="cursor: grab; touch-action: none"></circle>
        <text x="20" y="20">solid: nucleus; dashed: prediction (drag it)</text>
        <rect x="20" y="188" width="360" height="18" fill="#e5e5e5"></rect><rect x="20" y="188" height="18"></rect>
        <path d="M${bar} 180v32" stroke="black"></path>
        <text x="${bar}" y="228" text-anchor="middle">IoU threshold ${threshold}</text>
        <text x="20" y="228">0</text><text x="380" y="228" text-anchor="end">1</text></svg>
        <label style="display: flex; flex-wrap: wrap; gap: 0.3em 0.8em; padding: 0.4em 0">distance of the centres
        <input type="range" min="0" max="110" style="width: 16em; accent-color: #0072B2"></label><div></div>`;
    const [svg, slider, text, shared] = ["svg", "input", "div", "path"].map(name => place.querySelector(name));
    const [, disc] = svg.querySelectorAll("circle"), [, level] = svg.querySelectorAll("rect");
    const draw = (x, y) => {
        const d = Math.hypot(x - x0, y - y0), half = Math.sqrt(Math.max(r * r - d * d / 4, 0));
        const area = d < 2 * r ? 2 * r * r * Math.acos(d / 2 / r) - d * half : 0;
        const iou = area / (2 * Math.PI * r * r - area), match = iou >= threshold;
        const dx = half * (y - y0) / (d || 1), dy = d ? half * (x - x0) / d : r;
        const mx = (x + x0) / 2, my = (y + y0) / 2;
        const arc = `A${r} ${r} 0 0 ${half ? 0 : 1} `, ends = [`${mx - dx} ${my + dy}`, `${mx + dx} ${my - dy}`];
        shared.setAttribute("d", `M${ends[0]}${arc}${ends[1]}${arc}${ends[0]}`);
        for (const part of [shared, level]) part.setAttribute("fill", match ? "#009E73" : "#D55E00");
        level.setAttribute("width", 360 * iou);
        disc.setAttribute("cx", x);
        disc.setAttribute("cy", y);
        const share = Math.round(100 * area / Math.PI / r / r), digits = (Math.floor(100 * iou) / 100).toFixed(2);
        text.textContent = `${share} % of each disc is shared. IoU ${digits}: `
            + (match ? "\\u2713 a match, one TP." : "\\u2717 no match, one FP and one FN.");
        svg.setAttribute("aria-label", `A nucleus and its prediction. ${text.textContent}`);
        slider.setAttribute("aria-valuetext", text.textContent);
        slider.value = d;
    };
    slider.oninput = () => draw(x0 + Number(slider.value), y0);
    disc.onpointerdown = start => {
        const x = Number(disc.getAttribute("cx")), y = Number(disc.getAttribute("cy"));
        const scale = 400 / svg.getBoundingClientRect().width;
        const within = (value, high) => Math.max(r, Math.min(value, high - r));
        disc.setPointerCapture(start.pointerId);
        disc.onpointermove = event => draw(
            within(x + scale * (event.clientX - start.clientX), 400),
            within(y + scale * (event.clientY - start.clientY), 180));
        disc.onpointerup = disc.onpointercancel = () => { disc.onpointermove = null; };
    };
    draw(x0 + 20, y0);
}"""
