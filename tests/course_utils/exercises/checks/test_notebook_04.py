"""The checks of notebook 04 accept every right solution, and name the mistake of every wrong one."""

from __future__ import annotations

import copy
import heapq
from collections import Counter

import networkx
import numpy as np
import pandas as pd
import torch
from runner import CheckTests
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components as csgraph_components
from scipy.sparse.csgraph import maximum_bipartite_matching, maximum_flow
from skimage.measure import label
from skimage.morphology import remove_small_objects
from skimage.segmentation import relabel_sequential
from skimage.transform import resize

from course_utils.exercises import evaluate
from course_utils.metrics import average_precision, count_matches, f1_score, iou_matrix, match_instances
from course_utils.segmentation import predict
from course_utils.unet import pad_to_multiple


def after(reference, change):
    """The reference, with a change of its result."""
    return lambda *arguments, **options: change(reference(*arguments, **options))


# 4.1 predict


def zeros_on_all_sides_to_a_multiple_of_32(model, image, multiple=32):
    height, width = image.shape
    bottom, right_ = multiple - height % multiple, multiple - width % multiple
    padded = np.zeros((height + bottom, width + right_), dtype="float32")
    top, left = bottom // 2, right_ // 2
    padded[top : top + height, left : left + width] = image
    mode = model.training
    model.train(False)
    with torch.inference_mode():
        x = torch.tensor(padded, device=next(iter(model.parameters())).device).unsqueeze(0).unsqueeze(0)
        y = model(x).squeeze(0).to("cpu")
    if mode:
        model.train()
    y = y[:, top : top + height, left : left + width]
    return (torch.sigmoid(y) if y.shape[0] == 1 else torch.nn.functional.softmax(y, 0)).numpy()


def a_copy_of_the_model(model, image):
    twin = copy.deepcopy(model).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    x = torch.as_tensor(np.ascontiguousarray(image)).float()[None, None].to(next(model.parameters()).device)
    x = torch.nn.functional.pad(x, (0, -x.shape[3] % 16, 0, -x.shape[2] % 16), mode="replicate")
    y = twin(x)[:, :, : image.shape[0], : image.shape[1]]
    y = y.sigmoid() if y.shape[1] == 1 else y.exp() / y.exp().sum(1, keepdim=True)
    return np.asarray(y[0].cpu().tolist(), dtype=np.float32)


@torch.no_grad()
def low_precision(model, image):
    device = next(model.parameters()).device
    before, _ = model.training, model.eval()
    padded, (height, width) = pad_to_multiple(image, 64)
    with torch.autocast(device.type, torch.bfloat16):
        y = model(torch.from_numpy(padded.astype(np.float32))[None, None].to(device))
    model.train(before)
    y = y[0, :, :height, :width].float()
    return (y.sigmoid() if len(y) == 1 else y.softmax(0)).numpy(force=True)


def pads_when_the_model_asks_for_it(model, image):
    mode = model.training
    model.eval()
    x = torch.from_numpy(image.astype(np.float32))[None, None].to(next(model.parameters()).device)
    with torch.no_grad():
        try:
            y = model(x)[0]
        except ValueError:
            y = model(torch.nn.functional.pad(x, (0, -image.shape[1] % 16, 0, -image.shape[0] % 16)))[0]
    model.train(mode)
    y = y[:, : image.shape[0], : image.shape[1]]
    y = y.sigmoid() if y.size(0) == 1 else y.softmax(0)
    return (y.cpu() if y.device.type != "cpu" else y).numpy()


def tiles_with_margins(model, image, tile=32, margin=16):
    height, width = image.shape
    training = model.training
    model.eval()
    sides = [(margin, margin + -side % tile) for side in image.shape]
    padded = np.pad(image.astype(np.float32), sides, mode="edge")
    rows = []
    with torch.inference_mode():
        for top in range(0, height, tile):
            row = []
            for left in range(0, width, tile):
                piece = padded[top : top + tile + 2 * margin, left : left + tile + 2 * margin]
                y = model(torch.tensor(piece, device=next(model.parameters()).device)[None, None])[0]
                y = y.sigmoid() if y.shape[0] == 1 else y.softmax(0)
                row.append(y[:, margin:-margin, margin:-margin].cpu().tolist())
            rows.append(np.concatenate(row, axis=2))
    model.train(training)
    return np.concatenate(rows, axis=1)[:, :height, :width].astype("float32")


def pads_by_numpy(mode, **options):
    def prepare(image):
        return np.pad(image, [(0, -side % 16) for side in image.shape], mode=mode, **options).astype("f4"), image.shape

    return prepare


def pads(image, multiple=16):
    return pad_to_multiple(image.astype(np.float32), multiple)


def variant(
    prepare=pads, enter=torch.nn.Module.eval, leave=torch.nn.Module.train, gradients=False, activation=None,
    finish=lambda probability, height, width: probability[:, :height, :width].numpy(),
    move=lambda model, x: x.to(next(model.parameters()).device), back=torch.Tensor.cpu,
):  # fmt: skip
    """`predict`, with one step exchanged."""

    def solution(model, image):
        before, _ = model.training, enter(model)
        padded, (height, width) = prepare(image)
        x = move(model, torch.from_numpy(np.ascontiguousarray(padded))[None, None])
        with torch.set_grad_enabled(gradients):
            logits = model(x)[0]
        leave(model, before)
        standard = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=0)
        return finish(back((activation(logits) if activation else standard).detach()), height, width)

    return solution


def top_only(model, training=False):
    model.training = training


def nothing(*_arguments):
    pass


def crop_first(image):
    height, width = image.shape[0] // 16 * 16, image.shape[1] // 16 * 16
    return (image[:height, :width] if height and width else np.zeros((16, 16))).astype(np.float32), (height, width)


def with_batch_axis(probability, height, width):
    return probability[None, :, :height, :width].numpy()


def with_slices_from_the_end(probability, height, width):
    bottom, side = -height % 16, -width % 16
    return probability[:, :-bottom, :-side].numpy()


def moves_to_the_cpu(model, x):
    model.to("cpu")
    return x


def as_half(model, x):
    model.half()
    return x.half()


def pads_at_the_top(image):
    return np.pad(image, [(-side % 16, 0) for side in image.shape], mode="edge").astype(np.float32), image.shape


def scale(image):
    padded, size = pad_to_multiple(image.astype(np.float32))
    return (padded - padded.mean()) / (padded.std() + 1e-6), size


def stretch(image):
    shape = image.shape[0] + -image.shape[0] % 16, image.shape[1] + -image.shape[1] % 16
    return resize(image.astype(np.float32), shape, order=0).astype(np.float32), image.shape


def crop_and_fill(model, image):
    result = variant(crop_first)(model, image)
    rest = image.shape[0] - result.shape[1], image.shape[1] - result.shape[2]
    return np.pad(result, ((0, 0), (0, rest[0]), (0, rest[1])))


def switches_gradients_off_for_good(model, image):
    torch.set_grad_enabled(False)
    return predict(model, image)


def changes_the_image(model, image):
    image -= image.mean()
    return predict(model, image)


def window_by_window(model, image):
    padded, (height, width) = pad_to_multiple(image)
    rows = [
        np.concatenate([predict(model, padded[y : y + 16, x : x + 16]) for x in range(0, padded.shape[1], 16)], axis=2)
        for y in range(0, padded.shape[0], 16)
    ]
    return np.concatenate(rows, axis=1)[:, :height, :width]


def reflects_by_torch(model, image):
    x = torch.tensor(image, dtype=torch.float32)[None, None].to(next(model.parameters()).device)
    x = torch.nn.functional.pad(x, (0, -x.shape[3] % 16, 0, -x.shape[2] % 16), mode="reflect")
    return predict(model, x[0, 0].numpy())[:, : image.shape[0], : image.shape[1]]


