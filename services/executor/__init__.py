"""The only caller of WeCom: limits, lanes, outcomes."""
