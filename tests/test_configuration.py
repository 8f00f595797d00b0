"""The configuration: one config.json for transformers' class and ours, and no typo goes through."""

import inspect
import json

import pytest
from conftest import AUTO_MAP, LABELS, REPOSITORY
from transformers import AutoConfig, AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification

THE_NETWORK = {"depths": [3, 4], "hidden_sizes": [256, 512]}
OWN_FIELDS = [
    name
    for name, parameter in inspect.signature(WbcResNetConfig.__init__).parameters.items()
    if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
]
# What a release states about its answers, beside what the network is made of.
STATED = {
    "acceptance_threshold": 0.75,
    "acceptance_risk": 0.01,
    "energy_threshold": -2.5,
    "energy_accept_rate": 0.99,
    "negatives_label": "monocyte",
    "validation_confusion": {
        "labels": list(LABELS),
        "acceptance_threshold": 0.75,
        "energy_threshold": -2.5,
        "counts": {"here": {LABELS[0]: {LABELS[0]: 7, f"{LABELS[0]}?": 1}}},
    },
}


def counted(counts):
    return {"validation_confusion": STATED["validation_confusion"] | {"counts": counts}}


CLASSES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("depth", "depths"),
        ("hiden_sizes", "hidden_sizes"),
        ("num_chanels", "num_channels"),
        ("downsample_in_botleneck", "downsample_in_bottleneck"),
        ("id2labels", "id2label"),
        ("num_label", "num_labels"),
        ("acceptance_treshold", "acceptance_threshold"),
    ],
)
def test_a_typo_is_refused_and_the_right_word_offered(typo, meant):
    with pytest.raises(
        ValueError, match=rf"Unknown configuration key '{typo}'.*nothing reads it. Did you mean '{meant}'"
    ):
        WbcResNetConfig(**{typo: 3})


def test_a_key_like_no_other_is_refused_without_a_guess():
    with pytest.raises(ValueError, match=r"Unknown configuration key 'zygote' \(value 1\): nothing reads it\.$"):
        WbcResNetConfig(zygote=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_type": "basic"}, r"layer_type='basic' is not offered.*'bottleneck'"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu' is not offered.*'relu'"),
        ({"downsample_in_first_stage": True}, r"downsample_in_first_stage=True is not offered.*False"),
        ({"downsample_in_bottleneck": True}, r"downsample_in_bottleneck=True is not offered.*False"),
        ({"depths": [3, 4, 6]}, r"depths \(3, 4, 6\) and hidden_sizes \(256, 512\) must name the same stages"),
        ({"depths": [], "hidden_sizes": []}, r"must name the same stages"),
        ({"depths": [0, 4]}, r"depths is \(0, 4\); expected one to four stages of at least one block"),
        ({"depths": [1] * 5, "hidden_sizes": [64] * 5}, r"depths is \(1, 1, 1, 1, 1\); expected one to four stages"),
        ({"hidden_sizes": [256, 510]}, r"hidden_sizes \(256, 510\) must be multiples of 4"),
    ],
)
def test_what_the_network_does_not_offer_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        WbcResNetConfig(**fields)


def test_the_fields_are_those_of_transformers():
    theirs, ours = ResNetConfig(**THE_NETWORK).to_dict(), WbcResNetConfig().to_dict()
    assert ours["model_type"] == theirs["model_type"] == "resnet"
    network = [name for name in OWN_FIELDS if name not in STATED]
    assert len(network) == 8 and len(OWN_FIELDS) == 8 + len(STATED)
    assert {name: ours[name] for name in network} == {name: theirs[name] for name in network}
    assert not STATED.keys() & ours.keys(), "what is not set is not stored"