WRONG_PREDICT = {
    "pads at the top": (variant(pads_at_the_top), r"^Value of the result .*shifted by 12 rows and 11 columns"),
    "upside down": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy()[:, ::-1]), r"^Value .*rows are upside down"),
    "rounds": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy().round(1)), r"^Value .*rounded"),
    "channels last": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy().transpose(1, 2, 0)), r"^Shape .*Channels fi"),
    "percent": (variant(finish=lambda p, h, w: (100 * p[:, :h, :w].numpy()).astype(np.uint8)), r"^dtype .*not scaled"),
    "logarithms": (variant(activation=lambda y: y.sigmoid() if len(y) == 1 else y.log_softmax(0)),
                   r"^Range .*not log_softmax"),
    "a pair": (lambda model, image: (predict(model, image), image.shape), r"^Type .*found tuple.*alone"),
    "crops the image": (variant(crop_first), r"^Shape of the result .* Pad the image instead of cropping"),
    "crops, then fills with zeros": (crop_and_fill, r"^Value of the result"),
    "does not pad": (variant(lambda i: (i.astype(np.float32), i.shape)), r"^Shape of the tensor .*divisible by 16"),
    "pads to multiples of 8": (variant(lambda image: pads(image, 8)), r"^Shape of the tensor"),
    "leaves the padding": (variant(finish=lambda p, h, w: p.numpy()), r"^Shape of .*Cut the padding off"),
    "slices to minus zero": (variant(finish=with_slices_from_the_end), r"^Shape of the result .* -0 is empty"),
    "keeps the batch axis": (variant(finish=with_batch_axis), r"^Shape of the result .*batch axis"),
    "drops the channel axis": (variant(finish=lambda p, h, w: p[0, :h, :w].numpy()), r"^Shape of .*channel axis"),
    "transposes": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy().transpose(0, 2, 1)), r"^Shape of .*Height"),
    "cuts at the wrong end": (variant(finish=lambda p, h, w: p[:, -h:, -w:].numpy()), r"^Value of the result"),
    "returns a tensor": (variant(finish=lambda p, h, w: p[:, :h, :w]), r"^Type of the result: found Tensor"),
    "returns float64": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy().astype(float)), r"^dtype of .*float64"),
    "returns a mask": (variant(finish=lambda p, h, w: p[:, :h, :w].numpy() > 0.5), r"^dtype of the result .*bool"),
    "feeds float64": (variant(pad_to_multiple), r"^dtype of the tensor that reaches the model: found torch.float64"),
    "returns logits": (variant(activation=lambda y: y), r"^Range of the result .*expected 0 to 1.*logits"),
    "takes the sigmoid of all channels": (variant(activation=torch.sigmoid), r"^Sum over the channels"),
    "takes the softmax of one channel": (variant(activation=lambda y: y.softmax(0)), r"^Value of .*one channel"),
    "takes the softmax over rows": (variant(activation=lambda y: y.sigmoid() if len(y) == 1 else y.softmax(1)),
                                    r"^Sum over the channels"),
    "activates twice": (variant(activation=lambda y: y.sigmoid().sigmoid()), r"^Value of the result .*one sigmoid"),
    "stays in training mode": (variant(enter=nothing, leave=nothing), r"^Mode of the model while"),
    "switches the top only": (variant(enter=top_only, leave=top_only), r"^Mode of the model while"),
    "leaves evaluation mode": (lambda model, image: predict(model.eval(), image), r"^Mode of .* afterwards: found ev"),
    "ends in training mode": (variant(leave=lambda model, before: model.train()), r"^Mode of .*afterw"),
    "records gradients": (variant(gradients=True), r"^Gradients: found recorded"),
    "switches gradients off": (switches_gradients_off_for_good, r"^Torch's gradient mode afterwards"),
    "freezes the model": (variant(enter=lambda model: model.eval().requires_grad_(False)),
                          r"^Mutation of the model: .*requires_grad"),
    "changes the image": (changes_the_image, r"^Mutation: your code changed its argument image"),
    "converts the model": (variant(move=as_half), r"^(Mutation of the model|dtype of the result)"),
    "normalises again": (variant(scale), r"^Value of the result .*normalised"),
    "resizes": (variant(stretch), r"^Value of the result .*resized"),
    "predicts window by window": (window_by_window, r"^Value of the probabilities of a 3x3"),
    "forgets the device": (variant(move=lambda model, x: x), r"^Device.*found the tensor on the CPU"),
    "moves the model": (variant(move=moves_to_the_cpu), r"^Device.*found the model moved"),
    "does not bring the result back": (variant(back=lambda probability: probability), r"^Device of the result"),
    "reflects short sides by torch": (reflects_by_torch, r"^Error: your code raised RuntimeError.*[Pp]adding"),
}  # fmt: skip


# 4.2 connected_components


def by_scipy(probability, threshold=0.5, structure=None):
    return ndimage.label(probability > threshold, structure)[0]


def four_neighbours_and_gaps(probability, threshold=0.5):
    return label(probability >= threshold, connectivity=1).astype(np.uint16) * 5


def by_flood_fill(probability, threshold=0.5):
    waiting = {tuple(place) for place in np.argwhere(probability > threshold).tolist()}
    labels, id_ = np.zeros(probability.shape, dtype=int), 0
    while waiting:
        id_ += 1
        stack = [waiting.pop()]
        while stack:
            y, x = stack.pop()
            labels[y, x] = id_
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if place in waiting:
                    waiting.remove(place)
                    stack.append(place)
    return labels


def by_spreading_the_largest_number(probability, threshold=0.5):
    above = probability > threshold
    labels = np.where(above, np.arange(1, above.size + 1).reshape(above.shape), 0)
    while True:
        spread = np.where(above, ndimage.maximum_filter(labels, footprint=np.ones((3, 3))), 0)
        if (spread == labels).all():
            return labels
        labels = spread


def by_a_graph(probability, threshold=0.5):
    above = probability > threshold
    number = np.arange(above.size).reshape(above.shape)
    across, down = above[:, :-1] & above[:, 1:], above[:-1] & above[1:]
    starts = np.concatenate([number[:, :-1][across], number[:-1][down]])
    ends = np.concatenate([number[:, 1:][across], number[1:][down]])
    graph = coo_array((np.ones(len(starts)), (starts, ends)), shape=(above.size, above.size))
    return np.where(above, csgraph_components(graph, directed=False)[1].reshape(above.shape) + 1, 0)


def only_probabilities(probability, threshold=0.5):
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError("these are not probabilities")
    return label(np.clip(probability, 0, 1) > threshold)


def zeroes_the_rest(probability, threshold=0.5):
    probability[probability <= threshold] = 0
    return label(probability > 0)


def joined_to_the_right_only(probability, threshold=0.5):
    above = probability > threshold
    starts = above & ~np.pad(above, ((0, 0), (1, 0)))[:, :-1]
    return np.where(above, np.cumsum(starts).reshape(above.shape), 0)


