"""A third party's plugins: the sampler `questions` and the interpreter `dot`."""
