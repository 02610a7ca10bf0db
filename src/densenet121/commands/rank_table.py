"""The ``rank-table`` command: the hosts and devices of a run on Ascend."""

from densenet121.commands import DONE
from densenet121.config import RankTableConfig, absolute
from densenet121.distributed.rank_table import checked_host, own_names, read_rank_table
from densenet121.distributed.rank_table_writer import (
    Device,
    Host,
    checked_ip,
    make_table,
    read_hccn,
    read_hosts,
)
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import check_output, scratch_folder, write_atomic, write_json


def run(config: RankTableConfig) -> int:
    """Write the table, read it back, and say what it has."""
    output = absolute(config.output)
    merged = [absolute(file) for file in config.listed("merge")]
    check_output(output, "output", [*merged, absolute(config.hccn_conf)])
    hosts = read_hosts(merged) if config.merge is not None else _hosts(config)
    if config.table_version == "2.0" and len(hosts) > 1:
        raise UsageError("`table_version` 2.0 names no hosts, so it is for one; use 1.0 or 1.2")
    with scratch_folder(output) as folder:
        trial = folder / output.name
        write_json(trial, make_table(hosts, config.table_version))
        servers = read_rank_table(trial)
        write_atomic(output, trial.read_bytes())
    for server, (name, devices) in zip(servers, hosts, strict=True):
        ips = ", ".join(device.ip for device in devices if device.ip) or "without addresses"
        print(f"{name}: ranks {server.ranks[0]} to {server.ranks[-1]}, devices {ips}")  # noqa: T201
    print(f"wrote {output}")  # noqa: T201
    return DONE


def _hosts(config: RankTableConfig) -> list[Host]:
    """The hosts of the settings, each with the same devices."""
    given = [checked_host(name, "`hosts`: ") for name in config.listed("hosts")]
    names = given or own_names()[-1:]
    numbers = config.device_numbers
    if addresses := config.listed("device_ips"):
        ips = [checked_ip(ip, "`device_ips`") for ip in addresses]
    elif len(names) == 1 and config.table_version != "2.0":
        known = read_hccn(absolute(config.hccn_conf))
        missing = [number for number in numbers if number not in known]
        if missing:
            raise InputError(
                f"{config.hccn_conf}: no address of device {missing[0]}; pass `device_ips`, or "
                "`devices` that it has"
            )
        ips = [known[number] for number in numbers]
    elif config.table_version == "2.0":
        ips = [""] * len(numbers)
    else:
        raise UsageError(
            f"`device_ips` must name the addresses of the {len(names)} x {len(numbers)} devices; "
            "or write a table on each host, and put them together with `merge`"
        )
    per_host = len(numbers)
    return [
        (
            name,
            tuple(
                Device(str(number), ip)
                for number, ip in zip(numbers, ips[i * per_host :][:per_host], strict=True)
            ),
        )
        for i, name in enumerate(names)
    ]