WRONG_COMPONENTS = {
    "returns the pair of scipy": (lambda p, threshold=0.5: ndimage.label(p > threshold), r"^Type of .*found tuple"),
    "returns a list": (lambda p, threshold=0.5: label(p > threshold).tolist(), r"^Type of .*found list"),
    "returns the mask": (lambda p, threshold=0.5: p > threshold, r"^dtype of .*bool.*not yet labelled"),
    "returns the mask as integers": (lambda p, threshold=0.5: (p > threshold).astype(int), r"^Number of .*share"),
    "labels probabilities": (lambda p, threshold=0.5: label(p * (p > threshold)), r"^Value .*result of a comparison"),
    "returns floats": (lambda p, threshold=0.5: label(p > threshold).astype(float), r"^dtype of .*float64"),
    "ignores the threshold": (lambda p, threshold=0.5: label(p > 0.5), r"^Value at .*threshold 0.3.*Use the"),
    "another default": (lambda p, threshold=0.3: label(p > threshold), r"^Value at .*the default threshold"),
    "no default": (lambda p, threshold: label(p > threshold), r"^Error.*TypeError.*threshold"),
    "below instead of above": (lambda p, threshold=0.5: label(p < threshold), r"^Value at .*not those below"),
    "labels the probabilities": (lambda p, threshold=0.5: label((p * 255).astype(np.uint8)), r"^Value at .*is below"),
    "drops small components": (lambda p, threshold=0.5: label(remove_small_objects(p > threshold, 2)),
                               r"^Value at .*single"),
    "fills holes": (lambda p, threshold=0.5: label(ndimage.binary_fill_holes(p > threshold)), r"^Value at .*holes"),
    "smooths first": (lambda p, threshold=0.5: label(ndimage.gaussian_filter(p, 1) > threshold), r"^Value at "),
    "a threshold a little higher": (lambda p, threshold=0.5: label(p > threshold + 1e-3),
                                    r"^Value at .*0.5004 is above .*the id"),
    "a threshold a little lower": (lambda p, threshold=0.5: label(p > threshold - 1e-3),
                                   r"^Value at .*0.4996 is below .*expected 0"),
    "rounds first": (lambda p, threshold=0.5: label(p.round(2) > threshold), r"^Value at \(14, 12\)"),
    "ids in a byte": (lambda p, threshold=0.5: label(p > threshold).astype(np.uint8), r"^(Value|Number) .*many single"),
    "background is -1": (lambda p, threshold=0.5: label(p > threshold) - 1, r"^Range of .*-1"),
    "changes its argument": (zeroes_the_rest, r"^Mutation: your code changed its argument probability"),
    "adds an axis": (lambda p, threshold=0.5: label(p > threshold)[None], r"^Shape of"),
    "joins along rows only": (joined_to_the_right_only, r"^Ids inside one connected region .*expected a single one"),
    "joins some diagonals": (
        lambda p, threshold=0.5: ndimage.label(p > threshold, [[1, 1, 0], [1, 1, 1], [0, 1, 1]])[0],
        r"^Number of .*diagonal"),
}  # fmt: skip


# 4.3 iou_matrix


def same_shape(prediction, truth):
    if prediction.shape != truth.shape:
        raise ValueError(f"shapes {prediction.shape} and {truth.shape}")


def ids_of(labels):
    return [int(i) for i in np.unique(labels) if i != 0]


def by_pairs(measure, pred_ids=ids_of, true_ids=ids_of, dtype=float, checked=True):
    """A loop over all pairs, with the measure and the ids exchanged."""

    def solution(prediction, truth):
        if checked:
            same_shape(prediction, truth)
        rows, columns = pred_ids(prediction), true_ids(truth)
        result = np.zeros((len(rows), len(columns)), dtype=dtype)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                result[i, j] = measure(prediction == row, truth == column)
        return result

    return solution


def iou_of(a, b):
    return np.sum(a & b) / np.sum(a | b)


def by_pandas(prediction, truth):
    same_shape(prediction, truth)
    table = pd.crosstab(prediction.ravel(), truth.ravel())
    union = table.sum(axis=1).to_numpy()[:, None] + table.sum(axis=0).to_numpy()[None] - table
    iou = (table / union).drop(index=0, errors="ignore").drop(columns=0, errors="ignore")
    return iou.to_numpy(dtype=float)


def by_counting_pixels(prediction, truth):
    same_shape(prediction, truth)
    pairs = Counter(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    areas = Counter(prediction.ravel().tolist()), Counter(truth.ravel().tolist())
    rows, columns = (sorted(i for i in area if i) for area in areas)
    values = [pairs[i, j] / (areas[0][i] + areas[1][j] - pairs[i, j]) for i in rows for j in columns]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(columns))


def by_relabelling(prediction, truth):
    same_shape(prediction, truth)
    p, t = (
        torch.from_numpy(np.asarray(relabel_sequential(labels)[0]).astype(np.int64)) for labels in (prediction, truth)
    )
    p, t = (torch.nn.functional.one_hot(labels.ravel())[:, 1:].double() for labels in (p, t))
    shared = p.T @ t
    return (shared / (p.sum(0)[:, None] + t.sum(0)[None] - shared)).numpy()


def by_broadcasting(prediction, truth):
    same_shape(prediction, truth)
    a = prediction[None, None] == np.array(ids_of(prediction), prediction.dtype)[:, None, None, None]
    b = truth[None, None] == np.array(ids_of(truth), truth.dtype)[None, :, None, None]
    return (a & b).sum((2, 3)) / (a | b).sum((2, 3))


def by_a_sparse_matrix(prediction, truth):
    same_shape(prediction, truth)
    (pred_ids, rows), (true_ids, columns) = (np.unique(x, return_inverse=True) for x in (prediction, truth))
    shape = len(pred_ids), len(true_ids)
    shared = coo_array((np.ones(prediction.size), (rows.ravel(), columns.ravel())), shape=shape).toarray()
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return (shared / union)[np.ix_(pred_ids != 0, true_ids != 0)]


def by_a_histogram(prediction, truth):
    same_shape(prediction, truth)
    (pred_ids, rows), (true_ids, columns) = (np.unique(x, return_inverse=True) for x in (prediction, truth))
    edges = np.arange(len(pred_ids) + 1), np.arange(len(true_ids) + 1)
    shared = np.histogram2d(rows.ravel(), columns.ravel(), bins=edges)[0].astype(np.float32)
    return (shared / (shared.sum(1)[:, None] + shared.sum(0) - shared))[pred_ids > 0][:, true_ids > 0]


def counting_in(dtype, index_dtype=np.int64):
    """Right, if the types have room for numbers of pixels and of pairs."""

    def solution(prediction, truth):
        same_shape(prediction, truth)
        (pred_ids, rows), (true_ids, columns) = (np.unique(x, return_inverse=True) for x in (prediction, truth))
        n_pred, n_true = len(pred_ids), len(true_ids)
        pair = rows.ravel().astype(index_dtype) * index_dtype(n_true) + columns.ravel().astype(index_dtype)
        shared = np.bincount(pair, minlength=n_pred * n_true)[: n_pred * n_true].reshape(n_pred, n_true).astype(dtype)
        union = shared.sum(1, keepdims=True, dtype=dtype) + shared.sum(0, dtype=dtype) - shared
        return (shared / union)[pred_ids != 0][:, true_ids != 0].astype(float)

    return solution


def counts_up_to_the_largest(prediction, truth):
    """Right, and slow where an id is large."""
    same_shape(prediction, truth)
    rows, columns = ([i for i in range(1, int(x.max()) + 1) if (x == i).any()] for x in (prediction, truth))
    return by_pairs(iou_of, lambda _: rows, lambda _: columns)(prediction, truth)


def up_to_the_largest(labels):
    return range(1, int(labels.max()) + 1)


def with_a_dense_table(prediction, truth):
    same_shape(prediction, truth)
    size = int(truth.max()) + 1
    table = np.bincount(
        prediction.ravel().astype(np.int64) * size + truth.ravel(), minlength=size * (int(prediction.max()) + 1)
    ).reshape(-1, size)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    rows, columns = np.array(ids_of(prediction), int), np.array(ids_of(truth), int)
    return (table / np.maximum(union, 1))[rows][:, columns]


def with_a_lookup_table(prediction, truth):
    def number(labels):
        ids = np.unique(labels)
        table = np.zeros(int(ids.max()) + 1, dtype=np.int64)
        table[ids] = np.arange(len(ids)) + (0 not in ids)
        return table[labels]

    return iou_matrix(number(prediction), number(truth))


