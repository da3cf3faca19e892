"""The importer of the authors' checkpoints: their numbers, and nothing run from a hostile one."""

import collections
import hashlib
import io
import json
import os
import pickle
import pickletools
import struct
import sys
import zipfile

import pytest
import torch

from candor.data.cifar10 import CLASS_NAMES, load_cifar10
from candor.files.reading import UnusableFile
from candor.models.families.released import UnsafeCheckpoint, read_released
from candor.nets.architectures import NetworkSpec, build_network

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2430, 0.2610)
THEIR_PARTS = {"norm1": "pre.0", "conv1": "main.0", "norm2": "main.1", "conv2": "main.3"}
FORMATS = pytest.mark.parametrize("is_zip", [False, True], ids=["stream", "zip"])


def cifar10_preprocess(width):
    """Named by the synthetic checkpoints, as the authors' function of this name is by theirs."""
    raise AssertionError("a checkpoint's function was called")


@pytest.fixture(autouse=True)
def _named_main(monkeypatch):
    monkeypatch.setattr(cifar10_preprocess, "__module__", "__main__")
    monkeypatch.setattr(
        sys.modules["__main__"], "cifar10_preprocess", cifar10_preprocess, raising=False
    )


def spec_of(**changes):
    values = {
        "architecture": "cifar-resnet20",
        "class_count": 10,
        "mean": MEAN,
        "std": STD,
        "activation": "hhrelu",
    }
    return NetworkSpec(**values | changes)


def random_network(spec):
    torch.manual_seed(0)
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.num_batches_tracked.fill_(7)
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network.eval()


def their_name(ours):
    for part, theirs in (("stem", "pipe.0"), ("norm", "pipe.4"), ("head", "pipe.7")):
        if ours.startswith(part + "."):
            return theirs + ours.removeprefix(part)
    _, stage, block, layer, leaf = ours.split(".")
    return f"pipe.{int(stage) + 1}.{block}.{THEIR_PARTS.get(layer, layer)}.{leaf}"


def their_content(network, spec, knee=0.5):
    """A checkpoint of ``network`` with the keys and shapes of the authors' files."""
    params = collections.OrderedDict(input_offset=torch.tensor([spec.mean, spec.std]))
    for name, tensor in network.state_dict().items():
        params[their_name(name)] = tensor[:, :, None, None] if name == "head.weight" else tensor
    is_robust = spec.activation == "hhrelu"
    if is_robust:
        for key in [key for key in params if key.endswith("main.0.weight")]:
            prefix = key.removesuffix("main.0.weight")
            params[prefix + "pre.1.d"] = torch.tensor(knee)
            params[prefix + "main.2.d"] = torch.tensor(knee)
        params["pipe.5.d"] = torch.tensor(knee)
    blocks = [len(stage) for stage in network.stages]
    options = {
        "robust_additions": is_robust,
        "adversarial_training": True,
        "l2_min": False,
        "arch": [32, cifar10_preprocess, blocks, [16, 32, 64], 10],
        "input_offset": [list(spec.mean), list(spec.std)],
    }
    return {"model_params": params, "training_options": options}


@pytest.fixture(scope="module")
def network():
    return random_network(spec_of())


@pytest.fixture
def content(network):
    return their_content(network, spec_of())


