"""Everything that is true of WeCom itself: callback crypto, event parsing, endpoints, the error table and the limit registry."""
