"""``authd status``: what the running daemon knows, and how fresh that is."""

from datetime import UTC, datetime
from typing import Any

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.cli.output import age, table


@app.command("status")
def status(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show domain, freshness, peers, brokers and sessions."""
    context = make_context(state, as_json=as_json)
    answer: dict[str, Any] = context.ask("status")
    lines = [
        f"node        {answer['node']}",
        f"knows       {answer['grants']} grants, {answer['revocations']} revocations",
        f"sessions    {answer['sessions']}",
        f"peers       {len(answer['peers'])} by gossip, {answer['dht_nodes']} in the DHT",
    ]
    lines += _discovery_lines(answer.get("discovery") or {})
    for domain in answer["domains"]:
        lines += _domain_lines(domain)
    lines += [
        "",
        *table(
            ["BROKER", "KIND", "PLUGIN", "AUDIENCE"],
            [
                [
                    one["name"],
                    one["kind"],
                    "attached" if one["attached"] else "-",
                    one["audiences"][0],
                ]
                for one in answer["brokers"]
            ],
        ),
    ]
    lines += [
        f"broker `{one['name']}` is not announced: `authd grant {answer['node']} --serve FILTER`"
        f" lets this node run one for {', '.join(one['prefixes'])}"
        for one in answer["brokers"]
        if one["prefixes"] and not one["announced"]
    ]
    if answer["unpublished_records"] and answer["networked"]:
        lines.append(f"waiting for a peer to take records: {answer['unpublished_records']}")
    if answer["clock_behind_s"]:
        lines.append(f"ALARM  this host's clock is {answer['clock_behind_s']} s behind")
    lines += [f"ALARM  {alarm}" for alarm in answer["alarms"]]
    lines += [
        f"DEGRADED  {part} is down and is tried again: {why}"
        for part, why in (answer.get("degraded") or {}).items()
    ]
    lines += _warnings(answer)
    context.output.result(answer, lines)


def _discovery_lines(found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    said = f"{found['address']} for {age(found['rendezvous_for_s'])}"
    own = said if found["rendezvous_for_s"] else "not published"
    lan = "off" if found["lan"] is None else f"{found['lan']} found"
    return [
        (
            f"discovery   rendezvous {own}, {found['rendezvous_found']} found; LAN"
            f" {found['lan_problem'] or lan}"
        ),
    ]


def _warnings(answer: dict[str, Any]) -> list[str]:
    lines = []
    renewal = answer["renewal"]
    if renewal["expiring"]:
        first = datetime.fromtimestamp(renewal["first_end"], UTC).date()
        lines.append(
            f"WARNING  {renewal['expiring']} grants end within 14 days, the first on {first}, and"
            " nobody here can renew them: run a daemon where their issuer's key is",
        )
    if renewal["problem"]:
        lines.append(f"WARNING  a grant cannot be renewed: {renewal['problem']}")
    if answer["store_problem"]:
        lines.append(f"ALARM  {answer['store_problem']}")
    if answer["waits_for_peers"]:
        lines.append(
            "WARNING  restored from a backup: no heartbeat is signed until a peer has told how the"
            " list of this daemon ended",
        )
    return lines


def _domain_lines(domain: dict[str, Any]) -> list[str]:
    if domain["fresh"]:
        fresh = f"fresh for {age(domain['fresh_for_s'])}"
    elif domain["stale_for_s"] is None:
        fresh = "not fresh yet"
    else:
        left = max(0, domain["grace_s"] - domain["stale_for_s"])
        fresh = f"STALE for {age(domain['stale_for_s'])}, grace ends in {age(left)}"
    live = sum(1 for key in domain["heartbeat_keys"] if key["live"])
    return [
        (
            f"domain      {domain['id']}{' (own)' if domain['own'] else ''}: root version"
            f" {domain['root_version']}, {fresh}, {live} of {len(domain['heartbeat_keys'])}"
            " heartbeats"
        ),
    ]
