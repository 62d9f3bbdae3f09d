"""Every decoder, once. A new one needs a function (see wire.py) and a line here."""

from __future__ import annotations

from tests.fuzz import web, wire, zwing
from tests.fuzz.oracles import Target

MIB = 1024 * 1024

_ALL = (
    # What crosses the wire.
    Target("frames", wire.frames, longest=120, share=0.2),
    Target("zap_stream", wire.zap_stream, longest=160, share=0.3),
    Target("records", wire.records, longest=160, share=0.2, growth=25),
    Target("messages", wire.messages, longest=800),
    Target("encodings", wire.encodings, longest=600, share=0.2),
    Target("answers", wire.answers, longest=800, share=0.5),
    Target("requests", wire.requests, longest=1000),
    Target("error_texts", wire.error_texts, longest=200),
    Target("addresses", wire.addresses, longest=300),
    # The handshake, and files of keys.
    Target("handshake_init", zwing.handshake_init, longest=8000, share=0.03),
    Target("handshake_init_signed", zwing.handshake_init_signed, longest=100, share=0.01),
    Target("handshake_response", zwing.handshake_response, longest=8000, share=0.1),
    Target("handshake_response_signed", zwing.handshake_response_signed, longest=100, share=0.02),
    Target("public_identity", zwing.public_identity, longest=4500, share=0.05),
    Target("identity_file", zwing.identity_file, longest=9000, share=0.1),
    Target("key_parts", zwing.key_parts, share=0.2),
    Target("known_servers", zwing.known_servers, longest=1000, share=0.2, memory=MIB),
    # What clients send.
    Target("durations", web.durations, longest=64),
    Target("parameters", web.parameters, longest=128),
    Target("grpc_timeouts", web.grpc_timeouts, longest=64),
    Target("positions", web.positions, longest=64),
    Target("last_event_ids", web.last_event_ids, longest=64, share=0.5),
    Target("event_types", web.event_types, longest=400),
    Target("json_bodies", web.json_bodies, longest=2000),
    Target("old_bodies", web.old_bodies, share=0.3),
    Target("tickets", web.tickets, longest=300),
    Target("access", web.access, longest=600),
    Target("proxies", web.proxies, longest=600),
    Target("token_lines", web.token_lines, longest=1000, share=0.3, memory=MIB),
    # What the gateway's own command reads.
    Target("event_streams", web.event_streams, longest=1200, share=0.1),
    Target("terminal_texts", web.terminal_texts, longest=200, share=0.5),
)

TARGETS = {target.name: target for target in _ALL}