def test_saved_and_loaded_again(tmp_path):
    saved = WbcResNetConfig(
        num_channels=1,
        embedding_size=32,
        hidden_sizes=(64, 128),
        depths=(1, 2),
        auto_map=AUTO_MAP,
        **CLASSES,
        **STATED,
    )
    saved.save_pretrained(tmp_path)
    loaded = WbcResNetConfig.from_pretrained(tmp_path)
    for name in [*OWN_FIELDS, "id2label", "label2id", "num_labels", "auto_map"]:
        assert getattr(loaded, name) == getattr(saved, name), name
    assert loaded.hidden_sizes == [64, 128] and loaded.id2label[3] == "neutrophil"
    assert {name: getattr(loaded, name) for name in STATED} == STATED
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    "build",
    [
        lambda: WbcResNetForImageClassification(WbcResNetConfig(num_labels=4, auto_map=AUTO_MAP)),
        lambda: ResNetForImageClassification(ResNetConfig(num_labels=4, **THE_NETWORK)),
    ],
    ids=["ours", "theirs"],
)
def test_the_config_that_either_class_saves_is_read_by_both(build, tmp_path):
    build().save_pretrained(tmp_path)
    ours, theirs = WbcResNetConfig.from_pretrained(tmp_path), ResNetConfig.from_pretrained(tmp_path)
    for config in (ours, theirs):
        assert (config.depths, config.hidden_sizes, config.num_labels) == ([3, 4], [256, 512], 4)
    # Its keys one by one, as a constructor's arguments too.
    stored = json.loads((tmp_path / "config.json").read_text())
    assert WbcResNetConfig(**stored).depths == [3, 4]


@pytest.mark.parametrize("build", [lambda: ResNetConfig(**THE_NETWORK), WbcResNetConfig], ids=["theirs", "ours"])
def test_every_key_the_library_writes_out_is_accepted(build):
    """``to_dict`` is the longest form: every attribute, defaults included."""
    config = WbcResNetConfig(**build().to_dict())
    assert config.depths == [3, 4]


def test_keys_that_transformers_4_wrote_are_accepted():
    """Its names for the data type and the commit have changed since."""
    config = WbcResNetConfig(
        **json.loads("""{
            "_commit_hash": null, "architectures": ["ResNetForImageClassification"], "depths": [3, 4],
            "downsample_in_first_stage": false, "embedding_size": 64, "hidden_act": "relu", "hidden_sizes": [256, 512],
            "id2label": {"0": "tench", "1": "goldfish"}, "label2id": {"tench": 0, "goldfish": 1},
            "layer_type": "bottleneck", "model_type": "resnet", "num_channels": 3, "torch_dtype": "float32",
            "transformers_version": "4.18.0.dev0"}""")
    )
    assert config.id2label == {0: "tench", 1: "goldfish"}


def test_the_keys_of_the_shipped_config_are_accepted(model_folder):
    shipped = REPOSITORY / "hub_model" / "config.json"
    config = WbcResNetConfig.from_pretrained((shipped if shipped.is_file() else model_folder / "config.json").parent)
    assert (config.depths, config.hidden_sizes) == ([3, 4], [256, 512])
    assert config.auto_map == AUTO_MAP


def test_classes_must_be_numbered_from_zero_without_gaps():
    with pytest.raises(ValueError, match="must number its classes 0, 1, 2"):
        WbcResNetConfig(id2label={1: "a", 2: "b"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_channels": 0}, "num_channels is 0; expected a whole number above 0"),
        ({"num_channels": "3"}, "num_channels is '3'"),
        ({"embedding_size": -1}, "embedding_size is -1"),
        ({"hidden_sizes": [0, 0]}, "hidden_sizes is"),
        ({"depths": 3}, "depths is 3; expected a list"),
        ({"depths": "34"}, "depths is '34'; expected a list"),
        ({"id2label": {0: "a", 1: "a"}}, "must name each class once"),
    ],
)
def test_values_that_make_no_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WbcResNetConfig(**options)


