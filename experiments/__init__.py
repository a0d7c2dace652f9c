"""One module an experiment: a question, a loop over one quantity, a figure, a table."""
