"""The WeCom side that answers calls: errors, throttling, tokens, welcome codes and the endpoints."""
