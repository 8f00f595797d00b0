"""A network fitted to a laboratory with a few labelled cells: the share of new statistics, then the last layer."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .batch_statistics import Progress
from .head_fitting import is_clear

SHARES = (0.0, 0.5, 1.0)  # of new statistics that are tried; finer steps are told apart by chance
ALL_VIEWS = 8
AT_ONCE = 8  # images whose views are looked at together, so that progress is told every other second


class LaboratoryFitting:
    """Methods of a model with ``BatchStatistics`` and ``HeadFitting``, on a laboratory's own cells."""

    @torch.no_grad()
    def fit_to_laboratory(
        self,
        batches: Sequence[Tensor],
        labels: Sequence[int],
        groups: Sequence[Hashable] | None = None,
        unlabelled: Sequence[Tensor] = (),
        tell: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Fit the batch-norm statistics and the linear layer to labelled cells, in place.

        With each of ``SHARES`` of new statistics, of all images given, the last layer is fitted as ``fit_head`` does, and each
        labelled cell named by a layer that saw neither it nor its group. The share with the least cross entropy stays where it
        is below that of the statistics as they came by more than the standard error of the difference; else those stay.
        Then the layer is fitted on all eight flips and turns of each cell. No other image is looked at.

        Args:
            batches: the labelled cells, tensors (B, 3, H, W), normalised by the image processor.
            labels: class number of each cell, over the batches, (N,).
            groups: of each cell the photo or field that it comes from, (N,); None takes each cell for a group.
            unlabelled: more cells of the laboratory, for the statistics alone.
            tell: is told how many images of how many were looked at, each as often as it is.

        Returns:
            ``share``; ``losses``, in nats, by share; ``layer``, as ``fit_head`` gives it; ``validation``, as
            ``cross_validate_head`` gives it, "before" being the model as it came, or None where ``why_not`` says that the
            cells do not allow it. The share was chosen on the same cells, which flatters "after" a little.

        Raises:
            TypeError, ValueError: as ``reestimate_statistics`` and ``fit_head``. The model then is as it was.
        """
        number = sum(map(len, batches))
        more = sum(map(len, unlabelled))
        progress = Progress(tell, number + more + number * (len(SHARES) + ALL_VIEWS))
        stored, as_stored = self.stored_statistics(), self.as_stored
        try:
            new = self.measure_statistics(progress.each([*batches, *unlabelled]))
            plain, surprises = {}, {}
            for share in SHARES:
                self.put_statistics(stored)
                self.mix_statistics(new, share)
                plain[share] = torch.cat([self.embed(batch) for batch in progress.each(batches)])  # (N, 1, 512)
                surprises[share] = self.head_surprise(plain[share], labels, groups)
            losses = {share: float(surprise.mean()) for share, surprise in surprises.items()}
            best = min(SHARES, key=losses.__getitem__)
            if not is_clear(surprises[0.0] - surprises[best]):
                best = 0.0
            self.put_statistics(stored)
            self.mix_statistics(new, best)
            parts = [part for batch in batches for part in batch.split(AT_ONCE)]
            views = []
            for part in parts:
                views.append(self.embed(part, ALL_VIEWS))  # (B, 8, 512)
                progress.add(ALL_VIEWS * len(part))
            features = torch.cat(views)
            validation, why_not = None, None
            try:
                validation = self.cross_validate_head(features, labels, groups, before=plain[0.0])
            except ValueError as error:  # too few photos; the cells themselves are in order, or head_loss had said so
                why_not = error.args[0]
            layer = self.fit_head(features, labels, groups)
        except BaseException:
            self.put_statistics(stored)
            self.as_stored = as_stored
            raise
        self.config.validation_confusion = None  # of the errors of the weights as they came
        return {
            "share": best,
            "losses": {f"{share:g}": round(loss, 4) for share, loss in losses.items()},
            "layer": {name: round(value, 6) for name, value in layer.items()},
            "validation": validation,
            "why_not": why_not,
        }
