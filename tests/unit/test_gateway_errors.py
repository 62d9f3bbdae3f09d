"""Every error of zapcore has its row, and every row its document."""

from __future__ import annotations

import inspect
import json

import pytest

from gateway import errors
from gateway.errors import KINDS, Kind, kind_of, problem, problem_headers, render, zap_problem
from zapcore import errors as zap

ROWS = [
    (zap.NotFound("x"), 404, "not_found"),
    (zap.NotBootstrapped("x"), 409, "not_bootstrapped"),
    (zap.AlreadyExists("x"), 409, "already_exists"),
    (zap.UnsupportedByServer("x"), 501, "unsupported_by_server"),
    (zap.RemoteError("x"), 502, "upstream_error"),
    (zap.DecodeError("x"), 502, "upstream_protocol_error"),
    (zap.Truncated("x"), 502, "upstream_protocol_error"),
    (zap.FramingError("x"), 502, "upstream_protocol_error"),
    (zap.RecordError("x"), 502, "upstream_protocol_error"),
    (zap.HandshakeError("x"), 502, "upstream_protocol_error"),
    (zap.ProtocolError("x"), 502, "upstream_protocol_error"),
    (zap.IdentityMismatch("x"), 502, "upstream_identity_mismatch"),
    (zap.UnknownServer("x"), 502, "upstream_identity_mismatch"),
    (zap.OutcomeUnknown("x"), 502, "outcome_unknown"),
    (zap.ConnectFailed("x"), 503, "upstream_unavailable"),
    (zap.ConnectionLost("x"), 503, "upstream_unavailable"),
    (zap.TransportError("x"), 503, "upstream_unavailable"),
    (zap.Overloaded("x"), 503, "overloaded"),
    (zap.DeadlineExceeded("x"), 504, "deadline_exceeded"),
    (zap.MessageTooLarge("x"), 413, "body_too_large"),
    (zap.EncodeError("x"), 422, "invalid_request"),
    (zap.KnownServersError("x"), 500, "internal_error"),
    (zap.ZapError("x"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), ROWS, ids=lambda row: type(row).__name__)
def test_an_error_has_its_row(error: zap.ZapError, status: int, code: str):
    kind = kind_of(error)
    assert (kind.status, kind.code) == (status, code)


def test_no_error_of_zapcore_is_without_a_row():
    for _, cls in inspect.getmembers(zap, inspect.isclass):
        if issubclass(cls, zap.ZapError):
            assert isinstance(kind_of(cls("x")), Kind)


def test_a_connection_that_broke_for_a_broken_rule_is_the_servers_fault():
    lost = zap.ConnectionLost("gone")
    lost.__cause__ = zap.RecordError("does not open")
    assert kind_of(lost).code == "upstream_protocol_error"
    lost.__cause__ = zap.ConnectionLost("reset")
    assert kind_of(lost).code == "upstream_unavailable"


def test_the_table_is_the_designs():
    table = {(kind.status, kind.code) for kind in KINDS}
    assert table == {
        (400, "invalid_request"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (409, "not_bootstrapped"),
        (409, "already_exists"),
        (408, "request_timeout"),
        (413, "body_too_large"),
        (422, "invalid_request"),
        (429, "too_many_requests"),
        (431, "header_too_large"),
        (500, "internal_error"),
        (501, "unsupported_by_server"),
        (502, "upstream_error"),
        (502, "upstream_protocol_error"),
        (502, "upstream_identity_mismatch"),
        (502, "outcome_unknown"),
        (503, "upstream_unavailable"),
        (503, "overloaded"),
        (503, "shutting_down"),
        (504, "deadline_exceeded"),
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.status} {kind.code}")
def test_a_document_of_each_kind(kind: Kind):
    document = json.loads(render(problem(kind, "why", request_id="r", rpc="Status")))
    assert document == {
        "type": f"urn:zap-gateway:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": "why",
        "code": kind.code,
        "rpc": "Status",
        "requestId": "r",
    }
    assert ("retry-after" in problem_headers(kind)) == (kind.status in (429, 503))
    assert ("www-authenticate" in problem_headers(kind)) == (kind.status == 401)


def test_what_does_not_apply_is_left_out():
    document = json.loads(render(problem(errors.NO_ROUTE, "why", request_id="r")))
    assert "rpc" not in document
    assert "errors" not in document


@pytest.mark.parametrize("length", [0, 1, 2000, 2001, 10_000])
def test_a_detail_is_never_long(length: int):
    detail = zap_problem(zap.RemoteError("ü" * length), request_id="", rpc=None).detail
    assert detail == "ü" * length if length <= 2000 else detail == "ü" * 2000 + "…"
