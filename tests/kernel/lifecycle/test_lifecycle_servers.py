"""`launch` with SGLang's and vLLM's servers, as stand-ins: real processes, with the command lines of the real ones."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lifecycle import EngineDiedError, EngineHandle, engines, hardware, launch, registry, servers

INSTALLED = Path(__file__).parent / "installed"
NVIDIA_SMI = """#!/bin/sh
case "$1" in
    *compute-apps*) printf '7, 10\\n8, 5\\n7, 20\\n9, [N/A]\\n' ;;
    *memory*) printf '1000\\n3000\\n2000\\n500\\n' ;;
    *) printf '0\\n1\\n2\\n3\\n' ;;
esac
"""


@sgl.function
def first_words(s, text):
    s += text + sgl.gen("said", max_tokens=5)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang and vLLM are installed, on a machine with two GPUs."""
    monkeypatch.syspath_prepend(str(INSTALLED))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(INSTALLED), os.environ["PYTHONPATH"]]))
    monkeypatch.setattr(servers, "count_gpus", lambda: 2)


def argv_of(engine: EngineHandle) -> list[str]:
    """The words of its command line after those that name the server."""
    command = psutil.Process(engine.pid).cmdline()
    assert command[:3] == [sys.executable, "-P", "-m"]
    return command[3:]


def key_is_hidden(engine: EngineHandle) -> bool:
    entry = next(entry for entry in registry.entries() if entry.id == engine.id)
    assert entry.supervisor
    processes = [psutil.Process(engine.pid), psutil.Process(entry.supervisor.pid)]
    return bool(engine.api_key) and not any(engine.api_key in " ".join(process.cmdline()) for process in processes)


@pytest.mark.usefixtures("installed")
def test_sglang_gets_its_own_flags_and_its_key_in_a_private_file() -> None:
    engine = launch("org/tiny", engine="sglang", tp_size=2, context_length=64, port=31771, engine_args=["--x"])
    assert (engine.state, engine.url) == ("starting", "http://127.0.0.1:31771")
    config = Path(registry.entries()[0].folder, "config.yaml")
    with engine.wait(20):
        assert engine.state == "ready"
        words = ["--model-path", "org/tiny", "--host", "127.0.0.1", "--port", "31771", "--config", str(config)]
        assert argv_of(engine) == ["sglang.launch_server", *words, "--tp-size", "2", "--context-length", "64", "--x"]
        assert json.loads(config.read_text()) == {"api-key": engine.api_key}
        assert config.stat().st_mode & 0o777 == 0o600
        assert key_is_hidden(engine)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{engine.url}/get_model_info", timeout=10)
        assert [listed.state for listed in engines()] == ["ready"]
    assert not config.exists()


@pytest.mark.usefixtures("installed")
def test_flags_are_translated_for_vllm_and_its_key_is_in_its_environment() -> None:
    flags = {
        "tp_size": 2,
        "context_length": 64,
        "mem_fraction_static": 0.5,
        "dtype": "bfloat16",
        "own_flag": ["a", "b"],
    }
    with launch("org/tiny", engine="vllm", disable_radix_cache=True, **flags) as engine:
        module, *words = argv_of(engine)
        assert (module, words[:2]) == ("vllm.entrypoints.cli.main", ["serve", "org/tiny"])
        assert words[6:] == [
            "--no-enable-prefix-caching", "--tensor-parallel-size", "2", "--max-model-len", "64",
            "--gpu-memory-utilization", "0.5", "--dtype", "bfloat16", "--own-flag", "a", "b",
        ]  # fmt: skip
        assert psutil.Process(engine.pid).environ()["VLLM_API_KEY"] == engine.api_key
        assert key_is_hidden(engine)
        assert engine.state == "ready"
        assert isinstance(engine.endpoint, sgl.OpenAI)
        with sgl.default_backend(engine):
            assert first_words("Say")["said"].startswith("serve org/tiny")
        with pytest.raises(sgl.UnsupportedFeature, match="ending all requests"):
            engine.stop()


