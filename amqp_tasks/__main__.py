"""`python -m amqp_tasks`: the command line."""

import sys

from amqp_tasks.cli import main

if __name__ == "__main__":
    sys.exit(main())