def with_overflowing_pairs(prediction, truth):
    same_shape(prediction, truth)
    factor = truth.max() + np.ones((), truth.dtype)
    codes, counts = np.unique(prediction * factor + truth, return_counts=True)
    shared = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    rows, columns = ids_of(prediction), ids_of(truth)
    result = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            both = shared.get(row * int(factor) + column, 0)
            result[i, j] = both / (np.sum(prediction == row) + np.sum(truth == column) - both)
    return result


def in_order_of_appearance(labels):
    return [int(i) for i in dict.fromkeys(labels.ravel().tolist()) if i]


def sorted_as_text(labels):
    return sorted(ids_of(labels), key=str)


def relabels_in_place(prediction, truth):
    result = iou_matrix(prediction, truth)
    for number, id_ in enumerate(ids_of(truth), start=1):
        truth[truth == id_] = number
    return result


def broadcasts(prediction, truth):
    if prediction.size != truth.size:
        prediction, truth = np.broadcast_arrays(prediction, truth)
    return iou_matrix(prediction.reshape(-1, 1), truth.reshape(-1, 1))


def assertion_only(prediction, truth):
    assert prediction.shape == truth.shape
    return iou_matrix(prediction, truth)


def without_union_of_background(prediction, truth):
    inside = (prediction > 0) & (truth > 0)
    return by_pairs(lambda a, b: np.sum(a & b) / max(1, np.sum((a | b) & inside)))(prediction, truth)


WRONG_IOU = {
    "transposed": (lambda p, t: iou_matrix(p, t).T, r"^Shape of .*found \(6, 4\), expected \(4, 6\).*Rows are pred"),
    "with background": (by_pairs(iou_of, lambda p: np.unique(p).tolist(), lambda t: np.unique(t).tolist()),
                        r"^Shape of .*background"),
    "drops the first id": (by_pairs(iou_of, lambda p: np.unique(p)[1:], lambda t: np.unique(t)[1:]),
                           r"^Shape of .*without background"),
    "up to the largest id": (by_pairs(lambda a, b: 0, up_to_the_largest, up_to_the_largest), r"^Shape of .*have gaps"),
    "dense table": (with_a_dense_table, r"^Memory .* 2000.*MB"),
    "lookup table": (with_a_lookup_table, r"^Memory .* 1000000.*MB"),
    "ids as float32": (lambda p, t: iou_matrix(*(labels.astype(np.float32).astype(np.int64) for labels in (p, t))),
                       r"^Shape of .*float32"),
    "ids as uint8": (lambda p, t: iou_matrix(p.astype(np.uint8), t.astype(np.uint8)), r"^Shape .* up to 257: .*uint8"),
    "ids as uint16": (lambda p, t: iou_matrix(p.astype(np.uint16), t.astype(np.uint16)),
                      r"^Shape .* up to 65537: .*uint16"),
    "pixels counted in 16 bits": (counting_in(np.uint16), r"^Value .*70000 pixels.*larger than 65535"),
    "pixels counted in the type of the ids": (lambda p, t: counting_in(p.dtype.type)(p, t), r"^Value .*70000 pixels"),
    "pairs counted in a byte": (counting_in(np.int64, np.uint8), r"^Value .*300 predictions.*into a byte"),
    "counts up to the largest id": (counts_up_to_the_largest,
                                    r"^Time: .*processor time. The largest id was 1000001"),
    "one minus": (lambda p, t: 1 - iou_matrix(p, t), r"^Value of .*a distance"),
    "one axis if empty": (after(iou_matrix, lambda iou: iou if iou.size else np.array([])),
                          r"^Shape .*an empty prediction.*two axes"),
    "ids as int32": (lambda p, t: iou_matrix(p.astype(np.int32), t.astype(np.int32)), r"^Shape .* up to 1099511627777"),
    "product of ids overflows": (with_overflowing_pairs, r"^Value of the matrix for"),
    "Dice": (by_pairs(lambda a, b: 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))), r"^Value of .*another measure: Dice"),
    "over the prediction": (by_pairs(lambda a, b: np.sum(a & b) / np.sum(a)), r"^Value of .*area of the pred"),
    "over the truth": (by_pairs(lambda a, b: np.sum(a & b) / np.sum(b)), r"^Value of .*over the area of the nucleus"),
    "counts pixels": (by_pairs(lambda a, b: np.sum(a & b)), r"^Value of .*the intersection in pixels"),
    "forgets to subtract": (by_pairs(lambda a, b: np.sum(a & b) / (np.sum(a) + np.sum(b))), r"^Value of .*sum of"),
    "wrong union": (without_union_of_background, r"^Value of the matrix for ids with gaps"),
    "integers": (by_pairs(iou_of, dtype=int), r"^dtype of .*int64, expected a float"),
    "a list": (lambda p, t: iou_matrix(p, t).tolist(), r"^Type of .*found list, expected ndarray"),
    "order of appearance": (by_pairs(iou_of, in_order_of_appearance, in_order_of_appearance), r"^Value of .*ascending"),
    "order as text": (by_pairs(iou_of, sorted_as_text, sorted_as_text), r"^Value of .*ascending order"),
    "descending order": (lambda p, t: iou_matrix(p, t)[::-1, ::-1], r"^Value of .*ascending order"),
    "relabels in place": (relabels_in_place, r"^Mutation: your code changed its argument truth"),
    "compares sizes only": (broadcasts, r"^Result for the shapes \(4, 6\) and \(6, 4\): found no error, .*ValueError"),
    "broadcasts": (by_pairs(iou_of, checked=False), r"^Result for the shapes \(1, 6\) and \(4, 6\): found no error"),
    "returns the error": (lambda p, t: iou_matrix(p, t) if p.shape == t.shape else ValueError("shapes"),
                          r"^Result for .*as a result.*`raise`"),
    "assert": (assertion_only, r": found AssertionError.*`assert` is not enough"),
    "percent": (lambda p, t: 100 * iou_matrix(p, t), r"^Value of"),
    "rounded": (lambda p, t: iou_matrix(p, t).round(2), r"^Value of"),
    "fails on empty": (
        lambda p, t: np.stack([np.stack([iou_matrix((p == i) * 1, (t == j) * 1)[0, 0] for j in ids_of(t)])
                               for i in ids_of(p)]) if p.shape == t.shape else iou_matrix(p, t),
        r"^Error: .*ValueError: need at least"),
}  # fmt: skip


# 4.4 count_matches


def by_bipartite_matching(iou, iou_threshold=0.5):
    if 0 in iou.shape:
        return 0
    return int(np.sum(maximum_bipartite_matching(csr_array(iou >= iou_threshold)) != -1))


def as_stardist_does(iou, iou_threshold=0.5, **options):
    if min(iou.shape) == 0 or not np.any(iou >= iou_threshold):
        return 0
    costs = -(iou >= iou_threshold).astype(float) - iou / (2 * min(iou.shape))
    rows, columns = linear_sum_assignment(costs)
    return int(np.count_nonzero(iou[rows, columns] >= iou_threshold))


def by_augmenting_paths(iou, iou_threshold=0.5):
    partner = {}

    def augment(row, seen):
        for column in np.flatnonzero(iou[row] >= iou_threshold).tolist():
            if column not in seen:
                seen.add(column)
                if column not in partner or augment(partner[column], seen):
                    partner[column] = row
                    return True
        return False

    return len([row for row in range(len(iou)) if augment(row, set())])


def greedy_by_value(iou, iou_threshold=0.5):
    heap = [(-value, *place) for place, value in np.ndenumerate(iou) if value >= iou_threshold]
    heapq.heapify(heap)
    rows, columns = set(), set()
    while heap:
        _, row, column = heapq.heappop(heap)
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    return len(rows)


def greedy_by_row(iou, iou_threshold=0.5):
    used = set()
    for row in iou:
        free = [j for j in np.flatnonzero(row >= iou_threshold).tolist() if j not in used]
        used.update(free[:1])
    return len(used)


