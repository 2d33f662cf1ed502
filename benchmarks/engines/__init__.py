"""One file an engine: the same pure step over the same topics, each as its documentation recommends to run it."""
