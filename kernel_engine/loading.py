"""From what the flags name to a model that runs: its files, its config, its tokenizer, its weights.

Invariant: a model is returned with every weight its config asks for, in the shape it asks for; anything else is a `LoadError`
of one sentence.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError

from .checkpoint import open_checkpoint
from .errors import LoadError
from .features import check_config
from .lora import attach, read_adapters
from .machine import free_memory
from .model import Model
from .quantize import COMPUTED_IN, quantize, scheme_of
from .source import CONFIG, bring, first_line, is_bundled, resolve_model_path
from .vision.families import FAMILIES
from .vision.sight import Sight

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from .server_args import ServerArgs

logger = logging.getLogger(__name__)

SMALL_MODEL_BYTES = 512 << 20
"""On a CPU, a bf16 checkpoint up to this size runs in fp32: its steps cost calls, not bytes, and fp32 calls cost less."""
DTYPES = {
    "half": torch.float16, "float16": torch.float16, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16,
    "float": torch.float32, "float32": torch.float32, "fp8_e5m2": torch.float8_e5m2, "fp8_e4m3": torch.float8_e4m3fn,
}  # fmt: skip
SHOWN = 3
"""Of weights that are wrong, so many are named."""
UNREADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, StrictDataclassError)


def load_model(args: ServerArgs) -> Model:
    """Load what `args.model_path` names. Raises `LoadError` with a sentence if that cannot be done."""
    from transformers.utils import logging as transformers_log

    transformers_log.disable_progress_bar()
    name = resolve_model_path(args.model_path)
    path = bring(name, args, weights=False)
    gguf = _gguf_file(path, args.load_format)
    config = _load_config(path, gguf, args)
    check_config(config)
    if args.load_format != "dummy":
        path = bring(name, args, weights=True)
    device = choose_device(args)
    adapters, scheme = read_adapters(args), scheme_of(args)
    dtype = COMPUTED_IN if scheme else resolve_dtype(args.dtype, config, device)
    if args.tokenizer_path:
        tokenizer = _load_tokenizer(bring(resolve_model_path(args.tokenizer_path), args, weights=False), None, args)
    else:
        tokenizer = _load_tokenizer(path, gguf, args)
    module = _load_module(path, gguf, config, args, dtype, device)
    if scheme:
        quantize(module, scheme)
    cache_dtype = None if args.kv_cache_dtype == "auto" else DTYPES[args.kv_cache_dtype]
    sight = _load_sight(path, module, tokenizer, args)
    return Model(module, tokenizer, args.context_length, cache_dtype, attach(module, adapters), sight)


def _load_sight(
    path: Path, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, args: ServerArgs
) -> Sight | None:
    """The vision part of a model that has one which is run here, with its image processor."""
    if module.config.model_type not in FAMILIES:
        if args.enable_multimodal:
            raise LoadError(f"--enable-multimodal: {module.config.model_type} models take text only here.")
        return None
    from transformers import AutoImageProcessor

    module.set_attn_implementation({"vision_config": args.mm_attention_backend or "sdpa"})
    try:
        processor = AutoImageProcessor.from_pretrained(path, backend="pil")  # the other backend needs torchvision
    except UNREADABLE as error:
        raise LoadError(f"no image processor in {str(path)!r}: {first_line(error)}.") from error
    return Sight(module, processor, tokenizer)


def choose_device(args: ServerArgs) -> torch.device:
    """Where to run: as asked for, else on a GPU if there is one. Raises `LoadError` for a GPU that is not there."""
    available = torch.cuda.is_available()
    wanted = args.device or ("cuda" if available or args.base_gpu_id else "cpu")
    if wanted == "cuda" and not available:
        raise LoadError(f"PyTorch {torch.__version__} sees no such GPU here. Look at nvidia-smi, or set --device cpu.")
    return torch.device(wanted)


def resolve_dtype(name: str, config: PretrainedConfig, device: torch.device) -> torch.dtype:
    """SGLang's rule for `auto` (bf16 stays, fp32 and fp16 run as fp16) on a GPU; on a CPU the checkpoint's own, small ones fp32."""
    if name != "auto":
        return DTYPES[name]
    stored = config.dtype or torch.float32
    stored = getattr(torch, stored) if isinstance(stored, str) else stored
    if device.type != "cpu":
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float16
    text = config.get_text_config(decoder=True)
    layer = text.hidden_size * (
        4 * text.hidden_size + 3 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    )
    parameters = text.vocab_size * text.hidden_size + text.num_hidden_layers * layer
    return torch.float32 if stored == torch.float16 or 2 * parameters <= SMALL_MODEL_BYTES else stored


def _gguf_file(path: Path, load_format: str) -> Path | None:
    """The GGUF file that `path` is, or the only one that it holds if that is what it holds, or what is asked for."""
    found = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if load_format != "gguf" and path.is_dir() and ((path / CONFIG).is_file() or not found):
        return None
    if load_format == "safetensors":
        raise LoadError(f"{str(path)!r} holds GGUF and no safetensors: leave --load-format out.")
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise LoadError(f"a model in GGUF is a file, or a folder with one; {str(path)!r} holds {names}. Name the file.")
    if missing := [package for package in ("gguf", "accelerate") if find_spec(package) is None]:
        raise LoadError(f"GGUF files cannot be read without more packages: `pip install {' '.join(missing)}`.")
    return found[0]


def _load_config(path: Path, gguf: Path | None, args: ServerArgs) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, __version__

    try:
        if gguf:
            config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, **args.model_overrides())
            config.dtype = torch.bfloat16  # quantized numbers have no dtype, and fp32 would take twice the memory
            return config
        if not (path / CONFIG).is_file():
            raise LoadError(f"no model in {str(path)!r}: there is no {CONFIG}.")
        model_type = PretrainedConfig.get_config_dict(path)[0].get("model_type")
        if model_type not in CONFIG_MAPPING and not args.trust_remote_code:
            raise LoadError(
                f"{str(path)!r} holds a model of type {model_type!r}, which transformers {__version__} does not know. Upgrade "
                "transformers or, if the model brings its code and you trust it, set --trust-remote-code."
            )
        return AutoConfig.from_pretrained(path, trust_remote_code=args.trust_remote_code, **args.model_overrides())
    except UNREADABLE as error:
        raise _load_failure(path, error) from error


def _load_tokenizer(path: Path, gguf: Path | None, args: ServerArgs) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    trusted = args.trust_remote_code and not is_bundled(path)
    try:
        if gguf:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trusted)
    except (*UNREADABLE, AttributeError, TypeError) as error:
        raise LoadError(
            f"no tokenizer in {str(path)!r}: {first_line(error)}. Name one with --tokenizer-path."
        ) from error
    if not tokenizer("a")["input_ids"]:  # transformers makes an empty one where there are no files
        raise LoadError(f"no tokenizer in {str(path)!r}. Name one with --tokenizer-path.")
    if not tokenizer.is_fast:
        raise LoadError(f"the tokenizer in {str(path)!r} has no fast version (tokenizer.json), which streaming needs.")
    return tokenizer


def _load_module(
    path: Path, gguf: Path | None, config: PretrainedConfig, args: ServerArgs, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

    kind: Any = AutoModelForImageTextToText if config.model_type in FAMILIES else AutoModelForCausalLM
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": args.trust_remote_code}
    try:
        with torch.device("meta"):
            outline = kind.from_config(config, **options)
        _check_memory(outline, device)
        if args.load_format == "dummy":
            torch.manual_seed(args.random_seed or 0)
            with device:
                module = kind.from_config(config, **options)
        elif gguf:
            module = _read(
                type(outline),
                gguf.parent,
                gguf_file=gguf.name,
                config=outline.config,
                dtype=dtype,
                device_map=_placed(device),
            )
        else:
            tensors, progress = open_checkpoint(path)
            module = _read(
                type(outline), None, config=outline.config, state_dict=tensors, dtype=dtype, device_map=_placed(device)
            )
            progress.finish()
        if (path / "generation_config.json").is_file():
            module.generation_config = GenerationConfig.from_pretrained(path)
    except UNREADABLE as error:
        raise _load_failure(path, error) from error
    return module.to(device)  # pyright: ignore[reportArgumentType]


def _read(kind: type[PreTrainedModel], name: Path | None, **options: Any) -> PreTrainedModel:
    """transformers' own loader, which warns of weights that do not fit the config and makes some up; here that is an error."""
    loaded: Any = kind.from_pretrained(name, ignore_mismatched_sizes=True, output_loading_info=True, **options)
    module, found = loaded
    if mismatched := sorted(found["mismatched_keys"]):
        shapes = [f"{name} is {list(stored)}, not {list(wanted)}" for name, stored, wanted in mismatched]
        raise LoadError(f"weights have other shapes than the config says: {_some(shapes)}.")
    if missing := sorted(found["missing_keys"]):
        raise LoadError(f"the checkpoint lacks weights that the config asks for: {_some(missing)}.")
    if unused := sorted(found["unexpected_keys"]):
        logger.warning("the checkpoint has weights that the config does not ask for; not used: %s", _some(unused))
    return module


def _placed(device: torch.device) -> dict[str, torch.device] | None:
    """Where the loader puts weights: on the device at once, if it can, else where they are mapped."""
    return {"": device} if device.type != "cpu" and find_spec("accelerate") else None


def _check_memory(outline: PreTrainedModel, device: torch.device) -> None:
    """Raise `LoadError` if weights like those of `outline`, which has none, do not fit into what is free on `device`."""
    needed = sum(p.numel() * p.element_size() for p in outline.parameters())
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if needed > free:
        raise LoadError(
            f"the weights need {needed / 1e9:.2f} GB in {outline.dtype}, {free / 1e9:.2f} GB are free on the {device.type}. "
            "Take a smaller model, or free memory."
        )


def _load_failure(path: Path, error: Exception) -> LoadError:
    if isinstance(error, LoadError):
        return error
    cause = error.__cause__ if isinstance(error, StrictDataclassError) else error  # which says only where it was found
    return LoadError(f"cannot load {str(path)!r}: {first_line(cause or error)}.")


def _some(items: list[str]) -> str:
    return "; ".join(items[:SHOWN]) + (f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