def greedy_by_best_in_row(iou, iou_threshold=0.5):
    used = set()
    for row in iou:
        if row.size and row.max() >= iou_threshold:
            used.add(int(row.argmax()))
    return len(used)


def largest_sum(iou, iou_threshold=0.5):
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return int(np.sum(iou[rows, columns] >= iou_threshold))


def largest_valid_sum(iou, iou_threshold=0.5):
    return largest_sum(np.where(iou >= iou_threshold, iou, 0), max(iou_threshold, 1e-9))


def smallest_sum(iou, iou_threshold=0.5):
    rows, columns = linear_sum_assignment(iou)
    return int(np.sum(iou[rows, columns] >= iou_threshold))


def rows_and_columns(iou, iou_threshold=0.5):
    possible = iou >= iou_threshold
    return int(min(possible.any(axis=0).sum(), possible.any(axis=1).sum()))


def forbids_pairs(iou, iou_threshold=0.5):
    rows, columns = linear_sum_assignment(np.where(iou >= iou_threshold, 0.0, np.inf))
    return len(rows)


def zeroes_in_place(iou, iou_threshold=0.5):
    iou[iou < iou_threshold] = 0
    return count_matches(iou, iou_threshold)


def every_permutation(iou, iou_threshold=0.5):
    """Right in principle, but it does not end for an image of the course."""
    from itertools import permutations

    if len(iou) > iou.shape[1]:
        iou = iou.T
    orders = permutations(range(iou.shape[1]), len(iou))
    return max(sum(bool(iou[i, j] >= iou_threshold) for i, j in enumerate(order)) for order in orders)


def without_maximize(iou, iou_threshold=0.5):
    possible = iou >= iou_threshold
    return int(possible[linear_sum_assignment(possible)].sum())


def by_networkx(iou, iou_threshold=0.5):
    graph = networkx.Graph()
    graph.add_edges_from(
        (("row", i), ("column", j)) for i, j in zip(*np.nonzero(iou >= iou_threshold), strict=True)
    )
    return len(networkx.max_weight_matching(graph, maxcardinality=True))


def by_flow(iou, iou_threshold=0.5):
    n_rows, n_columns = iou.shape
    capacity = np.zeros((n_rows + n_columns + 2,) * 2, dtype=np.int32)
    capacity[0, 1 : n_rows + 1] = capacity[n_rows + 1 : -1, -1] = 1
    capacity[1 : n_rows + 1, n_rows + 1 : -1] = iou >= iou_threshold
    return maximum_flow(csr_array(capacity), 0, n_rows + n_columns + 1).flow_value


def by_costs(iou, iou_threshold=0.5):
    costs = 1 - (iou >= iou_threshold)
    return np.count_nonzero(costs[linear_sum_assignment(costs)] == 0)


WRONG_MATCHES = {
    "in a byte": (after(count_matches, lambda number: np.uint8(number % 256)), r"^Value .*300 pairs: found 44.*byte"),
    "without maximize": (without_maximize, r"^Value .*clear case.*maximize=True"),
    "all assigned pairs": (lambda iou, iou_threshold=0.5: min(iou.shape), r"^Value .*below the threshold: do"),
    "without maximize by chance": (lambda iou, iou_threshold=0.5: 0 if iou.shape == (3, 3) else len(iou),
                                   r"^Value .*clear case.*Count the pairs with an IoU"),
    "the diagonal": (lambda iou, iou_threshold=0.5: int((np.diagonal(iou) >= iou_threshold).sum()),
                     r"^Value .*contested.*diagonal"),
    "a bool": (lambda iou, iou_threshold=0.5: bool(count_matches(iou, iou_threshold)), r"^Type of .*found bool"),
    "an array": (after(count_matches, np.array), r"^Type of .*found ndarray, expected int"),
    "a tensor": (after(count_matches, torch.tensor), r"^Type of .*found Tensor, expected int"),
    "NumPy's float": (after(count_matches, np.float64), r"^Type of .*found float64, expected int"),
    "a float": (after(count_matches, float), r"^Type of .*float, expected int"),
    "the pairs": (lambda iou, iou_threshold=0.5: np.argwhere(iou >= iou_threshold).tolist(), r"^Type of .*found list"),
    "greater instead of at least": (lambda iou, iou_threshold=0.5: count_matches(iou, np.nextafter(iou_threshold, 1)),
                                    r"^Value of .*exactly at"),
    "ignores the threshold": (lambda iou, iou_threshold=0.5: count_matches(iou), r"^Value .*at 0.7.*iou_threshold"),
    "another default": (lambda iou, iou_threshold=0.1: count_matches(iou, iou_threshold), r"^Value .*default"),
    "counts the entries": (lambda iou, iou_threshold=0.5: int((iou >= iou_threshold).sum()), r"^Value .*halves"),
    "counts the rows": (lambda iou, iou_threshold=0.5: int((iou >= iou_threshold).any(axis=1).sum()),
                        r"^Value .*halves"),
    "counts the columns": (lambda iou, iou_threshold=0.5: int((iou >= iou_threshold).any(axis=0).sum()),
                           r"^Value .*two nuclei"),
    "the smaller of both": (rows_and_columns, r"^Value .*matrix \(|^Value .*want one nucleus.*One to one"),
    "greedy by value": (greedy_by_value, r"^Value .*contested.*best assignment"),
    "greedy by row": (greedy_by_row, r"^Value .*found 1, expected 2.*best assignment"),
    "best of each row": (greedy_by_best_in_row, r"^Value .*found 1, expected 2.*Each row takes its largest"),
    "largest sum of IoU": (largest_sum, r"^Value .*larger sum.*found 1, expected 2.*not the sum"),
    "largest sum above the threshold": (largest_valid_sum, r"^Value .*larger sum.*not the sum"),
    "smallest sum": (smallest_sum, r"^Value .*clear"),
    "forbids pairs": (forbids_pairs, r"^Error: your code raised ValueError: cost matrix is infeasible"),
    "below the threshold": (lambda iou, iou_threshold=0.5: count_matches(1 - iou, iou_threshold), r"^Value .*clear"),
    "changes its argument": (zeroes_in_place, r"^Mutation: your code changed its argument iou"),
    "square only": (
        lambda iou, iou_threshold=0.5: max(
            sum(iou[i, (i + s) % len(iou)] >= iou_threshold for i in range(len(iou))) for s in range(len(iou))).item(),
        r"^(Value|Error|Type)"),
    "fails on empty": (lambda iou, iou_threshold=0.5: count_matches(iou, iou_threshold) if iou.max() > 0 else 0,
                       r"^Error: .*ValueError: zero-size"),
    "every permutation": (every_permutation, r"^Time: your code was stopped"),
}  # fmt: skip


# 4.5 f1_score


def counts(prediction, truth, iou_threshold=0.5):
    """TP, FP, FN."""
    iou = iou_matrix(prediction, truth)
    found = count_matches(iou, iou_threshold)
    return found, iou.shape[0] - found, iou.shape[1] - found


def from_counts(prediction, truth, iou_threshold=0.5):
    tp, fp, fn = counts(prediction, truth, iou_threshold)
    return 1.0 if tp + fp + fn == 0 else tp / (tp + 0.5 * (fp + fn))


def harmonic_mean(prediction, truth, iou_threshold=0.5):
    tp, fp, fn = counts(prediction, truth, iou_threshold)
    if not prediction.any() and not truth.any():
        return 1
    if tp == 0:
        return 0
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return np.float64(2 / (1 / precision + 1 / recall))


def by_match_instances(prediction, truth, iou_threshold=0.5):
    return match_instances(prediction, truth, [iou_threshold])[0].f1


