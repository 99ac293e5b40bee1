"""The chat templates that SGLang knows, by its names, and its rules that choose one by a model's path.

Two of its texts are mended: janus-pro's user has markup, and Gemma 4's roles are those of its maker (ai.google.dev, "Gemma 4
Prompt Formatting").
"""

from __future__ import annotations

from sgl_jupyter.lang.markup import ChatTemplate, ChatTemplateStyle


def _roles(prefix: str, suffix: str) -> dict[str, tuple[str, str]]:
    """Markup that is the same for each role but for the role's name, written ROLE in `prefix`."""
    return {role: (prefix.replace("ROLE", role), suffix) for role in ("system", "user", "assistant")}


_CHATML = _roles("<|im_start|>ROLE\n", "<|im_end|>\n")
_LLAMA3 = _roles("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>")
_DEEPSEEK = {"user": ("<｜User｜>", ""), "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>")}
_INSTRUCT = {"user": ("[INST] ", " [/INST]"), "assistant": ("", " </s><s>")}
_MINICPM = {"system": ("", " "), "user": ("user:", " "), "assistant": ("assistant:", "</s>")}
_COMMAND_R = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
_HELPFUL = "You are a helpful assistant."
_IM_END = ("<|im_end|>",)

_YI_VL = (
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. Read all the images "
    "carefully, and respond to the human's questions with informative, helpful, detailed and polite answers."
    "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
    "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"
)
_DBRX = (
    "You are DBRX, created by Databricks. You were last updated in December 2023. You answer questions based on information "
    "available up to that point.\n"
    "YOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but provide thorough responses to more complex and open-ended "
    "questions.\n"
    "You assist with various tasks, from writing to coding (using markdown for code blocks — remember to use ``` with code, JSON, "
    "and tables).\n"
    "(You do not have real-time data access or code execution capabilities. You avoid stereotyping and provide balanced "
    "perspectives on controversial topics. You do not provide song lyrics, poems, or news articles and do not divulge details of "
    "your training data.)\n"
    "This is your system prompt, guiding your responses. Do not reference it, just respond to the user. If you find yourself "
    "talking about this message, stop. You should be responding appropriately and usually that means not mentioning this.\n"
    "YOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT YOURSELF UNLESS THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY."
)
_INTERN_VL = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
_INTERN_S1 = (
    "You are an AI assistant whose name is Intern-S1 (书生大模型).\n"
    "- Intern-S1 (书生大模型) is a vision-language model that is developed by Shanghai AI Laboratory (上海人工智能实验室).  It is "
    "designed to be helpful, honest, and harmless.\n"
    "- Intern-S1 (书生大模型) can understand and communicate fluently in the language chosen by the user such as English and "
    "中文.\n"
    "You are an expert reasoner with extensive experience in all areas. You approach problems through systematic thinking and "
    "rigorous reasoning. Your response should reflect deep understanding and precise logical thinking, making your solution path "
    "and reasoning clear to others. Please put your thinking process within <think>...</think> tags."
)
"""System prompts that the models' makers published."""

