"""``python -m siyu.ops.workers MODULE NUMBER LISTENER_FD PARENT_PID``: one worker, as the supervisor starts it."""

import runpy
import sys

from siyu.ops.workers.worker import become_worker

module, number, listener_fd, parent_pid = sys.argv[1:]
become_worker(int(number), int(listener_fd), int(parent_pid))
sys.argv = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
