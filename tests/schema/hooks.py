"""What Schemathesis must know beyond the document, and what it reports that is no failure.

Schemathesis itself loads this file, in its own process; test_schemathesis.py starts it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import requests
import schemathesis
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure, MalformedJson
from schemathesis.openapi.checks import AllowHeaderMismatch, IgnoredAuth, RejectedPositiveData

from gateway.durations import parse_duration, parse_grpc_timeout

URL = os.environ["ZAP_SCHEMA_TESTS_URL"]
TOKEN = os.environ["ZAP_SCHEMA_TESTS_TOKEN"]
"""One that may do everything; empty for a gateway without tokens."""

BEARER = f"Bearer {TOKEN}"


# Credentials.

if TOKEN:

    @schemathesis.auth()
    class TokenAuth:
        def get(self, case: Case, context: AuthContext) -> str:
            return BEARER

        def set(self, case: Case, data: str, context: AuthContext) -> None:
            case.headers["Authorization"] = data


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Where tokens are set up, the alternative `{}`, which needs none, does not hold."""
    if not TOKEN:
        return
    paths = raw_schema["paths"].values()
    for holder in (raw_schema, *(operation for path in paths for operation in path.values())):
        if "security" in holder:
            holder["security"] = [each for each in holder["security"] if each]


# Requests that can succeed.

TIMES = ("timeout", "interval", "X-Request-Timeout")
SHORTEST, LONGEST = 5.0, 60.0
"""Seconds. The shortest is long enough for a busy machine, the longest is the gateway's limit."""

OLD_STREAM = "/v1/control/streamstatus"
SNAPSHOT = "before-upgrade"
OLD = "/v1/control/"
NEEDS_NO_CLUSTER = {
    ("POST", "/v1/cluster"),
    ("POST", "/v1/snapshots/{name}/load"),
    ("POST", OLD + "start"),
    ("POST", OLD + "loadsnapshot"),
}
STOPS_THE_CLUSTER = {
    ("DELETE", "/v1/cluster"),
    ("POST", "/v1/snapshots"),
    ("POST", OLD + "stop"),
    ("POST", OLD + "savesnapshot"),
}
OLD_USES_UP = (
    *("addnode", "removenode", "pausenode", "resumenode", "restartnode", "removesnapshot"),
    *("transformelasticchains", "transformelasticsubnets", "savehotsnapshot"),
    *("removechainvalidator", "removesubnetvalidator"),
)
USES_UP = (
    NEEDS_NO_CLUSTER
    | {("POST", OLD + name) for name in OLD_USES_UP}
    | {
        ("DELETE", "/v1/nodes/{name}"),
        ("DELETE", "/v1/snapshots/{name}"),
        ("POST", "/v1/chains/elastic"),
        ("POST", "/v1/nodes/{name}/pause"),
        ("POST", "/v1/nodes/{name}/resume"),
        ("POST", "/v1/nodes/{name}/restart"),
        ("POST", "/v1/validators/remove"),
    }
)
"""What does not succeed again in the same cluster."""


class Cluster:
    """The simulated cluster, and the ids of what is in it."""

    def __init__(self) -> None:
        self._session = requests.Session()
        if TOKEN:
            self._session.headers["Authorization"] = BEARER
        self.ready = False
        self.chain = self.elastic_chain = self.peer = ""

    def _ask(self, verb: str, path: str, body: object = None) -> Any:
        return self._session.request(verb, URL + path, json=body, timeout=30).json()

    def stop(self) -> None:
        """Stop it."""
        self._ask("DELETE", "/v1/cluster")
        self.ready = False

    def reset(self) -> None:
        """Start it anew, with something in it for every operation to succeed on."""
        self.stop()
        self._ask("POST", "/v1/cluster", {"numNodes": 3})
        specs = [{"participants": ["node1"]}, {"participants": ["node1"]}]
        chains = self._ask("POST", "/v1/chains", {"chainSpecs": specs})["chainIds"]
        self.chain, self.elastic_chain = chains
        elastic = [{"chainId": self.elastic_chain}]
        self._ask("POST", "/v1/chains/elastic", {"elasticChainSpec": elastic})
        answer = self._ask("POST", "/v1/nodes/node1/peers")
        self.peer = answer["attachedPeerInfo"]["id"]
        self._ask("POST", "/v1/nodes/node2/pause")
        self._ask("POST", "/v1/snapshots/hot", {"snapshotName": SNAPSHOT})
        self.ready = True


cluster = Cluster()
every_second = itertools.cycle((True, False))
numbers = itertools.count()


