"""The wire's primitives, and a compiler from message classes to encode and decode.

A message is a dataclass whose annotations say how each field is laid out (protocol.md section 3),
in wire order. :func:`message` turns those annotations into two straight-line functions, so that
nothing is looked up while bytes are read or written::

    @message
    class PingResponse(Message):
        pid: i32 = wire(0, "Process id of the server.", 4242)

Bytes after the last known field are ignored: a newer peer may have added fields.
"""

from __future__ import annotations

import dataclasses
import operator
import struct
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Self,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from zapcore.errors import DecodeError, EncodeError, Truncated

Encoder: TypeAlias = Callable[[Any, Callable[[bytes], None]], None]
Decoder: TypeAlias = Callable[[bytes, str, int, int], tuple[Any, int]]

T = TypeVar("T")
M = TypeVar("M", bound="Message")


@dataclass(frozen=True, slots=True)
class Integer:
    """How an int crosses the wire: big-endian, ``bits`` wide."""

    bits: int
    signed: bool

    @property
    def minimum(self) -> int:
        """The smallest value that fits."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The largest value that fits."""
        return (1 << (self.bits - int(self.signed))) - 1


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """Marks a map that crosses the wire as its values alone; each value's ``field`` is its key."""

    field: str


u8: TypeAlias = Annotated[int, Integer(8, signed=False)]
u16: TypeAlias = Annotated[int, Integer(16, signed=False)]
u32: TypeAlias = Annotated[int, Integer(32, signed=False)]
u64: TypeAlias = Annotated[int, Integer(64, signed=False)]
i32: TypeAlias = Annotated[int, Integer(32, signed=True)]
i64: TypeAlias = Annotated[int, Integer(64, signed=True)]

octets: TypeAlias = bytes
"""For a field that is itself called ``bytes``: inside its class that name is the field."""

_STRUCT_CODES = {8: "b", 16: "h", 32: "i", 64: "q"}


_REPLACEMENTS = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")
"""For what "surrogateescape" makes of bytes that fit no sequence: one character each."""

_PIECE = 64 * 1024


def decode_text(data: bytes) -> str:
    """UTF-8 to text; each byte that fits no sequence becomes U+FFFD (protocol.md section 3).

    That is as Go's JSON encoder does, where Python would make one U+FFFD of several bytes.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    # In pieces, as a thread that decodes a large body lets others run only in between.
    pieces = range(0, len(text), _PIECE)
    return "".join(text[at : at + _PIECE].translate(_REPLACEMENTS) for at in pieces)


def wire(default: T, doc: str, example: T | None = None, *, required: bool = False) -> T:
    """A field's default, its public description, and an example for the documents.

    An empty list or map as the default is made anew for every message. ``required`` says that a
    request without it, or with it empty, makes no sense: the wire can't tell, but people can be
    told before it is sent.
    """
    metadata = {"doc": doc, "example": example, "required": required}
    if isinstance(default, (list, dict)):
        return cast("T", field(default_factory=type(default), metadata=metadata))
    return field(default=default, metadata=metadata)


class Message:
    """What all message classes can do; :func:`message` makes them."""

    __slots__ = ()
    _encode: ClassVar[Encoder]
    _decode: ClassVar[Decoder]
    _keep: ClassVar[Callable[[Any], Any]]
    _recall: ClassVar[Callable[[Any], Any]]
    _minimum_size: ClassVar[int]
    _remembered: ClassVar[bool]
    _last: ClassVar[tuple[bytes, Any]]

    def encode(self) -> bytes:
        """The message's body.

        Raises:
            EncodeError: a field holds what its wire type can't carry; the error names the field.
        """
        parts: list[bytes] = []
        try:
            type(self)._encode(self, parts.append)
            return b"".join(parts)
        except _ENCODE_FAILURES as error:
            raise EncodeError(f"{type(self).__name__}{_blame(self)}: {error}") from error

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The message in ``data``, a whole body.

        Raises:
            Truncated: the body ends early, or a count is beyond what its bytes can hold.
            DecodeError: a nested body is malformed.
        """
        if type(data) is not bytes:
            data = bytes(data)
        last, kept = cls._last
        message: Self
        if data == last and kept is not None:
            message = cls._recall(kept)
            return message
        message = decode_whole(cls._decode, cls, data)
        if data == last:
            cls._last = data, cls._keep(message)
        elif len(data) <= _MAX_REMEMBERED_BODY:
            cls._last = data, None
        return message


