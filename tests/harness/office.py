"""What an operator asks a server: the admin API, and `/metrics`."""

import http.client
import json
import urllib.request


class Office:
    """Requests with the token of a server's data directory, each on a connection that is kept."""

    def __init__(self, server):
        self.address = ("127.0.0.1", server.admin)
        self.token = (server.folder / "data" / "admin-token").read_text().strip()
        self.connection = http.client.HTTPConnection(*self.address, timeout=30)

    def ask(self, method, path, body=None):
        """The status, and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        self.connection.request(method, f"/api/v1/{path}", body, headers)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())

    def pages(self, path, limit):
        """All items of a list, page by page."""
        mark = "&" if "?" in path else "?"
        after = ""
        while True:
            status, page = self.ask("GET", f"{path}{mark}limit={limit}{after}")
            assert status == 200, page
            assert len(page["items"]) <= limit
            yield from page["items"]
            if page["next"] is None:
                return
            after = f"&after={page['next']}"


def scrape(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.read().decode()
