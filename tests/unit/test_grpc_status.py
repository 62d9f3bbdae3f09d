"""gRPC's codes for problems: a table without holes."""

from __future__ import annotations

import json

import pytest

from gateway import errors, grpc_status
from gateway.context import RequestContext
from gateway.errors import KINDS, Kind, kind_named, problem
from gateway.failures import failure
from gateway.grpc_status import Code, code_of, http_status_of


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_every_kind_of_problem_has_a_code(kind: Kind):
    assert isinstance(code_of(kind), Code)
    assert 400 <= http_status_of(kind) < 600


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (errors.NOT_JSON, 3, 400),
        (errors.INVALID, 3, 400),
        (errors.NO_ROUTE, 5, 404),
        (errors.FORBIDDEN, 7, 403),
        (errors.UNAUTHENTICATED, 16, 401),
        (errors.TOO_MANY_REQUESTS, 8, 429),
        (errors.UNSUPPORTED, 12, 501),
        (errors.UNAVAILABLE, 14, 503),
        (errors.STOPPING, 14, 503),
        (errors.DEADLINE, 4, 504),
        (errors.INTERNAL, 13, 500),
    ],
)
def test_a_code_and_its_status(kind: Kind, code: int, status: int):
    assert (code_of(kind), http_status_of(kind)) == (code, status)


@pytest.mark.parametrize(
    "kind",
    [errors.NOT_FOUND, errors.NOT_BOOTSTRAPPED, errors.ALREADY_EXISTS, errors.UPSTREAM_ERROR],
    ids=lambda kind: kind.code,
)
def test_whatever_text_a_server_answers_with_is_unknown(kind: Kind):
    assert (code_of(kind), http_status_of(kind)) == (Code.UNKNOWN, 500)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_only_what_may_be_tried_again_has_a_code_that_clients_repeat(kind: Kind):
    repeated = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
    assert (code_of(kind) in repeated) == (kind.retry_after is not None)


def test_a_failure_is_a_status_in_the_old_api_and_a_problem_elsewhere():
    document = problem(errors.NOT_FOUND, "node not found")
    context = RequestContext("id", "POST", "/v1/control/pausenode", "127.0.0.1")
    elsewhere = failure(context, errors.NOT_FOUND, document)
    assert (elsewhere.status, elsewhere.media_type) == (404, "application/problem+json")
    context.old_api = True
    answer = failure(context, errors.NOT_FOUND, document)
    assert (answer.status, answer.media_type) == (500, "application/json")
    assert answer.body == b'{"code":2,"message":"node not found","details":[]}'
    assert context.code == "not_found"


def test_a_chunk_is_one_line():
    line = grpc_status.render_chunk(errors.DEADLINE, "too\nlate")
    assert line.count(b"\n") == 1
    error = {"code": 4, "message": "too\nlate", "details": []}
    assert json.loads(line) == {"error": error}


def test_a_kind_by_its_code_is_the_one_that_a_call_can_have():
    assert kind_named("not_found") is errors.NOT_FOUND
    assert {kind_named(kind.code).code for kind in KINDS} == {kind.code for kind in KINDS}
