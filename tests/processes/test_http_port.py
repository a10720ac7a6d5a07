"""What the process around a worker does about its HTTP port."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.cli.worker import run_processes
from pipeline.config import HttpSettings, Settings, WorkerSettings
from pipeline.errors import ConfigError


def test_without_a_port_no_server_is_loaded() -> None:
    """A worker starts often, and must not pay for what it does not use."""
    code = (
        "import sys, pipeline.cli.worker; "
        "print([name for name in sys.modules if name.split('.')[0] in {'waitress', 'prometheus_client'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_more_processes_than_ports_are_refused() -> None:
    """The last processes would run without probes."""
    settings = Settings(worker=WorkerSettings(worker_id="w"), http=HttpSettings(port=65_530))
    with pytest.raises(ConfigError, match="8 processes need the HTTP ports 65530 to 65537"):
        run_processes(8, settings)
