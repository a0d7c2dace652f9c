"""One module an experiment: a question, a loop over one quantity, a figure, a table."""

import lab  # noqa: F401  before torch, for what it tells OpenMP
