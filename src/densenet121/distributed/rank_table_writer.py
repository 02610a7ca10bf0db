"""Write HCCL rank tables, which ``rank_table`` reads.

Versions 1.0 and 1.2 list hosts with their devices, 2.0 lists ranks of one host.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densenet121.distributed.rank_table import read_rank_table
from densenet121.utils.errors import InputError
from densenet121.utils.files import read_input
from densenet121.utils.json_values import parse_json


@dataclass(frozen=True)
class Device:
    """A device of a host.

    Attributes:
        number: its number on the host.
        ip: address of its network port; empty if it is not known.
    """

    number: str
    ip: str


Host = tuple[str, tuple[Device, ...]]


def read_hccn(path: Path) -> dict[int, str]:
    """Device number to address, from lines ``address_0=192.168.100.101`` of the driver's file.

    Raises:
        InputError: it cannot be read, or an address is none.
    """
    try:
        text = read_input(path).decode()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', 'not text')}); pass `device_ips` "
            "or the driver's file as `hccn_conf`"
        ) from None
    found = re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)", text, re.MULTILINE)
    return {int(number): checked_ip(ip, str(path)) for number, ip in found}


def checked_ip(ip: str, where: str) -> str:
    """The address itself.

    Raises:
        InputError: it is none.
    """
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        raise InputError(f"{where}: {ip!r} is not an address of a device") from None


def read_hosts(paths: Sequence[Path]) -> list[Host]:
    """The hosts and devices of tables of versions 1.0 and 1.2, in the order of the files.

    Raises:
        InputError: a file is no such table, or two of them have the same host.
    """
    found: dict[str, tuple[Path, Host]] = {}
    for path in paths:
        order = [server.name for server in read_rank_table(path)]
        table = parse_json(read_input(path))
        if "server_list" not in table:
            raise InputError(f"{path}: only tables of versions 1.0 and 1.2 can be merged")
        by_name: dict[str, list[dict[str, Any]]] = {}
        for entry in table["server_list"]:  # a host may have several entries
            by_name.setdefault(str(entry["server_id"]), []).extend(entry["device"])
        for name in order:
            if name in found:
                raise InputError(f"{path} and {found[name][0]} both have the host {name}")
            entries = sorted(by_name[name], key=lambda entry: int(entry["rank_id"]))
            devices = tuple(_device(path, entry, i) for i, entry in enumerate(entries))
            if len({device.number for device in devices}) < len(devices):
                raise InputError(f"{path}: two entries of the host {name} have the same device_id")
            found[name] = path, (name, devices)
    return [host for _, host in found.values()]


def _device(path: Path, entry: dict[str, Any], position: int) -> Device:
    """A device of a table; of one without a number its position."""
    number, ip = entry.get("device_id", position), entry.get("device_ip", "")
    if isinstance(number, bool) or not re.fullmatch(r"\d{1,4}", str(number), re.ASCII):
        raise InputError(f"{path}: device_id {number!r} is not the number of a device")
    return Device(str(int(number)), checked_ip(str(ip), str(path)) if ip else "")


def make_table(hosts: Sequence[Host], version: str) -> dict[str, Any]:
    """The table of these hosts; ranks follow their order."""
    if version == "2.0":
        ((_, devices),) = hosts
        ranks = [
            {"rank_id": rank, "local_id": rank, "device_id": int(device.number)}
            for rank, device in enumerate(devices)
        ]
        return {
            "version": "2.0",
            "status": "completed",
            "rank_count": len(ranks),
            "rank_list": ranks,
        }
    servers, rank = [], 0
    for name, devices in hosts:
        entries = []
        for device in devices:
            entry = {"device_id": device.number, "rank_id": str(rank)}
            entry |= {"device_ip": device.ip} if device.ip else {}
            # Of one super pod: numbered over all hosts.
            entry |= {"super_device_id": str(rank)} if version == "1.2" else {}
            entries.append(entry)
            rank += 1
        more = {"host_ip": name} if version == "1.2" else {"host_nic_ip": "reserve"}
        servers.append({"server_id": name, "device": entries} | more)
    table = {"version": version, "server_count": str(len(servers)), "server_list": servers}
    if version == "1.2":
        names = [{"server_id": name} for name, _ in hosts]
        table["super_pod_list"] = [{"super_pod_id": "0", "server_list": names}]
    return table | {"status": "completed"}
