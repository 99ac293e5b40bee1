"""The kinds of dialogue that tiny-chat is trained on; each generator is seeded and knows its held-out wordings."""
