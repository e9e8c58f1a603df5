"""What a run says about tests that could not run; the fixtures of the end-to-end tests are in e2e/conftest.py."""

import os
import signal
from typing import Never

import pytest


def pytest_configure() -> None:
    """Undo what a shell's `&` and nohup(1) make a run ignore: tests send these signals to programs that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def cannot_run(reason: str) -> Never:
    """Skip this test; but in CI, where every test has to run, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run, and why, without being asked by -rs."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("NOT RUN")
        for reason in sorted({report.longrepr[2] for report in skipped}):
            tests = [report.nodeid for report in skipped if report.longrepr[2] == reason]
            terminalreporter.line(reason.removeprefix("Skipped: "))
            terminalreporter.line("".join(f"    {test}\n" for test in tests))
