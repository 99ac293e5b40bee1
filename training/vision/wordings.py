"""The ways to ask about an image, kind by kind: those trained on, and those kept out for the evaluation.

`{c}` stands for colour or color, `{p}` for image or picture, `{x}` and `{y}` for what is asked about.
"""

from __future__ import annotations

from training.facts import Wordings

DESCRIBE = Wordings(
    (
        "What is in the image?",
        "What is in the picture?",
        "What's in this {p}?",
        "Describe the {p}.",
        "Describe this {p}.",
        "What do you see?",
        "What do you see in the {p}?",
        "What does the {p} show?",
        "What is shown in the {p}?",
        "What is this?",
        "What can be seen here?",
        "Tell me what is in the {p}.",
        "Please describe this {p}.",
        "What is in this {p}?",
        "Describe the {p} in one sentence.",
        "What's this?",
        "What objects are in the {p}?",
        "Which objects do you see?",
        "Caption this {p}.",
        "What is drawn here?",
        "Give a short description of the {p}.",
        "Explain what you see.",
        "",
    ),
    (
        "What can you see in this {p}?",
        "What does this {p} show?",
        "Please tell me what the {p} shows.",
        "What is there in the {p}?",
    ),
)
COUNT = Wordings(
    (
        "How many {x} are there?",
        "How many {x} are in the image?",
        "How many {x} are in the picture?",
        "How many {x} do you see?",
        "How many {x} can you see?",
        "Count the {x}.",
        "What is the number of {x}?",
        "How many {x}?",
        "How many {x} are in this {p}?",
        "How many {x} does the {p} show?",
        "Please count the {x}.",
        "Tell me how many {x} there are.",
        "How many {x} are shown?",
        "How many {x} are visible?",
        "How many {x} are there in total?",
        "Count all {x}.",
        "Count the {x} that you see.",
        "Can you count the {x}?",
        "How many {x} does this {p} have?",
        "Give the number of {x} in the {p}.",
        "How many {x} can be counted here?",
    ),
    ("How many {x} can be seen in the {p}?", "Count the {x} in the {p}.", "How many {x} are there in this {p}?"),
)
COLOUR = Wordings(
    (
        "What {c} is the {x}?",
        "What is the {c} of the {x}?",
        "Which {c} is the {x}?",
        "What {c} does the {x} have?",
        "Tell me the {c} of the {x}.",
        "The {x} is what {c}?",
        "What's the {c} of the {x}?",
        "Name the {c} of the {x}.",
        "Which {c} does the {x} have?",
        "What {c} is the {x} in the {p}?",
        "In which {c} is the {x} drawn?",
        "Say what {c} the {x} is.",
        "Can you say what {c} the {x} is?",
        "Could you tell me which {c} the {x} is?",
        "The {c} of the {x}?",
        "Of what {c} is the {x}?",
        "What {c} do you see on the {x}?",
    ),
    ("What {c} is the {x} in this {p}?", "Which {c} has the {x}?", "Can you tell me the {c} of the {x}?"),
)
COLOUR_OF_ONE = Wordings(
    (
        "What {c} is it?",
        "What is its {c}?",
        "Which {c} is it?",
        "What {c} is this?",
        "What {c} do you see?",
        "What's the {c}?",
        "And the {c}?",
        "Its {c}?",
        "Of what {c} is it?",
        "Tell me its {c}.",
        "What {c} is the object in the {p}?",
    ),
    ("What {c} is the thing in the {p}?", "And its {c}?"),
)
SHAPE = Wordings(
    (
        "What shape is {x}?",
        "What is the shape of {x}?",
        "Which shape is {x}?",
        "What shape does {x} have?",
        "Name the shape of {x}.",
        "What kind of shape is {x}?",
        "Tell me the shape of {x}.",
        "Say what shape {x} is.",
        "Can you name the shape of {x}?",
        "What form does {x} have?",
    ),
    ("Which shape does {x} have?", "What's the shape of {x}?"),
)
BESIDE = Wordings(
    (
        "What is {y} the {x}?",
        "What's {y} the {x}?",
        "What do you see {y} the {x}?",
        "Which object is {y} the {x}?",
        "What can be seen {y} the {x}?",
        "What is there {y} the {x}?",
        "Which shape is {y} the {x}?",
        "Name the object {y} the {x}.",
    ),
    ("Which thing is {y} the {x}?", "What is drawn {y} the {x}?", "Tell me what is {y} the {x}."),
)
IS_BESIDE = Wordings(
    ("Is the {x} {y}?", "Is the {x} {y} in the {p}?", "Would you say that the {x} is {y}?", "Can you see the {x} {y}?"),
    ("Is it true that the {x} is {y}?", "Do you see the {x} {y}?"),
)
WHERE = Wordings(
    (
        "Where is the {x}?",
        "Where is the {x} in the {p}?",
        "Where's the {x}?",
        "In which part of the {p} is the {x}?",
        "Where do you see the {x}?",
        "Tell me where the {x} is.",
    ),
    ("Where in the {p} is the {x}?", "Where can the {x} be seen?"),
)
EXISTS = Wordings(
    (
        "Is there {x}?",
        "Is there {x} in the {p}?",
        "Do you see {x}?",
        "Can you see {x}?",
        "Does the {p} show {x}?",
        "Is {x} in the {p}?",
        "Does the {p} have {x}?",
    ),
    ("Can you see {x} in this {p}?", "Does this {p} show {x}?", "Is there {x} here?"),
)
READ = Wordings(
    (
        "What does it say?",
        "What does the text say?",
        "Read the text.",
        "What is written here?",
        "What is written in the {p}?",
        "What text is in the {p}?",
        "What does the {p} say?",
        "Which text do you see?",
        "What does the sign say?",
        "Read the text in the {p}.",
        "Please read what is written.",
        "What is the text?",
        "Transcribe the text.",
        "What does this say?",
        "Read it.",
        "What text do you see?",
        "Extract the text.",
        "OCR",
    ),
    ("What text does the {p} show?", "Read what it says.", "Which text is in this {p}?", "What is written on the {p}?"),
)
READ_AS = Wordings(
    (
        "What {x} is in the {p}?",
        "Which {x} is this?",
        "What {x} is this?",
        "Which {x} do you see?",
        "What is the {x}?",
        "What {x} is shown?",
        "Read the {x}.",
        "Which {x} is shown in the {p}?",
        "What {x} do you see?",
        "What {x} is written here?",
    ),
    ("What {x} does the {p} show?", "Which {x} is in this {p}?", "Tell me the {x} in the {p}."),
)
GROUND = Wordings(
    (
        "What {c} is the background?",
        "What is the {c} of the background?",
        "Which {c} is the background?",
        "What's the background {c}?",
        "On what {c} is it drawn?",
    ),
    ("Which {c} does the background have?", "What {c} is behind it?"),
)
HOW_MANY_IMAGES = Wordings(
    (
        "How many images are there?",
        "How many pictures are there?",
        "How many images do you see?",
        "How many pictures do you see?",
        "How many images did I send?",
        "Count the images.",
        "How many images?",
    ),
    ("How many pictures did I show you?", "What is the number of images?"),
)
NTH = Wordings(
    (
        "What is in the {x} image?",
        "What is in the {x} picture?",
        "What does the {x} {p} show?",
        "Describe the {x} {p}.",
        "What do you see in the {x} {p}?",
        "What's in the {x} {p}?",
        "What is the {x} {p}?",
    ),
    ("What can you see in the {x} {p}?", "Tell me what the {x} {p} shows."),
)
EVERY = Wordings(
    (
        "What is in the images?",
        "What is in the pictures?",
        "Describe the images.",
        "What do the images show?",
        "What do you see?",
        "Describe each {p}.",
        "Describe both.",
    ),
    ("What can be seen in the images?", "What do the pictures show?"),
)
WHICH_IMAGE = Wordings(
    (
        "Which image shows {x}?",
        "Which picture shows {x}?",
        "In which {p} is {x}?",
        "Which {p} has {x}?",
        "Which {p} contains {x}?",
        "Where do you see {x}?",
    ),
    ("In which {p} do you see {x}?", "Which of the images shows {x}?"),
)
BRIEF = Wordings(
    (
        "Answer in one word.",
        "Answer with one word.",
        "One word only.",
        "Answer briefly.",
        "Be brief.",
        "In one word.",
        "Reply in one word.",
        "One word, please.",
        "Just a word.",
        "Use a single word.",
        "Give a one-word answer.",
        "Reply with the word only.",
        "Respond with one word.",
        "A single word will do.",
        "Keep it to one word, please.",
    ),
    ("Reply with a single word.", "Just one word, please."),
)
CHOOSE = Wordings(
    ("Answer with one of: {x}.", "Choose from: {x}.", "Options: {x}.", "Choose one: {x}.", "Pick one of {x}.", "{x}?"),
    ("Reply with one of these: {x}.", "Your choices are {x}."),
)