@pytest.mark.usefixtures("installed")
def test_a_server_that_dies_tells_its_last_words() -> None:
    with pytest.raises(EngineDiedError, match=r"exited with code 1(?s:.*)broken is not a local folder"):
        launch("broken", engine="vllm").wait(20)


@pytest.mark.usefixtures("installed")
def test_an_environment_of_its_own_is_asked_for_the_package_and_runs_it() -> None:
    with launch("org/tiny", engine="vllm", python=os.path.realpath(sys.executable)) as engine:
        assert psutil.Process(engine.pid).cmdline()[1:3] == ["-m", "vllm.entrypoints.cli.main"]


@pytest.mark.parametrize(
    ("engine", "flags", "error", "words"),
    [
        (
            "sglang",
            {},
            ModuleNotFoundError,
            "SGLang needs the package 'sglang', which is not installed: pip install sglang",
        ),
        ("vllm", {}, ModuleNotFoundError, "vLLM needs the package 'vllm', which is not installed: pip install vllm"),
        ("vllm", {"python": sys.executable}, ModuleNotFoundError, f"not installed for {sys.executable}"),
        ("vllm", {"python": "/no/such/python"}, FileNotFoundError, "python='/no/such/python' is no program"),
        ("llama", {}, ValueError, "engine must be one of 'kernel', 'sglang', 'vllm', not 'llama'"),
        ("kernel", {"tp_size": 2}, RuntimeError, "computes on one GPU, and the flags ask for 2"),
        ("kernel", {"tp_size": "many"}, ValueError, "tp_size must be a whole number from 1 on, not 'many'"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(
    engine: str, flags: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        launch("org/tiny", engine=engine, **flags)
    assert registry.entries() == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("engine", "flags", "wanted"),
    [
        ("sglang", {"tp_size": 4}, 4),
        ("sglang", {"tp": 8, "pp_size": 2, "nnodes": 2}, 8),
        ("vllm", {"tensor_parallel_size": 3}, 3),
        ("vllm", {"tp_size": 2, "pp_size": 2}, 4),
    ],
)
def test_too_few_gpus_are_told_before_anything_starts(engine: str, flags: dict, wanted: int) -> None:
    with pytest.raises(RuntimeError, match=f"needs {wanted} GPUs for these flags, and this machine has 2"):
        launch("org/tiny", engine=engine, **flags)


@pytest.mark.usefixtures("installed")
def test_rays_gpus_are_for_ray_to_count() -> None:
    launch("org/tiny", engine="vllm", tp_size=8, pp_size=2, distributed_executor_backend="ray").terminate()


def test_without_a_gpu_sglang_needs_to_be_told_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "count_gpus", lambda: 0)
    monkeypatch.setattr(servers, "_is_installed", lambda package, python: True)
    entry = registry.Entry(id="x", name="x", model="m", owner=None, created=0.0, folder="f", log="l")
    with pytest.raises(RuntimeError, match="SGLang needs 1 GPU for these flags, and this machine has 0"):
        servers.SERVERS["sglang"].command(entry, {}, [])
    assert "--device" in servers.SERVERS["sglang"].command(entry, {"device": "cpu"}, []).argv


@pytest.mark.parametrize("flags", [{"model_path": "other"}, {"config": "mine.yaml"}])
@pytest.mark.usefixtures("installed")
def test_flags_that_launch_needs_for_itself_are_refused(flags: dict) -> None:
    with pytest.raises(TypeError, match=f"launch\\(\\) sets {next(iter(flags))} itself"):
        launch("org/tiny", engine="sglang", **flags)


@pytest.mark.parametrize(("visible", "count"), [(None, 4), ("0,1", 2), ("", 0), ("1,-1,2", 1), ("0,1,2,3,4,5", 4)])
def test_gpus_are_counted_by_their_driver_and_limited_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None, count: int
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.count_gpus() == count
    assert hardware.free_memory() == 3000 << 20
    assert hardware.gpu_memory_by_pid() == {7: 30 << 20, 8: 5 << 20}


def test_a_driver_without_a_gpu_counts_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hardware.count_gpus() == 0
    assert hardware.free_memory() > 0
