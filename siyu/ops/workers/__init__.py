"""Several worker processes of one stateful service on one machine, started, watched and shown as one."""
