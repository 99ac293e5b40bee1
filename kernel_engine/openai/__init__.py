"""OpenAI's routes over the engine: completions, chat with tools and reasoning, models, tokenize (SGLang's extensions included)."""
