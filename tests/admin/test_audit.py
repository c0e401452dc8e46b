"""What is changed is in the log: by which route, about what, and what came of it; never a token."""

import json

from harness import Server, readiness
from harness.office import Office

SECRET = "a-token-that-nobody-logs"


def lines(server):
    found = [json.loads(line) for line in server.log().splitlines() if "jam_mqtt::admin" in line]
    return [(it["method"], it["route"], it["uri"], it["status"]) for it in found if it["message"] == "administration"]


def test_writes_are_logged_without_tokens(tmp_path):
    with Server(tmp_path, admin=True) as server:
        office = Office(server)
        office.ask("PUT", "users/7", {"token": SECRET})
        office.ask("PUT", "users/7/token", {"token": SECRET + "2"})
        office.ask("PUT", "users/7/token", {"tokn": SECRET})
        Office(server).ask("PUT", f"users/7/token?token={SECRET}")  # a connection whose body is not read may end
        _, made = office.ask("PUT", "users/7/token")
        office.ask("GET", "users/7")
        office.ask("DELETE", "users/7/devices/7%3Aa%0Ab?session=end")
        office.ask("DELETE", "nothing/7")
        readiness.until("all is in the log", lambda: len(lines(server)) >= 7, patience=10)
        assert lines(server) == [
            ("PUT", "/api/v1/users/{id}", "/api/v1/users/7", 201),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 200),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 422),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 422),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 200),
            ("DELETE", "/api/v1/users/{id}/devices/{device}", "/api/v1/users/7/devices/7%3Aa%0Ab?session=end", 200),
            ("DELETE", "", "/api/v1/nothing/7", 404),
        ]
        for secret in (SECRET, made["token"], office.token):
            assert secret not in server.log()


def test_a_wrong_token_is_logged_with_its_address_and_never_itself(tmp_path):
    with Server(tmp_path, admin=True) as server:
        office, guesser = Office(server), Office(server)
        guesser.token = "a-guess-0123456789"
        for _ in range(100):
            assert guesser.ask("GET", "stats")[0] == 401
        found = [line for line in server.log().splitlines() if "wrong token for the admin API" in line]
        assert 1 <= len(found) <= 10 and all("127.0.0.1" in line for line in found), found
        assert guesser.token not in server.log()
        assert office.ask("GET", "stats")[0] == 200
