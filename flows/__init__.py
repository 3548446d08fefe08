"""What runs, in which order: thin Prefect flows that resolve, call tasks and record."""

import os

from perennial.surroundings import collect_seldom

if "PREFECT__FLOW_RUN_ID" in os.environ:  # the process of one run, which Prefect has started
    collect_seldom()
