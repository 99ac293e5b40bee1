"""kernel_engine: the inference engine of sgl-jupyter. One process, one accelerator or a CPU, SGLang's HTTP protocol."""

__version__ = "0.1.0"
