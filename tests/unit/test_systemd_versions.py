"""post_install/SYSTEMD.md: every directive of the units is looked up, and older versions are measured."""

import re

from barehub import systemd

from construct.systems import MINIMUM_SYSTEMD, SYSTEMS
from tests.systemd_versions import OLD, exposures, service, since

# All of 239 or older, by NEWS.
OF_239 = """
    Description Wants After PartOf RequiresMountsFor StartLimitIntervalSec StartLimitBurst ConditionPathExists
    WantedBy Also OnCalendar AccuracySec
    Type User AmbientCapabilities Environment EnvironmentFile WorkingDirectory ExecStartPre ExecStart ExecReload
    FileDescriptorStoreMax NotifyAccess Restart RestartSec RestartPreventExitStatus WatchdogSec TimeoutStartSec KillMode
    UMask LimitNOFILE LogLevelMax SyslogLevel MemoryHigh MemoryMax TasksMax
    CapabilityBoundingSet NoNewPrivileges ProtectSystem ReadWritePaths InaccessiblePaths ProtectHome PrivateTmp
    PrivateDevices PrivateMounts PrivateNetwork DevicePolicy ProtectKernelTunables ProtectKernelModules
    ProtectControlGroups RestrictNamespaces RestrictRealtime RemoveIPC LockPersonality MemoryDenyWriteExecute
    KeyringMode RestrictAddressFamilies SystemCallArchitectures SystemCallFilter SystemCallErrorNumber
"""


def test_every_directive_of_the_units_is_looked_up() -> None:
    used = {
        name
        for unit in systemd.TEMPLATES.iterdir()
        for name in re.findall(r"^(?:@\w+@)?([A-Z]\w+)=", unit.read_text(), re.MULTILINE)
    }
    assert used - set(OF_239.split()) - since().keys() == set()
    assert since().keys() - used == set()
    assert not since().keys() & set(OF_239.split())


def test_the_versions_in_the_tables_are_those_that_change_something() -> None:
    assert sorted({MINIMUM_SYSTEMD, *since().values()}) == list(OLD)
    assert set(exposures()) == {(name, version) for name in ("proxy", "certificates", "hub") for version in OLD}
    assert MINIMUM_SYSTEMD in {system.systemd for system in SYSTEMS}


def test_what_an_older_version_ignores_is_taken_away_and_nothing_else() -> None:
    old, new = service("proxy", MINIMUM_SYSTEMD).splitlines(), service("proxy", max(OLD)).splitlines()
    gone = {line.partition("=")[0] for line in new if line not in old}
    assert gone == {name for name in since() if f"{name}=" in "\n".join(new)}
    # What hides the system's programs where NoExecPaths= is unknown.
    assert "NoExecPaths" in gone
    assert any(line.startswith("InaccessiblePaths=") for line in old)
