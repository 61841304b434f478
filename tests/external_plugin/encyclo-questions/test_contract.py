"""The sampler and the interpreter keep their contracts, as a third party would show it."""

from encyclo.testing.interpreters import InterpreterContract
from encyclo.testing.samplers import SamplerContract


class TestQuestions(SamplerContract):
    plugin = "questions"


class TestQuestionsWithAnEnding(SamplerContract):
    plugin = "questions"
    options = {"ending": " Tell me!"}  # noqa: RUF012
    prompts = 5_000


class TestDot(InterpreterContract):
    plugin = "dot"
