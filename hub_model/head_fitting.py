"""The last layer of a network, fitted to another laboratory with a few labelled cells: in seconds, on the processor."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from .batch_statistics import mode_of

STRENGTH = 0.003  # of 0.003 to 0.1, the best in laboratories that networks had never seen, or as good as the others
VIEWS = (1, 8)
FOLDS = 5
ITERATIONS = 500  # of L-BFGS, at most; the loss is convex, and some fifty are needed


def flips_and_turns(pixel_values: Tensor) -> list[Tensor]:
    """Give the eight views of images (B, C, H, W) that flips and quarter turns make, the images themselves first."""
    turned = [pixel_values.rot90(turns, dims=(2, 3)) for turns in range(4)]
    return turned + [view.flip(3) for view in turned]


class HeadFitting:
    """Methods of a model with ``forward_features``, ``forward_head`` and a linear layer, on a few labelled cells."""

    @torch.no_grad()
    def embed(self, pixel_values: Tensor, views: int = 1) -> Tensor:
        """Turn images into the features that the linear layer reads: (B, 3, H, W) to (B, views, 512), the image itself first.

        Args:
            pixel_values: normalised by the image processor.
            views: 1, or 8 for all flips and quarter turns; a smear has no up.

        Raises:
            TypeError, ValueError: another number of views, or images as ``forward`` refuses them.
        """
        if views not in VIEWS or isinstance(views, bool):
            raise ValueError(f"views is {views!r}; expected 1, or 8 for all flips and quarter turns.")
        if not isinstance(pixel_values, Tensor) or pixel_values.ndim != 4:
            self.forward_features(pixel_values)  # it says what is wrong
        with mode_of(self.modules(), training=False):
            seen = flips_and_turns(pixel_values.to(self.device))[:views]
            return torch.stack(
                [self.forward_head(self.forward_features(view), pre_logits=True) for view in seen], dim=1
            )

    def fit_head(self, features: Tensor, labels: Sequence[int], strength: float = STRENGTH) -> None:
        """Fit the linear layer to labelled cells, in place, held to the weights that it has.

        The classes' mean cross entropies, averaged over the classes that are shown, plus ``strength / 2`` times the squared
        distance of weights and biases from those that the layer has. So few cells move the layer a little, and the same cells
        always to the same place: the sum has one minimum. A cell's views share its weight.

        The row of a class that no cell shows stays as it is, and its logit with it. It takes part in the cross entropy, so
        that the classes shown come to win over it on their own cells.

        The thresholds were found with the old layer and are dropped; what the classes mean stays.

        Args:
            features: (N, views, 512), as ``embed`` gives them.
            labels: class number of each cell, (N,).
            strength: above 0; the greater, the nearer the layer stays to what it is.

        Raises:
            ValueError: features and labels that do not fit each other or the layer, or a strength that is not above 0. The
                layer then is as it was.
        """
        layer = self.get_classifier()
        cells, numbers = self._check_cells(features, labels, strength)
        weight, bias = _fit(cells, numbers, *_as_arrays(layer), strength)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        negatives = self.config.negatives_label
        self.config.drop_operating_point()
        if negatives is not None:
            self.config.negatives_label = negatives

    def cross_validate_head(
        self,
        features: Tensor,
        labels: Sequence[int],
        groups: Sequence[Hashable] | None = None,
        folds: int = FOLDS,
        strength: float = STRENGTH,
    ) -> dict[str, Any]:
        """Say what ``fit_head`` would gain on other cells: each is named by a layer that saw neither it nor its group.

        The model is left as it is. Cells are named by their first view, the image as it is. The groups are dealt out to the
        folds so that each fold has its share of each class; where a class has fewer groups, there are as many folds.

        Args:
            features, labels, strength: as for ``fit_head``.
            groups: of each cell the photo or field that it comes from, (N,); None takes each cell for a group.
            folds: 2 or more.

        Returns:
            ``n``, the cells; ``folds``; ``balanced_accuracy``, the mean over the classes shown of the share that is right,
            ``before`` with the layer as it is and ``after``; ``classes``: for each label ``n`` and how many are right
            ``before`` and ``after``.

        Raises:
            ValueError: as ``fit_head``; groups that are not one a cell; one class or one group alone; a class all of whose
                cells are of one group; fewer than two folds.
        """
        cells, numbers = self._check_cells(features, labels, strength)
        groups = range(len(numbers)) if groups is None else list(groups)
        if len(groups) != len(numbers):
            raise ValueError(f"There are {len(groups)} groups for {len(numbers)} cells; expected one for each cell.")
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
            raise ValueError(f"folds is {folds!r}; expected a whole number, 2 or more.")
        names = {number: self.config.id2label[number] for number in sorted(set(numbers.tolist()))}
        if len(names) < 2:
            raise ValueError(
                f"All {len(numbers)} cells are of the class {names.popitem()[1]!r}; expected two classes or more. Label cells "
                "of another class."
            )
        if len(set(groups)) < 2:
            raise ValueError(
                f"All {len(numbers)} cells come from {groups[0]!r}; expected two photos or fields, or more. Label cells of "
                "another."
            )
        groups_of = {number: {g for g, own in zip(groups, numbers, strict=True) if own == number} for number in names}
        scarce = min(names, key=lambda number: len(groups_of[number]))
        if len(groups_of[scarce]) < 2:
            raise ValueError(
                f"The {int((numbers == scarce).sum())} cell(s) of {names[scarce]!r} come from one photo or field; expected two "
                "or more, so that each is named by a layer that saw another. Label more cells of it, or leave it out."
            )
        folds = min(folds, len(groups_of[scarce]))
        fold_of = _deal(numbers, groups, folds)
        weight, bias = _as_arrays(self.get_classifier())
        plain = cells[:, 0]
        right = {"before": (plain @ weight.T + bias).argmax(axis=1) == numbers}
        right["after"] = np.zeros(len(numbers), bool)
        for fold in range(folds):
            own = fold_of == fold
            fitted = _fit(cells[~own], numbers[~own], weight, bias, strength)
            right["after"][own] = (plain[own] @ fitted[0].T + fitted[1]).argmax(axis=1) == numbers[own]
        return {
            "n": len(numbers),
            "folds": folds,
            "balanced_accuracy": {
                when: float(np.mean([hits[numbers == number].mean() for number in names]))
                for when, hits in right.items()
            },
            "classes": {
                name: {"n": int((numbers == number).sum())}
                | {when: int(hits[numbers == number].sum()) for when, hits in right.items()}
                for number, name in names.items()
            },
        }

    def _check_cells(self, features: Tensor, labels: Sequence[int], strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Give the features as float64 (N, views, 512) and the labels as int64 (N,)."""
        width, classes = self.num_features, self.config.num_labels
        shape = tuple(getattr(features, "shape", ()))
        if not isinstance(features, Tensor) or len(shape) != 3 or not all(shape) or shape[2] != width:
            raise ValueError(
                f"The features are {type(features).__name__} {shape}; expected a tensor (cells, views, {width}), one cell or "
                "more, as embed gives it."
            )
        cells = features.detach().cpu().double().numpy()
        if not np.isfinite(cells).all():
            raise ValueError("Some features are not finite; expected numbers, as embed gives them.")
        numbers = [label.item() if hasattr(label, "item") else label for label in labels]
        if len(numbers) != len(cells):
            raise ValueError(f"There are {len(numbers)} labels for {len(cells)} cells; expected one for each cell.")
        for label in numbers:
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
                raise ValueError(
                    f"A label is {label!r}; expected the number of a class, 0 to {classes - 1}: {self.config.id2label}."
                )
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength < float("inf"):
            raise ValueError(f"strength is {strength!r}; expected a number above 0.")
        return cells, np.array(numbers)


