"""A release brings new weights and figures, and keeps the cross-validations, which are of other weights."""

import json
import shutil

import pytest
from conftest import REPOSITORY
from made_up import MEASURED_BY

from evaluation.evidence import KEPT_OF_TRAINING
from evaluation.release import release
from evaluation.results import read_results, write_results


@pytest.fixture
def folders(tmp_path):
    """A finished training without cross-validations, and the repository as it is published."""
    trained, repository = (shutil.copytree(REPOSITORY / "hub_model", tmp_path / name) for name in ("trained", "hub"))
    results = read_results(trained / "eval_results.json")
    del results["protocol"], results["evidence"]  # which a training alone does not have
    results["model"]["name"] = "somebody/newer"
    (trained / "eval_results.json").write_text(json.dumps(results))
    (trained / "model.safetensors").write_bytes(b"newer weights")
    return trained, repository


def test_weights_and_figures_are_new_and_the_cross_validations_stay(folders):
    trained, repository = folders
    before = read_results(repository / "eval_results.json")
    release(trained, repository)
    after = read_results(repository / "eval_results.json")
    assert (repository / "model.safetensors").read_bytes() == b"newer weights"
    assert after["model"]["name"] == before["model"]["name"], "the repository's, not the run's"
    assert after["protocol"] == before["protocol"]


def test_evidence_of_other_weights_stays_and_a_stress_test_goes_with_the_weights_it_is_of(folders):
    trained, repository = folders
    results = read_results(repository / "eval_results.json")
    seed = {"model": results["model"], "training": {key: results["training"].get(key) for key in KEPT_OF_TRAINING}}
    stress = {"schema_version": 1, "model": results["model"], "dataset": "pbc", "split": "test", "split_seed": 0}
    stress |= {"left_out": {}, "parts": {"symmetry": dict(MEASURED_BY)}}
    evidence = {"official": [seed | {"results": results["results"]}], "stress": [stress]}
    write_results(repository / "eval_results.json", results | {"evidence": evidence})
    release(trained, repository)  # the same weights, by their figures
    assert read_results(repository / "eval_results.json")["evidence"] == evidence
    newer = json.loads((trained / "eval_results.json").read_text())
    newer["model"]["sha256"] = "0" * 64
    (trained / "eval_results.json").write_text(json.dumps(newer))
    release(trained, repository)
    assert read_results(repository / "eval_results.json")["evidence"] == {"official": evidence["official"]}


def test_an_unfinished_training_changes_nothing(folders):
    trained, repository = folders
    (trained / "model.safetensors").unlink()
    before = {path.name: path.read_bytes() for path in repository.iterdir() if path.is_file()}
    with pytest.raises(FileNotFoundError, match="model.safetensors is no file; expected a training that has come to"):
        release(trained, repository)
    assert before == {path.name: path.read_bytes() for path in repository.iterdir() if path.is_file()}
