"An evaluation that is killed and started again ends as if nothing had happened"
import os, signal, subprocess, sys, time

import pytest

work = """
import sys, torch
from vcd.all import ClipSet, Recipe, evaluate, fit
import vcd.train
vcd.train._Checkpoint.__init__.__defaults__ = (0.,)   # save after every epoch
gen = torch.Generator().manual_seed(0)
clips = ClipSet(dict(frames=torch.randint(0, 256, (12, 4, 3, 48, 48), dtype=torch.uint8, generator=gen)), torch.arange(12) % 3, list('abc'))
rows = evaluate(clips, clips, 'ConvNet3D', Recipe(epochs=6, batch=4, test_every=2, nets=2), device='cpu', checkpoint=sys.argv[1])
print([(r['seed'], r['top1'], r['top1_best'], r['epochs']) for r in rows])
"""

@pytest.mark.skipif(os.name == 'nt', reason='a process is killed by a signal')
def test_a_killed_evaluation_goes_on(tmp_path):
    go = lambda name: [sys.executable, '-c', work, str(tmp_path/name)]
    whole = subprocess.run(go('whole.safetensors'), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    p = subprocess.Popen(go('cut.safetensors'), stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path/'cut.safetensors').exists() and p.poll() is None and time.monotonic() < end: time.sleep(.01)
    p.send_signal(signal.SIGKILL)
    assert not p.communicate()[0], 'it was killed in the middle'
    assert (tmp_path/'cut.safetensors').exists()
    again = subprocess.run(go('cut.safetensors'), capture_output=True, text=True)
    assert again.stdout == whole.stdout and not (tmp_path/'cut.safetensors').exists()
