"""The statistics of a network's batch norms: how far images lie from them, and what unlabelled images make of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .folding import in_parts

# Of the rule in ``suggest_share``.
TRIAL = 0.25
TOLERANCE = 0.01
SHARE = 0.75
DISTANT = 1.0

Statistics = dict[str, dict[str, Tensor]]  # of each norm by its name: its buffers by theirs


@dataclass(frozen=True)
class StatisticsTrial:
    """What unlabelled images say of the statistics.

    Attributes:
        distance: from the stored ones, see ``statistics_distance``.
        logits: of the images with the stored ones, (N, classes), float64.
        new: the images' own, see ``measure_statistics``.
        suggested_share: of the new ones, see ``suggest_share``.
    """

    distance: float
    logits: Tensor
    new: Statistics
    suggested_share: float


class Progress:
    """Tells after each batch how many images of how many were looked at.

    Args:
        tell: is told; None tells nobody.
        total: images, each counted as often as it is looked at.
    """

    def __init__(self, tell: Callable[[int, int], None] | None, total: int):
        self.tell, self.total, self.done = tell, total, 0

    def each(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Hand on batches, and count each once it was looked at."""
        for batch in batches:
            yield batch
            self.add(len(batch))

    def add(self, number: int) -> None:
        """Count images."""
        self.done += number
        if self.tell is not None:
            self.tell(self.done, self.total)


