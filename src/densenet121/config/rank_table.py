"""The settings of ``rank-table``."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import File, Settings
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RankTableConfig(Settings):
    """Write the rank table of the original's scripts: the hosts and devices of a run on Ascend.

    Attributes:
        devices: numbers of the devices on each host, such as 0-7 or 0,2,4.
        hosts: names or addresses of the hosts, comma list; the run's ranks follow this order
            (default: this host).
        device_ips: addresses of the devices, comma list, host after host (default: those that
            hccn_conf has for this host).
        hccn_conf: the driver's file with the addresses of this host's devices.
        merge: tables of versions 1.0 and 1.2 to put together instead, one for each host, comma
            list; ranks are numbered anew in this order (default: none).
        table_version: version of the table. 2.0 names no hosts, so it is for one.
        output: file to write.
    """

    section: ClassVar[str] = "rank table"
    devices: Annotated[str, "0-7"] = "0-7"
    hosts: Annotated[str, "HOST,..."] | None = None
    device_ips: Annotated[str, "IP,..."] | None = None
    hccn_conf: File = "/etc/hccn.conf"
    merge: Annotated[str, "FILE,..."] | None = None
    table_version: Literal["1.0", "1.2", "2.0"] = "1.0"
    output: File = "rank_table.json"

    @property
    def device_numbers(self) -> tuple[int, ...]:
        """Numbers of the devices on each host, as given."""
        found: list[int] = []
        for part in self.devices.split(","):
            match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip())
            if not match:
                raise UsageError(f"--devices must be such as 0-7 or 0,2,4, got {self.devices!r}")
            first, last = int(match[1]), int(match[2] or match[1])
            found += range(first, last + 1)
            if first > last:
                raise UsageError(f"--devices must rise, got {part.strip()}")
        if len(set(found)) < len(found):
            raise UsageError(f"--devices names a device twice: {self.devices}")
        return tuple(found)

    def listed(self, name: Literal["hosts", "device_ips", "merge"]) -> tuple[str, ...]:
        """The parts of a comma list."""
        given = getattr(self, name) or ""
        return tuple(part.strip() for part in given.split(",") if part.strip())

    def check(self) -> None:
        """Refuse what contradicts itself."""
        _ = self.device_numbers
        if self.merge is not None:
            for name, default in (("devices", "0-7"), ("hosts", None), ("device_ips", None)):
                if getattr(self, name) != default:
                    raise UsageError(f"--merge has hosts and devices in its files; omit --{name}")
            if not self.listed("merge"):
                raise UsageError("--merge must name at least one file")
        hosts = self.listed("hosts")
        if self.hosts is not None and not hosts:
            raise UsageError("--hosts must name at least one host")
        if len(set(hosts)) < len(hosts):
            raise UsageError(f"--hosts names a host twice: {self.hosts}")
        if self.table_version == "2.0" and max(len(hosts), len(self.listed("merge"))) > 1:
            raise UsageError("--table_version 2.0 names no hosts, so it is for one; use 1.0 or 1.2")
        wanted = len(self.device_numbers) * max(1, len(hosts))
        ips = self.listed("device_ips")
        if self.device_ips is not None and len(ips) != wanted:
            raise UsageError(
                f"--device_ips must name {wanted} addresses, one for each device of each host, got "
                f"{len(ips)}"
            )
        if len(set(ips)) < len(ips):
            raise UsageError(f"--device_ips names an address twice: {self.device_ips}")
