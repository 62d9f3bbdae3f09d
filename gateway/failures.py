"""Failures as answers: a problem document, or what netrunner's old HTTP API would say."""

from __future__ import annotations

from typing import NamedTuple

from gateway import errors, grpc_status
from gateway.context import RequestContext
from gateway.errors import Kind, Problem

JSON = "application/json"


class StreamFailed(Exception):
    """A stream failed before anything was said.

    Args:
        kind: how.
        detail: in words.
        as_line: whether to tell it as the stream's last line.
    """

    def __init__(self, kind: Kind, detail: str, *, as_line: bool) -> None:
        super().__init__(detail)
        self.kind = kind
        self.as_line = as_line


class Failure(NamedTuple):
    """An answer that tells of a failure."""

    status: int
    media_type: str
    headers: dict[str, str]
    body: bytes


def failure(
    context: RequestContext, kind: Kind, document: Problem, *, as_line: bool = False
) -> Failure:
    """The answer for a problem, in the form of the address that was asked; noted in the context.

    Args:
        context: of the request.
        kind: of the problem.
        document: what there is to say of it.
        as_line: whether the old API tells it as a line of a stream.
    """
    context.code = kind.code
    headers = errors.problem_headers(kind)
    if not context.old_api:
        return Failure(kind.status, errors.MEDIA_TYPE, headers, errors.render(document))
    status = grpc_status.http_status_of(kind)
    render = grpc_status.render_chunk if as_line else grpc_status.render
    return Failure(status, JSON, headers, render(kind, document.detail))
