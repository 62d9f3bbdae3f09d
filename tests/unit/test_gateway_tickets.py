"""Tickets: what is redeemed, and that nothing else is."""

from __future__ import annotations

import string
import time
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import tickets
from gateway.auth import Token, digest_of, token_line
from gateway.tickets import LIFETIME, Tickets, new_key

RITA = Token("rita", "read", digest_of("rita's secret"))
OTTO = Token("otto", "operate", digest_of("otto's secret"))
TOKENS = (RITA, OTTO)
KEY = bytes(range(32))


@dataclass
class Clock:
    """Stands in for the module `time`, and goes on when it is told to."""

    now: float = 1_700_000_000.25

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tickets, "time", clock)
    return clock


def parts_of(ticket: str) -> tuple[str, str, str]:
    """Expiry, MAC and name."""
    expiry, mac, name = ticket.split(".", 2)
    return expiry, mac, name


# What is redeemed.


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token.name)
def test_a_ticket_stands_for_its_token(token: Token):
    made = Tickets(KEY)
    assert made.redeem(made.issue(token), TOKENS) is token


def test_a_ticket_may_be_redeemed_again_and_again():
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    assert [made.redeem(ticket, TOKENS) for _ in range(3)] == [RITA] * 3


@pytest.mark.parametrize("name", ["a.b", ".", "..", ".a", "a.", "a.b.c-d_e", "x" * 64, "." * 64])
def test_names_with_dots_and_long_ones(name: str):
    assert token_line(name, "read", "x"), "it is a name that tokens may have"
    token = Token(name, "read", digest_of("x"))
    made = Tickets(KEY)
    assert made.redeem(made.issue(token), (RITA, token, OTTO)) is token


def test_every_worker_of_one_gateway_takes_the_tickets_of_the_others():
    one, other = Tickets(KEY), Tickets(KEY)
    assert other.redeem(one.issue(RITA), TOKENS) is RITA
    assert one.redeem(other.issue(RITA), TOKENS) is RITA


def test_a_ticket_stands_for_its_token_as_that_is_now():
    """A scope that was changed since counts for the ticket too."""
    made = Tickets(KEY)
    demoted = replace(OTTO, scope="read")
    assert made.redeem(made.issue(OTTO), (RITA, demoted)) is demoted


# When.


@pytest.mark.parametrize(
    ("later", "good"),
    [(0, True), (1, True), (LIFETIME - 1, True), (LIFETIME, False), (LIFETIME + 1, False)],
)
def test_a_ticket_is_good_for_its_lifetime_and_no_longer(clock: Clock, later: float, good: bool):
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    clock.now += later
    assert made.redeem(ticket, TOKENS) is (RITA if good else None)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_no_ticket_lives_longer_than_it_says_wherever_in_a_second_it_is_made(
    clock: Clock, fraction: float
):
    clock.now = 1_700_000_000 + fraction
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    assert made.redeem(ticket, TOKENS) is RITA
    clock.now += LIFETIME + 0.001
    assert made.redeem(ticket, TOKENS) is None


def test_a_ticket_from_the_future_is_none(clock: Clock):
    """Whatever sets the clock back does not make tickets live longer."""
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    clock.now -= 2
    assert made.redeem(ticket, TOKENS) is None


def test_a_ticket_does_not_say_itself_how_long_it_lives(clock: Clock):
    made = Tickets(KEY)
    expiry, mac, name = parts_of(made.issue(RITA))
    for seconds in range(1, LIFETIME + 1):
        clock.now += 1
        assert made.redeem(f"{int(expiry) + seconds}.{mac}.{name}", TOKENS) is None


# Forgeries.


def test_no_character_of_a_ticket_may_be_another():
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    for at, there in enumerate(ticket):
        for other in string.printable + "\0é١Ａ":
            if other != there:
                forged = ticket[:at] + other + ticket[at + 1 :]
                assert made.redeem(forged, TOKENS) is None, forged


def test_no_character_of_a_ticket_may_be_missing_and_none_may_follow():
    made = Tickets(KEY)
    ticket = made.issue(RITA)
    for at in range(len(ticket)):
        assert made.redeem(ticket[:at], TOKENS) is None
        assert made.redeem(ticket[:at] + ticket[at + 1 :], TOKENS) is None
    for more in (".", " ", "\n", "x", "\0", ticket, "x" * 10_000):
        assert made.redeem(ticket + more, TOKENS) is None
        assert made.redeem(more + ticket, TOKENS) is None
    assert made.redeem(ticket.upper(), TOKENS) is None


