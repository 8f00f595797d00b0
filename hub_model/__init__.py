"""The model repository, as it stands on the Hub.

configuration_wbc_resnet.py   what the network is and what its classes are called
modeling_wbc_resnet.py        the network (timm's verbs, torchvision's names) and its Hugging Face model
tensor_names.py               the stored tensors' names are transformers', the network's torchvision's
batch_statistics.py           how far images lie from those learnt from; statistics of a laboratory's unlabelled images
folding.py                    quick inference: batch norms folded into the convolutions, few images at a time; the same answers
head_fitting.py               the last layer, fitted with a few labelled cells of a laboratory
laboratory_fitting.py         both together: the share of new statistics, then the last layer
pipeline_wbc_resnet.py        ``pipeline(model=ID, trust_remote_code=True)``: photos of a smear in, cells and their count out
image_reading.py              whatever a user calls a picture → upright RGB, or why it cannot be used
smear_gate.py                 whether a picture may be a photo of a stained smear
cell_finding.py               a field → the boxes of its white cells
field_overlaps.py             fields of one slide → which cells two of them show
differential.py               named cells → the differential count, as JSON (differential.schema.json) and CSV
error_adjustment.py           the count, corrected for the network's own errors
sentences.py                  warnings and refusals, which a page can say in its reader's language too
handler.py                    what Inference Endpoints run: a picture in, labels or the differential count out
timm_wbc_resnet.py            the same network for ``timm.create_model("wbc_resnet24")``
onnx/                         for ONNX Runtime and transformers.js: the network, its 8-bit version, and how pictures are resized
config.json, preprocessor_config.json, model.safetensors, eval_results.json, README.md   written by train.py
"""
