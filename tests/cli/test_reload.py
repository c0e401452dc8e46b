"""SIGHUP: settings, push key and TLS files are read again; what cannot be used changes nothing."""

import json
import signal
import time

import pytest
from harness import Server
from harness.packets import PUBACK, PUBLISH
from harness.push import PushService
from harness.raw import Closed


class Configured(Server):
    """Its settings stand in a file, `limits.publish_rate = 0` and so on by their names."""

    def __init__(self, folder, **settings):
        super().__init__(folder)
        self.settings = {}
        self.file = self.folder / "settings.toml"
        self.arguments = ["--config", self.file]
        self.file_settings = {}
        self.write(**{"limits.publish_rate": 0} | settings)

    def write(self, **settings):
        self.file_settings |= settings
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in self.file_settings.items()]
        draft = self.file.with_suffix(".draft")
        draft.write_text("".join(lines))
        draft.rename(self.file)

    def hang_up(self, said):
        """SIGHUP, and the line of the log that begins with what is expected to be said."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in self.log()[before:].splitlines():
                if f'"message":"{said}' in line and line.endswith("}"):
                    return json.loads(line)
            time.sleep(0.02)
        raise AssertionError(f"{said} was not said:\n{self.log()[before:]}")

    def reload(self, **settings):
        self.write(**settings)
        return self.hang_up("settings reloaded")["changed"]


def may_publish_fast(client, me, friend, count=30):
    """Whether so many messages at once are taken: ten times the rate of 1 is less."""
    for _ in range(count):
        client.publish(friend.inbox, me.message(), 1)
    refused = 0
    for _ in range(count):
        while (got := client.receive()).kind != PUBACK:
            assert got.kind == PUBLISH and b"sending too fast" in got.payload
            refused += 1
    return refused == 0


@pytest.mark.parametrize(
    "wrong",
    ['limits.publish_rate = "fast"\n', "limits.publsh_rate = 1\n", "limits.publish_rate = 1\ntls.client_ca = 'ca.pem'\n", "[[[", None],
    ids=["malformed", "unknown", "contradiction", "not TOML", "gone"],
)
def test_settings_that_cannot_be_used_change_nothing(tmp_path, wrong):
    with Configured(tmp_path) as server:
        me, friend = server.friends()
        with server.connect(me) as client:
            if wrong is None:
                server.file.unlink()
            else:
                server.file.write_text(wrong)
            line = server.hang_up("settings not reloaded")
            assert "settings.toml" in line["error"]
            assert may_publish_fast(client, me, friend)
        assert server.reload() == ""


def test_limits_and_the_log_are_taken_up(tmp_path):
    limits = {"limits.publish_rate": 1000, "limits.failed_auth": 1000}
    with Configured(tmp_path, **limits) as server:
        me, friend = server.friends()
        client = server.connect(me)
        assert may_publish_fast(client, me, friend)
        assert server.reload(**{"limits.publish_rate": 1}) == "limits.publish_rate"
        assert not may_publish_fast(client, me, friend)
        assert server.reload(**{"limits.publish_rate": 0}) == "limits.publish_rate"
        assert may_publish_fast(client, me, friend)

        assert '"message":"connected"' not in server.log()
        assert server.reload(log="info,jam_mqtt::clients=debug") == "log"
        server.connect(friend).leave()
        while '"message":"connected"' not in server.log():
            time.sleep(0.02)

        wrong = server.user()
        for _ in range(5):
            assert server.attempt(wrong, password="wrong")[1].reason == 5
        assert server.reload(**{"limits.failed_auth": 2}) == "limits.failed_auth"
        client_of, answer = server.attempt(server.user())
        assert answer.reason != 0, "five failures are more than two"
        assert server.reload(**{"limits.failed_auth": 1000}) == "limits.failed_auth"

        # As many as there are of this address, and no more; then more.
        names = {"limits.connections_per_address": 1}
        assert server.reload(**names) == "limits.connections_per_address"
        client_of.close()
        with pytest.raises((Closed, ConnectionResetError, BrokenPipeError)):
            for _ in range(100):  # who was refused before may still be on the way out, and make way
                server.attempt(friend)[0].close()
                time.sleep(0.05)
        client.ping()
        assert server.reload(**{"limits.connections_per_address": 1000})
        server.connect(friend).leave()

        # In all: who is there stays, who comes waits until somebody leaves.
        assert server.reload(**{"limits.connections": 1}) == "limits.connections"
        waiting = server.dial()
        client.ping()
        client.leave()
        waiting.close()
        with server.connect(friend) as alone:
            alone.ping()
        assert server.reload(**{"limits.connections": 1000}) == "limits.connections"
        with server.connect(friend) as one, server.connect(me) as other:
            one.ping()
            other.ping()


def test_the_push_key_is_read_again(tmp_path):
    """A key file that is replaced in its place; one that cannot be used leaves the last one in force."""
    with PushService() as service:
        settings = service.firebase(tmp_path)
        key = settings["push.fcm_key"]
        with Configured(tmp_path / "server", **{name: str(it) for name, it in settings.items()}) as server:
            me = server.user()

            def account_of_next_push(client):
                friend = server.user()  # pushes to one user collapse
                server.directory.befriend(me, friend)
                server.directory.set_notification_token(friend, "a-phone")
                pushes, tokens = len(service.pushes()), len(service.tokens())
                assert client.deliver(friend.inbox, me.message()) == 0
                return service.pushes(pushes + 1)[-1].path.split("/")[3], len(service.tokens()) - tokens

            with server.connect(me) as client:
                assert account_of_next_push(client) == ("jam-test", 1)
                assert account_of_next_push(client) == ("jam-test", 0)

                account = json.loads(key.read_text())
                key.write_text(json.dumps(account | {"project_id": "another", "client_email": "new@jam-test.example"}))
                assert account_of_next_push(client) == ("jam-test", 0), "only SIGHUP has it read"
                server.hang_up("settings reloaded")
                # It is read after that line is written.
                deadline = time.monotonic() + 10
                while (found := account_of_next_push(client)) == ("jam-test", 0):
                    assert time.monotonic() < deadline
                assert found == ("another", 1), "an access token of the old account is not used"

                for wrong in ("{", json.dumps(account | {"private_key": "none"}), None):
                    key.write_text(wrong) if wrong else key.unlink()
                    line = server.hang_up("push service not reloaded; the last one stays")
                    assert "push.fcm_key" in line["error"]
                    assert account_of_next_push(client) == ("another", 0)

                service.key_file(tmp_path)
                server.hang_up("settings reloaded")
                while account_of_next_push(client)[0] != "jam-test":
                    assert time.monotonic() < deadline + 20
            secrets = [account["private_key"].splitlines()[1], "access-token"]
            assert not [secret for secret in secrets if secret in server.log()]


def test_what_needs_a_restart_is_named(tmp_path):
    with Configured(tmp_path) as server:
        server.write(**{"limits.packet": "1MiB", "mailbox.max_age": "1d", "limits.publish_rate": 9})
        for _ in range(2):  # it is said as long as it is so
            line = server.hang_up("a restart is needed")
            assert line["settings"] == "mailbox.max_age, limits.packet"
        server.write(**{"limits.packet": "4MiB", "mailbox.max_age": "30d"})
        before = len(server.log())
        assert server.reload() == ""
        assert "a restart is needed" not in server.log()[before:]


def test_a_storm_of_hangups_stops_nothing(tmp_path):
    with Configured(tmp_path) as server:
        me, friend = server.friends()
        with server.connect(me) as client:
            for number in range(200):
                server.process.send_signal(signal.SIGHUP)
                if number % 20 == 0:
                    assert client.deliver(friend.inbox, me.message()) == 0
        server.write(**{"limits.publish_rate": 7})
        server.hang_up("settings reloaded")
        while '"changed":"limits.publish_rate"' not in server.log():
            time.sleep(0.02)
