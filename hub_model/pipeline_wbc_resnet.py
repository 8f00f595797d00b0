"""Our pipeline, ``pipeline(model=ID, trust_remote_code=True)``: it names the cell in an image, or says why it does not."""

from typing import Any

import torch
from torch import Tensor
from transformers import ImageClassificationPipeline


def flips_and_turns(pixel_values: Tensor) -> list[Tensor]:
    """Give the eight views of images (B, C, H, W) that flips and quarter turns make, the images themselves first."""
    turned = [pixel_values.rot90(turns, dims=(2, 3)) for turns in range(4)]
    return turned + [view.flip(3) for view in turned]


class WbcClassificationPipeline(ImageClassificationPipeline):
    """Name the white blood cell in an image, or say that it is unidentified.

    For each image, which may be whatever the library's own pipeline takes, the answer is a dictionary:

    - ``verdict``: a class's name, or ``"unidentified"``
    - ``reason``: why unidentified, ``"low confidence"`` or ``"unlike the images learnt from"``; otherwise None
    - ``confidence``: probability of the likeliest class, 0..1
    - ``energy``: in nats, low for images like those learnt from
    - ``probabilities``: ``{"label": ..., "score": ...}`` for each class, the likeliest first

    The thresholds stand in config.json; a model without them always gives its likeliest class.

    Args:
        views: 8 averages the probabilities and the energy over the eight flips and quarter turns of the image, since a smear
            has no up. That takes eight times as long as 1, with which the thresholds were measured.
        timeout: seconds to wait for an image from the network.
    """

    def _sanitize_parameters(self, views: int | None = None, timeout: float | None = None):
        if views not in (None, 1, 8):
            raise ValueError(f"views is {views!r}; expected 1, or 8 for all flips and quarter turns.")
        return ({} if timeout is None else {"timeout": timeout}), ({} if views is None else {"views": views}), {}

    def _forward(self, model_inputs: dict[str, Tensor], views: int = 1) -> dict[str, Tensor]:
        seen = flips_and_turns(model_inputs["pixel_values"])[:views]
        logits = [self.model(pixel_values=view).logits for view in seen]
        return {"logits": torch.stack(logits, dim=1)}  # (B, views, classes)

    def postprocess(self, model_outputs: dict[str, Tensor]) -> dict[str, Any]:
        logits = model_outputs["logits"][0].double()  # (views, classes)
        probabilities = logits.softmax(dim=-1).mean(dim=0)  # (classes,)
        energy = float(self.model.energy(logits).mean())
        verdict, reason = self.model.decide(probabilities, energy)
        scores = [
            {"label": self.model.config.id2label[number], "score": score}
            for number, score in enumerate(probabilities.tolist())
        ]
        scores.sort(key=lambda row: row["score"], reverse=True)
        return {
            "verdict": verdict,
            "reason": reason,
            "confidence": scores[0]["score"],
            "energy": energy,
            "probabilities": scores,
        }
