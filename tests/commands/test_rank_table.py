"""rank-table: what it writes is what the original's scripts read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.cli import main
from densenet121.distributed.rank_table import Server, find_place, read_rank_table
from densenet121.distributed.rank_table_writer import Device, make_table


def written(tmp_path: Path, *flags: str, name: str = "table.json") -> dict[str, Any]:
    path = tmp_path / name
    assert main(["rank-table", "--output", str(path), *flags]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def hccn(tmp_path: Path) -> str:
    """The driver's file, as on a machine with eight devices."""
    lines = [f"address_{i}=192.168.{100 + i % 4}.{101 + i // 4}" for i in range(8)]
    path = tmp_path / "hccn.conf"
    path.write_text("\n".join([*lines, "netmask_0=255.255.255.0"]) + "\n")
    return str(path)


def test_the_table_of_one_host_has_the_addresses_of_the_driver(tmp_path: Path, hccn: str) -> None:
    """The form that hccl_tools.py of the original writes."""
    flags = ("--devices", "0-1", "--hosts", "10.0.0.10", "--hccn_conf", hccn)
    assert written(tmp_path, *flags) == {
        "version": "1.0",
        "server_count": "1",
        "server_list": [
            {
                "server_id": "10.0.0.10",
                "device": [
                    {"device_id": "0", "rank_id": "0", "device_ip": "192.168.100.101"},
                    {"device_id": "1", "rank_id": "1", "device_ip": "192.168.101.101"},
                ],
                "host_nic_ip": "reserve",
            }
        ],
        "status": "completed",
    }
    (server,) = read_rank_table(tmp_path / "table.json")
    assert server == Server("10.0.0.10", (0, 1))


@pytest.mark.parametrize("version", ["1.0", "1.2"])
def test_several_hosts_are_found_by_the_launcher(version: str, tmp_path: Path) -> None:
    ips = ",".join(f"192.168.1.{i}" for i in range(4))
    flags = ("--devices", "4,6", "--hosts", "node-a,node-b", "--device_ips", ips)
    table = written(tmp_path, *flags, "--table_version", version)
    servers = read_rank_table(tmp_path / "table.json")
    assert servers == (Server("node-a", (0, 1)), Server("node-b", (2, 3)))
    place = find_place(servers, 2, ("node-b",), "t")
    assert (place.node, place.first_rank, place.master) == (1, 2, "node-a")
    second = table["server_list"][1]["device"][0]
    assert (second["device_id"], second["device_ip"]) == ("4", "192.168.1.2")
    assert ("super_pod_list" in table) == (version == "1.2")


def test_version_2_0_lists_the_ranks_of_one_host(tmp_path: Path) -> None:
    table = written(tmp_path, "--devices", "0-3", "--table_version", "2.0")
    assert (table["rank_count"], table["rank_list"][3]["device_id"]) == (4, 3)
    assert read_rank_table(tmp_path / "table.json") == (Server("", (0, 1, 2, 3)),)


def test_tables_of_several_hosts_are_merged_in_the_order_given(tmp_path: Path, hccn: str) -> None:
    for host in ("node-a", "node-b"):
        flags = ("--devices", "2-3", "--hosts", host, "--hccn_conf", hccn)
        written(tmp_path, *flags, name=f"{host}.json")
    files = f"{tmp_path}/node-b.json,{tmp_path}/node-a.json"
    table = written(tmp_path, "--merge", files)
    servers = read_rank_table(tmp_path / "table.json")
    assert servers == (Server("node-b", (0, 1)), Server("node-a", (2, 3)))
    assert table["server_list"][1]["device"][1] == {
        "device_id": "3",
        "rank_id": "3",
        "device_ip": "192.168.103.101",
    }


