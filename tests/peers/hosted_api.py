"""The hosted inference API as PyPI's api-inference-community serves it, around the plain door; uvicorn runs ``app``.

Below ``/api/models`` stands what a client asks of the Hub before it asks a model by its id.
"""

import os

from api_inference_community.routes import pipeline_route, status_ok
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline


class ImageClassification:
    """What its documentation has one write for a library: a model's id in, the task's answer out."""

    def __init__(self, model_id):
        self.classify = pipeline("image-classification", model=model_id, trust_remote_code=False)

    def __call__(self, inputs, **parameters):
        return self.classify(inputs, **parameters)


async def model_info(request):
    name = request.path_params["name"]
    return JSONResponse(
        {"id": name, "pipeline_tag": "image-classification", "library_name": "transformers", "tags": []}
    )


app = Starlette(
    routes=[
        Route("/api/models/{name:path}", model_info),
        Route("/{whatever:path}", status_ok),
        Route("/{whatever:path}", pipeline_route, methods=["POST"]),
    ]
)
_served = ImageClassification(os.environ["MODEL_ID"])
app.get_pipeline = lambda: _served
