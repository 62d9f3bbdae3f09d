"""Failures as answers: a problem document, or what netrunner's old HTTP API would say."""

from __future__ import annotations

from typing import NamedTuple

from gateway import errors, grpc_status
from gateway.context import RequestContext
from gateway.errors import Kind, Problem

JSON = "application/json"


class StreamRefused(Exception):
    """A stream failed before anything was said."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Failure(NamedTuple):
    """An answer that tells of a failure."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes


def failure(context: RequestContext, kind: Kind, document: Problem) -> Failure:
    """The answer for a problem, in the form of the address that was asked; noted in the context."""
    context.code = kind.code
    headers = errors.problem_headers(kind)
    if not context.old_api:
        return Failure(kind.status, errors.MEDIA_TYPE, headers, errors.render(document))
    status = grpc_status.http_status_of(kind)
    return Failure(status, JSON, headers, grpc_status.render(kind, document.detail))
