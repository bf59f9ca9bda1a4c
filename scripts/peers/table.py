"""The report: one table, and what must be known to read it."""


def row(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def table(names, rows):
    lines = [row(["", *names]), row(["---"] * (len(names) + 1))]
    for title, cells in rows.items():
        lines.append(row([title, *(cells.get(name, "not measured") for name in names)]))
    return lines


def not_comparable():
    return [
        "*Protocols.* mepulse and etcd speak HTTP/1.1 with JSON here; etcd's goes through its gateway, which "
        "asks the same process by gRPC: a native gRPC client is faster. Redis speaks RESP, which is cheaper "
        "to read.",
        "*Generators.* wrk (one thread) for HTTP, redis-benchmark (one thread) for Redis. Both ask again as "
        "soon as they are answered, and take a part of the same cores; a generator may be the limit. wrk adds to "
        "its percentiles what must have waited behind a slow answer, redis-benchmark does not.",
        "*What a write means.* A mepulse heartbeat also finds the registration and keeps what verdicts are "
        "judged by. A `ZADD` or put only stores: who is overdue has to be found by a program of one's own.",
        "*Durability.* All three writes are synced before they are answered, and all three share syncs among "
        "requests that wait together: mepulse by its writer's batches, etcd by its WAL's, Redis once per turn "
        "of its event loop.",
        "*Leases.* etcd's keepalive touches memory only; after a restart every lease has its full time again. "
        "`SET … EX` is on the disk. mepulse has one kind of heartbeat: its row is the durable write again.",
        "*Who hears of it.* etcd's watch and mepulse's stream resume where they were interrupted; Redis "
        "keyspace events do not. Redis announces an expired key when it is found, by access or by sampling; "
        "a reader that asks for the key is told the truth at any time.",
        "*Grace.* mepulse gives a grace beyond the interval (in these jobs 2 s), from which its lag is "
        "counted; etcd and Redis have none.",
        "*More than one machine.* etcd is made to be replicated; here it has one member.",
    ]


def how(plan, patience_s):
    return [
        "One server at a time, on loopback, with a fresh data directory on the same disk. Rates: "
        f"{plan.rounds} round(s) of {plan.seconds} s in turn after a warm-up, medians; {plan.names} names in "
        "use, for each peer alike. Failed requests do not count, and are told, as far as the generator notices them.",
        "ZADD with random scores: one that changes nothing would not be written to the log.",
        f"Lag: {plan.probes} probes with 5 s to live, each number of quiet ones once; "
        "from the deadline to the subscriber's arrival. Those that do not come within "
        f"{patience_s} s are late without bound in the percentiles. Quiet ones have hours to live. For etcd "
        "and Redis probes are 20 ms apart (mepulse: eight at once), and the deadline counts from the answer to the grant or the `PX`, "
        "which favours them by a round trip; for mepulse see `mepulse bench expire`.",
        f"Outage and freeze, once: {plan.living} living clients with {plan.ttl_s} s to live, beating every "
        f"{plan.beat_s} s, trying again every second while not heard, and {plan.dying} more that die while the "
        "server is away. A client counts as declared dead if that is announced to a subscriber who comes back "
        "as soon as the server answers, or if the server says so when asked then. Clients that repair their "
        "entry before the subscriber is back are not seen: for Redis the number may be too small.",
        "mepulse: half of the clients promise nothing (plain MEC 011), half promise a try within 2 s "
        "(`retryInterval`).",
        "etcd: a lease for each client, its key bound to it (not by the puts of the rates), `/v3/lease/keepalive`, and another lease where "
        "that is gone; Redis: `SET … EX`.",
    ]


def render(bench, about, versions, patience_s):
    names = [kind.name for kind in bench.kinds]
    rows = {
        "version": versions,
        "flags": {kind.name: kind.flags for kind in bench.kinds},
        "what an answered write survives": {kind.name: kind.durability for kind in bench.kinds},
        "what a renewed lease survives": {kind.name: kind.renewal for kind in bench.kinds},
        **bench.rows,
    }
    lines = [*(f"{line}  " for line in about), "", *table(names, rows)]
    for title, items in (
        ("What is not comparable", not_comparable()),
        ("How it was measured", how(bench.plan, patience_s)),
        ("What failed", bench.failed),
        ("Raw figures", bench.raw),
    ):
        if items:
            lines += ["", f"**{title}**", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"
