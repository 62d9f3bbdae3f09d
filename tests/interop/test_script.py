"""The tables of the live tests are whole: a new RPC without a test fails here."""

from __future__ import annotations

import dataclasses

import pytest

from tests.interop.go_json import from_go, to_go
from tests.interop.script import CASES, LARGEST_ID, LARGEST_REQUEST, SMALLEST_REQUEST, VERIFIED
from zapcore import messages as m
from zapcore.framing import MAX_BODY_SIZE
from zapcore.methods import Rpcs


def test_every_rpc_of_the_reference_has_a_case():
    assert {case.method.name for case in CASES} == {method.name for method in VERIFIED}


@pytest.mark.parametrize("method", VERIFIED, ids=str)
def test_every_field_of_every_request_is_sent_empty_and_with_something_in_it(method):
    requests = [case.request for case in CASES if case.method is method]
    for field in dataclasses.fields(method.request):
        values = [getattr(request, field.name) for request in requests]
        assert any(values), field.name
        if not field.metadata["required"]:
            assert not all(values), field.name
        if field.default is None:
            assert {None, ""} < set(values), "absent, empty and with something in it"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_go_s_json_and_ours_are_each_other_s_inverse(case):
    for message in (case.request, case.answer(4711)):
        assert from_go(type(message), to_go(message)) == message


def test_the_sizes_are_what_their_names_say():
    assert len(Rpcs.send_outbound_message.encode_request(LARGEST_REQUEST)) == MAX_BODY_SIZE
    largest = m.AttachPeerResponse(None, m.AttachedPeerInfo("a" * LARGEST_ID))
    assert len(largest.encode()) == MAX_BODY_SIZE
    assert len(SMALLEST_REQUEST.encode_request()) == 1
