"""The JSON side of the messages: pydantic models and JSON bytes, derived from the dataclasses."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import operator
import re
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import pydantic_core
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic import create_model as create_pydantic_model
from pydantic.alias_generators import to_camel

from gateway.names import FEW_IN_A_MAP
from zapcore.codec import (
    Decoder,
    Form,
    Integer,
    KeyedBy,
    Message,
    compile_decoder,
    decode_whole,
)

MOST_SPECS = 1000
"""Of things that one request makes or changes."""

_WIDE = (Integer(64, signed=False), Integer(64, signed=True))
_DECIMAL = re.compile(r"-?\d{1,20}", re.ASCII)


class MessageModel(BaseModel):
    """A message's JSON form; `message` is the dataclass that it stands for."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        field_title_generator=lambda name, _: name.replace("_", " "),
        populate_by_name=True,
        extra="forbid",
        json_schema_serialization_defaults_required=True,
    )


def _whole_number(value: object) -> object:
    """Numbers and decimal strings; not true and false, which Python takes for 1 and 0."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError("must be a whole number (or one as a decimal string)")


def _from_base64(value: object) -> object:
    """Standard or URL-safe alphabet, padded or not, as protobuf's JSON has it."""
    if not isinstance(value, str):
        raise ValueError("must be base64 text")
    with contextlib.suppress(ValidationError):  # several times as fast, and stricter
        return _CANONICAL_BASE64.validate_python(value)
    text = value.translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error


_CANONICAL_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
_URL_SAFE = str.maketrans("-_", "+/")
_BASE64_SCHEMA = {"type": "string", "format": "byte", "contentEncoding": "base64"}
_BASE64 = Annotated[bytes, BeforeValidator(_from_base64), WithJsonSchema(_BASE64_SCHEMA)]


def _integer_type(integer: Integer) -> object:
    limits = {"minimum": integer.minimum, "maximum": integer.maximum}
    kind = f"{'' if integer.signed else 'u'}int{integer.bits}"
    return Annotated[
        int,
        Field(ge=integer.minimum, le=integer.maximum),
        BeforeValidator(_whole_number),
        WithJsonSchema({"type": "integer", "format": kind, **limits}),
    ]


def json_type(annotation: Any, model_of: Callable[[Any], type[MessageModel]]) -> Any:
    """The pydantic type for a field's annotation; ``model_of`` gives those of messages in it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (str, bool):
        return Annotated[annotation, Strict()]
    if annotation is bytes:
        return _BASE64
    if origin is Annotated and isinstance(arguments[1], Integer):
        return _integer_type(arguments[1])
    if origin is Annotated and isinstance(arguments[1], KeyedBy):
        return json_type(arguments[0], model_of)
    if origin in (Union, types.UnionType):
        return json_type(arguments[0], model_of) | None
    if origin is list:
        return _list_type(arguments[0], json_type(arguments[0], model_of))
    if origin is dict:
        found = types.GenericAlias(dict, tuple(json_type(each, model_of) for each in arguments))
        return Annotated[found, *FEW_IN_A_MAP] if arguments[1] is str else found
    return model_of(annotation)


def _list_type(item: Any, kind: Any) -> Any:
    """A list ends at the first item that is wrong: a large body must not make as many errors."""
    found = types.GenericAlias(list, (kind,))
    if isinstance(item, type) and issubclass(item, Message):
        return Annotated[found, Field(fail_fast=True, max_length=MOST_SPECS)]
    return Annotated[found, Field(fail_fast=True)]


def _example(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def details_of(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """What the documents say of a field."""
    details: dict[str, Any] = {"description": field.metadata["doc"]}
    example = field.metadata["example"]
    if example not in (None, "", [], {}):
        details["examples"] = [_example(example)]
    return details


def _model_field(field: dataclasses.Field[Any], annotation: object) -> tuple[object, object]:
    details, kind = details_of(field), json_type(annotation, model_of)
    if field.metadata["required"]:
        return kind, Field(min_length=1, **details)
    if field.default_factory is not dataclasses.MISSING:
        return kind, Field(default_factory=field.default_factory, **details)
    return kind, Field(default=field.default, **details)


def model_of(cls: type[Message], without: frozenset[str] = frozenset()) -> type[MessageModel]:
    """The model of a message class, but for the fields that come from elsewhere (the path)."""
    return _make_model(cast("Any", cls), without)


@cache
def _make_model(cls: type[Any], without: frozenset[str]) -> type[MessageModel]:
    hints = get_type_hints(cls, localns={}, include_extras=True)
    fields = {
        field.name: _model_field(field, hints[field.name])
        for field in dataclasses.fields(cls)
        if field.name not in without
    }
    make = cast("Any", create_pydantic_model)
    made = make(cls.__name__, __base__=MessageModel, __doc__=cls.__doc__, **fields)
    made.message = cls
    return cast("type[MessageModel]", made)


def to_message(model: MessageModel, **others: object) -> Message:
    """The message that a validated model stands for, with the fields that it lacks."""
    given = {
        name: _plain(value)
        for name in type(model).model_fields
        if (value := getattr(model, name)) is not None
    }
    cls: Callable[..., Message] = cast("Any", type(model)).message
    return cls(**given, **others)


def _plain(value: object) -> object:
    if isinstance(value, MessageModel):
        return to_message(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


# Messages to JSON: one function per class, made once from the same annotations.


def to_document(message: Message, *, wide_as_text: bool = False) -> dict[str, object]:
    """A message as JSON-ready values: camelCase names, base64 for bytes.

    Args:
        message: the message.
        wide_as_text: whether 64-bit integers are strings, as protobuf's JSON has them.
    """
    return _document_maker(cast("Any", type(message)), wide_as_text)(message)


def to_json(message: Message) -> bytes:
    """A message's JSON."""
    return pydantic_core.to_json(to_document(message))