@pytest.fixture
def write(tmp_path):
    def write(content, *, is_zip=False):
        path = tmp_path / "checkpoint.pt"
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "activation", "accuracy", "options"),
    [
        (
            "resnet44-all",
            "hhrelu",
            0.668,
            {"robust_additions": True, "adversarial_training": True, "l2_min": True},
        ),
        (
            "resnet44-standard",
            "relu",
            0.825,
            {"robust_additions": False, "adversarial_training": False, "l2_min": False},
        ),
    ],
)
def test_released_network_has_its_measured_accuracy(
    reference_dir, data_dir, name, activation, accuracy, options
):
    path = reference_dir / f"{name}.pt"
    released = read_released(path)
    assert released.spec == spec_of(architecture="cifar-resnet44", activation=activation)
    assert released.class_names == CLASS_NAMES
    assert released.recipe["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert options.items() <= released.recipe["training_options"].items()
    json.dumps(released.recipe, allow_nan=False)

    imported = build_network(released.spec).eval()
    imported.load_state_dict(released.state_dict)
    data = load_cifar10(data_dir, "test")
    with torch.no_grad():
        predicted = imported(data.images(slice(0, 300))).argmax(1)
    measured = (predicted == data.labels[:300]).double().mean().item()
    # Three standard errors of 300 images.
    assert measured == pytest.approx(accuracy, abs=3 * (accuracy * (1 - accuracy) / 300) ** 0.5)


@FORMATS
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation": "relu"},
        {"width_factor": 2},
        {"mean": (0.5, 0.25, 0.1), "std": (1.0, 0.3, 0.7)},
    ],
)
def test_imported_network_computes_the_same_logits(write, changes, is_zip):
    spec = spec_of(**changes)
    network = random_network(spec)
    released = read_released(write(their_content(network, spec), is_zip=is_zip))
    assert released.spec == spec
    imported = build_network(released.spec).eval()
    imported.load_state_dict(released.state_dict)
    images = torch.rand(3, 3, 12, 8)
    with torch.no_grad():
        assert torch.equal(imported(images), network(images))


def test_knee_of_their_activation_becomes_the_curvature(write, network):
    released = read_released(write(their_content(network, spec_of(), knee=0.25)))
    assert released.spec.curvature == 2.0


