"""`amqp-tasks demo`: real files, real workers, and what two queues are good for.

1. A broker is found or started (`brokers`), and two workers, one for each queue (`workers`).
2. Every file of a directory becomes a task, sent in bulk to `lopri`.
3. While that backlog stands, look-ups are sent in pairs, one to `hipri` and the same one to `lopri` (`runner`).
4. The latencies of both are shown side by side (`screen`), and everything that was started or declared is removed.
"""

from amqp_tasks.cli.demo.runner import DemoError, DemoOptions, DemoReport, run_demo

__all__ = ("DemoError", "DemoOptions", "DemoReport", "run_demo")
