"""Rank tables of all five forms, and what is said of those that cannot be used."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from densenet121.distributed.rank_table import Place, Server, find_place, own_names, read_rank_table
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import environment

TWO_HOSTS = (Server("10.0.0.10", (0, 1)), Server("10.0.0.11", (2, 3)))


def device(rank: int, **more: str) -> dict[str, str]:
    return {
        "device_id": str(rank % 2),
        "device_ip": f"192.168.1.{rank}",
        "rank_id": str(rank),
    } | more


VERSION_1_0: dict[str, Any] = {
    "version": "1.0",
    "server_count": "2",
    "server_list": [
        {"server_id": "10.0.0.10", "device": [device(0), device(1)], "host_nic_ip": "reserve"},
        {"server_id": "10.0.0.11", "device": [device(2), device(3)], "host_nic_ip": "reserve"},
    ],
    "status": "completed",
}
VERSION_1_2: dict[str, Any] = {
    "version": "1.2",
    "server_list": [
        {
            "server_id": host,
            "host_ip": host,
            "device": [device(rank, super_device_id=str(rank)) for rank in ranks],
        }
        for host, ranks in (("10.0.0.10", (0, 1)), ("10.0.0.11", (2, 3)))
    ],
    "super_pod_list": [{"super_pod_id": "0", "server_list": [{"server_id": "10.0.0.10"}]}],
    "status": "completed",
}
AN_INSTANCE_A_DEVICE: dict[str, Any] = {
    "board_id": "0x0000",
    "group_count": "1",
    "group_list": [
        {
            "instance_count": "4",
            "instance_list": [
                {
                    "devices": [{"device_id": str(rank % 2), "device_ip": "192.168.1.8"}],
                    "rank_id": str(rank),
                    "server_id": host,
                }
                for rank, host in enumerate(["10.0.0.10"] * 2 + ["10.0.0.11"] * 2)
            ],
        }
    ],
    "status": "completed",
}
AN_INSTANCE_A_HOST: dict[str, Any] = {
    "status": "completed",
    "group_count": "1",
    "group_list": [
        {
            "group_name": "job-xyz",
            "instance_list": [
                {"pod_name": f"job-xyz-{n}", "server_id": host, "devices": [{}, {}]}
                for n, host in ((10, "10.0.0.11"), (9, "10.0.0.10"))  # 9 comes before 10
            ],
        }
    ],
}
VERSION_2_0: dict[str, Any] = {
    "version": "2.0",
    "status": "completed",
    "rank_count": 2,
    "rank_list": [{"rank_id": n, "local_id": n, "device_id": n} for n in (1, 0)],
}


def written(folder: Path, table: object) -> Path:
    path = folder / "table.json"
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    "table", [VERSION_1_0, VERSION_1_2, AN_INSTANCE_A_DEVICE, AN_INSTANCE_A_HOST]
)
def test_every_form_gives_the_same_hosts_and_ranks(table: object, tmp_path: Path) -> None:
    assert read_rank_table(written(tmp_path, table)) == TWO_HOSTS


def test_the_entries_of_one_host_are_put_together(tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    first, second = table["server_list"]
    last = first | {"device": [first["device"].pop()]}
    table["server_list"] = [first, second, last]
    assert read_rank_table(written(tmp_path, table)) == TWO_HOSTS


def test_version_2_0_lists_ranks_without_hosts(tmp_path: Path) -> None:
    assert read_rank_table(written(tmp_path, VERSION_2_0)) == (Server("", (0, 1)),)


def test_integer_ranks_are_read_like_text(tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    for server in table["server_list"]:
        for entry in server["device"]:
            entry["rank_id"] = int(entry["rank_id"])
    assert read_rank_table(written(tmp_path, table)) == TWO_HOSTS


@pytest.mark.parametrize("host", ["x'; touch PWNED; echo '", "$(id)", "a b", "-x", "a\nb", ""])
def test_a_host_that_is_no_name_or_address_is_refused(host: str, tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    table["server_list"][0]["server_id"] = host
    with pytest.raises(InputError, match="is neither a host name nor an address") as error:
        read_rank_table(written(tmp_path, table))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["10.0.0.1", "node-1.cluster_a", "fe80::1%eth0", "::1"])
def test_names_and_addresses_are_hosts(host: str, tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    table["server_list"][0]["server_id"] = host
    assert read_rank_table(written(tmp_path, table))[0].name == host


def test_the_launcher_runs_nothing_that_a_table_says(tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    for server in table["server_list"]:
        server["server_id"] = f"x'; touch {tmp_path}/PWNED; echo '{server['server_id']}"
    path = written(tmp_path, table)
    script = Path(__file__).resolve().parents[2] / "scripts" / "run_distribute_train.sh"
    done = subprocess.run(
        ["sh", str(script), "2", str(path), str(tmp_path)],
        cwd=tmp_path,
        env=environment(PYTHON=sys.executable, SERVER_ID=table["server_list"][0]["server_id"]),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "PWNED").exists()
    launcher = script.with_name("launch.sh").read_text()
    assert not re.search(r"^\s*eval\b", launcher, re.MULTILINE)


def changed(where: str, value: object) -> dict[str, Any]:
    table = copy.deepcopy(VERSION_1_0)
    if where == "status":
        table["status"] = value
    elif where == "device":
        table["server_list"][1]["device"] = value
    else:
        table["server_list"][1]["device"][1]["rank_id"] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed("status", "initializing"), 'the status is "initializing", not "completed"'),
        (changed("rank", "2"), "ranks must be 0 to 3, each once; duplicate 2; missing 3"),
        (changed("rank", "7"), "ranks must be 0 to 3, each once; missing 3"),
        (changed("rank", None), "not a rank table (invalid rank_id None)"),
        (changed("rank", "x"), "not a rank table (invalid literal"),
        (changed("device", [device(1), device(3)]), "duplicate 1"),
        (changed("device", 5), "not a rank table"),
        ({"version": "1.0"}, "not a rank table (no server_list, group_list or rank_list)"),
        ({"server_list": []}, "lists no devices"),
        ({"server_list": [{"device": []}]}, "not a rank table (no 'server_id')"),
        ([1, 2], "list instead of an object"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(
    table: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        read_rank_table(written(tmp_path, table))
    assert message in str(error.value)
    assert "table.json" in str(error.value)


def test_mixed_ranks_of_two_hosts_are_refused(tmp_path: Path) -> None:
    table = copy.deepcopy(VERSION_1_0)
    table["server_list"][0]["device"][1]["rank_id"] = "2"
    table["server_list"][1]["device"][0]["rank_id"] = "1"
    with pytest.raises(InputError, match="two hosts are mixed"):
        read_rank_table(written(tmp_path, table))


def test_missing_file_and_wrong_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_rank_table(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"version": ')
    with pytest.raises(InputError, match=r"half\.json: not a JSON file"):
        read_rank_table(tmp_path / "half.json")


def test_a_host_finds_its_place_by_any_of_its_names() -> None:
    place = find_place(TWO_HOSTS, 2, ("node-b", "10.0.0.11"), "t.json")
    assert place == Place(nodes=2, node=1, first_rank=2, master="10.0.0.10")
    assert find_place(TWO_HOSTS[:1], 1, (), "t.json") == Place(1, 0, 0, "")


@pytest.mark.parametrize(
    ("servers", "devices", "names", "message"),
    [
        (TWO_HOSTS, 2, ("10.0.0.12",), "set SERVER_ID to the name of this host"),
        (TWO_HOSTS, 3, ("10.0.0.10",), "DEVICE_NUM is 3, but t.json lists 2 devices of this host"),
        (TWO_HOSTS, 1, ("10.0.0.10",), "a run on several hosts uses all of them: pass 2"),
        (TWO_HOSTS[:1], 8, (), "DEVICE_NUM is 8, but t.json lists 2 devices"),
    ],
)
def test_a_host_that_does_not_fit_the_table_is_told(
    servers: tuple[Server, ...], devices: int, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        find_place(servers, devices, names, "t.json")
    assert message in str(error.value)


def test_own_names_are_no_loopback() -> None:
    assert own_names()
    assert not any(name.startswith("127.") for name in own_names())


def test_the_place_is_printed_for_the_script(tmp_path: Path) -> None:
    def place(devices: str) -> "subprocess.CompletedProcess[str]":
        table = str(written(tmp_path, VERSION_1_0))
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "densenet121.distributed.rank_table",
                table,
                devices,
                "10.0.0.11",
            ],
            env=environment(),
            capture_output=True,
            text=True,
        )

    done = place("2")
    assert done.returncode == 0
    assert done.stdout == "NNODES=2\nNODE_RANK=1\nFIRST_RANK=2\nMASTER_ADDR=10.0.0.10\n"
    done = place("9")
    assert done.returncode == 2
    assert done.stderr.startswith("densenet121: DEVICE_NUM is 9")
