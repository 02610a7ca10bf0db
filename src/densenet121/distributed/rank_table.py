"""HCCL rank tables: the hosts and devices of a run, an argument of the original's scripts.

``python -m densenet121.distributed.rank_table FILE DEVICE_NUM [SERVER]`` prints for this host the
lines that scripts/launch.sh reads: ``NNODES=``, ``NODE_RANK=``, ``FIRST_RANK=``, ``MASTER_ADDR=``.

Five forms are read: versions 1.0 and 1.2 (``server_list``), the two dialects without a version
(``group_list``: one instance per device, or one per host), and 2.0 (``rank_list``).
"""

import contextlib
import re
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import read_input
from densenet121.utils.json_values import parse_json

# Names and addresses of hosts, IPv6 with its zone included.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]*|::[A-Fa-f0-9:%.]*")


@dataclass(frozen=True)
class Server:
    """A host of the table.

    Attributes:
        name: its address or another unique name; empty if the table has none.
        ranks: ranks of its devices, ascending.
    """

    name: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """What a host needs to start its processes.

    Attributes:
        nodes: number of hosts of the run.
        node: number of this host, from 0.
        first_rank: the lowest rank on this host.
        master: address of the first host; empty if there is only one host.
    """

    nodes: int
    node: int
    first_rank: int
    master: str


def read_rank_table(path: Path) -> tuple[Server, ...]:
    """The hosts of a table, sorted by rank.

    Raises:
        InputError: no such file, no rank table, not completed, or missing or duplicate ranks.
    """
    try:
        table = parse_json(read_input(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(table, dict):
        raise InputError(f"{path}: not a rank table: {type(table).__name__} instead of an object")
    status = table.get("status", "completed")
    if status != "completed":
        raise InputError(
            f'{path}: the status is "{status}", not "completed": the scheduler did not fill it in'
        )
    try:
        if "server_list" in table:
            found = _servers(table["server_list"])
        elif "group_list" in table:
            found = _groups(table["group_list"])
        elif "rank_list" in table:
            found = {"": [_rank(entry) for entry in table["rank_list"]]}
        else:
            raise ValueError("no server_list, group_list or rank_list")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a rank table ({_reason(error)})") from None
    servers = [Server(name, tuple(sorted(ranks))) for name, ranks in found.items() if ranks]
    servers.sort(key=lambda server: server.ranks)
    _check(path, servers)
    return tuple(servers)


def find_place(
    servers: Sequence[Server], device_num: int, own_names: Sequence[str], table: str
) -> Place:
    """Find the place of this host in the table.

    Args:
        servers: the result of ``read_rank_table``.
        device_num: number of devices requested on this host.
        own_names: names and addresses of this host.
        table: name of the table, for messages.

    Raises:
        UsageError: this host is not in the table, or has too few devices.
    """
    if len(servers) == 1:
        node = 0
    else:
        names = [server.name for server in servers]
        mine = [i for i, name in enumerate(names) if name in own_names]
        if len(mine) != 1:
            raise UsageError(
                f"{table} lists the hosts {', '.join(names)}, but this host has the names "
                f"{', '.join(own_names) or '(none)'}: set SERVER_ID to the name of this host"
            )
        node = mine[0]
    devices = len(servers[node].ranks)
    if device_num > devices:
        raise UsageError(
            f"DEVICE_NUM is {device_num}, but {table} lists {devices} devices of this host"
        )
    if len(servers) > 1 and device_num != devices:
        raise UsageError(
            f"DEVICE_NUM is {device_num}, but {table} lists {devices} devices of this host; a run "
            f"on several hosts uses all of them: pass {devices}"
        )
    master = servers[0].name if len(servers) > 1 else ""
    return Place(len(servers), node, servers[node].ranks[0], master)


def own_names() -> tuple[str, ...]:
    """The names and IPv4 addresses of this host, without loopback."""
    names = [socket.gethostname(), socket.getfqdn()]
    with contextlib.suppress(OSError):
        names += socket.gethostbyname_ex(socket.gethostname())[2]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(
            ("192.0.2.1", 9)
        )  # sends nothing, but selects the address for outgoing packets
        names.append(probe.getsockname()[0])
    return tuple(dict.fromkeys(name for name in names if not name.startswith("127.")))


def _servers(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in entries:  # a host may have several entries
        found.setdefault(_host(entry), []).extend(_rank(device) for device in entry["device"])
    return found


def _groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Read both dialects: a rank for each instance, or ranks in the order of pods and devices."""
    instances = [instance for group in groups for instance in group["instance_list"]]
    found: dict[str, list[int]] = {}
    if all("rank_id" in instance for instance in instances):
        for instance in instances:
            found.setdefault(_host(instance), []).append(_rank(instance))
        return found
    if all("pod_name" in instance for instance in instances):
        instances.sort(key=lambda instance: int(str(instance["pod_name"]).rsplit("-", 1)[-1]))
    rank = 0
    for instance in instances:
        count = len(instance["devices"])
        found.setdefault(_host(instance), []).extend(range(rank, rank + count))
        rank += count
    return found


def _host(entry: Mapping[str, Any]) -> str:
    return checked_host(str(entry["server_id"]), "server_id ")


def checked_host(name: str, where: str) -> str:
    """The name itself.

    Raises:
        InputError: it is neither a name nor an address of a host.
    """
    if not _HOST.fullmatch(name):
        raise InputError(f"{where}{name!r} is neither a host name nor an address")
    return name


def _rank(entry: Mapping[str, Any]) -> int:
    value = entry["rank_id"]  # a string in most tables, a number in some
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"invalid rank_id {value!r}")
    return int(value)


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _check(path: Path, servers: Sequence[Server]) -> None:
    ranks = [rank for server in servers for rank in server.ranks]
    if not ranks:
        raise InputError(f"{path}: lists no devices")
    double = sorted(rank for rank, count in Counter(ranks).items() if count > 1)
    missing = sorted(set(range(len(ranks))) - set(ranks))
    if double or missing:
        what = [
            f"{word} {', '.join(map(str, r))}"
            for word, r in (("duplicate", double), ("missing", missing))
            if r
        ]
        raise InputError(
            f"{path}: ranks must be 0 to {len(ranks) - 1}, each once; {'; '.join(what)}"
        )
    if ranks != sorted(ranks):
        raise InputError(f"{path}: the ranks of a host must be consecutive; two hosts are mixed")


def main(arguments: Sequence[str]) -> int:
    """Print the place of this host; exit status 2 and one line if the table cannot be used."""
    file, device_num, *server = arguments
    try:
        names = tuple(server) if server and server[0] else own_names()
        place = find_place(read_rank_table(Path(file)), int(device_num), names, file)
    except InputError as error:
        print(f"densenet121: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(  # noqa: T201
        f"NNODES={place.nodes}\nNODE_RANK={place.node}\nFIRST_RANK={place.first_rank}\n"
        f"MASTER_ADDR={place.master}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
