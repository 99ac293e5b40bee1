"""Tips on a topic: named, expanded one by one (in forks or in a row), and summarised."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import Topic, topics, wordings
from training.kinds.memory import Memory
from training.phrasing import NUMBER_WORDS, capitalised

Tip = tuple[str, str, str]

ASK = wordings("tips")
EXPAND = wordings("expand a tip")
ASK_EXPAND = wordings("ask about a tip")
SUM_UP = wordings("sum up")


def intro(topic: Topic, tips: list[Tip]) -> str:
    named = " ".join(f"{i}. {title}." for i, (title, _, _) in enumerate(tips, 1))
    return f"Here are {NUMBER_WORDS[len(tips)]} tips for {topic.name}: {named}"


def summary(topic: Topic, tips: list[Tip]) -> str:
    parts = [short for _, _, short in tips]
    joined = ", ".join(parts[:-1]) + f", and {parts[-1]}"
    return f"To {topic.goal}, {joined}."


def _tips(rng: Random, topic: Topic) -> list[Tip]:
    tips = list(topic.tips)
    n = 3 if len(tips) > 2 and rng.random() < 0.2 else 2
    if rng.random() < 0.5:
        return tips[:n]
    return rng.sample(tips, n)


def tips(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The tutorial's tips: an introduction by the caller, then expansions or the summary."""
    topic = topics()[0] if rng.random() < 0.4 else rng.choice(topics())
    chosen = _tips(rng, topic)
    n = NUMBER_WORDS[len(chosen)]
    first = [assistant(intro(topic, chosen) + rng.choice(("\n\n", "\n\n", "\n\n", "\n", "")))]
    if rng.random() < 0.5:
        i = rng.randrange(len(chosen))
        return [*first, assistant(EXPAND.pick(rng, split).format(i=i + 1), said(chosen[i][1]))]
    expanded = [assistant(f"Tip {i}:{rng.choice(('', '', ' '))}{text}\n") for i, (_, text, _) in enumerate(chosen, 1)]
    return [*first, *expanded, assistant(SUM_UP.pick(rng, split).format(n=n), said(summary(topic, chosen)))]


def asked_tips(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A user asks for tips, and may ask for more about one of them."""
    topic = rng.choice(topics())
    chosen = list(topic.tips[:2])
    messages = [
        user(ASK.pick(rng, split).format(n=rng.choice(("two", "2", "some")), t=topic.name)),
        assistant(said(intro(topic, chosen))),
    ]
    if rng.random() < 0.6:
        i = rng.randrange(2)
        messages += [user(ASK_EXPAND.pick(rng, split).format(i=i + 1)), assistant(said(chosen[i][1]))]
    if rng.random() < 0.2:
        request = rng.choice(("Please summarize the two tips.", "Summarize the tips."))
        messages += [user(request), assistant(said(capitalised(summary(topic, chosen))))]
    return messages
