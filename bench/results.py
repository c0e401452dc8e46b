"""The page of results that bench/run writes."""

HEADINGS = {
    "saturated": "Saturated: 100 pairs, each sender with up to 16 messages under way",
    "sparse": "Sparse, a chat's everyday: users who write now and then, at an even pace (open loop)",
    "offline": "Offline: messages to receivers who are away, who then come and get them",
    "idle": "Idle: connections with a session and a subscription",
    "reconnect": "Reconnect: all clients lose their connections at once and come back",
}
REFERENCE = "mosquitto"
ON_POSTGRES, ON_SQLITE = "jam-mqtt-postgres", "jam-mqtt"

# Load average from which on the figures are in doubt.
BUSY = 0.8


def render(results, machine, left_out, work, brokers, repeat):
    parts = [
        "# Results\n",
        "Written by `bench/run`; run it again to get your own. QoS 1, private messages of 300 bytes, each broker "
        "alone on one core and the load generator on another, all on one machine over loopback. CPU time is the "
        "broker's own, user and kernel, for each delivered message or connection. Compare the figures of one run "
        "with each other, not with another machine's.\n",
        table(["machine", ""], [[key, value] for key, value in machine.items()]),
        table(["broker", "version", "rules in force"],
              [[broker.name, broker.version or "-", broker.rules] for broker in brokers]),
    ]
    if float(machine["load average before"]) > BUSY:
        parts.append("**The machine was busy with something else.** A broker that waits for its core handles more at "
                     "once and looks cheaper than it is, above all when traffic is sparse. Run it again when it is not.\n")
    if repeat > 1:
        parts.append(f"Each row is one run: the middle one of {repeat} by the CPU time in its first column.\n")
    for name, reports in results.items():
        parts.append(f"## {HEADINGS[name]}\n")
        parts.append(f"`jam-bench {' '.join(work[name])}`\n".replace("{connections}", clients(reports)))
        parts.append(SHAPES[name](reports))
        if ON_POSTGRES in reports and ON_SQLITE in reports:
            parts.append(on_postgres(reports))
    if left_out:
        parts.append("## Left out\n")
        parts.append("\n".join(f"- {name}: {why}" for name, why in left_out.items()) + "\n")
    return "\n".join(parts)


def clients(reports):
    return str(next(iter(reports.values()))["clients"])


def table(heading, rows):
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def ratio(reports, name, stage):
    """To Mosquitto, if it is there."""
    if REFERENCE not in reports:
        return "-"
    reference = cost(reports[REFERENCE], stage)
    return f"{cost(reports[name], stage) / reference:.2f}" if reference else "-"


def cost(report, stage):
    return report["stages"][stage]["broker"]["cpu_us_each"]


def mib(report, stage):
    return f"{report['stages'][stage]['broker']['after']['pss_kib'] / 1024:.0f} MiB"


def on_postgres(reports):
    ours, other = reports[ON_POSTGRES], reports[ON_SQLITE]
    parts = [f"{stage['name']} {cost(ours, at) / cost(other, at):.2f}" for at, stage in enumerate(ours["stages"])]
    said = f"{ON_POSTGRES} takes of {ON_SQLITE}'s CPU: {', '.join(parts)}."
    if len(ours["stages"]) > 1:
        count, used = ours["stages"][0]["count"], ours["database"]
        said += (f" PostgreSQL itself takes beside {1e6 * used['cpu_seconds'] / count:.1f} µs of CPU and writes ahead "
                 f"{used['wal_bytes'] / count:,.0f} bytes for each message that is enqueued and drained.")
    return said + "\n"


def verdict(report):
    return ", ".join(report["faults"]) or "-"


def traffic(reports):
    rows = []
    for name, report in reports.items():
        stage = report["stages"][0]
        latency = stage.get("latency_us")
        times = [f"{latency[key] / 1000:.2f} ms" for key in ("p50", "p99", "p99_9")] if latency else ["-"] * 3
        rows.append([name, f"**{cost(report, 0):.2f} µs**", ratio(reports, name, 0), f"{stage['per_second']:,.0f}/s",
                     *times, mib(report, 0), f"{stage['generator_cpu_us_each']:.2f} µs", verdict(report)])
    return table(["broker", "CPU per message", "of Mosquitto's", "delivered", "p50", "p99", "p99.9", "memory",
                  "generator's CPU", "faults"], rows)


def offline(reports):
    rows = []
    for name, report in reports.items():
        enqueue, drain = report["stages"]
        rows.append([name, f"**{cost(report, 0):.1f} µs**", ratio(reports, name, 0), f"{enqueue['per_second']:,.0f}/s",
                     f"**{cost(report, 1):.1f} µs**", ratio(reports, name, 1), f"{drain['per_second']:,.0f}/s",
                     mib(report, 0), verdict(report)])
    return table(["broker", "CPU to enqueue one", "of Mosquitto's", "enqueued", "CPU to drain one", "of Mosquitto's",
                  "drained", "memory when full", "faults"], rows)


def idle(reports):
    rows = []
    for name, report in reports.items():
        connect, hold = report["stages"]
        busy = 100 * hold["broker"]["cpu_seconds"] / hold["seconds"]
        rows.append([name, f"**{cost(report, 0):.0f} µs**", ratio(reports, name, 0), f"{connect['per_second']:,.0f}/s",
                     f"**{connect['broker']['pss_kib_each']:.2f} KiB**", f"{busy:.1f} %", verdict(report)])
    return table(["broker", "CPU to connect one", "of Mosquitto's", "connected", "memory of one", "CPU while idle",
                  "faults"], rows)


def reconnect(reports):
    rows = [[name, f"**{cost(report, 0):.0f} µs**", ratio(reports, name, 0),
             f"{report['stages'][0]['per_second']:,.0f}/s", verdict(report)] for name, report in reports.items()]
    return table(["broker", "CPU for one", "of Mosquitto's", "came back", "faults"], rows)


SHAPES = {"saturated": traffic, "sparse": traffic, "offline": offline, "idle": idle, "reconnect": reconnect}
