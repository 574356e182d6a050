"Work that is killed and started again gives the same result: each kind of long work a few times"
import os, subprocess, sys
from pathlib import Path

import pytest

# one of each kind of long work, and one without a checkpoint
works = 'evaluate dm dc mtt dfs david tsgf videocompressa forgetting'.split()

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='the work runs in forked processes')
def test_killed_work_ends_with_the_same_bits():
    script = Path(__file__).with_name('kills.py')
    done = subprocess.run([sys.executable, script, '--method', ','.join(works), '--small', '--kills', '3'],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [o.split() for o in done.stdout.splitlines()[1:]]
    assert [o[0] for o in rows] == works
    assert all(runs == same != '0' and left == '0' for _,_,_,runs,same,_,left in rows), done.stdout
