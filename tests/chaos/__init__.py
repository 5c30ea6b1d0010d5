"""Faults into every stage of real processes, and an account of every instance that was acknowledged.

sender.py     sends series, and keeps its own log of what got 0x0000
relay.py      a TCP relay that refuses, delays and cuts
plant.py      the processes of an installation, which are killed and started again
faults.py     what is done to which stage
account.py    lost, doubled, wrong: by the sender's log, the disk, the PACS, and SQL last
run.py        one run; `python -m tests.chaos` is the command
"""
