"""Lists by the page while another process adds and removes: who is there all the time is in exactly one page."""

import threading

from harness.office import Office



def fill(first, step):
    """SQL that makes accounts of every so many ids."""
    return f"""
        WITH RECURSIVE ids (id) AS (SELECT {first} UNION ALL SELECT id + {step} FROM ids WHERE id + {step} < 12000)
        INSERT INTO accounts (user_id, user_api_token) SELECT id, 't' FROM ids"""


def test_users_are_paged_while_others_come_and_go(start):
    server = start(admin=True)
    office, directory = Office(server), server.directory
    directory.execute(fill(10_000, 2))
    stay = {str(id) for id in range(10_000, 12_000, 2)}
    stop = threading.Event()

    def others():
        while not stop.is_set():
            directory.execute(fill(10_001, 20))
            directory.execute("DELETE FROM accounts WHERE user_id % 2 = 1 AND user_id > 10000")

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for limit in (1000, 100, 37):
            ids = [user["id"] for user in office.pages("users?prefix=1", limit)]
            assert len(ids) == len(set(ids))
            assert ids == sorted(ids, key=int)
            assert stay <= set(ids)
    finally:
        stop.set()
        thread.join()


def test_pages_of_those_who_are_offline_are_full(start):
    server = start(admin=True)
    office = Office(server)
    users = server.users(60)
    clients = [server.connect(user) for user in users[10:50]]
    offline = [user.id for user in users[:10] + users[50:]]
    for limit in (1000, 20, 7, 1):
        sizes, found, after = [], [], ""
        while after is not None:
            status, page = office.ask("GET", f"users?online=false&limit={limit}{after}")
            assert status == 200
            sizes.append(len(page["items"]))
            found += [user["id"] for user in page["items"]]
            after = page["next"] and f"&after={page['next']}"
        assert found == sorted(offline, key=int)
        assert set(sizes[:-1]) <= {limit} and sizes[-1] > 0
    clients.clear()


def test_devices_are_paged(start):
    server = start(admin=True)
    office = Office(server)
    users = server.users(120)
    clients = [server.connect(user) for user in users]
    for limit in (1000, 50, 7):
        devices = list(office.pages("devices?connected=true", limit))
        assert sorted(it["user"] for it in devices) == sorted(user.id for user in users)
        online = [user["id"] for user in office.pages("users?online=true", limit)]
        assert sorted(online) == sorted(user.id for user in users)
    clients.clear()
