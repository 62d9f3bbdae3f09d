"""protobuf's JSON, as netrunner's old HTTP API read and wrote it.

What protojson takes, these take: an empty body, fields nobody knows, both spellings of a name, null
for what is absent, and the names that fields had before validator sets were called chains.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn, cast, get_type_hints

import pydantic_core
from pydantic import AliasChoices, ConfigDict, Field, model_validator
from pydantic import create_model as create_pydantic_model
from pydantic.alias_generators import to_camel

from gateway.names import NEW_NAMES
from gateway.schema import MessageModel, details_of, json_type, to_document, to_message
from zapcore.codec import Message

OLDER_NAMES = {
    "whitelisted_chains": "whitelisted_subnets",
    "chain_config_files": "subnet_configs",
    "chain_config_file": "subnet_config",
    "chain_id": "subnet_id",
    "chain_spec": "subnet_spec",
    "chain_specs": "subnet_specs",
    "elastic_chain_spec": "elastic_subnet_spec",
}
"""What fields of requests were called before."""

PREFIX = "Control"
"""Begins the names of these models, which stand beside the others in the OpenAPI document."""


class Malformed(ValueError):
    """A body is no JSON; ``position`` is the byte where that shows, as far as that is known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.position = position


class LenientModel(MessageModel):
    """A request as the old API takes it: every field may be absent, and others may be there."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _is_given_once(cls, data: object) -> object:
        if isinstance(data, dict) and len(data) > 1:
            fields, given = _fields_by_spelling(cls), dict[str, str]()
            for spelling in data:
                field = fields.get(spelling)
                other = spelling if field is None else given.setdefault(field, spelling)
                if other != spelling:
                    raise ValueError(f"{other} and {spelling} are one field: give one of them")
        return data


@cache
def _fields_by_spelling(model: type[LenientModel]) -> dict[str, str]:
    return {spelling: name for name in model.model_fields for spelling in spellings(name)}


def spellings(name: str) -> tuple[str, ...]:
    """The names in JSON for a field, the usual one first."""
    older = OLDER_NAMES.get(name)
    names = (name,) if older is None else (name, older)
    return tuple(dict.fromkeys(spelling for each in names for spelling in (to_camel(each), each)))


def name_of_model(cls: type[Message]) -> str:
    """What that model is called; to make it takes a while."""
    return PREFIX + cls.__name__


def lenient_model_of(cls: type[Message]) -> type[LenientModel]:
    """The model of a request's class."""
    return _make_model(cast("Any", cls))


@cache
def _make_model(cls: type[Any]) -> type[LenientModel]:
    hints = get_type_hints(cls, localns={}, include_extras=True)
    fields = {
        field.name: (json_type(hints[field.name], lenient_model_of) | None, _field(field))
        for field in dataclasses.fields(cls)
    }
    for name, kind in NEW_NAMES.get(cls.__name__, {}).items():
        fields[name] = (kind | None, fields[name][1])
    make = cast("Any", create_pydantic_model)
    made = make(name_of_model(cls), __base__=LenientModel, __doc__=cls.__doc__, **fields)
    made.message = cls
    return cast("type[LenientModel]", made)


def _field(field: dataclasses.Field[Any]) -> object:
    details = details_of(field)
    if (older := OLDER_NAMES.get(field.name)) is not None:
        details["description"] += f" Its older name, {to_camel(older)}, is taken too."
    return Field(default=None, validation_alias=AliasChoices(*spellings(field.name)), **details)


def read(cls: type[Message], body: bytes) -> Message:
    """The request that a body tells.

    Raises:
        Malformed: it is no JSON.
        pydantic.ValidationError: it is JSON that the request can't be read from.
    """
    return to_message(lenient_model_of(cls).model_validate(_first_value(body)))


def _first_value(body: bytes) -> object:
    """The first JSON value; the old API did not look at what stands behind it."""
    try:
        text = body.decode().lstrip(" \t\r\n")
        value = _DECODER.raw_decode(text)[0] if text else {}
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise Malformed("a text has half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise Malformed("the body is not UTF-8", error.start) from error
    except json.JSONDecodeError as error:
        raise Malformed(error.msg, len(body) - len(text[error.pos :].encode())) from error
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed("a number has too many digits") from error
    except RecursionError as error:
        raise Malformed("it is too deep") from error


def _no_number(text: str) -> NoReturn:
    raise Malformed(f"{text} is no number in JSON")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("a name comes twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_once)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def write(message: Message, also: Mapping[str, str]) -> bytes:
    """An answer's JSON, with every field, and 64-bit integers as strings.

    Args:
        message: the answer.
        also: older names of fields under which they are told once more.
    """
    document = to_document(message, wide_as_text=True)
    for name, older in also.items():
        document[older] = document[name]
    return pydantic_core.to_json(document)
