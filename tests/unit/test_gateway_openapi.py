"""The OpenAPI document: valid, complete, and true to METHODS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api import build_api
from gateway.errors import MEDIA_TYPE
from gateway.grpc_status import HTTP_STATUS
from gateway.routes.control_table import OLD_ROUTES, OldRoute
from gateway.routes.table import COMPATIBILITY, PLACES, TAGS
from gateway.schema import model_of
from gateway.settings import load_settings
from zapcore.codec import Integer
from zapcore.methods import METHODS

DOCUMENT: dict[str, Any] = build_api(load_settings({}, environment=False)).openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{verb.upper()} {path}": operation
    for path, verbs in DOCUMENT["paths"].items()
    for verb, operation in verbs.items()
}
OF_THE_GATEWAY = {"GET /healthz", "GET /readyz", "GET /metrics", "POST /v1/stream-tickets"}
OF_STATUS = {"GET /v1/nodes", "GET /v1/nodes/{name}"}
OF_STREAMS = {"GET /v1/events/stream"}
OF_THE_OLD_API = {f"POST {route.path}" for route in OLD_ROUTES}


def walk(value: object, at: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the document, with where it is."""
    if isinstance(value, dict):
        yield at, value
        for key, item in value.items():
            yield from walk(item, f"{at}/{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk(item, f"{at}/{number}")


def resolve(reference: str) -> Any:
    value: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


def test_it_is_valid_openapi():
    assert DOCUMENT["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


OTHERS_WORDS = {
    "object": {"maxLength", "minLength", "pattern", "maxItems", "maximum"},
    "string": {"maxProperties", "minProperties", "maxItems", "maximum"},
    "array": {"maxProperties", "minProperties", "maxLength", "minLength", "maximum"},
    "integer": {"maxProperties", "maxItems", "maxLength", "minLength"},
}
"""Of JSON Schema: beside another type they say nothing, and nobody complains."""


def test_what_limits_a_type_is_of_that_type():
    seen = set()
    for at, value in walk(DOCUMENT):
        if isinstance(kind := value.get("type"), str):
            assert not value.keys() & OTHERS_WORDS.get(kind, set()), at
            seen |= value.keys()
    assert {"maxProperties", "maxLength", "maxItems", "maximum"} <= seen


def test_every_reference_resolves():
    references = [value["$ref"] for _, value in walk(DOCUMENT) if "$ref" in value]
    assert references
    assert all(resolve(reference) for reference in references)


def test_no_schema_is_left_that_nothing_refers_to():
    references = [value["$ref"] for _, value in walk(DOCUMENT) if "$ref" in value]
    ours = "#/components/schemas/"
    assert set(SCHEMAS) == {each.removeprefix(ours) for each in references if each.startswith(ours)}


@pytest.mark.parametrize("name", PLACES)
def test_an_rpc_is_what_its_row_says(name: str):
    method, place = METHODS[name], PLACES[name]
    operation = OPERATIONS[f"{place.verb} {place.path}"]
    first, *rest = method.attribute.split("_")
    assert operation["operationId"] == first + "".join(map(str.capitalize, rest))
    assert operation["x-zap"] == {
        "rpc": name,
        "opcode": method.opcode,
        "subOpcode": method.sub_opcode,
        "provisional": method.provisional,
        "streaming": method.streaming,
    }
    assert operation["summary"] == method.summary
    assert operation["tags"] == [place.tag]
    assert ("Provisional" in operation["description"]) == method.provisional


def test_operation_ids_are_unique():
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


def test_nothing_is_there_that_is_in_no_table():
    rpcs = {f"{place.verb} {place.path}" for place in PLACES.values()}
    assert set(OPERATIONS) == (rpcs | OF_THE_GATEWAY | OF_STATUS | OF_STREAMS | OF_THE_OLD_API)


def test_every_tag_is_described_and_used():
    described = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert described == TAGS
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == set(TAGS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name: str):
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["description"]
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]
    for status, response in operation["responses"].items():
        assert response["description"], status
        assert response["content"], status
        assert all("schema" in content for content in response["content"].values()), status


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_and_its_fields_are_described(name: str):
    schema = SCHEMAS[name]
    assert schema["description"]
    for field, details in schema.get("properties", {}).items():
        assert details.get("description"), f"{name}.{field}"


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - OF_THE_OLD_API))
def test_every_error_has_the_problem_schema_and_an_example_of_each_code(name: str):
    problem = Draft202012Validator({**SCHEMAS["Problem"], "components": DOCUMENT["components"]})
    problems = {
        status: response
        for status, response in OPERATIONS[name]["responses"].items()
        if status != "200"
    }
    assert {"401", "403", "500"} <= set(problems)
    for status, response in problems.items():
        content = response["content"][MEDIA_TYPE]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert content["examples"]
        for code, example in content["examples"].items():
            problem.validate(example["value"])
            assert example["value"]["code"] == code
            assert example["value"]["status"] == int(status)