@pytest.mark.parametrize(
    ("flags", "message", "status"),
    [
        (("--devices", "7-0"), "--devices must rise, got 7-0", 2),
        (("--devices", "0,x"), "--devices must be such as 0-7 or 0,2,4", 2),
        (("--devices", "0-3,2"), "--devices names a device twice", 2),
        (("--hosts", "a,a"), "--hosts names a host twice", 2),
        (("--hosts", "a,b"), "--device_ips must name the addresses of the 2 x 8 devices", 2),
        (("--hosts", "a,b", "--table_version", "2.0"), "--table_version 2.0 names no hosts", 2),
        (("--devices", "0", "--device_ips", "1.1.1.1,1.1.1.2"), "must name 1 addresses", 2),
        (("--devices", "0", "--device_ips", "1.1.1"), "'1.1.1' is not an address", 1),
        (("--hccn_conf", "none.conf"), "none.conf: cannot be read", 1),
        (("--hosts", "x'; id", "--devices", "0", "--device_ips", "1.1.1.1"), "neither a host", 1),
        (("--hosts", "a b", "--devices", "0", "--device_ips", "1.1.1.1"), "--hosts: 'a b' is", 1),
        (("--devices", "0-1", "--device_ips", "1.1.1.1,1.1.1.1"), "names an address twice", 2),
        (("--merge", ","), "--merge must name at least one file", 2),
        (("--merge", "a.json", "--hosts", "b"), "omit --hosts", 2),
        (("--merge", "none.json"), "none.json: cannot be read", 1),
    ],
)
def test_what_cannot_be_a_table_is_refused_in_one_line(
    flags: tuple[str, ...],
    message: str,
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "table.json"
    assert main(["rank-table", "--output", str(output), *flags]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_host_in_two_files_is_named(
    tmp_path: Path, hccn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        flags = ("--devices", "0", "--hosts", "node-a", "--hccn_conf", hccn)
        written(tmp_path, *flags, name=f"{name}.json")
    assert main(["rank-table", "--merge", f"{tmp_path}/one.json,{tmp_path}/two.json"]) == 1
    assert "one.json both have the host node-a" in capsys.readouterr().err


def of_host(tmp_path: Path, *devices: Mapping[str, object]) -> str:
    """A table with one entry for each device of a host."""
    entries = [{"server_id": "node-a", "device": [device]} for device in devices]
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"version": "1.0", "server_list": entries}))
    return str(path)


def test_a_merged_host_keeps_the_devices_of_all_its_entries(tmp_path: Path) -> None:
    devices = [{"device_id": str(n), "rank_id": str(1 - n)} for n in (0, 1)]
    table = written(tmp_path, "--merge", of_host(tmp_path, *devices))
    (server,) = table["server_list"]
    assert [device["device_id"] for device in server["device"]] == ["1", "0"]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"device_id": "x"}, "device_id 'x' is not the number of a device"),
        ({"device_id": None}, "device_id None is not the number of a device"),
        ({"device_id": "1", "device_ip": "here"}, "'here' is not an address of a device"),
        ({"device_id": "0"}, "two entries of the host node-a have the same device_id"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_merged_device_without_a_number_or_address_of_its_own_is_refused(
    device: dict[str, object],
    message: str,
    version: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first: dict[str, object] = {"device_id": "0", "rank_id": "0"}
    file = of_host(tmp_path, first, device | {"rank_id": "1"})
    output = tmp_path / "table.json"
    flags = ["--merge", file, "--table_version", version, "--output", str(output)]
    assert main(["rank-table", *flags]) == 1
    error = capsys.readouterr().err
    assert f"one.json: {message}" in error
    assert error.count("\n") == 1
    assert not output.exists()


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    version=st.sampled_from(["1.0", "1.2"]),
)
def test_every_table_is_read_back_as_it_was_meant(
    counts: list[int], version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hosts = [
        (f"node-{i}", tuple(Device(str(n), f"10.0.{i}.{n}") for n in range(count)))
        for i, count in enumerate(counts)
    ]
    path = tmp_path_factory.mktemp("tables") / "table.json"
    path.write_text(json.dumps(make_table(hosts, version)))
    servers = read_rank_table(path)
    assert [server.name for server in servers] == [name for name, _ in hosts]
    assert [len(server.ranks) for server in servers] == counts
    assert [rank for server in servers for rank in server.ranks] == list(range(sum(counts)))