def json_of(cls: type[Message], body: bytes) -> bytes:
    """The JSON of a message that is still encoded: as to_json(cls.decode(body)), in half the time.

    Raises:
        DecodeError: as Message.decode.
    """
    return pydantic_core.to_json(decode_whole(_DOCUMENTS.decoder_of(cls), cls, body))


@cache
def _document_maker(cls: type[Any], wide_as_text: bool) -> Callable[[Message], dict[str, object]]:
    namespace: dict[str, Any] = {"base64_text": _base64_text}

    def nested(kind: type[Message], source: str) -> str:
        make = _document_maker(cast("Any", kind), wide_as_text)
        namespace[f"document_of_{kind.__name__}"] = make
        return f"document_of_{kind.__name__}({source})"

    source = _document(cls, "m.", nested, wide_as_text)
    # The source is made of field names of this program; no input reaches it.
    made = eval(f"lambda m: {source}", namespace)  # noqa: S307
    return cast("Callable[[Message], dict[str, object]]", made)


class _Documents(Form):
    """Decoders that make JSON-ready values at once."""

    @property
    def namespace(self) -> dict[str, object]:
        return {"base64_text": _base64_text}

    def __init__(self) -> None:
        self._decoders: dict[type[Message], Decoder] = {}

    def decoder_of(self, cls: type[Message]) -> Decoder:
        decoder = self._decoders.get(cls)
        if decoder is None:
            decoder = self._decoders[cls] = compile_decoder(cls, self)
        return decoder

    def make(self, cls: type[Message], names: list[str]) -> str:
        del names
        return _document(cls, "f_", lambda _, source: source)

    def field_of(self, cls: type[Message], name: str) -> Callable[[Any], Any]:
        del cls
        return operator.itemgetter(to_camel(name))

    # What is made is written out at once and never changed, so it can be shared.

    def keep(self, cls: type[Message]) -> Callable[[Any], tuple[Any, ...]]:
        del cls
        return lambda document: (document,)

    def recall(self, cls: type[Message]) -> Callable[..., Any]:
        del cls
        return lambda document: document


_DOCUMENTS = _Documents()

Nested = Callable[[type[Message], str], str]
"""The source of a message's document, of the source of the message."""


def _document(cls: type[Any], prefix: str, nested: Nested, wide_as_text: bool = False) -> str:
    """The source of a message's document, of variables that begin with ``prefix``."""
    hints = get_type_hints(cls, localns={}, include_extras=True)
    items = (
        f"{to_camel(name)!r}: {_expression(hints[name], prefix + name, nested, wide_as_text)}"
        for name in (field.name for field in dataclasses.fields(cls))
    )
    return f"{{{', '.join(items)}}}"


def _expression(annotation: Any, source: str, nested: Nested, wide_as_text: bool) -> str:
    """The source of a field's JSON-ready value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bytes:
        return f"base64_text({source})"
    if origin is Annotated and wide_as_text and arguments[1] in _WIDE:
        return f"str({source})"
    if origin is Annotated:
        return _expression(arguments[0], source, nested, wide_as_text)
    if origin in (Union, types.UnionType):
        inner = _expression(arguments[0], source, nested, wide_as_text)
        return source if inner == source else f"None if {source} is None else {inner}"
    if origin is list:
        inner = _expression(arguments[0], "item", nested, wide_as_text)
        return source if inner == "item" else f"[{inner} for item in {source}]"
    if origin is dict:
        inner = _expression(arguments[1], "item", nested, wide_as_text)
        return source if inner == "item" else f"{{k: {inner} for k, item in {source}.items()}}"
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return nested(annotation, source)
    return source


def _base64_text(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")