def from_formula(formula, **options):
    def solution(prediction, truth, iou_threshold=0.5):
        if not prediction.any() and not truth.any():
            return 1.0
        return float(formula(*counts(prediction, truth, options.get("iou_threshold", iou_threshold))))

    return solution


def f1_of(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn)


def pixel_dice(prediction, truth, iou_threshold=0.5):
    if not prediction.any() and not truth.any():
        return 1.0
    return float(2 * ((prediction > 0) & (truth > 0)).sum() / ((prediction > 0).sum() + (truth > 0).sum()))


def pixel_iou(prediction, truth, iou_threshold=0.5):
    return float(((prediction > 0) & (truth > 0)).sum() / ((prediction > 0) | (truth > 0)).sum())


def by_largest_id(prediction, truth, iou_threshold=0.5):
    tp = counts(prediction, truth, iou_threshold)[0]
    total = int(prediction.max()) + int(truth.max())
    return 2 * tp / total if total else 1.0


def by_equal_ids(prediction, truth, iou_threshold=0.5):
    ids = set(ids_of(prediction)) & set(ids_of(truth))
    tp = sum(iou_of(prediction == i, truth == i) >= iou_threshold for i in ids)
    total = len(ids_of(prediction)) + len(ids_of(truth))
    return float(2 * tp / total) if total else 1.0


def by_counting_entries(prediction, truth, iou_threshold=0.5):
    iou = iou_matrix(prediction, truth)
    return float(2 * (iou >= iou_threshold).sum() / sum(iou.shape)) if sum(iou.shape) else 1.0


def by_largest_sum(prediction, truth, iou_threshold=0.5):
    iou = iou_matrix(prediction, truth)
    return 2 * largest_sum(iou, iou_threshold) / sum(iou.shape) if sum(iou.shape) else 1.0


def by_rows_and_columns(prediction, truth, iou_threshold=0.5):
    iou = iou_matrix(prediction, truth)
    return 2 * rows_and_columns(iou, iou_threshold) / sum(iou.shape) if sum(iou.shape) else 1.0


def with_background(prediction, truth, iou_threshold=0.5):
    return f1_score(prediction + 1, truth + 1, iou_threshold)


def relabels_its_arguments(prediction, truth, iou_threshold=0.5):
    prediction[prediction > 0] += 1
    return f1_score(prediction, truth, iou_threshold)


def ravels(prediction, truth, iou_threshold=0.5):
    return f1_score(prediction.reshape(1, -1), truth.reshape(1, -1), iou_threshold)


def on_one_shape(prediction, truth, iou_threshold=0.5):
    return f1_score(*np.broadcast_arrays(prediction, truth), iou_threshold)


def not_equal():
    raise AssertionError("the shapes differ")


def by_best_iou(prediction, truth, iou_threshold=0.5):
    iou = iou_matrix(prediction, truth)
    return float(iou.max(axis=1).mean()) if iou.size else float(iou.shape == (0, 0))


WRONG_F1 = {
    "no factor 2 below": (from_formula(lambda tp, fp, fn: 2 * tp / (tp + fp + fn)), r"^Value .*2 below the line"),
    "mean IoU": (by_best_iou, r"^Value .*the mean IoU"),
    "the value of precision by chance": (
        lambda p, t, iou_threshold=0.5: 0.75 if p.max() == 38 else f1_score(p, t, iou_threshold),
        r"^Value .*Count TP, FP and FN"),
    "ids in a byte": (lambda p, t, iou_threshold=0.5: f1_score(p.astype(np.uint8), t.astype(np.uint8), iou_threshold),
                      r"^Value .*300 predictions"),
    "ids in 16 bits": (lambda p, t, iou_threshold=0.5: f1_score(p.astype("u2"), t.astype("u2"), iou_threshold),
                       r"^Value .*ids up to 16777217.*uint16"),
    "an array without axes": (after(f1_score, np.array), r"^Type of .*found ndarray, expected float.*NumPy's ndarray"),
    "assert": (lambda p, t, iou_threshold=0.5: f1_score(p, t, iou_threshold) if p.shape == t.shape else not_equal(),
               r"^Result for the shapes .*AssertionError.*`assert` is not enough"),
    "precision": (from_formula(lambda tp, fp, fn: tp / (tp + fp)), r"^Value .*That is precision"),
    "recall": (from_formula(lambda tp, fp, fn: tp / (tp + fn)), r"^Value .*That is recall"),
    "average precision": (from_formula(lambda tp, fp, fn: tp / (tp + fp + fn)), r"^Value .*That is average precision"),
    "no factor 2": (from_formula(lambda tp, fp, fn: tp / (2 * tp + fp + fn)), r"^Value .*a factor 2 is missing"),
    "number of matches": (from_formula(lambda tp, fp, fn: tp), r"^Value .*the number of matches"),
    "arithmetic mean": (from_formula(lambda tp, fp, fn: (tp / (tp + fp) + tp / (tp + fn)) / 2), r"^Value .*mean of"),
    "Dice of the pixels": (pixel_dice, r"^Value .*the Dice of the pixels"),
    "IoU of the pixels": (pixel_iou, r"^Value .*the IoU of the pixels"),
    "largest id": (by_largest_id, r"^Value .*the largest id"),
    "background as an instance": (with_background, r"^Value .*background as an instance"),
    "equal ids": (by_equal_ids, r"^Value of f1_score for 3 matches"),
    "ignores iou_threshold": (from_formula(f1_of, iou_threshold=0.5), r"^Value .*at iou_threshold=0.6.*Pass iou"),
    "another default": (lambda p, t, iou_threshold=0.6: f1_score(p, t, iou_threshold), r"^Value .*default"),
    "greater instead of at least": (lambda p, t, iou_threshold=0.5: f1_score(p, t, np.nextafter(iou_threshold, 1)),
                                    r"^Value .*exactly"),
    "counts entries": (by_counting_entries, r"^Value .*two halves.*one to one"),
    "the smaller of both": (by_rows_and_columns, r"^Value .*beside two nuclei.*one to one"),
    "largest sum": (by_largest_sum, r"^Value .*contested.*count_matches"),
    "empty is 0": (lambda p, t, iou_threshold=0.5: f1_score(p, t, iou_threshold) if p.any() or t.any() else 0.0,
                   r"^Value .*two empty .*found 0.0"),
    "one empty is 1": (lambda p, t, iou_threshold=0.5: f1_score(p, t, iou_threshold) if p.any() and t.any() else 1.0,
                       r"^Value .*an empty .*found 1.0"),
    "nan for empty": (
        lambda p, t, iou_threshold=0.5: float(
            np.float64(2 * counts(p, t, iou_threshold)[0]) / sum(iou_matrix(p, t).shape)),
        r"^Value .*two empty .*nan"),
    "divides by zero": (lambda p, t, iou_threshold=0.5: f1_of(*counts(p, t, iou_threshold)), r"^Error: .*ZeroDivision"),
    "a tensor": (after(f1_score, torch.tensor), r"^Type of .*Tensor, expected float"),
    "float32": (after(f1_score, np.float32), r"^Type of .*float32, expected float"),
    "percent": (after(f1_score, lambda score: 100 * score), r"^Value .*found 54.5"),
    "changes its arguments": (relabels_its_arguments, r"^Mutation: your code changed its argument prediction"),
    "ravels": (ravels, r"^Result for the shapes \(4, 6\) and \(6, 4\): found no error"),
    "broadcasts": (on_one_shape, r"^Result for the shapes .*: found no error, expected a ValueError"),
}  # fmt: skip


# 4.6 average_precision


def precisions(prediction, truth, iou_thresholds, formula=lambda tp, fp, fn: tp / (tp + fp + fn)):
    """The overlaps once, then a formula of the counts at each threshold."""
    iou = iou_matrix(prediction, truth)
    matches = [count_matches(iou, iou_threshold) for iou_threshold in iou_thresholds]
    if sum(iou.shape) == 0:
        return [1.0] * len(iou_thresholds)
    return [formula(found, iou.shape[0] - found, iou.shape[1] - found) for found in matches]