_ENCODE_FAILURES = (struct.error, AttributeError, TypeError, UnicodeEncodeError, ValueError)


def _blame(faulty: Message) -> str:
    """Find the field that won't encode: slow, and only after the fast way has failed."""
    for name, layout in layouts(type(faulty)):
        encode = _compile_encoder(f"encode_{name}", [(name, layout)])
        try:
            parts: list[bytes] = []
            encode(faulty, parts.append)
            b"".join(parts)
        except _ENCODE_FAILURES:
            return f".{name}"
    return ""


def _bool_byte(value: object) -> bytes:
    """A bool's byte. What is only truthy, such as the text "false", is refused."""
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise TypeError(f"{value!r} is not a bool")


def _check_list(value: object) -> int:
    """A list's length. A text or a map has a length too, and would be sent as its parts."""
    if isinstance(value, (list, tuple)):
        return len(value)
    raise TypeError(f"a {type(value).__name__} is not a list")


# A node's bytes seldom differ from one status to the next. So a list of messages that hold nothing
# but scalars remembers, by place, an item's bytes and the values in them, and a list of texts
# remembers itself. A layout is its own delimiter: bytes that begin with those bytes mean those
# values, whatever follows. Each decode still makes messages and lists of its own, and scalars
# can't be changed, so nothing is shared.

_MAX_PLACES = 256
_MAX_REMEMBERED_SIZE = 4096

# A body that comes twice in a row may well come again: then the values in it are kept, of which
# messages are made, in a third of the time.

_MAX_REMEMBERED_BODY = 16 * 1024


def short(needed: int, left: int) -> Truncated:
    """The error for a count that the rest of the body can't meet (both in bytes)."""
    return Truncated(f"unexpected EOF: {needed} bytes announced, {max(left, 0)} left")


def overrun(at: int, end: int) -> Truncated:
    """The error for a text, or bytes, that would end at ``at`` in a body of ``end`` bytes."""
    return Truncated(f"unexpected EOF: bytes announced up to {at}, there are {end}")


_CHECK_END = "if at > end: raise overrun(at, end)"
"""Once per message is enough, as slices stop at the end; and before anything is remembered."""


class Layout:
    """One field's shape on the wire: writes the source lines that read and write it.

    Beside the bytes, ``data``, decoders have them as Latin-1 in ``latin``: a slice of that is an
    ASCII text in one step. ``depth`` makes the names of temporaries unique where layouts nest.
    """

    minimum_size: int
    parts: tuple[Layout, ...] = ()

    def decoder(self, target: str, depth: int) -> Iterator[str]:
        """Lines that read from ``data`` at ``at`` (up to ``end``) into ``target``."""
        raise NotImplementedError

    def encoder(self, source: str, depth: int) -> Iterator[str]:
        """Lines that hand the bytes of ``source`` to ``put``."""
        raise NotImplementedError

    def keeper(self, source: str, depth: int) -> str:  # noqa: ARG002
        """The source of what to keep of a value: nothing that can be changed."""
        return source

    def recaller(self, kept: str, depth: int) -> str:  # noqa: ARG002
        """The source that makes the value again of what was kept."""
        return kept


