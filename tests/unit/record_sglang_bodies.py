"""Records what SGLang's own client sends for each of `body_programs`: `python -m tests.unit.record_sglang_bodies`.

It is run by hand, where `sglang` can be imported: its language needs none of its server's packages. The bodies of the version
that is installed replace those of that version in `data/sglang_bodies.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from .body_programs import answer, programs
from .fake_server import serve

DATA = Path(__file__).parent / "data" / "sglang_bodies.json"


def main() -> None:
    import sglang  # pyright: ignore[reportMissingImports]

    recorded = {}
    with serve() as server:
        server.respond = answer
        endpoint = sglang.RuntimeEndpoint(server.url, chat_template_name="qwen")
        for name, run in programs(sglang).items():
            server.bodies.clear()
            run(endpoint)
            recorded[name] = list(server.bodies)
    versions = json.loads(DATA.read_text(encoding="utf-8"))
    versions[sglang.__version__] = recorded
    DATA.write_text(written(versions), encoding="utf-8")


def written(versions: dict[str, dict[str, list[object]]]) -> str:
    """JSON with a line for each body."""
    blocks = []
    for version, bodies in sorted(versions.items()):
        lines = [f"  {json.dumps(name)}: [\n{_lines(bodies[name])}\n  ]" for name in bodies]
        blocks.append(f" {json.dumps(version)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _lines(bodies: list[object]) -> str:
    return ",\n".join("   " + json.dumps(body) for body in bodies)


if __name__ == "__main__":
    main()
