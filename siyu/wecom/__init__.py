"""What is true of WeCom itself: callback crypto, event parsing, endpoints, error table, limit registry."""
