"""The wire's primitives and composites, one rule at a time (protocol.md section 3)."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import MESSAGE_CLASSES
from zapcore import codec, messages
from zapcore.codec import (
    KeyedBy,
    Message,
    decode_text,
    i32,
    i64,
    layout_of,
    layouts,
    message,
    u8,
    u16,
    u32,
    u64,
    wire,
)
from zapcore.errors import DecodeError, EncodeError, Truncated


@message
class U8(Message):
    value: u8 = wire(0, "")


@message
class U16(Message):
    value: u16 = wire(0, "")


@message
class U32(Message):
    value: u32 = wire(0, "")


@message
class U64(Message):
    value: u64 = wire(0, "")


@message
class I32(Message):
    value: i32 = wire(0, "")


@message
class I64(Message):
    value: i64 = wire(0, "")


@message
class Flag(Message):
    value: bool = wire(False, "")


@message
class Octets(Message):
    value: bytes = wire(b"", "")


@message
class Text(Message):
    value: str = wire("", "")


@message
class MaybeText(Message):
    value: str | None = wire(None, "")


@message
class Numbers(Message):
    value: list[u16] = wire([], "")


@message
class Matrix(Message):
    value: list[list[u8]] = wire([], "")


@message
class TextMap(Message):
    value: dict[str, str] = wire({}, "")


@message
class Inner(Message):
    name: str = wire("", "")
    size: u8 = wire(0, "")


@message
class Keyed(Message):
    value: Annotated[dict[str, Inner], KeyedBy("name")] = wire({}, "")


@message
class MaybeInner(Message):
    value: Inner | None = wire(None, "")


TABLE = [
    (U8, 0, "00"),
    (U8, 255, "ff"),
    (U16, 0x0102, "0102"),
    (U16, 65535, "ffff"),
    (U32, 0x01020304, "01020304"),
    (U32, 4294967295, "ffffffff"),
    (U64, 0x0102030405060708, "0102030405060708"),
    (U64, 2**64 - 1, "ffffffffffffffff"),
    (I32, 42, "0000002a"),
    (I32, -1, "ffffffff"),
    (I32, -(2**31), "80000000"),
    (I32, 2**31 - 1, "7fffffff"),
    (I64, 1_000_000_000, "000000003b9aca00"),
    (I64, -(2**63), "8000000000000000"),
    (I64, 2**63 - 1, "7fffffffffffffff"),
    (Flag, False, "00"),
    (Flag, True, "01"),
    (Octets, b"", "00000000"),
    (Octets, b"\x00\xff", "0000000200ff"),
    (Text, "", "00000000"),
    (Text, "é", "00000002c3a9"),
    (Text, "\0", "0000000100"),
    (Text, "🚀", "00000004f09f9a80"),
    (MaybeText, None, "00"),
    (MaybeText, "", "0100000000"),
    (MaybeText, "a", "010000000161"),
    (Numbers, [], "00000000"),
    (Numbers, [1, 2], "0000000200010002"),
    (Matrix, [[1], [], [2, 3]], "00000003000000010100000000000000020203"),
    (TextMap, {}, "00000000"),
    (TextMap, {"k": "v"}, "00000001000000016b0000000176"),
    (TextMap, {"b": "", "a": ""}, "00000002000000016200000000000000016100000000"),
    (Keyed, {"n": Inner("n", 3)}, "00000001000000016e03"),
    (MaybeInner, None, "00"),
    (MaybeInner, Inner("n", 3), "01000000016e03"),
]

each_layout = pytest.mark.parametrize(
    ("cls", "value", "body"), TABLE, ids=[f"{row[0].__name__}-{row[2]}" for row in TABLE]
)


class TestLayouts:
    @each_layout
    def test_encodes_to_these_bytes(self, cls, value, body):
        assert cls(value).encode().hex() == body

    @each_layout
    def test_decodes_from_these_bytes(self, cls, value, body):
        decoded = cls.decode(bytes.fromhex(body))
        assert decoded == cls(value)
        assert type(decoded.value) is type(value)

    @pytest.mark.parametrize("presence", ["01", "02", "80", "ff"])
    def test_any_presence_byte_but_zero_reads_as_present(self, presence):
        assert MaybeText.decode(bytes.fromhex(presence + "0000000161")) == MaybeText("a")

    @pytest.mark.parametrize("byte", ["01", "02", "80", "ff"])
    def test_any_bool_byte_but_zero_reads_as_true(self, byte):
        assert Flag.decode(bytes.fromhex(byte)).value is True

    def test_a_map_is_read_in_any_order(self):
        one, other = TextMap({"a": "1", "b": "2"}), TextMap({"b": "2", "a": "1"})
        assert one.encode() != other.encode()
        assert TextMap.decode(one.encode()) == TextMap.decode(other.encode())

    def test_the_last_of_two_equal_map_keys_counts(self):
        entries = "000000016b0000000161" + "000000016b0000000162"
        assert TextMap.decode(bytes.fromhex("00000002" + entries)).value == {"k": "b"}

    def test_the_last_of_two_values_with_one_name_counts(self):
        body = bytes.fromhex("00000002" + "000000016e01" + "000000016e02")
        assert Keyed.decode(body).value == {"n": Inner("n", 2)}

    def test_any_bytes_like_object_is_a_body(self):
        body = bytes.fromhex("0000000161")
        assert Text.decode(bytearray(body)) == Text.decode(memoryview(body)) == Text("a")

    @pytest.mark.parametrize("value", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
    def test_any_bytes_like_object_fills_a_bytes_field(self, value):
        assert Octets(value).encode() == b"\0\0\0\2ab"

    @pytest.mark.parametrize("annotation", [float, int, set[str], tuple[str, ...], str | int, None])
    def test_a_type_without_a_layout_is_refused_when_the_class_is_made(self, annotation):
        with pytest.raises(TypeError, match="no layout on the wire"):
            layout_of(annotation)

    @pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
    def test_the_smallest_body_is_that_of_the_defaults(self, cls):
        """Counts are checked against it, so a wrong one would refuse messages that are right."""
        assert len(cls().encode()) == sum(layout.minimum_size for _, layout in layouts(cls))


class TestText:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"a\xffb", "a\ufffdb"),
            (b"\xe4\xbd", "\ufffd\ufffd"),
            (b"\xe4\xbd!", "\ufffd\ufffd!"),
            (b"\xf0\x9f\x9a", "\ufffd\ufffd\ufffd"),
            (b"\x80", "\ufffd"),
            (b"\xc0\x80", "\ufffd\ufffd"),
            (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
            (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),
            (b"\xe4\xe4\xbd\xa0", "\ufffd你"),
            ("ä🚀".encode(), "ä🚀"),
            (b"", ""),
        ],
        ids=lambda value: value.hex() if isinstance(value, bytes) else "",
    )
    def test_each_invalid_byte_becomes_one_replacement_character(self, data, text):
        assert decode_text(data) == text
        assert Text.decode(len(data).to_bytes(4, "big") + data) == Text(text)

    @pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
    def test_a_lone_surrogate_is_refused(self, text):
        with pytest.raises(EncodeError, match=r"^Text\.value: .*surrogates not allowed"):
            Text(text).encode()

    @given(st.binary(max_size=40), st.integers(0, 3))
    def test_a_long_text_is_mended_as_a_short_one_is(self, data: bytes, repeats: int):
        """In pieces, whose ends are not those of sequences."""
        piece = decode_text(data + b"\xff")
        many = 10 ** (repeats + 1)
        assert decode_text((data + b"\xff") * many) == piece * many


class TestTruncation:
    @each_layout
    def test_every_cut_is_noticed(self, cls, value, body):
        whole = bytes.fromhex(body)
        for size in range(len(whole)):
            with pytest.raises(Truncated, match="unexpected EOF"):
                cls.decode(whole[:size])

    @each_layout
    def test_what_follows_the_last_field_is_ignored(self, cls, value, body):
        assert cls.decode(bytes.fromhex(body) + b"\xff\0more") == cls(value)

    def test_truncation_is_a_decode_error(self):
        assert issubclass(Truncated, DecodeError)

    @pytest.mark.parametrize(
        ("cls", "body", "told"),
        [
            (Text, "0000000361", "bytes announced up to 7, there are 5"),
            (Numbers, "000000020001ff", "4 bytes announced, 3 left"),
            (TextMap, "0000000100000000", "8 bytes announced, 4 left"),
        ],
    )
    def test_what_the_rest_cannot_meet_says_both(self, cls, body, told):
        with pytest.raises(Truncated, match=f"^unexpected EOF: {told}$"):
            cls.decode(bytes.fromhex(body))


class TestRefusedValues:
    @pytest.mark.parametrize(
        ("cls", "low", "high"),
        [
            (U8, 0, 2**8 - 1),
            (U16, 0, 2**16 - 1),
            (U32, 0, 2**32 - 1),
            (U64, 0, 2**64 - 1),
            (I32, -(2**31), 2**31 - 1),
            (I64, -(2**63), 2**63 - 1),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else "",
    )
    def test_an_integer_outside_its_range_is_refused_with_the_field_s_name(self, cls, low, high):
        for value in (low, high):
            assert cls.decode(cls(value).encode()).value == value
        for value in (low - 1, high + 1, 2**70, -(2**70)):
            with pytest.raises(EncodeError, match=rf"^{cls.__name__}\.value: "):
                cls(value).encode()

    @pytest.mark.parametrize(
        ("faulty", "named"),
        [
            (U32("1"), "U32.value"),
            (U32(1.0), "U32.value"),
            (U32(None), "U32.value"),
            (Octets("text"), "Octets.value"),
            (Octets(3), "Octets.value"),
            (Octets(None), "Octets.value"),
            (Text(b"bytes"), "Text.value"),
            (Text(None), "Text.value"),
            (Text(1), "Text.value"),
            (MaybeText(b""), "MaybeText.value"),
            (Numbers(None), "Numbers.value"),
            (Numbers(7), "Numbers.value"),
            (Numbers([1, "2"]), "Numbers.value"),
            (TextMap([("a", "b")]), "TextMap.value"),
            (TextMap({"a": 1}), "TextMap.value"),
            (TextMap({1: "a"}), "TextMap.value"),
            (Keyed([]), "Keyed.value"),
            (Keyed({"n": None}), "Keyed.value"),
            (MaybeInner({"name": "n"}), "MaybeInner.value"),
            (MaybeInner("n"), "MaybeInner.value"),
            (Inner("n", 256), "Inner.size"),
            (Inner(b"n", 256), "Inner.name"),
            (MaybeInner(Inner("n", 256)), "MaybeInner.value"),
        ],
        ids=lambda value: "" if isinstance(value, str) else repr(value),
    )
    def test_a_wrong_type_is_refused_with_the_field_s_name(self, faulty, named):
        with pytest.raises(EncodeError, match=rf"^{named}: "):
            faulty.encode()

    @pytest.mark.parametrize(
        "value", ["false", "", b"\1", 2, None, [], object()], ids=lambda v: type(v).__name__
    )
    def test_a_bool_field_takes_no_other_type_for_its_truth(self, value):
        """`"false"` is true to Python: writing it as true would turn a request around."""
        with pytest.raises(EncodeError, match=r"^Flag\.value: "):
            Flag(value).encode()

    def test_a_list_of_texts_does_not_take_one_text_for_its_letters(self):
        with pytest.raises(EncodeError, match=r"^URIsResponse\.uris: "):
            messages.URIsResponse(uris="http://127.0.0.1:9650").encode()

    def test_a_list_does_not_take_a_map_for_its_keys(self):
        with pytest.raises(EncodeError, match=r"^URIsResponse\.uris: "):
            messages.URIsResponse(uris={"http://127.0.0.1:9650": 1}).encode()

    def test_a_text_field_does_not_take_what_merely_has_an_encode_method(self):
        """Messages have one too."""
        with pytest.raises(EncodeError, match=r"^Text\.value: "):
            Text(Text("a")).encode()

    def test_a_key_that_is_not_its_value_s_own_is_refused(self):
        """The key does not cross the wire: the other side would see another one."""
        with pytest.raises(EncodeError, match=r"^Keyed\.value: key 'a' is not its value's name$"):
            Keyed({"a": Inner("b", 1)}).encode()

    @pytest.mark.parametrize(
        ("cls", "field"),
        [(cls, name) for cls in MESSAGE_CLASSES for name, layout in layouts(cls)
         if not isinstance(layout, codec.BoolLayout)
         and not isinstance(next(iter(layout.parts), None), codec.BoolLayout)],
        ids=lambda value: value if isinstance(value, str) else value.__name__,
    )  # fmt: skip
    def test_every_field_of_every_message_is_named_when_it_is_wrong(self, cls, field):
        with pytest.raises(EncodeError, match=rf"^{cls.__name__}\.{field}: "):
            cls(**{field: object()}).encode()


class TestMessageClasses:
    @pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
    def test_defaults_are_made_anew_for_every_message(self, cls):
        one, other = cls(), cls()
        assert one == other
        for field in dataclasses.fields(cls):
            default = getattr(one, field.name)
            if isinstance(default, (list, dict)):
                assert default == type(default)()
                assert default is not getattr(other, field.name)

    @pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
    def test_decoded_lists_and_maps_are_made_anew(self, cls):
        body = cls().encode()
        one, other = cls.decode(body), cls.decode(body)
        for field in dataclasses.fields(cls):
            if isinstance(getattr(one, field.name), (list, dict)):
                assert getattr(one, field.name) is not getattr(other, field.name)
        assert one == other == cls()

    @pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
    def test_every_field_is_documented(self, cls):
        assert cls.__doc__
        assert all(field.metadata["doc"] for field in dataclasses.fields(cls))

    def test_a_misspelt_field_is_refused_on_assignment(self):
        with pytest.raises(AttributeError):
            messages.NodeInfo().nmae = "node1"

    def test_every_class_of_the_messages_module_belongs_to_an_rpc(self):
        public = {
            cls
            for cls in vars(messages).values()
            if isinstance(cls, type) and issubclass(cls, Message) and not cls.__subclasses__()
        }
        assert public == set(MESSAGE_CLASSES)
