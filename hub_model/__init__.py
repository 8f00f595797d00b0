"""The model repository, as it stands on the Hub.

configuration_wbc_resnet.py   what the network is and what its classes are called
modeling_wbc_resnet.py        the network (timm's verbs, torchvision's names) and its Hugging Face model
pipeline_wbc_resnet.py        ``pipeline(model=ID, trust_remote_code=True)``: a name, or "unidentified" and why
timm_wbc_resnet.py            the same network for ``timm.create_model("wbc_resnet24")``
config.json, preprocessor_config.json, model.safetensors, eval_results.json, README.md   written by train.py
"""
