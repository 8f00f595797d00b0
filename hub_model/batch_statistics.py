"""The statistics of a network's batch norms: how far images lie from them, and what unlabelled images make of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Of the rule in ``suggest_share``.
TRIAL = 0.25
TOLERANCE = 0.01
SHARE = 0.75
DISTANT = 1.0


class BatchStatistics:
    """Methods of a model with ``forward_features``, ``forward_head`` and batch norms, on unlabelled images."""

    def norms(self) -> dict[str, nn.BatchNorm2d]:
        """Give every batch norm by its name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, nn.BatchNorm2d)}

    @torch.no_grad()
    def reestimate_statistics(self, batches: Iterable[Tensor], share: float = 1.0) -> None:
        """Re-estimate every batch norm's mean and variance on unlabelled images, in place; all weights stay.

        A laboratory's stain and camera shift the activations; statistics of its own images shift them back ("AdaBN", Li et
        al. 2016, arXiv:1603.04779). New and old are mixed as by Schneider et al. 2020 (arXiv:2006.16971), who set the share
        by the number of images: ``share * new + (1 - share) * old``, the variance in the same linear way, that is without
        the square of the two means' distance that the variance of a mixture has.

        Args:
            batches: tensors (B, 3, H, W), normalised by the image processor. Each counts alike, and mixes the classes as the
                images do on which the model is used: a batch of one class alone would shift that class onto the others.
            share: of the new statistics, 0..1.

        Raises:
            TypeError, ValueError: a share outside 0..1, no batches, or images as ``forward`` refuses them. The model then
                is as it was.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share!r}; expected a number from 0 (all old) to 1 (all new).")
        norms = self.norms().values()
        old = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
        momenta = [norm.momentum for norm in norms]
        try:
            with mode_of(norms, training=True):
                for norm in norms:
                    norm.reset_running_stats()
                    norm.momentum = None  # the plain average over the batches
                self._pass(batches)
        except BaseException:
            for norm, before in zip(norms, old, strict=True):
                for name, value in before.items():
                    getattr(norm, name).copy_(value)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        for norm, before in zip(norms, old, strict=True):
            for name in ("running_mean", "running_var"):
                new = getattr(norm, name)
                new.copy_(share * new + (1 - share) * before[name])

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
        norms = self.norms().values()
        sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.double) for norm in norms}

        def add(norm, inputs):
            values = inputs[0].transpose(0, 1).flatten(1).double()  # (C, B * h * w)
            number = torch.full_like(values[:, 0], values.shape[1])
            sums[norm] += torch.stack([number, values.sum(1), values.square().sum(1)]).cpu()

        hooks = [norm.register_forward_pre_hook(add) for norm in norms]
        try:
            with mode_of(norms, training=False):
                self._pass(batches)
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
        return float(torch.stack(distances).mean())

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
            batches: as for ``reestimate_statistics``, of nearly the same size; they are gone through four times.

        Raises:
            TypeError, ValueError: as ``reestimate_statistics``.
        """
        if self.statistics_distance(batches) > DISTANT:
            return 1.0
        before = self._confidence(batches)
        stored = {norm: (norm.running_mean.clone(), norm.running_var.clone()) for norm in self.norms().values()}
        counted = [norm.num_batches_tracked.clone() for norm in stored]
        self.reestimate_statistics(batches, TRIAL)
        after = self._confidence(batches)
        for (norm, (mean, variance)), number in zip(stored.items(), counted, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.num_batches_tracked.copy_(number)
        return SHARE if after > before - TOLERANCE else 0.0

    def _confidence(self, batches: Iterable[Tensor]) -> float:
        """Give the mean probability of the likeliest class."""
        total, number = 0.0, 0
        with mode_of(self.norms().values(), training=False):
            for batch in batches:
                probabilities = self.forward_head(self.forward_features(batch.to(self.device))).double().softmax(dim=-1)
                total += float(probabilities.amax(dim=-1).sum())
                number += len(batch)
        return total / number

    def _pass(self, batches: Iterable[Tensor]) -> None:
        number = 0
        for number, batch in enumerate(batches, start=1):  # noqa: B007
            self.forward_features(batch.to(self.device) if isinstance(batch, Tensor) else batch)
        if not number:
            raise ValueError("There are no batches; expected one tensor of images (B, 3, H, W) or more.")


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
