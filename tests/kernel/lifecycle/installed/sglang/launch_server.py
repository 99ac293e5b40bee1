"""A stand-in for SGLang's server: it takes SGLang's flags, `--config` too, and hands them to kernel_engine's."""

import json
import runpy
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    place = sys.argv.index("--config")
    config = json.loads(Path(sys.argv[place + 1]).read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".key") as key_file:
        key_file.write(config.pop("api-key"))
        key_file.flush()
        assert not config
        sys.argv[place : place + 2] = ["--api-key-file", key_file.name]
        runpy.run_module("kernel_engine.launch_server", run_name="__main__")
