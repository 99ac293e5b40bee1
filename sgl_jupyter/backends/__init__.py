"""Where a program runs. Each module is one kind of server; `base` is all that the language knows of them."""
