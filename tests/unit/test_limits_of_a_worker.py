"""What one exam may cost a worker."""

import subprocess
import sys


def test_memory_is_limited_within_a_task() -> None:
    program = (
        "from worker.tasks import limit_memory\n"
        "limit_memory(1 << 30)\n"
        "kept = bytearray(1 << 28)\n"
        "try:\n    bytearray(1 << 30)\n"
        "except MemoryError:\n    print('refused', len(kept))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"refused {1 << 28}", done.stderr
