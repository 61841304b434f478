"""A sampler that asks about the concept."""

from pydantic import BaseModel, ConfigDict

from encyclo import Prompt, hookimpl

STAGE = 1
QUESTIONS = (
    "Who first thought of {}?",
    "Why would anybody want {}?",
    "Is there more to {} than this?",
    "When did {} last come up?",
    "How would you explain {} to a child?",
    "Where does {} come from?",
)


class Options(BaseModel):
    """Options of the sampler `questions`."""

    model_config = ConfigDict(extra="forbid")

    ending: str = ""
    """Put behind every question."""


@hookimpl
def sample_prompts(concepts, stage, context):
    """Yield each concept in questions, shuffled by the concept's own random generator."""
    for concept in concepts:
        numbers = list(range(len(QUESTIONS)))
        context.random(stage, concept.id).shuffle(numbers)
        for number in numbers[: context.prompts_for(concept.id)]:
            before, after = QUESTIONS[number].split("{}")
            span = len(before), len(before) + len(concept.name)
            text = before + concept.name + after + context.options.ending
            yield Prompt(concept.id, text, span, family=f"question.{number}")
