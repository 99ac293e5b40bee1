"""The language: expressions, programs, states, and the executor that runs them."""
