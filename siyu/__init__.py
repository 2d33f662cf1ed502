"""Siyu: the WeCom side of a retail chain as streaming microservices; this package is the library they share."""