def from_scores(formula, **options):
    return lambda prediction, truth, iou_thresholds: precisions(prediction, truth, iou_thresholds, formula, **options)


def jaccard_of_sets(prediction, truth, iou_thresholds):
    """Without matrix and matching: sets of pixels, and a search for the largest matching."""
    same_shape(prediction, truth)
    places = [
        {i: {tuple(place) for place in np.argwhere(labels == i).tolist()} for i in ids_of(labels)}
        for labels in (prediction, truth)
    ]
    iou = np.array([[len(a & b) / len(a | b) for b in places[1].values()] for a in places[0].values()])
    scores = []
    for iou_threshold in iou_thresholds:
        found = by_augmenting_paths(iou, iou_threshold)
        total = len(places[0]) + len(places[1]) - found
        scores.append(found / total if total else 1)
    return tuple(scores)


def by_fast_matching(prediction, truth, iou_thresholds):
    return [matches.average_precision for matches in match_instances(prediction, truth, iou_thresholds)]


def from_f1(prediction, truth, iou_thresholds):
    """The right scores, but the overlaps are computed for every threshold."""
    scores = [f1_score(prediction, truth, iou_threshold) for iou_threshold in iou_thresholds]
    return [score / (2 - score) for score in scores]


def overlaps_in_the_loop(prediction, truth, iou_thresholds):
    return [score for iou_threshold in iou_thresholds for score in precisions(prediction, truth, [iou_threshold])]


def at_thresholds(change):
    """The right scores at other thresholds."""
    return lambda prediction, truth, iou_thresholds: average_precision(prediction, truth, change(iou_thresholds))


def sorts_its_argument(prediction, truth, iou_thresholds):
    if isinstance(iou_thresholds, list):
        iou_thresholds.sort()
    return average_precision(prediction, truth, iou_thresholds)


def as_a_dictionary(prediction, truth, iou_thresholds):
    return list(dict(zip(iou_thresholds, average_precision(prediction, truth, iou_thresholds), strict=True)).values())


def ap_with_background(prediction, truth, iou_thresholds):
    return average_precision(prediction + 1, truth + 1, iou_thresholds)


def ap_by_largest_id(prediction, truth, iou_thresholds):
    iou, total = iou_matrix(prediction, truth), int(prediction.max()) + int(truth.max())
    matches = [count_matches(iou, iou_threshold) for iou_threshold in iou_thresholds]
    return [found / (total - found) if total else 1.0 for found in matches]


def ap_by_counting_entries(prediction, truth, iou_thresholds, count=lambda possible: int(possible.sum())):
    iou = iou_matrix(prediction, truth)
    matches = [count(iou >= iou_threshold) for iou_threshold in iou_thresholds]
    return [found / (sum(iou.shape) - found) if sum(iou.shape) else 1.0 for found in matches]


def ap_of_pixels(prediction, truth, iou_thresholds):
    return [pixel_iou(prediction, truth)] * len(iou_thresholds)


def ap_by_largest_sum(prediction, truth, iou_thresholds):
    iou = iou_matrix(prediction, truth)
    matches = [largest_sum(iou, iou_threshold) for iou_threshold in iou_thresholds]
    return [found / (sum(iou.shape) - found) if sum(iou.shape) else 1.0 for found in matches]


def ap_that_ravels(prediction, truth, iou_thresholds):
    return average_precision(prediction.reshape(1, -1), truth.reshape(1, -1), iou_thresholds)


def ap_on_one_shape(prediction, truth, iou_thresholds):
    return average_precision(*np.broadcast_arrays(prediction, truth), iou_thresholds)


def ap_unless(prediction, truth, iou_thresholds, both=None, one=None):
    if not prediction.any() and not truth.any() and both:
        return both(iou_thresholds)
    if prediction.any() != truth.any() and one:
        return one(iou_thresholds)
    return average_precision(prediction, truth, iou_thresholds)


WRONG_AP = {
    "F1": (from_scores(f1_of), r"^Value .*found \[0.6667, .*expected \[0.5, .*That is the F1 score"),
    "F1 of 4.5 at each threshold": (
        lambda p, t, iou_thresholds: [f1_score(p, t, iou_threshold) for iou_threshold in iou_thresholds],
        r"^Value .*That is the F1 score"),
    "precision": (from_scores(lambda tp, fp, fn: tp / (tp + fp) if tp else 0.0), r"^Value .*That is precision"),
    "recall": (from_scores(lambda tp, fp, fn: tp / (tp + fn) if tp else 0.0), r"^Value .*That is recall"),
    "matched pairs counted twice": (from_scores(lambda tp, fp, fn: tp / (2 * tp + fp + fn)), r"^Value .*pairs twice"),
    "number of matches": (from_scores(lambda tp, fp, fn: tp), r"^Value .*the number of matches"),
    "share of errors": (from_scores(lambda tp, fp, fn: (fp + fn) / (tp + fp + fn)), r"^Value .*share of errors"),
    "largest id": (ap_by_largest_id, r"^Value .*the largest id"),
    "background as an instance": (ap_with_background, r"^Value .*background as an instance"),
    "IoU of the pixels": (ap_of_pixels, r"^Value .*IoU of the pixels"),
    "greater instead of at least": (at_thresholds(lambda ts: [np.nextafter(t, 2) for t in ts]),
                                    r"^Value .*exactly at the threshold matches, too"),
    "the first threshold for all": (at_thresholds(lambda ts: [ts[0]] * len(ts)), r"^Value .*the first threshold"),
    "the last threshold for all": (at_thresholds(lambda ts: [ts[-1]] * len(ts)), r"^Value .*the last threshold"),
    "ignores the thresholds": (at_thresholds(lambda ts: [0.5] * len(ts)), r"^Value .*thresholds|^Value .*threshold"),
    "its own thresholds": (at_thresholds(lambda ts: [0.5, 0.75, 0.9]), r"^Number of scores .*found 3, expected 4"),
    "sorted thresholds": (at_thresholds(sorted), r"^Value .*\[0.9, 0.5, 0.75, 0.5\].*in the order"),
    "reversed thresholds": (at_thresholds(lambda ts: ts[::-1]), r"^Value .*order of the thresholds reversed"),
    "each threshold once": (as_a_dictionary, r"^Number of scores .*found 3, expected 4"),
    "the mean": (after(average_precision, lambda scores: float(np.mean(scores))),
                 r"^Type of .*found float, expected list or tuple. That is their mean"),
    "the mean for each": (after(average_precision, lambda scores: [float(np.mean(scores))] * len(scores)),
                          r"^Value .*mean of the scores"),
    "the first score": (after(average_precision, lambda scores: scores[0]), r"^Type of .*found float"),
    "returns in the loop": (after(average_precision, lambda scores: scores[:1]), r"^Number of .*found 1, expected 3"),
    "an array": (after(average_precision, np.array), r"^Type of .*found ndarray, expected list"),
    "a tensor": (after(average_precision, torch.tensor), r"^Type of .*found Tensor, expected list"),
    "a dictionary": (
        lambda p, t, iou_thresholds: dict(zip(iou_thresholds, average_precision(p, t, iou_thresholds), strict=True)),
        r"^Type of .*found dict, expected list"),
    "a list of float32": (after(average_precision, lambda scores: list(np.float32(scores))),
                          r"^Type of a score .*float32, expected float"),
    "a list of lists": (after(average_precision, lambda scores: [[score] for score in scores]), r"^Type of a score"),
    "percent": (after(average_precision, lambda scores: [100 * score for score in scores]), r"^Value .*found \[50.0"),
    "rounded": (after(average_precision, lambda scores: [round(score, 2) for score in scores]), r"^Value .*0.15\]"),
    "counts entries": (ap_by_counting_entries, r"^Value .*(halves|beside).*one to one"),
    "the smaller of rows and columns": (
        lambda p, t, ts: ap_by_counting_entries(p, t, ts, lambda possible: rows_and_columns(possible, True)),
        r"^Value .*beside two nuclei.*one to one"),
    "largest sum": (ap_by_largest_sum, r"^Value .*contested.*count_matches"),
    "both empty is 0": (lambda p, t, ts: ap_unless(p, t, ts, both=lambda ts: [0.0] * len(ts)),
                        r"^Value .*two empty .*found \[0.0, 0.0\]"),
    "both empty is a number": (lambda p, t, ts: ap_unless(p, t, ts, both=lambda ts: 1.0),
                               r"^Type of .*two empty .*found float"),
    "both empty is one score": (lambda p, t, ts: ap_unless(p, t, ts, both=lambda ts: [1.0]),
                                r"^Number .*two empty .*at every threshold"),
    "both empty is nan": (lambda p, t, ts: ap_unless(p, t, ts, both=lambda ts: [float("nan")] * len(ts)),
                          r"^Value .*two empty .*nan"),
    "one empty is 1": (lambda p, t, ts: ap_unless(p, t, ts, one=lambda ts: [1.0] * len(ts)),
                       r"^Value .*an empty prediction.*found \[1.0, 1.0\]"),
    "divides by zero": (
        lambda p, t, ts: [tp / (tp + fp + fn) for tp, fp, fn in (counts(p, t, iou_threshold) for iou_threshold in ts)],
        r"^Error: .*ZeroDivision"),
    "a single threshold": (lambda p, t, iou_threshold=0.5: precisions(p, t, [iou_threshold])[0], r"^Error: .*"),
    "changes its arguments": (lambda p, t, ts: [after(relabels_its_arguments, lambda f1: f1 / (2 - f1))(p, t, iou)
                                                for iou in ts], r"^Mutation: .*argument prediction"),
    "sorts its argument": (sorts_its_argument, r"^Mutation: your code changed its argument iou_thresholds"),
    "ravels": (ap_that_ravels, r"^Result for the shapes \(4, 6\) and \(6, 4\): found no error"),
    "broadcasts": (ap_on_one_shape, r"^Result for the shapes .*: found no error, expected a ValueError"),
    "the F1 of 4.5, converted": (from_f1, r"^Processor time for 20 .*found (1|2)\d times .*compute it once"),
    "overlaps in the loop": (overlaps_in_the_loop, r"^Processor time for 20 .*found (1|2)\d times .*before the loop"),
}  # fmt: skip


