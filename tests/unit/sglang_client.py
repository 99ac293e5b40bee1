"""What SGLang's own client sends for each of `body_programs`, what it makes of the answers, and the chat templates that it has.

`python -m tests.unit.sglang_client` records it: by hand, where `sglang` can be imported, whose language needs none of its server's
packages. What was recorded of the version that is installed is replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .body_programs import answer, programs
from .fake_server import serve

DATA = Path(__file__).parent / "data" / "sglang_client.jsonl"
"""A line for each version of the client and each program: the `bodies` that it sent, and the `ends` that its states came to."""

TEMPLATES = Path(__file__).parent / "data" / "sglang_templates.json"
"""For each version of the client, its chat templates, and the name of the one that it chooses for each of `MODELS`."""

MODELS = [
    "01-ai/Yi-1.5-6B-Chat",
    "01-ai/Yi-VL-6B",
    "CohereForAI/c4ai-command-r-v01",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "OpenGVLab/InternVL2_5-2B",
    "OrionStarAI/Orion-14B-Chat",
    "Qwen/Qwen1.5-7B-Chat",
    "Qwen/Qwen2-VL-7B-Instruct",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-4B-Instruct-2507",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "codellama/CodeLlama-7b-Instruct-hf",
    "databricks/dbrx-base",
    "databricks/dbrx-instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3-Base",
    "deepseek-ai/Janus-Pro-7B",
    "google/gemma-2-9b-it",
    "google/gemma-3-4b-pt",
    "google/gemma-4-12b-it",
    "gpt-4",
    "ibm-granite/granite-3.0-8b-instruct",
    "internlm/Intern-S1",
    "liuhaotian/llava-v1.5-7b",
    "liuhaotian/llava-v1.6-34b",
    "lmms-lab/LLaVA-NeXT-Video-7B",
    "lmms-lab/llava-next-video-34b",
    "lmms-lab/llava-onevision-qwen2-7b-chat",
    "lmsys/vicuna-7b-v1.5",
    "meta-llama/Llama-2-7b-chat-hf",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "microsoft/Phi-3-mini-4k-instruct",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "mistralai/Pixtral-12B-2409",
    "openbmb/MiniCPM-V-2_6",
    "openbmb/MiniCPM-o-2_6",
    "zai-org/GLM-4.5V",
]


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def end_of(state: Any) -> dict[str, Any]:
    return {"text": state.text(), "variables": state.stream_executor.variables}


def described(template: Any) -> dict[str, Any]:
    """A chat template as plain data."""
    roles = {
        role: list(template.role_prefix_and_suffix.get(role, ("", ""))) for role in ("system", "user", "assistant")
    }
    return {
        "roles": roles,
        "default_system_prompt": template.default_system_prompt or None,
        "stop_str": list(template.stop_str),
        "image_token": template.image_token,
        "style": template.style.name,
    }


def main() -> None:
    import sglang  # pyright: ignore[reportMissingImports]

    record_programs(sglang)
    record_templates(sglang)


def record_programs(sglang: Any) -> None:
    lines = [line for line in recorded() if line["client"] != sglang.__version__]
    with serve() as server:
        server.respond = answer
        endpoint = sglang.RuntimeEndpoint(server.url, chat_template_name="qwen")
        for name, run in programs(sglang).items():
            server.bodies.clear()
            ends = [end_of(state) for state in run(endpoint) if state.error() is None]  # it fails at UB-8 and UB-9
            bodies = list(server.bodies)
            lines.append({"client": sglang.__version__, "program": name, "bodies": bodies, "ends": ends})
    lines.sort(key=lambda line: line["client"])
    DATA.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def record_templates(sglang: Any) -> None:
    known = sglang.lang.chat_template
    every = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    every[sglang.__version__] = {
        "templates": {name: described(template) for name, template in known.chat_template_registry.items()},
        "chosen": {model: known.get_chat_template_by_model_path(model).name for model in MODELS},
    }
    TEMPLATES.write_text(json.dumps(every, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
