"""A page that names the white blood cell in one photograph and shows where the network looked.

python space/app.py                                     # the model in ../hub_model, else the one on the Hub
python space/app.py --model hub_model --port 7860       # a folder, or a model's name on the Hub

WBC_MODEL and WBC_REVISION in the environment say which model where no argument does. The page is served to this
machine alone unless --host says otherwise.
"""

import argparse
import hashlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import page
import texts
import torch
from gradio.utils import get_upload_folder
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray
from overlay import overlay, speaks_for
from PIL import Image
from reading import HEAVIEST, PictureError, read_upload
from transformers import AutoImageProcessor, AutoModelForImageClassification

MODEL = "wbc-resnet/wbc-resnet24"
REVISION = "v1.0.0"
HERE = Path(__file__).resolve().parent
EXAMPLES = HERE / "examples"
WEIGHTS = "model.safetensors"
# gradio brings the weight 600 of this font with Cyrillic letters only: 700 is whole.
FONT = (gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif")

# What /classify answers, as a JSON schema for its clients.
ANSWER = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "verdict": {"type": "string"},
        "reason": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "label": {"type": "string"},
        "score": {"type": "number"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "notes": {"type": "array", "items": {"type": "string"}},
        "model": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "revision": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "sha256": {"type": "string"},
            },
        },
    },
}


@dataclass
class Classifier:
    """The network with its image processor, and how to tell which weights they are.

    Attributes:
        name: the folder's name, or the model's name on the Hub.
        revision: of the model on the Hub; None for a folder.
        sha256: of the file of weights.
    """

    network: torch.nn.Module
    processor: Any
    name: str
    revision: str | None
    sha256: str

    @property
    def labels(self) -> list[str]:
        """The subtypes, as the model's configuration numbers them."""
        return [self.network.config.id2label[number] for number in range(self.network.config.num_labels)]

    @property
    def subtypes(self) -> list[str]:
        """The labels without the one that means "none of the others"."""
        return [label for label in self.labels if label != self.network.config.negatives_label]

    @torch.inference_mode()
    def classify(self, image: Image.Image) -> tuple[dict[str, float], NDArray[np.float32], tuple[str, str | None]]:
        """Return the probability of every label, in the configuration's order, the evidence (classes, h, w), and the verdict.

        The verdict is a label and None, or "unidentified" and the reason.
        """
        pixels = self.processor(image, return_tensors="pt")["pixel_values"]  # (1, 3, 224, 224)
        output = self.network(pixel_values=pixels, output_evidence=True)
        logits = output.logits[0].double()  # (classes,)
        probabilities = logits.softmax(dim=-1)
        verdict = self.network.decide(probabilities, float(self.network.energy(logits)))
        return dict(zip(self.labels, probabilities.tolist(), strict=True)), output.evidence[0].numpy(), verdict


def load(model: str | Path) -> Classifier:
    """Load a model by folder or by name on the Hub.

    Raises:
        ValueError: it is neither, or it gives no evidence map.
        OSError: the Hub does not have it, or cannot be reached.
    """
    model = str(model)
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(texts.NO_CONFIG.format(model=model))
        revision, name, weights = None, folder.resolve().name, folder / WEIGHTS
        pinned = {}
    elif model.count("/") == 1 and not model.startswith((".", "/")):
        revision, name = pinned_revision(model), model
        weights = Path(hf_hub_download(model, WEIGHTS, revision=revision))
        pinned = {"revision": revision}
    else:
        raise ValueError(texts.NO_FOLDER.format(model=model, example=MODEL))
    # The library's own ResNet loads the same folder, but only the model's own class tells where it looked.
    network = AutoModelForImageClassification.from_pretrained(model, trust_remote_code=True, **pinned).eval()
    processor = AutoImageProcessor.from_pretrained(model, **pinned)
    classifier = Classifier(network, processor, name, revision, hashlib.sha256(weights.read_bytes()).hexdigest())
    try:
        # A first picture also makes the visitor's first answer a quick one.
        classifier.classify(Image.new("RGB", (64, 64)))
    except (TypeError, AttributeError) as error:
        raise ValueError(texts.NO_EVIDENCE.format(model=model)) from error
    return classifier


def pinned_revision(model: str) -> str:
    """Say which commit or tag of a model on the Hub to run: remote code runs from one that somebody chose, never from
    whatever stands there today.

    Raises:
        ValueError: nobody chose one.
    """
    revision = os.environ.get("WBC_REVISION") or (REVISION if model == MODEL else None)
    if revision is None:
        raise ValueError(texts.NO_REVISION.format(model=model))
    return revision


def chosen_model(argument: str | None = None) -> str:
    """Say which model to load: the argument, else WBC_MODEL, else the folder of this checkout, else MODEL."""
    beside = HERE.parent / "hub_model"
    default = str(beside) if (beside / "config.json").is_file() else MODEL
    return argument or os.environ.get("WBC_MODEL") or default


