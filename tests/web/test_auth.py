"""Passwords: who is let in, what it costs, and what those learn who aren't."""

import asyncio
import base64

import bcrypt
import httpx
import pytest
from pydantic import SecretStr

from exporter.web.auth import BusyError, Users
from tests.waiting import DEADLINE
from tests.web.conftest import Protect, hashed
from tests.web.serving import serving


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


USERS = {"alice": "wonder land: ü", "bob": "", "élodie": "x" * 72}


@pytest.fixture
def users() -> Users:
    return Users({name: SecretStr(hashed(password)) for name, password in USERS.items()})


class TestWhoIsAdmitted:
    @pytest.mark.parametrize(("name", "password"), USERS.items())
    async def test_users_with_their_passwords(self, users: Users, name: str, password: str) -> None:
        for _ in range(3):
            assert await users.admits(basic(name, password))

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic " + base64.b64encode(b"alice").decode(),
            "Basic " + base64.b64encode(b"bob").decode(),
            "Bearer " + base64.b64encode(b"bob:").decode(),
            "Basic é",
            basic("alice", "wrong"),
            basic("alice", ""),
            basic("", ""),
            basic("nobody", ""),
            basic("nobody", "wonder land: ü"),
            basic("ALICE", "wonder land: ü"),
            basic("alice", "wonder land: ü\0"),
            basic("alice", "x" * 100_000),
            "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        ],
    )
    async def test_nobody_else(self, users: Users, header: str) -> None:
        for _ in range(2):
            assert not await users.admits(header)

    async def test_the_scheme_is_written_in_any_case(self, users: Users) -> None:
        assert await users.admits(basic("bob", "").replace("Basic", "bAsIc"))

    async def test_of_a_long_password_counts_what_bcrypt_uses(self, users: Users) -> None:
        """As in all of Prometheus' exporters."""
        assert await users.admits(basic("élodie", "x" * 100))
        assert not await users.admits(basic("élodie", "x" * 71))

    async def test_a_right_password_opens_no_door_for_a_wrong_one(self, users: Users) -> None:
        assert await users.admits(basic("bob", ""))
        assert not await users.admits(basic("bob", "x"))
        assert not await users.admits(basic("nobody", ""))


class TestTime:
    def test_a_name_that_is_no_users_costs_what_a_users_does(self) -> None:
        """Hashes of any costs: which one it is checked against is fixed, and one of theirs."""
        costs = {f"user-{cost}": bcrypt.gensalt(cost) for cost in (4, 5, 6)}
        hashes = {name: bcrypt.hashpw(b"x", salt).decode() for name, salt in costs.items()}
        users = Users({name: SecretStr(value) for name, value in hashes.items()})
        strangers = [f"stranger-{n}".encode() for n in range(100)]
        picked = [users.hash_for(name) for name in strangers]
        assert {value.decode() for value in picked} == set(hashes.values())
        assert [users.hash_for(name) for name in strangers] == picked

    def test_what_a_stranger_is_checked_against_is_not_the_same_in_each_process(self) -> None:
        hashes = {str(n): SecretStr(hashed("x")) for n in range(8)}
        one, other = Users(hashes), Users(hashes)
        names = [f"stranger-{n}".encode() for n in range(50)]
        assert [one.hash_for(n) for n in names] != [other.hash_for(n) for n in names]

    async def test_many_wrong_passwords_hold_up_no_known_one(self, users: Users) -> None:
        """Only so many wait to be checked; who was checked before isn't checked again."""
        assert await users.admits(basic("bob", ""))
        flood = [asyncio.create_task(users.admits(basic("alice", str(n)))) for n in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await users.admits(basic("alice", "wonder land: ü"))
        assert await users.admits(basic("bob", ""))
        assert not all(task.done() for task in flood)
        responses = await asyncio.gather(*flood, return_exceptions=True)
        assert 0 < sum(response is False for response in responses) < 30
        assert all(response is False or isinstance(response, BusyError) for response in responses)
        assert await users.admits(basic("alice", "wonder land: ü"))


class TestOverHttp:
    @pytest.mark.parametrize("path", ["/", "/large", "/none", "/-/healthy", "/%00"])
    async def test_strangers_get_the_same_response_everywhere(
        self, protect: Protect, path: str
    ) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            for auth in (None, ("alice", "wrong"), ("nobody", "word")):
                response = await served.get(path, auth=auth)
                assert (response.status_code, response.text) == (401, "Unauthorized\n")
                assert response.headers["www-authenticate"] == (
                    'Basic realm="metrics", charset="UTF-8"'
                )
                assert response.headers.keys() == {
                    "date",
                    "www-authenticate",
                    "content-type",
                    "content-length",
                    "content-security-policy",
                    "x-content-type-options",
                    "referrer-policy",
                }

    async def test_users_get_theirs(self, protect: Protect) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            assert (await served.get(auth=("alice", "word"))).text == "hello"
            assert (await served.get("/none", auth=("alice", "word"))).status_code == 404

    async def test_two_credentials_are_none(self, protect: Protect) -> None:
        right = ("Authorization", basic("alice", "word"))
        async with (
            serving(protect(users={"alice": "word"})) as served,
            httpx.AsyncClient(trust_env=False, timeout=DEADLINE, verify=False) as http,
        ):
            for other in (("Authorization", "Basic eDp5"), right):
                response = await http.get(
                    f"http://127.0.0.1:{served.port}/", headers=[right, other]
                )
                assert response.status_code == 401

    @pytest.mark.slow
    async def test_too_many_at_once_are_asked_to_come_back(self, protect: Protect) -> None:
        async with serving(protect(users={"alice": "word"})) as served:
            responses = await asyncio.gather(
                *(served.get(auth=("alice", str(n))) for n in range(60))
            )
            assert {a.status_code for a in responses} <= {401, 503}
            assert all(a.headers["retry-after"] == "1" for a in responses if a.status_code == 503)
            assert (await served.get(auth=("alice", "word"))).status_code == 200