def test_transformers_own_classes_load_a_folder_that_states_its_thresholds(tmp_path):
    """And hand them on when they save it; our class reads them there."""
    WbcResNetForImageClassification(WbcResNetConfig(auto_map=AUTO_MAP, **CLASSES, **STATED)).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
    assert type(config) is ResNetConfig and {name: getattr(config, name) for name in STATED} == STATED
    model, report = AutoModelForImageClassification.from_pretrained(
        tmp_path, trust_remote_code=False, output_loading_info=True
    )
    assert type(model) is ResNetForImageClassification and not any(
        report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys")
    )
    model.save_pretrained(tmp_path / "again")
    again = WbcResNetConfig.from_pretrained(tmp_path / "again")
    assert {name: getattr(again, name) for name in STATED} == STATED


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acceptance_threshold": 1.5}, r"acceptance_threshold is 1.5; expected a number from 0 to 1"),
        ({"acceptance_threshold": "0.9"}, r"acceptance_threshold is '0.9'; expected a number"),
        ({"acceptance_threshold": float("nan")}, r"acceptance_threshold is nan"),
        ({"acceptance_risk": -0.01}, r"acceptance_risk is -0.01; expected a number from 0 to 1"),
        ({"acceptance_risk": True}, r"acceptance_risk is True; expected a number"),
        ({"energy_threshold": float("inf")}, r"energy_threshold is inf; expected a finite number, in nats"),
        ({"energy_accept_rate": 99}, r"energy_accept_rate is 99; expected a number from 0 to 1"),
        ({"acceptance_threshold": None}, r"acceptance_threshold is missing: .* together or not at all"),
        ({"acceptance_risk": None}, r"acceptance_risk is missing: acceptance_threshold and acceptance_risk"),
        ({"energy_threshold": None}, r"energy_threshold is missing: energy_threshold and energy_accept_rate"),
        ({"energy_accept_rate": None}, r"energy_accept_rate is missing"),
        ({"negatives_label": "other"}, r"negatives_label is 'other'; expected one of .*'neutrophil'\]. Call it as"),
        (
            {"validation_confusion": {"here": {}}},
            r"validation_confusion is .*; expected an object with labels, acceptance",
        ),
        (
            counted({"here": {"blast": {"blast": 1}}}),
            r"has the counts .*'blast'.* Count them anew with count_errors.py",
        ),
        (counted({"here": {LABELS[0]: {"blast": 1}}}), "Count them anew"),
        (counted({"here": {LABELS[0]: {LABELS[0]: -1}}}), "Count them anew"),
        (counted({"here": {LABELS[0]: {LABELS[0]: 0.5}}}), "Count them anew"),
        (counted([]), "Count them anew"),
    ],
    ids=str,
)
def test_statements_that_cannot_be_are_refused(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        WbcResNetConfig(**CLASSES, **(STATED | changed))
    # The library writes what from_pretrained is told into a finished configuration.
    WbcResNetConfig(**CLASSES, **STATED).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        WbcResNetConfig.from_pretrained(tmp_path, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"acceptance_threshold": 0.8},
        {"energy_threshold": -2.0},
        {"id2label": {n: name[::-1] for n, name in enumerate(LABELS)}},
    ],
    ids=str,
)
def test_errors_counted_with_other_thresholds_or_names_are_not_used(changed):
    same = WbcResNetConfig(**CLASSES, **STATED)
    assert same.usable_confusion() == STATED["validation_confusion"]["counts"]
    other = CLASSES | STATED | {"negatives_label": None} | changed
    other.pop("label2id")
    assert WbcResNetConfig(**other).usable_confusion() is None
    assert WbcResNetConfig(**CLASSES).usable_confusion() is None


def test_the_least_and_the_largest_shares_are_allowed():
    config = WbcResNetConfig(acceptance_threshold=0, acceptance_risk=1, energy_threshold=3, energy_accept_rate=1.0)
    assert (config.acceptance_threshold, config.energy_threshold) == (0, 3)


@pytest.mark.parametrize(
    "asked",
    [{"num_labels": 7}, {"id2label": {0: "blast", 1: "band"}}, {"num_labels": 2, "id2label": {0: "blast", 1: "band"}}],
    ids=str,
)
def test_thresholds_do_not_outlive_their_classes(asked, tmp_path):
    WbcResNetConfig(**CLASSES, **STATED).save_pretrained(tmp_path)
    config = WbcResNetConfig.from_pretrained(tmp_path, **asked)
    assert {name for name in STATED if getattr(config, name) is not None} == set()
    config.save_pretrained(tmp_path / "again")
    assert WbcResNetConfig.from_pretrained(tmp_path / "again").id2label == config.id2label


def test_other_names_for_the_same_classes_keep_the_thresholds(tmp_path):
    WbcResNetConfig(**CLASSES, **STATED).save_pretrained(tmp_path)
    names = {number: label.upper() for number, label in enumerate(LABELS)}
    config = WbcResNetConfig.from_pretrained(tmp_path, id2label=names, negatives_label="MONOCYTE")
    assert (config.acceptance_threshold, config.negatives_label) == (0.75, "MONOCYTE")