@dataclass(frozen=True)
class IntegerLayout(Layout):
    """A fixed-width integer."""

    integer: Integer

    @cached_property
    def code(self) -> str:
        """The struct code, upper case where unsigned."""
        code = _STRUCT_CODES[self.integer.bits]
        return code if self.integer.signed else code.upper()

    @property
    def minimum_size(self) -> int:  # type: ignore[override]
        """Bytes of the integer."""
        return self.integer.bits // 8

    def decoder(self, target: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"{target}, = unpack_{self.code}(data, at)"
        yield f"at += {self.minimum_size}"

    def encoder(self, source: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"put(pack_{self.code}({source}))"


class BoolLayout(Layout):
    """One byte: 0 is false, any other value is true."""

    minimum_size = 1

    def decoder(self, target: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"{target} = data[at] != 0"
        yield "at += 1"

    def encoder(self, source: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"put(bool_byte({source}))"


class BytesLayout(Layout):
    """A u32 length, then the bytes."""

    minimum_size = 4
    raw = "{0} if type({0}) is bytes else bytes(memoryview({0}))"

    def decoder(self, target: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield "length, = unpack_I(data, at)"
        yield "start = at + 4"
        yield "at = start + length"
        yield from self._value(target)

    @staticmethod
    def _value(target: str) -> Iterator[str]:
        yield f"{target} = data[start:at]"

    def encoder(self, source: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"raw = {self.raw.format(source)}"
        yield "put(pack_I(len(raw)))"
        yield "put(raw)"


class TextLayout(BytesLayout):
    """Bytes that are UTF-8."""

    raw = "str.encode({})"

    @staticmethod
    def _value(target: str) -> Iterator[str]:
        yield f"{target} = latin[start:at]"
        yield f"if not {target}.isascii(): {target} = decode_text(data[start:at])"


@dataclass(frozen=True)
class MessageLayout(Layout):
    """A message in place, without a length."""

    message: type[Message]

    @property
    def minimum_size(self) -> int:  # type: ignore[override]
        """Bytes of the smallest such message."""
        return self.message._minimum_size

    def decoder(self, target: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"{target}, at = decode_{self.message.__name__}(data, latin, at, end)"

    def encoder(self, source: str, depth: int) -> Iterator[str]:  # noqa: ARG002
        """See Layout."""
        yield f"encode_{self.message.__name__}({source}, put)"

    def keeper(self, source: str, depth: int) -> str:  # noqa: ARG002
        """See Layout."""
        return f"keep_{self.message.__name__}({source})"

    def recaller(self, kept: str, depth: int) -> str:  # noqa: ARG002
        """See Layout."""
        if self.message._remembered:
            return f"class_{self.message.__name__}(*{kept})"
        return f"recall_{self.message.__name__}({kept})"


@dataclass(frozen=True)
class OptionalLayout(Layout):
    """A presence byte, then the value if it is there. Any non-zero byte reads as present."""

    inner: Layout
    minimum_size: int = 1

    @property
    def parts(self) -> tuple[Layout, ...]:  # type: ignore[override]
        """The value's layout."""
        return (self.inner,)

    def decoder(self, target: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield f"{target} = None"
        yield "at += 1"
        yield "if data[at - 1]:"
        yield from _indent(self.inner.decoder(target, depth))

    def encoder(self, source: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield f"if {source} is None:"
        yield '    put(b"\\x00")'
        yield "else:"
        yield '    put(b"\\x01")'
        yield from _indent(self.inner.encoder(source, depth))

    def keeper(self, source: str, depth: int) -> str:
        """See Layout."""
        return _if_there(source, self.inner.keeper(source, depth))

    def recaller(self, kept: str, depth: int) -> str:
        """See Layout."""
        return _if_there(kept, self.inner.recaller(kept, depth))


class CountedLayout(Layout):
    """A u32 count, then the items; a count beyond the bytes left is refused before any item."""

    minimum_size = 4

    @staticmethod
    def _count(item_size: int, depth: int) -> Iterator[str]:
        yield f"count{depth}, = unpack_I(data, at)"
        yield "at += 4"
        needed = f"count{depth} * {item_size}"
        yield f"if {needed} > end - at: raise short({needed}, end - at)"

    @staticmethod
    def _items(item: Layout, depth: int) -> Iterator[str]:
        """Lines that read each item, by what is remembered of its place where that holds."""
        if not isinstance(item, MessageLayout) or not item.message._remembered:
            yield f"for _ in range(count{depth}):"
            yield from _indent(item.decoder(f"item{depth}", depth + 1))
            return
        name = item.message.__name__
        yield f"for place in range(count{depth}):"
        yield f"    known = memory_{name}.get(place)"
        yield "    if known and data.startswith(known[0], at):"
        yield f"        item{depth} = recall_{name}(*known[1])"
        yield "        at += known[2]"
        yield "    else:"
        yield "        begin = at"
        yield from _indent(_indent(item.decoder(f"item{depth}", depth + 1)))
        yield f"        if place < {_MAX_PLACES} and at - begin <= {_MAX_REMEMBERED_SIZE}:"
        yield f"            kept = keep_{name}(item{depth})"
        yield f"            memory_{name}[place] = data[begin:at], kept, at - begin"


@dataclass(frozen=True)
class ListLayout(CountedLayout):
    """Items one after the other."""

    item: Layout

    @property
    def parts(self) -> tuple[Layout, ...]:  # type: ignore[override]
        """The items' layout."""
        return (self.item,)

    def decoder(self, target: str, depth: int) -> Iterator[str]:
        """See Layout."""
        if depth or not isinstance(self.item, TextLayout):
            yield from self._fresh(target, depth)
            return
        yield f"known, values = memory_{target}"
        yield "if known and data.startswith(known, at):"
        yield f"    {target} = list(values)"
        yield "    at += len(known)"
        yield "else:"
        yield "    begin = at"
        yield from _indent(self._fresh(target, depth))
        yield f"    {_CHECK_END}"
        yield f"    if at - begin <= {_MAX_REMEMBERED_SIZE}:"
        yield f"        memory_{target}[:] = data[begin:at], tuple({target})"

    def _fresh(self, target: str, depth: int) -> Iterator[str]:
        yield from self._count(self.item.minimum_size, depth)
        yield f"{target} = []"
        yield from self._items(self.item, depth)
        yield f"    {target}.append(item{depth})"

    def encoder(self, source: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield f"put(pack_I(check_list({source})))"
        yield f"for item{depth} in {source}:"
        yield from _indent(self.item.encoder(f"item{depth}", depth + 1))

    def keeper(self, source: str, depth: int) -> str:
        """See Layout."""
        item = f"item{depth}"
        kept = self.item.keeper(item, depth + 1)
        return f"tuple({source})" if kept == item else f"tuple([{kept} for {item} in {source}])"

    def recaller(self, kept: str, depth: int) -> str:
        """See Layout."""
        item = f"item{depth}"
        made = self.item.recaller(item, depth + 1)
        return f"list({kept})" if made == item else f"[{made} for {item} in {kept}]"


class _AnyMapLayout(CountedLayout):
    """What is kept of a map is its keys and values, however it crosses the wire."""

    item: Layout

    def keeper(self, source: str, depth: int) -> str:
        """See Layout."""
        key, item = f"key{depth}", f"item{depth}"
        kept = self.item.keeper(item, depth + 1)
        if kept == item:
            return f"tuple({source}.items())"
        return f"tuple([({key}, {kept}) for {key}, {item} in {source}.items()])"

    def recaller(self, kept: str, depth: int) -> str:
        """See Layout."""
        key, item = f"key{depth}", f"item{depth}"
        made = self.item.recaller(item, depth + 1)
        return f"dict({kept})" if made == item else f"{{{key}: {made} for {key}, {item} in {kept}}}"


@dataclass(frozen=True)
class MapLayout(_AnyMapLayout):
    """Key, value, key, value; in any order, and the last of two equal keys counts, as in Go."""

    key: Layout
    item: Layout

    @property
    def parts(self) -> tuple[Layout, ...]:  # type: ignore[override]
        """The items' layout."""
        return (self.item,)

    def decoder(self, target: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield from self._count(self.key.minimum_size + self.item.minimum_size, depth)
        yield f"{target} = {{}}"
        yield f"for _ in range(count{depth}):"
        yield from _indent(self.key.decoder(f"key{depth}", depth + 1))
        yield from _indent(self.item.decoder(f"item{depth}", depth + 1))
        yield f"    {target}[key{depth}] = item{depth}"

    def encoder(self, source: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield f"put(pack_I(len({source})))"
        yield f"for key{depth}, item{depth} in {source}.items():"
        yield from _indent(self.key.encoder(f"key{depth}", depth + 1))
        yield from _indent(self.item.encoder(f"item{depth}", depth + 1))


@dataclass(frozen=True)
class KeyedLayout(_AnyMapLayout):
    """The values of a map alone; a key that is not its value's own would be lost: refused."""

    field: str
    item: MessageLayout

    @property
    def parts(self) -> tuple[Layout, ...]:  # type: ignore[override]
        """The items' layout."""
        return (self.item,)

    @property
    def key_getter(self) -> str:
        """The name of what gets an item's key."""
        return f"{self.field}_of_{self.item.message.__name__}"

    def decoder(self, target: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield from self._count(self.item.minimum_size, depth)
        yield f"{target} = {{}}"
        yield from self._items(self.item, depth)
        yield f"    {target}[{self.key_getter}(item{depth})] = item{depth}"

    def encoder(self, source: str, depth: int) -> Iterator[str]:
        """See Layout."""
        yield f"put(pack_I(len({source})))"
        yield f"for key{depth}, item{depth} in {source}.items():"
        yield f"    if key{depth} != item{depth}.{self.field}:"
        yield f"        raise ValueError(f'key {{key{depth}!r}} is not its value\\'s {self.field}')"
        yield from _indent(self.item.encoder(f"item{depth}", depth + 1))


def _if_there(value: str, source: str) -> str:
    return source if source == value else f"(None if {value} is None else {source})"


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


_SCALAR_LAYOUTS = (IntegerLayout, BoolLayout, BytesLayout)
_SCALARS: dict[object, Layout] = {bool: BoolLayout(), str: TextLayout(), bytes: BytesLayout()}


def layout_of(annotation: Any) -> Layout:
    """The layout that a field's annotation means (protocol.md section 3)."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        marker = arguments[1]
        if isinstance(marker, KeyedBy):
            return KeyedLayout(marker.field, MessageLayout(get_args(arguments[0])[1]))
        if isinstance(marker, Integer):
            return IntegerLayout(marker)
    if origin in (Union, types.UnionType) and arguments[1] is type(None):
        return OptionalLayout(layout_of(arguments[0]))
    if origin is list:
        return ListLayout(layout_of(arguments[0]))
    if origin is dict:
        return MapLayout(*map(layout_of, arguments))
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return MessageLayout(annotation)
    raise TypeError(f"{annotation!r} has no layout on the wire")


def layouts(cls: type[Message]) -> list[tuple[str, Layout]]:
    """A message's fields and their layouts, in wire order."""
    hints = get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cast("Any", cls))
    return [(field.name, layout_of(hints[field.name])) for field in fields]


class Form(ABC):
    """What decoders make of messages.

    What a list of messages remembers of an item, see above, is a form's own matter too.
    """

    @abstractmethod
    def decoder_of(self, cls: type[Message]) -> Decoder:
        """The compiled decoder of a message inside another one."""

    @abstractmethod
    def make(self, cls: type[Message], names: list[str]) -> str:
        """The source that makes it of variables: ``f_`` and the name of each field."""

    @abstractmethod
    def field_of(self, cls: type[Message], name: str) -> Callable[[Any], Any]:
        """Gets a field of what was made."""

    @abstractmethod
    def keep(self, cls: type[Message]) -> Callable[[Any], tuple[Any, ...]]:
        """What to remember of what was made."""

    @abstractmethod
    def recall(self, cls: type[Message]) -> Callable[..., Any]:
        """Makes it again of that."""

    @property
    @abstractmethod
    def namespace(self) -> dict[str, object]:
        """What the source of :meth:`make` calls."""


class _Objects(Form):
    """Messages of the classes themselves."""

    namespace: ClassVar[dict[str, object]] = {}

    def decoder_of(self, cls: type[Message]) -> Decoder:
        return cls._decode

    def make(self, cls: type[Message], names: list[str]) -> str:
        return f"class_{cls.__name__}({', '.join(f'f_{name}' for name in names)})"

    def field_of(self, cls: type[Message], name: str) -> Callable[[Any], Any]:
        del cls
        return operator.attrgetter(name)

    def keep(self, cls: type[Message]) -> Callable[[Any], tuple[Any, ...]]:
        return operator.attrgetter(*_names(cls))

    def recall(self, cls: type[Message]) -> Callable[..., Any]:
        return cls


_OBJECTS = _Objects()


def _names(cls: type[Message]) -> list[str]:
    return [each.name for each in dataclasses.fields(cast("Any", cls))]


def _packers() -> dict[str, object]:
    packers = {code: struct.Struct(f">{code}") for code in "BHIQbhiq"}
    return {f"pack_{code}": packer.pack for code, packer in packers.items()} | {
        f"unpack_{code}": packer.unpack_from for code, packer in packers.items()
    }


def _encoding_namespace(fields: list[tuple[str, Layout]]) -> dict[str, object]:
    """The names that generated encoders use."""
    namespace = {"bool_byte": _bool_byte, "check_list": _check_list, **_packers()}
    for cls in _nested(layout for _, layout in fields):
        namespace[f"encode_{cls.__name__}"] = cls._encode
    return namespace


def _decoding_namespace(fields: list[tuple[str, Layout]], form: Form) -> dict[str, object]:
    """The names that generated decoders use."""
    namespace = {
        "short": short,
        "overrun": overrun,
        "decode_text": decode_text,
        **_packers(),
        **form.namespace,
    }
    for name, layout in fields:
        if isinstance(layout, ListLayout):
            namespace[f"memory_f_{name}"] = [b"", ()]
        if isinstance(layout, KeyedLayout):
            namespace[layout.key_getter] = form.field_of(layout.item.message, layout.field)
    for cls in _nested(layout for _, layout in fields):
        namespace[f"decode_{cls.__name__}"] = form.decoder_of(cls)
        if cls._remembered:
            namespace[f"keep_{cls.__name__}"] = form.keep(cls)
            namespace[f"recall_{cls.__name__}"] = form.recall(cls)
            namespace[f"memory_{cls.__name__}"] = {}
    return namespace


def _nested(found: Iterable[Layout]) -> Iterator[type[Message]]:
    for layout in found:
        if isinstance(layout, MessageLayout):
            yield layout.message
        yield from _nested(layout.parts)


def _compile(name: str, head: str, lines: list[str], namespace: dict[str, object]) -> Any:
    source = "\n".join([f"def {name}({head}):", *(f"    {line}" for line in lines)])
    # The source is made of field names and constants of this program; no input reaches it.
    exec(compile(source, f"<{name}>", "exec"), namespace)  # noqa: S102
    return namespace[name]


def _compile_encoder(name: str, fields: list[tuple[str, Layout]]) -> Encoder:
    lines = [line for name, part in fields for line in part.encoder(f"message.{name}", 0)]
    compiled = _compile(name, "message, put", lines or ["pass"], _encoding_namespace(fields))
    return cast("Encoder", compiled)


def _compile_keeper(cls: type[Message]) -> Callable[[Any], tuple[Any, ...]]:
    fields = layouts(cls)
    kept = "".join(f"{part.keeper(f'message.{name}', 0)}, " for name, part in fields)
    nested = _nested(part for _, part in fields)
    namespace: dict[str, object] = {f"keep_{each.__name__}": each._keep for each in nested}
    compiled = _compile(f"keep_{cls.__name__}", "message", [f"return ({kept})"], namespace)
    return cast("Callable[[Any], tuple[Any, ...]]", compiled)


def _compile_recaller(cls: type[Message]) -> Callable[[tuple[Any, ...]], Any]:
    fields = layouts(cls)
    lines = ["".join(f"f_{name}, " for name, _ in fields) + "= kept"] if fields else []
    made = (part.recaller(f"f_{name}", 0) for name, part in fields)
    lines.append(f"return cls({', '.join(made)})")
    namespace: dict[str, object] = {"cls": cls}
    for each in _nested(part for _, part in fields):
        namespace[f"class_{each.__name__}"] = each
        namespace[f"recall_{each.__name__}"] = each._recall
    compiled = _compile(f"recall_{cls.__name__}", "kept", lines, namespace)
    return cast("Callable[[tuple[Any, ...]], Any]", compiled)


def compile_decoder(cls: type[Message], form: Form = _OBJECTS) -> Decoder:
    """A function of a body, the same as Latin-1, where the message begins, and where the body ends.

    It gives what the form makes, and where the message ended. For whole bodies see
    :func:`decode_whole`.
    """
    fields = layouts(cls)
    lines = [line for name, part in fields for line in part.decoder(f"f_{name}", 0)]
    lines.append(_CHECK_END)
    lines.append(f"return {form.make(cls, [name for name, _ in fields])}, at")
    namespace = _decoding_namespace(fields, form) | {f"class_{cls.__name__}": cls}
    compiled = _compile(f"decode_{cls.__name__}", "data, latin, at, end", lines, namespace)
    return cast("Decoder", compiled)


def decode_whole(decoder: Decoder, cls: type[Message], data: bytes) -> Any:
    """What a decoder of a class makes of a whole body; see Message.decode for what it raises."""
    try:
        return decoder(data, data.decode("latin-1"), 0, len(data))[0]
    except (struct.error, IndexError) as error:
        raise Truncated(f"unexpected EOF in a {cls.__name__} of {len(data)} bytes") from error


class _OnFirstUse(Generic[T]):
    """An attribute of a class that is made when it is first asked for: a process needs few."""

    def __init__(self, name: str, make: Callable[[type[Message]], T]) -> None:
        self._name = name
        self._make = make

    def __get__(self, instance: object, owner: type[Message]) -> T:
        made = self._make(owner)
        setattr(owner, self._name, staticmethod(made) if callable(made) else made)
        return made


def _is_remembered(cls: type[Message]) -> bool:
    found = [layout for _, layout in layouts(cls)]
    return len(found) > 1 and all(isinstance(layout, _SCALAR_LAYOUTS) for layout in found)


_ON_FIRST_USE: dict[str, Callable[[type[Message]], object]] = {
    "_encode": lambda cls: _compile_encoder(f"encode_{cls.__name__}", layouts(cls)),
    "_decode": compile_decoder,
    "_keep": _compile_keeper,
    "_recall": _compile_recaller,
    "_minimum_size": lambda cls: sum(layout.minimum_size for _, layout in layouts(cls)),
    "_remembered": _is_remembered,
}


@dataclass_transform()
def message(cls: type[M]) -> type[M]:
    """Make a message class: a slotted dataclass that can encode and decode itself."""
    made = dataclass(slots=True)(cls)
    for name, make in _ON_FIRST_USE.items():
        setattr(made, name, _OnFirstUse(name, make))
    made._last = b"", None
    return made


__all__ = [
    "DecodeError",
    "Decoder",
    "Form",
    "Integer",
    "KeyedBy",
    "Layout",
    "Message",
    "compile_decoder",
    "decode_text",
    "decode_whole",
    "i32",
    "i64",
    "layout_of",
    "layouts",
    "message",
    "octets",
    "u8",
    "u16",
    "u32",
    "u64",
    "wire",
]