@pytest.mark.parametrize("route", OLD_ROUTES, ids=lambda route: route.path)
def test_an_address_of_the_old_api_is_marked_and_fails_its_own_way(route: OldRoute):
    operation = OPERATIONS[f"POST {route.path}"]
    assert operation["tags"] == [COMPATIBILITY]
    assert operation["x-zap"]["compatibility"] is True
    assert operation["x-zap"]["rpc"] == route.method.name
    assert operation["requestBody"]["required"] is False
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Grpc-Timeout"]
    failures = {status for status in operation["responses"] if status != "200"}
    assert {"400", "401", "403", "500", "503", "504"} <= failures
    assert failures <= {str(status) for status in HTTP_STATUS.values()}
    for status in failures:
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        either = schema["anyOf"] if route.method.streaming else [schema]
        assert either[0] == {"$ref": "#/components/schemas/GrpcStatus"}
        assert either[1:] in ([], [{"$ref": "#/components/schemas/ControlErrorLine"}])


@pytest.mark.parametrize("route", OLD_ROUTES, ids=lambda route: route.path)
def test_no_answer_of_the_old_api_has_what_its_schema_would_have_to_tell_as_text(route: OldRoute):
    """Its 64-bit integers are strings, and the schemas of answers are those of the other routes."""
    pending, seen = [route.method.response.__name__], set()
    while pending:
        name = pending.pop()
        seen.add(name)
        for _, value in walk(SCHEMAS[name]):
            assert value.get("format") not in ("int64", "uint64"), name
            reference = value.get("$ref", "").removeprefix("#/components/schemas/")
            if reference and reference not in seen:
                pending.append(reference)


def test_without_the_old_api_nothing_of_it_is_in_the_document():
    settings = load_settings({"old_api": False}, environment=False)
    document = build_api(settings).openapi()
    assert set(document["paths"]) == {
        path for path in DOCUMENT["paths"] if not path.startswith("/v1/control/")
    }
    assert set(document["paths"]["/v1/ping"]) == {"get"}
    assert not [name for name in document["components"]["schemas"] if name.startswith("Control")]
    assert COMPATIBILITY not in {tag["name"] for tag in document["tags"]}


@pytest.mark.parametrize("name", PLACES)
def test_the_errors_of_an_rpc_are_those_that_it_can_have(name: str):
    method, place = METHODS[name], PLACES[name]
    operation = OPERATIONS[f"{place.verb} {place.path}"]
    codes = {
        code
        for response in operation["responses"].values()
        for code in response["content"].get(MEDIA_TYPE, {}).get("examples", ())
    }
    assert "overloaded" in codes
    of_calls = {
        "unsupported_by_server",
        "upstream_error",
        "upstream_protocol_error",
        "upstream_identity_mismatch",
        "upstream_unavailable",
        "deadline_exceeded",
    }
    assert of_calls & codes == (set() if method.streaming else of_calls), "a stream tells them"
    assert ("outcome_unknown" in codes) == (not method.read_only)
    assert ("body_too_large" in codes) == ("requestBody" in operation)
    assert ("invalid_request" in codes) == (
        "requestBody" in operation or bool(operation.get("parameters"))
    )


def test_examples_fit_their_schemas():
    for at, value in walk(SCHEMAS):
        if "properties" in value:
            continue
        for example in value.get("examples", ()) if isinstance(value.get("examples"), list) else ():
            whole = {**value, "components": DOCUMENT["components"]}
            assert Draft202012Validator(whole).is_valid(example), at


def test_defaults_fit_their_schemas():
    for at, value in walk(DOCUMENT):
        if "default" in value and ("type" in value or "anyOf" in value):
            whole = {**value, "components": DOCUMENT["components"]}
            assert Draft202012Validator(whole).is_valid(value["default"]), at


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("signed", [False, True])
def test_integers_tell_their_limits_exactly(bits: int, signed: bool):
    """A generated client must not take 2**64 for a value that fits."""
    limits = Integer(bits, signed)
    name = f"{'' if signed else 'u'}int{bits}"
    found = [value for _, value in walk(SCHEMAS) if value.get("format") == name]
    for value in found:
        assert (int(value["minimum"]), int(value["maximum"])) == (limits.minimum, limits.maximum)


@pytest.mark.parametrize("name", PLACES)
def test_a_request_and_an_answer_are_those_messages(name: str):
    method, place = METHODS[name], PLACES[name]
    operation = OPERATIONS[f"{place.verb} {place.path}"]
    in_path = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
    assert in_path == set(place.parameters)
    fields = set(model_of(method.request).model_fields) - set(place.parameters.values())
    if method.streaming:
        return
    assert ("requestBody" in operation) == bool(fields)
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": f"#/components/schemas/{method.response.__name__}"}


def test_a_body_is_required_exactly_where_something_in_it_is():
    for name, operation in OPERATIONS.items():
        body = operation.get("requestBody")
        if body is None:
            continue
        schema = body["content"]["application/json"]["schema"]
        reference = schema.get("$ref") or schema["allOf"][0]["$ref"]
        assert body.get("required", False) == bool(resolve(reference).get("required")), name


def test_unknown_fields_are_refused_in_the_document_too():
    for name in ("AddNodeRequest", "StartRequest", "BlockchainSpec", "ClusterInfo"):
        assert SCHEMAS[name]["additionalProperties"] is False


def test_tokens_are_documented_as_optional():
    assert DOCUMENT["security"] == [{}, {"token": []}]
    assert DOCUMENT["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
