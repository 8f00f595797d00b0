"""The last layer of a network, fitted to another laboratory with a few labelled cells: in seconds, on the processor."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from .batch_statistics import mode_of
from .folding import in_parts
from .sentences import say

VIEWS = (1, 8)
FOLDS = 5
DRAWS = 10_000  # for an interval; its limits then stay within 0.2 points
SEED = 20  # of these, so that the same cells give the same figures
FEWEST = 2  # cells of a class: one to learn from while the other is named
FLAT = 1e-3  # holds what the cells leave open: how far a class that none of them shows is pushed away
LEAST = 1e-9  # variance of features, where cells do not differ at all


def flips_and_turns(pixel_values: Tensor) -> list[Tensor]:
    """Give the eight views of images (B, C, H, W) that flips and quarter turns make, the images themselves first."""
    turned = [pixel_values.rot90(turns, dims=(2, 3)) for turns in range(4)]
    return turned + [view.flip(3) for view in turned]


def is_clear(gains: np.ndarray) -> bool:
    """Say whether the mean of cells' gains (N,) is above nothing by more than its standard error."""
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


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
            return torch.stack([torch.cat([*map(self._embed, in_parts(view))]) for view in seen], dim=1)

    def _embed(self, pixel_values: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(pixel_values), pre_logits=True)

    def fit_head(
        self, features: Tensor, labels: Sequence[int], groups: Sequence[Hashable] | None = None
    ) -> dict[str, float]:
        """Fit the linear layer to labelled cells, in place.

        The classes that are shown are taken for Gaussians of one covariance, which makes a linear layer (Fisher 1936). The
        covariance is that of the cells' views about the means of their classes, each class counting alike; since so few cells
        say little of 512 x 512 numbers, it is drawn towards a multiple of the identity, as far as Ledoit and Wolf 2004 find
        best. The views of a cell differ by nothing that matters, so where they differ little is said.

        That layer is too sure, since it knows its own cells. Each cell is therefore named by a layer that saw neither it nor
        its group, and on these answers the scale is fitted, by the cross entropy averaged over the classes, as if one cell more
        had been named and wrongly (Laplace's rule of succession, as Platt 1999 has it): where all are right there would be no
        bound to how sure it gets. In the same way it is found out what the layer that was there has more to say: the multiple
        of it that lowers this most is added. In a laboratory like those learnt from that holds what the few cells, often of
        few slides, do not show.

        The row of a class that no cell shows stays as it was against the mean of the shown ones, and is lowered as far as the
        cells shown ask for.

        The thresholds were found with the old layer and are dropped; what the classes mean stays.

        Args:
            features: (N, views, 512), as ``embed`` gives them.
            labels: class number of each cell, (N,).
            groups: of each cell the photo or field that it comes from, (N,); None takes each cell for a group. Where a class
                has one group alone, every cell is taken for a group.

        Returns:
            ``scale`` of the fitted layer; ``kept``, the multiple of the old one; ``shrinkage``, 0..1, of the covariance;
            ``loss``, the cross entropy in nats, averaged over the classes shown, of cells named by layers that saw others.

        Raises:
            ValueError: features, labels and groups that do not fit each other or the layer; a class of one cell. The layer then
                is as it was.
        """
        layer, fitted = self.get_classifier(), self._fitted(features, labels, groups)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(fitted["weight"]))
            layer.bias.copy_(torch.from_numpy(fitted["bias"]))
        self.as_stored = False
        negatives = self.config.negatives_label
        self.config.drop_operating_point()
        if negatives is not None:
            self.config.negatives_label = negatives
        return {name: fitted[name] for name in ("scale", "kept", "shrinkage", "loss")}

    def head_surprise(
        self, features: Tensor, labels: Sequence[int], groups: Sequence[Hashable] | None = None
    ) -> np.ndarray:
        """Give what the ``loss`` of ``fit_head`` is the mean of, a part for each cell, (N,); the model stays as it is.

        Raises:
            ValueError: as ``fit_head``.
        """
        return self._fitted(features, labels, groups)["surprise"]

    def _fitted(self, features: Tensor, labels: Sequence[int], groups: Sequence[Hashable] | None) -> dict[str, Any]:
        cells, numbers = self._check_cells(features, labels)
        groups = _check_groups(groups, len(numbers))
        _require_two(numbers, self.config.id2label)
        return _fit(cells, numbers, groups, *_as_arrays(self.get_classifier()))

    def cross_validate_head(
        self,
        features: Tensor,
        labels: Sequence[int],
        groups: Sequence[Hashable] | None = None,
        folds: int = FOLDS,
        before: Tensor | None = None,
    ) -> dict[str, Any]:
        """Say what ``fit_head`` would gain on other cells: each is named by a layer that saw neither it nor its group.

        The model is left as it is. Cells are named by their first view, the image as it is. The groups are dealt out to the
        folds so that each fold has its share of each class; where a class has fewer groups, there are as many folds.

        Args:
            features, labels: as for ``fit_head``.
            groups: of each cell the photo or field that it comes from, (N,); None takes each cell for a group.
            folds: 2 or more.
            before: features of the same cells that the layer as it is names them by, (N, views, 512); None takes ``features``.

        Returns:
            ``n``, the cells; ``folds``; ``balanced_accuracy``, the mean over the classes shown of the share that is right,
            ``before`` with the layer as it is and ``after``; ``intervals``, the 95 % limits of both, in which the cells of a
            class that share a group count as one; ``classes``: for each label ``n`` and how many are right ``before`` and
            ``after``; ``loss``, the cross entropy in nats after, averaged over the classes shown.

        Raises:
            ValueError: as ``fit_head``; groups that are not one a cell; one class or one group alone; a class all of whose
                cells are of one group; fewer than two folds.
        """
        cells, numbers = self._check_cells(features, labels)
        groups = _check_groups(groups, len(numbers))
        if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
            raise ValueError(f"folds is {folds!r}; expected a whole number, 2 or more.")
        names = {number: self.config.id2label[number] for number in sorted(set(numbers.tolist()))}
        if len(names) < 2:
            raise ValueError(
                f"All {len(numbers)} cells are of the class {names.popitem()[1]!r}; expected two classes or more. Label cells "
                "of another class."
            )
        if len(set(groups)) < 2:
            text = (
                f"All {len(numbers)} cells come from {groups[0]!r}; expected two photos or fields, or more. Label cells of "
                "another."
            )
            raise ValueError(say("cells_of_one_photo", text, number=len(numbers)))
        groups_of = {number: {g for g, own in zip(groups, numbers, strict=True) if own == number} for number in names}
        scarce = min(names, key=lambda number: len(groups_of[number]))
        if len(groups_of[scarce]) < 2:
            number = int((numbers == scarce).sum())
            text = (
                f"The {number} cell(s) of {names[scarce]!r} come from one photo or field; expected two "
                "or more, so that each is named by a layer that saw another. Label more cells of it, or leave it out."
            )
            raise ValueError(say("class_of_one_photo", text, label=names[scarce], number=number))
        folds = min(folds, len(groups_of[scarce]))
        fold_of = _deal(numbers, groups, folds)
        weight, bias = _as_arrays(self.get_classifier())
        plain, first = cells[:, 0], (cells if before is None else self._check_cells(before, labels)[0])[:, 0]
        right = {"before": (first @ weight.T + bias).argmax(axis=1) == numbers}
        logits = np.zeros((len(numbers), len(weight)))
        for fold in range(folds):
            own = fold_of == fold
            seen = [group for group, mine in zip(groups, own, strict=True) if not mine]
            fitted = _fit(cells[~own], numbers[~own], seen, weight, bias)
            logits[own] = plain[own] @ fitted["weight"].T + fitted["bias"]
        right["after"] = logits.argmax(axis=1) == numbers
        surprise = _cross_entropy(logits, numbers)
        shares = {when: [hits[numbers == number].mean() for number in names] for when, hits in right.items()}
        sizes = [len(groups_of[number]) for number in names]
        return {
            "n": len(numbers),
            "folds": folds,
            "balanced_accuracy": {when: float(np.mean(share)) for when, share in shares.items()},
            "intervals": {when: _limits(share, sizes) for when, share in shares.items()},
            "classes": {
                name: {"n": int((numbers == number).sum())}
                | {when: int(hits[numbers == number].sum()) for when, hits in right.items()}
                for number, name in names.items()
            },
            "loss": float(np.mean([surprise[numbers == number].mean() for number in names])),
        }

    def _check_cells(self, features: Tensor, labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
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
        return cells, np.array(numbers)


def _check_groups(groups: Sequence[Hashable] | None, number: int) -> list[Hashable]:
    groups = list(range(number)) if groups is None else list(groups)
    if len(groups) != number:
        raise ValueError(f"There are {len(groups)} groups for {number} cells; expected one for each cell.")
    return groups


def _require_two(numbers: np.ndarray, names: dict[int, str]) -> None:
    shown, counts = np.unique(numbers, return_counts=True)
    if len(shown) < 2:
        raise ValueError(
            f"All {len(numbers)} cells are of the class {names[int(shown[0])]!r}; expected two classes or more. Label cells of "
            "another class."
        )
    if counts.min() < FEWEST:
        raise ValueError(
            f"There is one cell of {names[int(shown[counts.argmin()])]!r}; expected {FEWEST} of each class that is shown. "
            "Label another, or leave it out."
        )


def _as_arrays(layer: torch.nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return tuple(values.detach().cpu().double().numpy() for values in (layer.weight, layer.bias))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give each cell's cross entropy in nats, (N,): logits (N, C), labels (N,)."""
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]


def _limits(shares: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Give the 95 % limits of the mean of proportions, each found on so many, under Jeffreys' prior.

    Where all are right or none is, there is one limit alone, and the other is the end of the scale.
    """
    rng = np.random.default_rng(SEED)
    drawn = [
        rng.beta(share * size + 0.5, (1 - share) * size + 0.5, DRAWS) for share, size in zip(shares, sizes, strict=True)
    ]
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    # the prior draws each share towards a half: the mean of several near an end can lie beyond the limits
    low, high = min(low, np.mean(shares)), max(high, np.mean(shares))
    return [0.0 if not any(shares) else float(low), 1.0 if all(share == 1 for share in shares) else float(high)]


def _shrunk_covariance(residuals: np.ndarray) -> tuple[np.ndarray, float]:
    """Estimate a covariance (D, D) from residuals (N, D) as Ledoit and Wolf 2004, and say how far it was drawn, 0..1."""
    n, width = residuals.shape
    found = residuals.T @ residuals / n
    mean = max(np.trace(found) / width, LEAST)
    spread = (found**2).sum() - width * mean**2  # from a multiple of the identity
    doubt = ((residuals**2).sum(axis=1) ** 2).sum() / n**2 - (found**2).sum() / n
    share = min(1.0, max(0.0, doubt / spread)) if spread > 0 else 1.0
    return (1 - share) * found + share * mean * np.eye(width), share


def _discriminate(cells: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Fit Gaussians of one covariance: features (N, views, D), labels (N,).

    Returns:
        The classes shown (K,), their weights (K, D) and biases (K,), which sum to nothing, and the shrinkage.
    """
    shown, number_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.stack([cells[labels == label].mean(axis=(0, 1)) for label in shown])
    evenly = np.sqrt(len(labels) / (len(shown) * counts[number_of]))  # each class counts alike
    residuals = (cells - means[number_of][:, None]) * evenly[:, None, None]
    covariance, share = _shrunk_covariance(residuals.reshape(-1, cells.shape[2]))
    weight = cho_solve(cho_factor(covariance), means.T).T
    bias = -(weight * means).sum(axis=1) / 2
    return shown, weight - weight.mean(axis=0), bias - bias.mean(), share


def _fit(
    cells: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], weight: np.ndarray, bias: np.ndarray
) -> dict[str, Any]:
    """Fit a linear layer as ``fit_head`` says: features (N, views, D), labels (N,), weights (C, D) and biases (C,)."""
    shown, new_weight, new_bias, shrinkage = _discriminate(cells, labels)
    number_of = np.searchsorted(shown, labels)
    hidden = np.setdiff1d(np.arange(len(weight)), shown)
    # The old layer against the mean of the classes shown: a common part says nothing of which class it is.
    weight, bias = weight - weight[shown].mean(axis=0), bias - bias[shown].mean()
    old = cells[:, 0] @ weight.T + bias  # (N, C)
    new = _out_of_fold(cells, labels, groups, shown)  # (N, K)
    doubt = 1 / (len(labels) + 2)  # share of cells named wrongly, were one more to come and be so
    even = 1 / (len(shown) * np.bincount(number_of)[number_of])  # a cell's part in the mean over classes

    def logits(scale: float, kept: float, lowered: np.ndarray) -> np.ndarray:
        return np.column_stack([np.exp(scale) * new + kept * old[:, shown], old[:, hidden] - lowered])

    def loss(found: np.ndarray) -> float:
        told, lowered = logits(found[0], found[1], found[2:]), found[2:]
        right, wrong = _cross_entropy(told, number_of), logsumexp(told, axis=1) - told[:, : len(shown)].mean(axis=1)
        return even @ ((1 - doubt) * right + doubt * wrong) + FLAT / 2 * (lowered @ lowered)

    begin = np.array([-np.log(np.abs(new).mean() + 1), 0.0, *np.zeros(len(hidden))])
    bounds = [(begin[0] - 10, begin[0] + 10), (0, 2), *[(0, None)] * len(hidden)]
    scale, kept, *lowered = minimize(loss, begin, method="L-BFGS-B", bounds=bounds).x
    surprise = _cross_entropy(logits(scale, kept, np.array(lowered)), number_of)
    fitted_weight, fitted_bias = weight.copy(), bias.copy()
    fitted_weight[shown] = np.exp(scale) * new_weight + kept * weight[shown]
    fitted_bias[shown] = np.exp(scale) * new_bias + kept * bias[shown]
    fitted_bias[hidden] -= lowered
    return {
        "weight": fitted_weight,
        "bias": fitted_bias,
        "scale": float(np.exp(scale)),
        "kept": float(kept),
        "shrinkage": float(shrinkage),
        "loss": float(even @ surprise),
        "surprise": surprise * even * len(labels),
    }


def _out_of_fold(cells: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], shown: np.ndarray) -> np.ndarray:
    """Name each cell by Gaussians that saw neither it nor its group: (N, K); their views are left out."""
    fewest = min(len({group for group, own in zip(groups, labels, strict=True) if own == label}) for label in shown)
    if fewest < 2:  # a class of one photo: better named by its other cells than by none
        groups = range(len(labels))
        fewest = np.bincount(labels)[shown].min()
    folds = max(2, min(FOLDS, int(fewest)))
    fold_of = _deal(labels, groups, folds)
    named = np.zeros((len(labels), len(shown)))
    for fold in range(folds):
        own = fold_of == fold
        seen, weight, bias, _ = _discriminate(cells[~own], labels[~own])
        named[np.ix_(own, np.searchsorted(shown, seen))] = cells[own, 0] @ weight.T + bias
    return named


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