RIGHT = {
    "4.1": [
        zeros_on_all_sides_to_a_multiple_of_32, a_copy_of_the_model, low_precision, pads_when_the_model_asks_for_it,
        tiles_with_margins, variant(pads_by_numpy("reflect")), variant(pads_by_numpy("wrap")),
        variant(pads_by_numpy("constant", constant_values=7)),
    ],
    "4.2": [
        by_scipy, four_neighbours_and_gaps, by_flood_fill, only_probabilities, by_spreading_the_largest_number,
        by_a_graph,
    ],
    "4.3": [
        by_pairs(iou_of, dtype=np.float32), by_pandas, by_counting_pixels, by_relabelling, by_broadcasting,
        by_a_sparse_matrix, by_a_histogram, counting_in(np.int64), counting_in(np.float32),
    ],
    "4.4": [
        by_bipartite_matching, as_stardist_does, by_augmenting_paths, by_networkx, by_flow, by_costs,
        after(count_matches, np.int64), after(count_matches, np.uint16),
    ],
    "4.5": [from_counts, harmonic_mean, by_match_instances],
    "4.6": [precisions, jaccard_of_sets, by_fast_matching],
}  # fmt: skip
WRONG = {
    "4.1": WRONG_PREDICT, "4.2": WRONG_COMPONENTS, "4.3": WRONG_IOU, "4.4": WRONG_MATCHES, "4.5": WRONG_F1,
    "4.6": WRONG_AP,
}  # fmt: skip
EQUIVALENT = {
    "4.1": {
        "the contract's predict(model, image) has no third argument": [
            "predict, assignment 2: pad_to_multiple() without argument 2"
        ],
        "the batch has one image": ["predict, assignment 4: 0 -> -1"],
        "a model of the course gives float32": ["predict, return: float() left out"],
    },
    "4.2": {"pixels exactly at the threshold may go either way": ["connected_components, return: > -> >="]},
    "4.3": {
        "the last of two axes is axis 1": ["iou_matrix, assignment 5: 1 -> -1"],
        "a row of areas broadcasts without the axis": [
            "iou_matrix, assignment 6: sum() without keepdims", "iou_matrix, assignment 6: True -> False",
        ],
    },
    "4.4": {"a whole number of NumPy's is right, too": ["count_matches, return: int() -> argument 1"]},
    "4.5": {
        "the number of matches and the sum of both counts are symmetric": [
            "f1_score, assignment: iou_matrix() arguments 1 and 2 swapped"
        ],
        "only their sum is used": ["f1_score, assignment 2: targets 1 and 2 swapped"],
    },
    "4.6": {
        "as in 4.5": [
            "average_precision, assignment: iou_matrix() arguments 1 and 2 swapped",
            "average_precision, assignment 2: targets 1 and 2 swapped",
        ],
    },
}  # fmt: skip


PICTURES = {
    "4.1": {"Panels": ["crops the image", "leaves the padding", "returns logits", "cuts at the wrong end",
                       "crops, then fills with zeros", "predicts window by window"]},
    "4.2": {"Panels": ["returns the mask as integers", "labels probabilities", "ignores the threshold",
                       "below instead of above", "another default", "drops small components"]},
    "4.3": {"Panels": ["transposed", "with background", "Dice", "order as text", "wrong union", "ids as uint8"]},
    "4.4": {"Matches": ["all assigned pairs", "counts the rows", "counts the columns", "ignores the threshold",
                        "greedy by value", "largest sum of IoU"]},
    "4.5": {"Matches": ["precision", "largest id", "ignores iou_threshold", "counts entries", "equal ids",
                        "one empty is 1"]},
    "4.6": {"Matches": ["F1", "recall", "sorted thresholds", "the first threshold for all", "counts entries",
                        "largest sum"]},
}  # fmt: skip


class TestChecks(CheckTests):
    right, wrong, equivalent, pictures = RIGHT, WRONG, EQUIVALENT, PICTURES


def test_the_first_wrong_entry_of_the_matrix_is_marked_beside_the_label_images():
    prediction, truth, yours, expected, _ = evaluate("4.3", WRONG["4.3"]["order as text"][0]).picture.panels
    assert (prediction.kind, truth.kind) == ("labels", "labels") and yours.mark == expected.mark == (1, 0)
    assert expected.array[1, 0] == 0.5 and yours.array[1, 0] == 0


def test_lines_join_a_largest_set_of_pairs():
    picture = evaluate("4.4", WRONG["4.4"]["greedy by value"][0]).picture
    assert picture.pairs == ((0, 1), (1, 0)) and (0, 0) in picture.possible
    assert "row 0 with column 1, row 1 with column 0" in picture.alt
    picture = evaluate("4.5", WRONG["4.5"]["precision"][0]).picture
    assert "found 0.75, expected 0.5455" in picture.alt and "TP 3, FP 1, FN 4" in picture.alt
    assert len(picture.pairs) == 3 and picture.labels[0].shape == picture.labels[1].shape


def test_predict_is_checked_even_where_gradients_were_switched_off():
    try:
        torch.set_grad_enabled(False)
        assert evaluate("4.1", predict).status == "passed"
        assert evaluate("4.1", variant(gradients=True)).status == "failed"
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
