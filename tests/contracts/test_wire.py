"""Packing of arrays and lists: what goes in comes out, and garbage is only ever a WireError."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from candor.contracts.wire import WireError, pack, pack_list, unpack, unpack_list

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int64"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
QUICK = settings(max_examples=80, deadline=None)


def message(header, body=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(4, "little") + encoded + body


@QUICK
@given(meta=JSON, arrays=st.dictionaries(st.text(), ARRAYS, max_size=3))
def test_message_comes_back_as_it_was(meta, arrays):
    meta_back, arrays_back = unpack(pack(meta, arrays))
    assert meta_back == meta
    assert list(arrays_back) == list(arrays)
    for name, array in arrays.items():
        assert (arrays_back[name].shape, arrays_back[name].dtype) == (array.shape, array.dtype)
        assert arrays_back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_strided_and_big_endian_arrays_keep_their_values(batch):
    images = np.arange(batch * 3 * 4 * 5, dtype=">f4").reshape(batch, 5, 4, 3).transpose(0, 3, 2, 1)
    _, arrays = unpack(pack(None, {"images": images}))
    assert arrays["images"].dtype == np.dtype("<f4")
    assert (arrays["images"] == images).all()


def test_unpacked_arrays_are_read_only():
    _, arrays = unpack(pack({}, {"x": np.zeros(3)}))
    with pytest.raises(ValueError, match="read-only"):
        arrays["x"][0] = 1


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "object", "bool"])
def test_other_dtypes_are_rejected_by_name(dtype):
    with pytest.raises(WireError, match=rf"^images: expected a dtype of .*, got {dtype}$"):
        pack({}, {"images": np.zeros(2, dtype)})


@QUICK
@given(st.binary(max_size=200))
def test_garbage_is_only_ever_a_wire_error(garbage):
    for reader in (unpack, unpack_list):
        try:
            reader(garbage)
        except WireError:
            continue


@QUICK
@given(header=JSON, body=st.binary(max_size=40))
def test_any_json_header_is_only_ever_a_wire_error(header, body):
    try:
        unpack(message(header, body))
    except WireError:
        return


@QUICK
@given(
    described=st.lists(
        st.tuples(
            st.text(max_size=3) | JSON,
            st.sampled_from(["float32", "int64", "object"]) | JSON,
            st.lists(st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=2), max_size=3)
            | JSON,
        ),
        max_size=3,
    ),
    body=st.binary(max_size=40),
)
def test_any_described_arrays_are_only_ever_a_wire_error(described, body):
    try:
        unpack(message({"meta": None, "arrays": described}, body))
    except WireError:
        return


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x00\x00",
        b"\xff\xff\xff\xff{}",
        message(b"not json"),
        message(b"\xff\xfe"),
        message([1]),
        message({"meta": 1}),
        message({"meta": 1, "arrays": [["x", "float32", [2]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", "float32", [2]]]}, b"123456789"),
        message({"meta": 1, "arrays": [["x", "float32", [-1]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", "float32", [-1, -1]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", "int32", [1]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", "float32", [2**62, 4]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", "float32", [0, 2**80]]]}),
        message({"meta": 1, "arrays": [[[], "float32", [1]]]}, b"1234"),
        message({"meta": 1, "arrays": [["x", [], [1]]]}, b"1234"),
        message(b"[" * 100_000),
    ],
    ids=range(17),
)
def test_broken_message_is_rejected(broken):
    with pytest.raises(WireError):
        unpack(broken)


@QUICK
@given(st.lists(st.binary(max_size=20), max_size=6))
def test_list_comes_back_as_it_was(messages):
    assert unpack_list(pack_list(messages)) == messages


@QUICK
@given(messages=st.lists(st.binary(max_size=20), max_size=4), data=st.data())
def test_cut_list_is_rejected(messages, data):
    packed = pack_list(messages)
    kept = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(WireError):
        unpack_list(packed[:kept])


@pytest.mark.parametrize(
    "lengths", [[-1], [2**62], [1, 5], [2, -4, 4], [2, 2**62, 2**62], [1, 2**63 - 1]]
)
def test_list_whose_lengths_do_not_add_up_is_rejected(lengths):
    with pytest.raises(WireError, match="^list: expected"):
        unpack_list(np.array(lengths, "<i8").tobytes())
