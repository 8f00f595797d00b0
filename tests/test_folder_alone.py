"""The folder, not the checkout: hub_model alone, elsewhere, without network and without timm, loads and answers."""

import pytest

from publishing.alone import visit


@pytest.fixture(scope="module")
def seen(model_folder):
    """What a stranger sees who has the folder in an otherwise empty directory, one picture, no timm and no way out."""
    found = visit("model", model_folder)
    assert found["errors"] == {}
    return found


def test_both_doors_answer_the_same(seen):
    assert seen["pixels"] == [1, 3, 224, 224]
    assert seen["plain"]["logits"] == pytest.approx(seen["remote"]["logits"], abs=1e-6)
    assert len(seen["plain"]["logits"]) == 4
    assert seen["plain"]["label"] == seen["remote"]["label"]


def test_only_the_remote_door_runs_the_folders_code(seen):
    assert not seen["plain"]["evidence"] and not seen["plain"]["from the cache"]
    assert seen["remote"]["evidence"] and seen["remote"]["from the cache"]
    assert {"configuration_wbc_resnet.py", "modeling_wbc_resnet.py"} <= set(seen["cached"])
    assert "timm_wbc_resnet.py" not in seen["cached"]
    assert not seen["checkout"]


def test_the_pipelines_answer_as_the_doors_do(seen):
    assert seen["pipeline"] == seen["plain pipeline"] == seen["plain"]["label"]
    assert seen["cells"] == 1, "the picture shows one white cell"


def test_without_timm_the_network_builds_and_the_rest_says_what_is_missing(seen):
    assert seen["built"] == [1, 6]
    assert seen["label"] == "eosinophil"
    assert seen["pretrained"].startswith("ImportError: wbc_resnet24(pretrained) needs timm: pip install timm")
    assert seen["features_only"].startswith("ImportError: wbc_resnet24(features_only) needs timm: pip install timm")
    assert seen["num_clases"].startswith("TypeError") and "num_clases" in seen["num_clases"]