def _as_arrays(layer: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return tuple(values.detach().cpu().double().numpy() for values in (layer.weight, layer.bias))


def _fit(
    cells: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear layer as ``fit_head`` says: features (N, views, D), labels (N,), weights (C, D) and biases (C,)."""
    n, views, width = cells.shape
    shown, number_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    inputs = np.concatenate([cells, np.ones((n, views, 1))], axis=2).reshape(n * views, width + 1)
    start = inputs @ np.column_stack([weight, bias]).T  # (N * views, C)
    share = np.repeat(1 / (len(shown) * views * counts[number_of]), views)
    truth = np.eye(len(weight))[np.repeat(labels, views)]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        logits = start.copy()
        logits[:, shown] += inputs @ flat.reshape(len(shown), width + 1).T
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(axis=1)
        value = share @ (np.log(total) - (logits * truth).sum(axis=1)) + strength / 2 * flat @ flat
        slope = ((odds / total[:, None] - truth) * share[:, None])[:, shown].T @ inputs
        return value, slope.ravel() + strength * flat

    least = {"maxiter": ITERATIONS, "ftol": 1e-12, "gtol": 1e-7}
    change = minimize(loss, np.zeros(len(shown) * (width + 1)), jac=True, method="L-BFGS-B", options=least).x
    fitted = np.column_stack([weight, bias])
    fitted[shown] += change.reshape(len(shown), width + 1)
    return fitted[:, :-1], fitted[:, -1]


def _deal(labels: np.ndarray, groups: Sequence[Hashable], folds: int) -> np.ndarray:
    """Give each cell's fold (N,): whole groups, the largest first, each to where its classes are scarcest."""
    classes, numbers = np.unique(labels, return_inverse=True)
    counts = {}  # of each group its cells by class
    for group, number in zip(groups, numbers, strict=True):
        counts.setdefault(group, np.zeros(len(classes)))[number] += 1
    share = 1 / np.bincount(numbers)
    dealt, fold_of = np.zeros((folds, len(classes))), {}
    for group in sorted(
        counts, key=lambda group: -counts[group].sum()
    ):  # stable: of one size in the order that they came
        own = counts[group]
        filled = (((dealt + own) * share) ** 2 - (dealt * share) ** 2).sum(axis=1)
        fold_of[group] = min(range(folds), key=lambda fold: (round(filled[fold], 9), dealt[fold].sum()))
        dealt[fold_of[group]] += own
    return np.array([fold_of[group] for group in groups])