class BatchStatistics:
    """Methods of a model with ``forward_features``, ``forward_head`` and batch norms, on unlabelled images.

    Attributes:
        as_stored: False once a method has put in other statistics or another last layer than those of the file it was loaded
            from; training and edits by hand do not set it.
    """

    as_stored = True

    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """Give every batch norm by its name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, nn.BatchNorm2d)}

    @torch.no_grad()
    def reestimate_statistics(self, batches: Iterable[Tensor], share: float = 1.0) -> None:
        """Re-estimate every batch norm's mean and variance on unlabelled images, in place; all weights stay.

        A laboratory's stain and camera shift the activations; statistics of its own images shift them back ("AdaBN", Li et
        al. 2016, arXiv:1603.04779). New and old are mixed as by Schneider et al. 2020 (arXiv:2006.16971), who set the share
        by the number of images: ``share * new + (1 - share) * old``, the variance in the same linear way, that is without
        the square of the two means' distance that the variance of a mixture has. With a share above 0 the configuration
        forgets ``validation_confusion``, the errors of the old statistics.

        Args:
            batches: tensors (B, 3, H, W), normalised by the image processor. Each counts alike, and mixes the classes as the
                images do on which the model is used: a batch of one class alone would shift that class onto the others.
            share: of the new statistics, 0..1.

        Raises:
            TypeError, ValueError: a share outside 0..1, no batches, images as ``forward`` refuses them, or images whose
                statistics are not finite. The model then is as it was.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share!r}; expected a number from 0 (all old) to 1 (all new).")
        self.mix_statistics(self.measure_statistics(batches), share)
        if share:
            self.config.validation_confusion = None

    @torch.no_grad()
    def measure_statistics(self, batches: Iterable[Tensor]) -> Statistics:
        """Give the statistics that images have, as ``reestimate_statistics`` finds them; the model stays as it is.

        Raises:
            TypeError, ValueError: no batches, images as ``forward`` refuses them, or images whose statistics are not finite.
        """
        norms, old = self.norms(), self.stored_statistics()
        momenta = {name: norm.momentum for name, norm in norms.items()}
        try:
            with mode_of(norms.values(), training=True):
                for norm in norms.values():
                    norm.reset_running_stats()
                    norm.momentum = None  # the plain average over the batches
                for _ in self._pass(batches):
                    pass
            new = self.stored_statistics()
        finally:
            for name, norm in norms.items():
                norm.momentum = momenta[name]
            self.put_statistics(old)
        _check_finite(new)
        return new

    def stored_statistics(self) -> Statistics:
        """Give a copy of every batch norm's buffers."""
        return {
            name: {part: value.clone() for part, value in norm.named_buffers()} for name, norm in self.norms().items()
        }

    @torch.no_grad()
    def put_statistics(self, statistics: Statistics) -> None:
        """Put back what ``stored_statistics`` gave, bit by bit."""
        for name, norm in self.norms().items():
            for part, value in norm.named_buffers():
                value.copy_(statistics[name][part])

    @torch.no_grad()
    def mix_statistics(self, new: Statistics, share: float = 1.0) -> None:
        """Put in ``share`` of other statistics, as ``measure_statistics`` gives them, and keep the rest of the stored ones.

        Raises:
            ValueError: the other statistics are not finite. The model then is as it was, as with a share of 0.
        """
        if not share:
            return
        _check_finite(new)
        for name, norm in self.norms().items():
            for part in ("running_mean", "running_var"):
                stored = getattr(norm, part)
                stored.copy_(share * new[name][part] + (1 - share) * stored)
            norm.num_batches_tracked.copy_(new[name]["num_batches_tracked"])
        self.as_stored = False

    @torch.no_grad()
    def statistics_distance(self, batches: Iterable[Tensor]) -> float:
        """Say how far images' activations lie from the stored batch-norm statistics: 0 or more, without any label.

        Each channel before a batch norm is taken as a Gaussian, once with the stored mean m and variance v, once with the mean
        n and variance w over all places of all images. Their symmetric Kullback-Leibler divergence, KL(1|2) + KL(2|1), is

            (v + (m - n)^2) / (2 w) + (w + (m - n)^2) / (2 v) - 1,

        as Li et al. 2016 (arXiv:1603.04779) compare two domains. The distance is its mean over the channels of a norm,
        averaged over the norms; a norm's ``eps`` is added to both variances, as it is where the norm divides by them. The
        model is not changed, and how the images are batched does not matter.

        Args:
            batches: tensors (B, 3, H, W), normalised by the image processor.

        Raises:
            TypeError, ValueError: no batches, or images as ``forward`` refuses them.
        """
        return self._survey(batches)[0]

    @torch.no_grad()
    def suggest_share(self, batches: Sequence[Tensor]) -> float:
        """Say without any label which share of re-estimated statistics to take; 0 keeps the model as it is.

        Where a quarter of new statistics leaves the network as sure on average as it was, or makes it surer, more of them make
        it right more often: then ``SHARE``. Where the images lie farther than ``DISTANT`` from the stored statistics, these say
        nothing of them any more: then all new. Else the images are like those learnt from, and new statistics would harm: of
        those, the network is less sure by more than ``TOLERANCE`` with a quarter of new statistics. The rule was found on four
        laboratories, each seen by networks that had learnt from the other three; ``leave_one_out.py`` shows its cases. It
        can be wrong: of later networks it kept the one that re-estimating would have lifted most, see the model card.

        The model comes out as it went in.

        Args:
            batches: as for ``reestimate_statistics``, of nearly the same size; they are gone through three times.

        Raises:
            TypeError, ValueError: as ``reestimate_statistics``.
        """
        return self.try_statistics(batches).suggested_share

    @torch.no_grad()
    def try_statistics(
        self, batches: Sequence[Tensor], tell: Callable[[int, int], None] | None = None
    ) -> StatisticsTrial:
        """Look at unlabelled images as they are and with new statistics, in three passes; the model comes out as it went in.

        Args:
            batches: as for ``suggest_share``.
            tell: is told after each batch how many images of how many were looked at, each as often as it is.

        Raises:
            TypeError, ValueError: as ``reestimate_statistics``.
        """
        progress = Progress(tell, 3 * sum(map(len, batches)))
        distance, logits = self._survey(progress.each(batches))
        new = self.measure_statistics(progress.each(batches))
        if distance > DISTANT:
            return StatisticsTrial(distance, logits, new, 1.0)
        old, as_stored = self.stored_statistics(), self.as_stored
        try:
            self.mix_statistics(new, TRIAL)
            after = _confidence(self.name_images(progress.each(batches)))
        finally:
            self.put_statistics(old)
            self.as_stored = as_stored
        return StatisticsTrial(distance, logits, new, SHARE if after > _confidence(logits) - TOLERANCE else 0.0)

    @torch.no_grad()
    def name_images(self, batches: Iterable[Tensor]) -> Tensor:
        """Give the logits (N, classes) of images, float64 and on the CPU, with the norms in evaluation mode.

        Raises:
            TypeError, ValueError: no batches, or images as ``forward`` refuses them.
        """
        with mode_of(self.norms().values(), training=False):
            parts = (part for batch in batches for part in in_parts(batch))
            return torch.cat([self.forward_head(features).double().cpu() for features in self._pass(parts)])

    def _survey(self, batches: Iterable[Tensor]) -> tuple[float, Tensor]:
        """Give the distance from the stored statistics and the logits (N, classes), in one pass."""
        norms = self.norms().values()
        sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.double) for norm in norms}

        def add(norm, inputs):
            values = inputs[0].transpose(0, 1).flatten(1).double()  # (C, B * h * w)
            number = torch.full_like(values[:, 0], values.shape[1])
            sums[norm] += torch.stack([number, values.sum(1), values.square().sum(1)]).cpu()

        hooks = [norm.register_forward_pre_hook(add) for norm in norms]
        try:
            logits = self.name_images(batches)
        finally:
            for hook in hooks:
                hook.remove()
        distances = []
        for norm, (number, total, squares) in sums.items():
            mean = total / number
            new = (squares / number - mean.square()).clamp(min=0) + norm.eps
            old = norm.running_var.double().cpu() + norm.eps
            apart = (mean - norm.running_mean.double().cpu()).square()
            distances.append(((old + apart) / (2 * new) + (new + apart) / (2 * old) - 1).mean())
        return float(torch.stack(distances).mean()), logits

    def _pass(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Turn batches into maps of features, one at a time."""
        number = 0
        for number, batch in enumerate(batches, start=1):  # noqa: B007
            yield self.forward_features(batch.to(self.device) if isinstance(batch, Tensor) else batch)
        if not number:
            raise ValueError("There are no batches; expected one tensor of images (B, 3, H, W) or more.")


def _check_finite(statistics: Statistics) -> None:
    for name, parts in statistics.items():
        if not all(bool(value.isfinite().all()) for value in parts.values()):
            raise ValueError(
                f"The new statistics of {name} are not finite; expected numbers. Leave out images with pixels that are not "
                "finite or far out of range."
            )


def _confidence(logits: Tensor) -> float:
    """Give the mean probability of the likeliest class."""
    return float(logits.softmax(dim=-1).amax(dim=-1).mean())


@contextmanager
def mode_of(modules: Iterable[nn.Module], training: bool) -> Iterator[None]:
    """Put modules into training or evaluation mode, and back into the mode that each was in."""
    before = [(module, module.training) for module in modules]
    try:
        for module, _ in before:
            module.train(training)
        yield
    finally:
        for module, was_training in before:
            module.train(was_training)