def test_import_leaves_the_global_generator_alone(write, content):
    path = write(content)
    before = torch.get_rng_state()
    read_released(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_import_leaves_no_allowed_global_behind(write, content):
    before = torch.serialization.get_safe_globals()
    read_released(write(content))
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_missing_batch_counters_start_at_zero(write, content):
    params = content["model_params"]
    for key in [key for key in params if key.endswith("num_batches_tracked")]:
        del params[key]
    released = read_released(write(content))
    assert released.state_dict["norm.num_batches_tracked"] == 0


def test_recipe_keeps_plain_options_only(write, content):
    content["training_options"] |= {"robust_integration": 208.5, "bad": float("nan"), "l": [1]}
    options = read_released(write(content)).recipe["training_options"]
    assert options == {
        "robust_additions": True,
        "adversarial_training": True,
        "l2_min": False,
        "robust_integration": 208.5,
    }


class Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


HOSTILE = {
    "os.system": (lambda file: Call(os.system, f"touch {file}"), r"(posix|nt)\.system"),
    "eval": (lambda file: Call(eval, f"open({str(file)!r}, 'w')"), r"(__builtin__|builtins)\.eval"),
    "getattr": (
        lambda file: Call(getattr, Call(__import__, "os"), "system"),
        r"(__builtin__|builtins)\.(getattr|__import__)",
    ),
    "open": (lambda file: Call(open, str(file), "w"), r"_?io\.open"),
    "torch.load": (lambda file: Call(torch.load, str(file)), r"torch\.serialization\.load"),
    "main": (lambda file: Call(cifar10_preprocess, 16), r"__main__\.cifar10_preprocess"),
}


@FORMATS
@pytest.mark.parametrize("place", ["top", "model_params", "training_options", "arch"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_and_not_run(tmp_path, write, content, name, place, is_zip):
    make, named = HOSTILE[name]
    witness = tmp_path / "witness"
    hostile = make(witness)
    if place == "top":
        content = hostile
    elif place == "model_params":
        content["model_params"]["pipe.0.weight"] = hostile
    elif place == "training_options":
        content["training_options"]["l2_min"] = {"deep": [hostile]}
    else:
        content["training_options"]["arch"][1] = hostile
    path = write(content, is_zip=is_zip)
    with pytest.raises(UnsafeCheckpoint, match=named) as caught:
        read_released(path)
    assert "checkpoint.pt" in str(caught.value)
    assert not witness.exists()


def stream_parts(path):
    """The five pickles of a stream, and the raw storages behind them."""
    stream = io.BytesIO(path.read_bytes())
    parts, start = [], 0
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        parts.append(stream.getvalue()[start : stream.tell()])
        start = stream.tell()
    return parts, stream.getvalue()[start:]


@pytest.mark.parametrize("position", range(5))
def test_hostile_pickle_in_any_part_of_the_stream_is_refused(tmp_path, write, content, position):
    path = write(content)
    witness = tmp_path / "witness"
    parts, storages = stream_parts(path)
    parts[position] = pickle.dumps(Call(os.system, f"touch {witness}"), protocol=2)
    path.write_bytes(b"".join(parts) + storages)
    with pytest.raises(UnsafeCheckpoint, match="system"):
        read_released(path)
    assert not witness.exists()


def test_hostile_pickle_among_the_storage_bytes_is_never_read(tmp_path, write, content):
    path = write(content)
    witness = tmp_path / "witness"
    hostile = pickle.dumps(Call(os.system, f"touch {witness}"), protocol=2)
    path.write_bytes(path.read_bytes() + hostile)
    read_released(path)
    assert not witness.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_bare_pickle_of_any_protocol_is_refused(tmp_path, protocol):
    path, witness = tmp_path / "checkpoint.pt", tmp_path / "witness"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {witness}"), protocol=protocol))
    with pytest.raises(UnsafeCheckpoint, match=r"(posix|nt).system"):
        read_released(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "os system"),
        (b"cos\nsystem\n(S'x'\no.", "os.system"),
        (b"\x80\x02c__main__\nA\n)\x81.", "NEWOBJ"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.", "os system"),
        (b"\x80\x04h\x00h\x01\x93.", "computed"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02c__main__ os\nsystem\n.", "system"),
        (b"\x80\x02c__main__\nos.system\n.", r"__main__\.os\.system"),
        (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "_rebuild_qtensor"),
    ],
)
def test_every_way_to_name_a_global_is_refused(tmp_path, payload, named):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(payload)
    with pytest.raises(UnsafeCheckpoint, match=named):
        read_released(path)


def test_second_pickle_in_a_zip_is_refused(tmp_path, write, content):
    path = write(content, is_zip=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("checkpoint/constants.pkl", pickle.dumps(1))
    with pytest.raises(ValueError, match="exactly one data.pkl"):
        read_released(path)


def test_compressed_zip_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("checkpoint/data.pkl", b"0" * 10_000)
    with pytest.raises(ValueError, match="compressed"):
        read_released(path)


class Shadowing:
    """Pickles as an OrderedDict whose own attributes hide its methods."""

    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        shadows = dict.fromkeys(("items", "get", "keys", "values"), collections.OrderedDict)
        return collections.OrderedDict, (), shadows, None, iter(self.items.items())


def test_methods_shadowed_by_the_pickle_are_not_called(write, content):
    content["model_params"] = Shadowing(content["model_params"])
    assert read_released(write(content)).spec == spec_of()


def refused(path, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        read_released(path)
    assert type(caught.value) is ValueError
    assert str(path) in str(caught.value)


def test_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_released(tmp_path / "none.pt")


def test_oversized_file_is_refused_unread(write, content, monkeypatch):
    monkeypatch.setattr("candor.models.families.released.MAX_BYTES", 1000)
    with pytest.raises(UnusableFile, match=r"checkpoint.pt: expected at most 1000 bytes"):
        read_released(write(content))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        b"\x00" * 300,
        b"PK\x03\x04" + b"\x00" * 300,
        b"PK\x03\x04",
        b"not a checkpoint\n" * 30,
        pickle.dumps({"model_params": {}}, protocol=2),
        b"\x80\x02\x8a" + struct.pack("B", 200),
    ],
    ids=range(8),
)
def test_garbage_is_refused(tmp_path, garbage):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(garbage)
    refused(path, "empty|damaged|magic")


@FORMATS
@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(write, content, share, is_zip):
    path = write(content, is_zip=is_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "damaged|not a readable checkpoint|magic")


def test_flipped_bytes_never_raise_anything_but_value_error(write, content, rng):
    path = write(content)
    whole = path.read_bytes()
    pickled = len(whole) // 20
    for _ in range(25):
        broken = bytearray(whole)
        for place in rng.integers(0, pickled, 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            read_released(path)
        except ValueError:
            continue


def change(name, value):
    return lambda params: params.__setitem__(name, value)


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda params: params.pop("pipe.0.weight"), "pipe.0.weight: missing"),
        (lambda params: params.pop("pipe.7.bias"), "pipe.7.bias: missing"),
        (lambda params: params.pop("input_offset"), "input_offset: missing"),
        (lambda params: params.pop("pipe.2.0.shortcut.weight"), "shortcut.weight: missing"),
        (lambda params: params.pop("pipe.3.2.main.0.weight"), "blocks"),
        (lambda params: params.pop("pipe.5.d"), "expected 19 knees, got 18"),
        (change("pipe.5.d", torch.tensor(0.25)), "one positive knee"),
        (change("pipe.5.d", torch.tensor(float("nan"))), "one positive knee"),
        (change("pipe.9.weight", torch.zeros(1)), "pipe.9.weight: no such tensor"),
        (change("pipe.0.weight", torch.zeros(16, 1, 3, 3)), "pipe.0.weight: expected shape"),
        (change("pipe.0.weight", torch.zeros(0, 3, 3, 3)), "pipe.0.weight: expected shape"),
        (change("pipe.0.weight", torch.zeros(16, 3, 5, 5)), "pipe.0.weight: expected"),
        (change("pipe.0.weight", torch.zeros(3)), "pipe.0.weight: expected"),
        (change("pipe.0.weight", torch.zeros(1).expand(10**9, 3, 3, 3)), "pipe.0.weight: expected"),
        (change("pipe.7.weight", torch.zeros(100, 64, 1, 1)), "got 100"),
        (change("pipe.7.weight", torch.zeros(10, 64)), "pipe.7.weight: expected"),
        (change("pipe.4.bias", torch.zeros(64, dtype=torch.float64)), "pipe.4.bias: expected"),
        (change("pipe.4.bias", torch.full((64,), float("inf"))), "pipe.4.bias: expected finite"),
        (change("input_offset", torch.zeros(2, 3)), "input_offset"),
        (change("input_offset", torch.full((2, 3), float("inf"))), "input_offset"),
        (change("pipe.4.bias", 3), "'pipe.4.bias' is not a named tensor"),
        (change(3, torch.zeros(1)), "3 is not a named tensor"),
    ],
)
def test_state_dict_of_another_network_is_refused(write, content, alter, reason):
    alter(content["model_params"])
    refused(write(content), reason)


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        ({}, "model_params: missing"),
        ([], "got a list"),
        ({"model_params": {}}, "training_options: missing"),
        ({"model_params": 1, "training_options": {}}, "model_params: missing or not"),
        ({"model_params": {}, "training_options": {}}, "pipe.0.weight: missing"),
    ],
)
def test_other_contents_are_refused(write, altered, reason):
    refused(write(altered), reason)


def test_options_that_contradict_the_tensors_are_refused(write, content):
    content["training_options"]["robust_additions"] = False
    refused(write(content), "robust_additions: got False")


def test_unregistered_depth_is_refused(write, content):
    params = content["model_params"]
    for key in [key for key in params if key.split(".")[2:3] == ["2"]]:
        del params[key]
    refused(write(content), r"got \[2, 2, 2\] a stage")