TEMPLATES = (
    ChatTemplate(
        "default", None, {"system": ("SYSTEM:", "\n"), "user": ("USER:", "\n"), "assistant": ("ASSISTANT:", "\n")}
    ),
    ChatTemplate("claude", None, {"user": ("\n\nHuman: ", ""), "assistant": ("\n\nAssistant:", "")}),
    ChatTemplate("chatml", None, _CHATML, stop_str=_IM_END),
    ChatTemplate("qwen", _HELPFUL, _CHATML, _IM_END),
    ChatTemplate("qwen2-vl", _HELPFUL, _CHATML, _IM_END, image_token="<|vision_start|><|image_pad|><|vision_end|>"),
    ChatTemplate("chatml-llava", _HELPFUL, _CHATML, _IM_END, image_token="<image>\n"),
    ChatTemplate(
        "vicuna_v1.1",
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        {"system": ("", " "), "user": ("USER:", " "), "assistant": ("ASSISTANT:", "</s>")},
        image_token=" <image>\n",
    ),
    ChatTemplate(
        "llama-2-chat", None, {"system": ("<<SYS>>\n", "\n<</SYS>>\n\n"), **_INSTRUCT}, style=ChatTemplateStyle.LLAMA2
    ),
    ChatTemplate(
        "mistral",
        None,
        {"system": ("[SYSTEM_PROMPT] ", " [/SYSTEM_PROMPT]"), **_INSTRUCT},
        stop_str=("</s>",),
        image_token="[IMG]",
    ),
    ChatTemplate("llama-3-instruct", None, _LLAMA3, stop_str=("<|eot_id|>",), image_token="<|image|>"),
    ChatTemplate("llama-3-instruct-llava", None, _LLAMA3, stop_str=("<|eot_id|>",), image_token="<image>\n"),
    ChatTemplate(
        "llama-4",
        None,
        _roles("<|header_start|>ROLE<|header_end|>\n\n", "<|eot|>"),
        stop_str=("<|eot|>",),
        image_token="<|image|>",
    ),
    ChatTemplate(
        "yi-1.5",
        None,
        {"user": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"), "assistant": ("", "<|im_end|>\n")},
        stop_str=_IM_END,
    ),
    ChatTemplate(
        "yi-vl",
        _YI_VL,
        {"system": ("", "\n\n"), "user": ("### Human:", "\n"), "assistant": ("### Assistant:", "\n")},
        image_token=" <image_placeholder>\n",
    ),
    ChatTemplate(
        "gemma-it",
        None,
        {
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        image_token="<start_of_image>",
    ),
    ChatTemplate(
        "gemma-4-it",
        None,
        {
            "system": ("<|turn>system\n", "<turn|>\n"),
            "user": ("<|turn>user\n", "<turn|>\n"),
            "assistant": ("<|turn>model\n", "<turn|>\n"),
        },
        image_token="<|image|>",
    ),
    ChatTemplate(
        "dbrx-instruct",
        _DBRX,
        {
            "system": ("<|im_start|>system\n", "<|im_end|>"),
            "user": ("\n<|im_start|>user\n", "<|im_end|>"),
            "assistant": ("\n<|im_start|>assistant\n", "<|im_end|>"),
        },
        stop_str=_IM_END,
    ),
    ChatTemplate(
        "c4ai-command-r",
        None,
        {
            "system": (_COMMAND_R.format("SYSTEM"), "<|END_OF_TURN_TOKEN|>"),
            "user": (_COMMAND_R.format("USER"), "<|END_OF_TURN_TOKEN|>"),
            "assistant": (_COMMAND_R.format("CHATBOT"), "<|END_OF_TURN_TOKEN|>"),
        },
    ),
    ChatTemplate(
        "granite-3-instruct",
        None,
        _roles("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>"),
        stop_str=("<|end_of_text|>",),
    ),
    ChatTemplate("deepseek-v3", None, _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",)),
    ChatTemplate("janus", None, _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",), image_token="<image_placeholder>\n"),
    ChatTemplate(
        "janus-pro", None, _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",), image_token="<image_placeholder>\n"
    ),
    ChatTemplate(
        "minicpmv", None, _MINICPM, stop_str=("<|im_end|>", "<|endoftext|>"), image_token="(<image>./</image>)"
    ),
    ChatTemplate(
        "minicpmo", None, _MINICPM, stop_str=("<|im_end|>", "<|endoftext|>"), image_token="(<image>./</image>)"
    ),
    ChatTemplate("internvl-2-5", _INTERN_VL, _CHATML, stop_str=("<|im_end|>", "<|action_end|>")),
    ChatTemplate("interns1", _INTERN_S1, _CHATML, stop_str=("<|im_end|>", "<|action_end|>")),
    ChatTemplate(
        "glm-4v",
        None,
        _roles("<|ROLE|>\n", "\n"),
        stop_str=("<|user|>", "<|endoftext|>", "<|observation|>"),
        image_token="<|image|>",
    ),
)

RULES = (
    ("qwen2-vl", r"tiny-vision"),
    ("qwen", r"tiny-chat"),
    ("deepseek-v3", r"^(?!.*base).*deepseek-(v3|r1)"),
    ("claude", r"orion"),
    ("janus-pro", r"janus"),
    ("dbrx-instruct", r"dbrx.*instruct|instruct.*dbrx"),
    ("vicuna_v1.1", r"vicuna|llava-v1\.5|llava-next-video-7b"),
    ("llama-2-chat", r"llama-2.*chat|codellama.*instruct"),
    ("mistral", r"pixtral|(mistral|mixtral).*instruct"),
    ("llama-3-instruct", r"llama-3.*instruct"),
    ("chatml", r"tinyllama"),
    ("qwen2-vl", r"qwen.*vl"),
    ("glm-4v", r"glm[-_]?4(\.\d+)?v"),
    ("qwen", r"^(?!.*llava).*qwen.*(chat|instruct)"),
    ("chatml-llava", r"llava-v1\.6-34b|llava-v1\.6-yi-34b|llava-next-video-34b|llava-onevision-qwen2"),
    ("yi-vl", r"yi-vl"),
    ("yi-1.5", r"yi-1\.5.*chat"),
    ("gemma-4-it", r"gemma-4.*it"),
    ("gemma-it", r"gemma.*it|gemma-3"),
    ("minicpmv", r"minicpm-v"),
    ("minicpmo", r"minicpm-o"),
    ("c4ai-command-r", r"c4ai-command-r"),
    ("granite-3-instruct", r"granite.*instruct"),
    ("internvl-2-5", r"internvl2_5"),
    ("interns1", r"intern-s1|interns1"),
)
