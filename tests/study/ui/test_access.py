"""The live page refuses requests without the token, of other hosts and of other sites."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from study.ui.app import LivePage
from tests.study.ui.conftest import TOKEN

ADDRESSES = ("/", "/events", "/study/fake", "/study/fake/events", "/study/fake/report", "/assets/ui.js", "/nothing")


@pytest.fixture
def stranger(storage: Path) -> TestClient:
    """A visitor who does not know the token."""
    return TestClient(LivePage(str(storage), False).make_app(TOKEN), "http://127.0.0.1:8777", follow_redirects=False)


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_needs_the_token(stranger: TestClient, address: str) -> None:
    for given in ("", "?token=", "?token=wrong", f"?token={TOKEN}x"):
        answer = stranger.get(address + given)
        assert answer.status_code == 403
        assert "open the address that `kdstudy ui` printed" in answer.text
        assert "fake" not in answer.text
        assert not answer.cookies


def test_buttons_need_the_token_and_take_it_by_no_address(stranger: TestClient, storage: Path) -> None:
    assert stranger.post("/study/fake/stop").status_code == 403
    assert stranger.post(f"/study/fake/stop?token={TOKEN}").status_code == 403
    assert not (storage / "fake" / "stop").exists()


def test_the_first_visit_stores_the_token_in_a_cookie_and_leaves_it_out_of_the_address(stranger: TestClient) -> None:
    answer = stranger.get(f"/study/fake?token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "http://127.0.0.1:8777/study/fake"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert stranger.get("/study/fake").status_code == 200  # the client keeps cookies


def test_scripts_give_the_token_in_a_header(stranger: TestClient) -> None:
    assert stranger.get("/", headers={"Authorization": f"token {TOKEN}"}).status_code == 200
    assert stranger.get("/", headers={"Authorization": "token x"}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:9", 200), ("127.0.0.1", 200), ("[::1]:8777", 200), ("LOCALHOST", 200), ("evil.example", 403),
     ("evil.example:8777", 403), ("127.0.0.1.evil.example", 403), ("evil@localhost", 200), ("[", 403), ("", 403)],
)  # fmt: skip
def test_names_of_other_hosts_are_refused_whatever_the_token(stranger: TestClient, host: str, status: int) -> None:
    headers = {"Host": host, "Authorization": f"token {TOKEN}"}
    assert stranger.get("/", headers=headers).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8777"])
def test_other_sites_press_no_buttons(stranger: TestClient, storage: Path, origin: str) -> None:
    headers = {"Origin": origin, "Authorization": f"token {TOKEN}"}
    answer = stranger.post("/study/fake/stop", headers=headers)
    assert answer.status_code == 403
    assert "Another site" in answer.text


def test_every_answer_forbids_pages_to_load_anything_else(stranger: TestClient) -> None:
    for address in (*ADDRESSES, f"/?token={TOKEN}", "/", "/study/fake", "/nothing"):
        headers = stranger.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
