"""What is changed is in the log: by which route, about what, and what came of it; never a token."""

import json

from harness import Server
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
        _, made = office.ask("PUT", "users/7/token")
        office.ask("GET", "users/7")
        office.ask("DELETE", "users/7/devices/7%3Aa%0Ab?session=end")
        office.ask("DELETE", "nothing/7")
        assert lines(server) == [
            ("PUT", "/api/v1/users/{id}", "/api/v1/users/7", 201),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 200),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 422),
            ("PUT", "/api/v1/users/{id}/token", "/api/v1/users/7/token", 200),
            ("DELETE", "/api/v1/users/{id}/devices/{device}", "/api/v1/users/7/devices/7%3Aa%0Ab?session=end", 200),
            ("DELETE", "", "/api/v1/nothing/7", 404),
        ]
        for secret in (SECRET, made["token"], office.token):
            assert secret not in server.log()
