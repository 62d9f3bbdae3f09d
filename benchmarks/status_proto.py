"""The status as a protobuf message, defined at run time: no protoc, no generated file.

The fields are those of zapcore/messages.py, with their numbers in wire order.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.message import Message as ProtobufMessage

from zapcore.codec import Integer, Message
from zapcore.messages import StatusResponse

_PACKAGE = "benchmarks"
_SCALARS = {str: Field.TYPE_STRING, bytes: Field.TYPE_BYTES, bool: Field.TYPE_BOOL}
_INTEGERS = {
    Integer(32, signed=True): Field.TYPE_INT32,
    Integer(32, signed=False): Field.TYPE_UINT32,
    Integer(64, signed=True): Field.TYPE_INT64,
    Integer(64, signed=False): Field.TYPE_UINT64,
}


def protobuf_class(cls: type[Message] = StatusResponse) -> type[ProtobufMessage]:
    """The protobuf class with the fields of a message class of ours, and of those in it."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{cls.__name__}.proto", package=_PACKAGE, syntax="proto3"
    )
    _add(file, cls)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.{cls.__name__}")
    return message_factory.GetMessageClass(descriptor)


def _add(file: descriptor_pb2.FileDescriptorProto, cls: type[Message]) -> str:
    """The name of a message in the file, which is put there unless it is."""
    if all(each.name != cls.__name__ for each in file.message_type):
        made = file.message_type.add(name=cls.__name__)
        hints = get_type_hints(cls, include_extras=True)
        for number, each in enumerate(dataclasses.fields(cls), start=1):
            _add_field(file, made, made.field.add(name=each.name, number=number), hints[each.name])
    return f".{_PACKAGE}.{cls.__name__}"


def _add_field(file: Any, owner: Any, made: Field, annotation: Any) -> None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    made.label = Field.LABEL_OPTIONAL
    if origin is types.UnionType:
        annotation = arguments[0]
    elif origin is list:
        made.label, annotation = Field.LABEL_REPEATED, arguments[0]
    elif origin is Annotated and get_origin(arguments[0]) is dict:
        made.label, made.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
        made.type_name = _add_map(file, owner, made, get_args(arguments[0]))
        return
    _set_type(file, made, annotation)


def _set_type(file: Any, made: Field, annotation: Any) -> None:
    if get_origin(annotation) is Annotated:
        made.type = _INTEGERS[get_args(annotation)[1]]
    elif annotation in _SCALARS:
        made.type = _SCALARS[annotation]
    else:
        made.type, made.type_name = Field.TYPE_MESSAGE, _add(file, annotation)


def _add_map(file: Any, owner: Any, made: Field, kinds: tuple[Any, ...]) -> str:
    """The entry message that stands for a map<key, value>; its name is the language's rule."""
    name = made.name.title().replace("_", "") + "Entry"
    entry = owner.nested_type.add(name=name)
    entry.options.map_entry = True
    for number, (word, kind) in enumerate(zip(("key", "value"), kinds, strict=True), start=1):
        part = entry.field.add(name=word, number=number, label=Field.LABEL_OPTIONAL)
        _set_type(file, part, kind)
    return f".{_PACKAGE}.{owner.name}.{name}"


def fill(target: Any, source: Message) -> None:
    """Put the content of a message of ours into a protobuf message."""
    for each in dataclasses.fields(source):  # type: ignore[arg-type]
        value = getattr(source, each.name)
        if isinstance(value, Message):
            getattr(target, each.name).SetInParent()
            fill(getattr(target, each.name), value)
        elif isinstance(value, dict):
            for key, item in value.items():
                fill(getattr(target, each.name)[key], item)
        elif isinstance(value, list):
            getattr(target, each.name).extend(value)
        elif value is not None:
            setattr(target, each.name, value)