def follows_others(case: Case) -> bool:
    """Whether a case is a step of a scenario, which may not be disturbed."""
    return case.meta is not None and case.meta.phase.name.value == "stateful"


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Let every second request that is meant to succeed do so; the others find what they find."""
    keep_times_within_limits(case)
    if case.meta is None or case.meta.generation.mode.is_negative or follows_others(case):
        return
    if next(every_second):
        if not cluster.ready:
            cluster.reset()
        if case.path.startswith(OLD):
            give_what_succeeds(case)
        else:
            name_what_is_there(case)
        if (case.method, case.path) in NEEDS_NO_CLUSTER:
            cluster.stop()


def keep_times_within_limits(case: Case) -> None:
    """A schema can tell the form of a time, but not its range: the description does."""
    for container in (case.query, case.headers):
        for name in TIMES:
            value = (container or {}).get(name)
            if isinstance(value, str) and is_time_outside_limits(parse_duration, value):
                container[name] = "30s"
    deadline = (case.headers or {}).get("Grpc-Timeout")
    if deadline is None or case.path == OLD_STREAM:
        return
    if is_time_outside_limits(parse_grpc_timeout, deadline):
        case.headers["Grpc-Timeout"] = "30S"


def is_time_outside_limits(parse: Callable[[str], float], text: str) -> bool:
    """Whether a text is a time, and outside."""
    try:
        return not SHORTEST <= parse(text) <= LONGEST
    except ValueError:
        return False


def name_what_is_there(case: Case) -> None:
    """Names and ids can't be guessed."""
    path = case.path_parameters
    if "peerId" in path:
        path["peerId"] = cluster.peer
    if "name" in path:
        node = "node2" if case.path.endswith("/resume") else "node1"
        path["name"] = SNAPSHOT if case.path.startswith("/v1/snapshots/") else node
    field, found = {
        "/v1/chains/elastic": ("elasticChainSpec", {"chainId": cluster.chain}),
        "/v1/validators": (
            "validatorSpec",
            {"chainId": cluster.elastic_chain, "nodeName": "node1"},
        ),
        "/v1/validators/remove": (
            "validatorSpec",
            {"chainId": cluster.chain, "nodeNames": ["node1"]},
        ),
    }.get(case.path, ("", {}))
    if field:
        del case.body[field][1:]
        case.body[field][0].update(found)


def give_what_succeeds(case: Case) -> None:
    """The old API has its names in bodies."""
    chain, elastic = {"chainId": cluster.chain}, {"chainId": cluster.elastic_chain}
    bodies: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (("addnode",), {"name": "another"}),
        (("pausenode", "removenode", "restartnode"), {"name": "node1"}),
        (("resumenode",), {"name": "node2"}),
        (("attachpeer",), {"nodeName": "node1"}),
        (("sendoutboundmessage",), {"nodeName": "node1", "peerId": cluster.peer}),
        (("createblockchains",), {"blockchainSpecs": [{"vmName": "evm"}]}),
        (("createchains", "createsubnets"), {"chainSpecs": [{}]}),
        (("transformelasticchains", "transformelasticsubnets"), {"elasticChainSpec": [chain]}),
        (("addpermissionlessvalidator",), {"validatorSpec": [{**elastic, "nodeName": "node1"}]}),
        (
            ("removechainvalidator", "removesubnetvalidator"),
            {"validatorSpec": [{**chain, "nodeNames": ["node1"]}]},
        ),
        (("savesnapshot", "savehotsnapshot"), {"snapshotName": f"another{next(numbers)}"}),
        (("loadsnapshot", "removesnapshot"), {"snapshotName": SNAPSHOT}),
    )
    for names, body in bodies:
        if case.path.removeprefix(OLD) in names and isinstance(case.body, dict):
            case.body.update(body)


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    """Mend the cluster; note the tickets."""
    operation = (case.method, case.path)
    if response.status_code == 200 and operation == ("POST", "/v1/stream-tickets"):
        tickets.add(response.json()["ticket"])
    if response.status_code == 200 and operation in STOPS_THE_CLUSTER:
        cluster.reset()
    elif operation in USES_UP and not follows_others(case):
        cluster.ready = False


# Checks.


@schemathesis.check
def only_the_netrunner_server_fails(ctx: CheckContext, response: Response, case: Case) -> None:
    """502 stands for a refusal by the netrunner server, and for nothing that went wrong."""
    if response.status_code == 502:
        assert response.json()["code"] == "upstream_error"


@schemathesis.check
def the_old_api_fails_its_own_way(ctx: CheckContext, response: Response, case: Case) -> None:
    """500 stands for a refusal by the netrunner server there, and 501 for another method."""
    if case.path.startswith("/v1/control/") and response.status_code >= 400:
        document = response.json()
        code = document.get("error", document)["code"]  # a stream's failure is a line
        assert (code, response.status_code) in OLD_FAILURES, code


OLD_FAILURES = {(2, 500), (3, 400), (5, 404), (12, 501), (16, 401), (4, 504)}

tickets: set[str] = set()
"""Those that the gateway gave out."""


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """False for what is no failure."""
    if isinstance(failure, MalformedJson) and case.path == OLD_STREAM:
        # It is application/json, as it was, and has several lines.
        return False
    if isinstance(failure, IgnoredAuth):
        # A ticket that the gateway gave out before is good, though Schemathesis takes it for one
        # of its own making.
        return (case.query or {}).get("ticket") not in tickets - {""}
    if isinstance(failure, RejectedPositiveData) and response.status_code == 401:
        # It is the other way round with an Authorization header of its own making.
        return response.request.headers.get("Authorization") == BEARER
    if isinstance(failure, AllowHeaderMismatch) and case.path == "/v1/snapshots/hot":
        # A snapshot may be called "hot", and is removed at this address.
        return (failure.missing_methods, failure.undocumented_methods) != ([], ["DELETE"])
    return True