def test_a_ticket_is_not_another_tokens():
    made = Tickets(KEY)
    expiry, mac, _ = parts_of(made.issue(RITA))
    assert made.redeem(f"{expiry}.{mac}.otto", TOKENS) is None


def test_the_parts_of_two_tickets_make_no_third():
    made = Tickets(KEY)
    mine, yours = parts_of(made.issue(RITA)), parts_of(made.issue(OTTO))
    for ticket in ((mine[0], yours[1], mine[2]), (mine[0], mine[1], yours[2])):
        assert made.redeem(".".join(ticket), TOKENS) is None


def test_a_name_and_what_is_before_it_are_told_apart():
    """A token whose name holds what looks like the end of another's ticket."""
    made = Tickets(KEY)
    token = Token("a", "read", digest_of("x"))
    longer = Token("a.b", "operate", digest_of("x"))
    assert made.redeem(made.issue(token) + ".b", (token, longer)) is None
    assert made.redeem(made.issue(longer).removesuffix(".b"), (token, longer)) is None


def test_a_ticket_of_another_gateway_is_none():
    ticket = Tickets(KEY).issue(RITA)
    for key in (new_key(), KEY[:-1] + b"\0", bytes(32)):
        assert Tickets(key).redeem(ticket, TOKENS) is None


def test_keys_are_long_and_never_the_same():
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) == 32 for key in made)


# Tokens that are taken away take their tickets along.


def test_a_token_that_is_gone_takes_its_tickets_along():
    made = Tickets(KEY)
    assert made.redeem(made.issue(RITA), (OTTO,)) is None
    assert made.redeem(made.issue(RITA), ()) is None


def test_a_token_made_anew_under_the_same_name_does_not_inherit_tickets():
    made = Tickets(KEY)
    anew = replace(RITA, digest=digest_of("another secret"))
    assert made.redeem(made.issue(RITA), (anew, OTTO)) is None


def test_a_ticket_does_not_give_its_token_away():
    for token, secret in ((RITA, "rita's secret"), (OTTO, "otto's secret")):
        ticket = Tickets(KEY).issue(token)
        assert secret not in ticket
        assert token.digest.hex() not in ticket
        assert KEY.hex() not in ticket


# Whatever else comes.

ODD = [
    "",
    ".",
    "..",
    "...",
    "." * 100_000,
    "9" * 1_000_000,
    "9" * 5000 + "..rita",
    "9" * 200 + f".{'0' * 20}.rita",
    "-1..rita",
    "+1..rita",
    "1e9..rita",
    "0x10..rita",
    "1_0..rita",
    " 1..rita",
    "inf..rita",
    "nan..rita",
    "١٢٣..rita",
    "²..rita",
    "\0.\0.\0",
    "\ud800.\ud800.\ud800",
    "é" * 256,
]


def odd_id(ticket: str) -> str:
    return ascii(ticket[:20])[1:-1] or "empty"


@pytest.mark.parametrize("ticket", ODD, ids=odd_id)
def test_nonsense_is_no_ticket(ticket: str):
    assert Tickets(KEY).redeem(ticket, TOKENS) is None


ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_no_text_is_a_ticket_and_none_breaks_anything(text: str):
    assert Tickets(KEY).redeem(text, TOKENS) is None


@given(
    seconds=st.integers(-5, LIFETIME + 5),
    mac=st.one_of(
        st.binary(min_size=32, max_size=32).map(bytes.hex),
        st.text("0123456789abcdefABCDEF", max_size=80),
        ANY_TEXT.filter(lambda text: "." not in text),
    ),
    name=st.one_of(st.sampled_from(["rita", "otto", "", "RITA"]), ANY_TEXT),
)
def test_no_guess_of_the_right_form_is_a_ticket(seconds: int, mac: str, name: str):
    ticket = f"{int(time.time()) + seconds}.{mac}.{name}"
    assert Tickets(KEY).redeem(ticket, TOKENS) is None