def build(model_dir: str | Path) -> gr.Blocks:
    """Build the page around the model in a folder, or on the Hub by its name."""
    classifier = load(model_dir)
    readable = (Path(get_upload_folder()), EXAMPLES)

    def show(image: dict[str, Any] | None) -> str:
        if image is None:
            return page.welcome(classifier.subtypes)
        try:
            picture = read_upload(image, readable)
        except PictureError as error:
            return page.problem(str(error))
        probabilities, evidence, (verdict, reason) = classifier.classify(picture.image)
        values = speaks_for(evidence, int(np.argmax(list(probabilities.values()))))
        name = texts.NO_SUBTYPE if verdict == classifier.network.config.negatives_label else page.human(verdict)
        covered = overlay(picture.image, values)
        return page.answer(probabilities, covered, bool(values.any()), picture.notes, name, reason)

    def classify(image: dict[str, Any] | None) -> dict[str, Any]:
        try:
            picture = read_upload(image, readable)
        except PictureError as error:
            raise gr.Error(str(error), print_exception=False) from error
        probabilities, _, (verdict, reason) = classifier.classify(picture.image)
        label = max(probabilities, key=lambda key: probabilities[key])
        return {
            "verdict": verdict,
            "reason": reason,
            "label": label,
            "score": probabilities[label],
            "probabilities": probabilities,
            "notes": picture.notes,
            "model": {"name": classifier.name, "revision": classifier.revision, "sha256": classifier.sha256},
        }

    # Served from where they lie: a copy in the cache would be deleted with the visitors' pictures.
    gr.set_static_paths(EXAMPLES)
    # delete_cache: every five minutes, what is older than five minutes.
    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(300, 300)) as demo:
        gr.HTML(page.header())
        with gr.Row(elem_classes="wbc-row"):
            with gr.Column(scale=4, min_width=300):
                photo = gr.Image(
                    label=texts.PHOTO,
                    show_label=False,
                    placeholder=texts.PLACEHOLDER,
                    sources=["upload", "clipboard", "webcam"],
                    type="filepath",
                    image_mode=None,
                    height=312,
                    buttons=[],
                    elem_id="photo",
                )
                gr.HTML(page.examples_label())
                with gr.Row(elem_classes="wbc-examples"):
                    for file in sorted(EXAMPLES.glob("*.png")):
                        example = gr.Button(page.human(file.stem), icon=file, variant="secondary", min_width=60)
                        example.click(
                            partial(str, file), outputs=photo, api_visibility="private", show_progress="hidden"
                        )
            with gr.Column(scale=9, min_width=300, elem_classes="wbc-result"):
                result = gr.HTML(page.welcome(classifier.subtypes), elem_id="result")
        risk = classifier.network.config.acceptance_risk
        gr.HTML(page.footer(classifier.name, classifier.revision, classifier.sha256, risk))
        answer = gr.JSON(label="answer", visible=False)
        answer.api_info = lambda: ANSWER
        # preprocess=False: gradio's own reading would clip 16-bit grey and raise Pillow's errors at the visitor.
        common = {"inputs": photo, "preprocess": False, "concurrency_id": "network", "concurrency_limit": 1}
        photo.change(
            show, outputs=result, api_visibility="private", show_progress="hidden", trigger_mode="always_last", **common
        )
        gr.on([], classify, outputs=answer, api_name="classify", api_description=texts.API, **common)
    return demo.queue(max_size=32)


def launch(demo: gr.Blocks, host: str, port: int) -> str:
    """Serve the page without waiting for its end, and return its address.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    _, url, _ = demo.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        theme=gr.themes.Default(primary_hue="indigo", neutral_hue="zinc", radius_size="lg", font=FONT),
        css_paths=page.CSS,
        favicon_path=HERE / "favicon.png",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        max_file_size=HEAVIEST,
        ssr_mode=False,
        pwa=False,
    )
    return url


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder, or a model's name on the Hub")
    # A Space sets these two variables; elsewhere the page stays on this machine.
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    options = parser.parse_args(arguments)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    with private_uploads():
        run(chosen_model(options.model), options.host, options.port)


@contextmanager
def private_uploads() -> Iterator[None]:
    """Keep visitors' pictures in a folder that goes with the program, also when a supervisor ends it."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with tempfile.TemporaryDirectory(prefix="wbc-", dir=before) as uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads
            yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def run(model: str, host: str, port: int) -> None:
    """Load the model and serve the page until the program is ended; exits with a sentence if either cannot be done."""
    try:
        demo = build(model)
    except (OSError, ValueError) as error:
        sys.exit(texts.NOT_LOADED.format(model=model, reason=error))
    try:
        url = launch(demo, host, port)
    except OSError:
        sys.exit(texts.PORT_TAKEN.format(host=host, port=port, other=port + 1))
    print(texts.RUNNING.format(url=url))
    demo.block_thread()


if __name__ == "__main__":
    main()
