"""Work that is killed at random moments and started again must give the same result as work that is not.

`python tests/kills.py --method all --kills 20` kills every method, an evaluation, the building of a cache and a sweep,
and prints how many runs ended with the same bits as a run without kills, and how many additional files they left.
"""
import argparse, os, random, shutil, signal, sys, tempfile, time, traceback
from functools import partial
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')   # before torch: a process with threads of its own cannot be forked
os.environ['VCD_QUIET'] = '1'

import nbformat, torch
import torch._dynamo                      # imported here, once for all forked processes: the first optimiser needs it,
from diffusers import AutoencoderTiny     # noqa: F401, and the first autoencoder needs this
from nbformat.v4 import new_code_cell, new_notebook

import vcd.storage.latents, vcd.training.fit
from tiny import few
from vcd.all import Recipe, condense, datasets, evaluate, load, methods, nets
from vcd.clips import fingerprint
from vcd.methods.condense import hyperparameters
from vcd.dev.sweep import sweep
from vcd.models.backbones import TinyNet
from vcd.run import Job, read_rows, write_json

nets['tiny']    = TinyNet
nets['tiny-BN'] = lambda n_classes, shape: TinyNet(n_classes, shape, norm=True)

def is_cost(k):
    "Whether this entry of `meta.making` depends on time, memory or the machine"
    return k in ('seconds', 'stages', 'peak_mb', 'versions', 'details.autoencoder_note')

def save_always():
    "Write checkpoints after every update and every epoch; shorten the work that has none"
    Job.every = -1.
    vcd.training.fit._Checkpoint.__init__.__defaults__ = (-1.,)
    vcd.storage.latents.train_tiny.__defaults__ = (5, *vcd.storage.latents.train_tiny.__defaults__[1:])   # steps

def tiny_net(method):
    "The smallest net that the method accepts in place of its default"
    own = hyperparameters(method).get('net') or ''
    return dict(net=own.replace('ConvNet3D', 'tiny')) if own.startswith('ConvNet3D') else {}

def a_method(method, train, test, folder, steps, small):
    "Condense with a checkpoint, and save the set"
    how  = methods.about(method).smoke_options(steps) | (tiny_net(method) if small else {})
    made = condense(train, method, vpc=1, seed=1, device='cpu', checkpoint=folder/'job.safetensors', **how)
    made.save(folder/'result.safetensors')

def an_evaluation(train, test, folder, steps, small):
    "Evaluate with a checkpoint, and save the rows"
    how  = Recipe(epochs=2+steps, batch=4, test_every=2, nets=2, lr=.05, augment='flip')
    net  = 'tiny' if small else 'ConvNet3D'
    rows = evaluate(train, test, net, how, device='cpu', checkpoint=folder/'job.safetensors')
    write_json(folder/'result.json', [{k: r[k] for k in ('seed', 'top1', 'top5', 'top1_best')} for r in rows])

def a_cache(train, test, folder, steps, small):
    "Read the clips of all videos into a cache"
    made = datasets['shapes'](**few | dict(size=40, root=os.environ['VCD_KILLS_VIDEOS'], cache=folder/'clips'))
    write_json(folder/'result.json', [fingerprint(o) for o in made])

toy = ["vpc:int = 1\nout:str = ''", "from vcd.run import Run\nrun = Run('e99_toy', out=out, vpc=vpc)",
       "import time; time.sleep(.3)\nrun.save([dict(seed=s, top1=1/vpc) for s in range(3)])", "time.sleep(.5)"]

def a_sweep(train, test, folder, steps, small):
    "Run a notebook for two points; save its rows and the names of the files in its run folders"
    os.environ['VCD_HOME'] = str(folder)
    nb = new_notebook(cells=[new_code_cell(o) for o in toy])
    nb.cells[0].metadata.tags = ['parameters']
    nbformat.write(nb, folder/'e99_toy.ipynb')
    done = sweep(folder/'e99_toy.ipynb', dict(vpc=[1, 2]))
    if not done.status.isin(['done', 'skipped']).all(): raise RuntimeError(str(done.error.tolist()))
    rows = read_rows('e99_toy').sort_values(['vpc', 'seed'])
    kept = sorted(str(o.relative_to(folder)) for o in folder.glob('outputs/runs/*/*/*') if o.name[0] != '.')
    write_json(folder/'result.json', [rows[['vpc', 'seed', 'top1']].to_dict('list'), kept])

def work_of(name):
    "The work with this name: a method, 'evaluate', 'cache' or 'sweep'"
    others = dict(evaluate=an_evaluation, cache=a_cache, sweep=a_sweep)
    return others.get(name) or partial(a_method, name)

def start(work, folder, *how):
    "Do `work` in a forked process; returns its process id"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid: return pid
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)   # its output stays out of the table
        os.environ['VCD_CACHE'] = str(folder/'cache')
        save_always()
        work(*how[:2], folder, *how[2:])
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def wait(pid, seconds=float('inf')):
    "Wait for a process; returns its status, or None if it still runs after so many seconds"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: return status
        time.sleep(.001)

def kill_until_done(work, folder, how, whole, rnd, most=3):
    "Start the work and kill it at a random moment, up to `most` times, then let it end; returns the number of kills"
    kills = 0
    while True:
        pid = start(work, folder, *how)
        limit = rnd.uniform(0, whole) if kills < most else float('inf')
        status = wait(pid, limit)
        if status is not None: break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
    if status: raise RuntimeError(f'the work failed after {kills} kills; see {folder}')
    return kills

def content(folder):
    "The result of a run, without times and memory"
    if (folder/'result.json').exists(): return (folder/'result.json').read_text()
    small   = load(folder/'result.safetensors')
    tensors = small.store | dict(labels=small.labels)
    bits    = {k: (v.dtype, v.shape, tensor_bytes(v)) for k,v in tensors.items()}
    making  = small.meta.to_json()['making']
    making |= {f'details.{k}': v for k,v in making.pop('details', {}).items()}
    return bits, small.classes, {k: v for k,v in making.items() if not is_cost(k)}

def tensor_bytes(v): return v.contiguous().flatten().view(torch.uint8).tolist()

def files(folder): return {str(o.relative_to(folder)) for o in folder.rglob('*') if not o.name.endswith('.lock')}

def differences(a, b):
    "Names of the parts in which two results differ"
    if isinstance(a, str): return ['rows'] if a != b else []
    parts = different_keys(a[0], b[0])
    if a[1] != b[1]: parts += ['classes']
    return parts + [f'meta.{k}' for k in different_keys(a[2], b[2])]

def different_keys(a, b): return [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]

def trial(name, train, test, root, kills=20, steps=3, seed=0, small=False):
    "Kill the work called `name` so many times; returns a row of the table"
    work = work_of(name)
    how  = (train, test, steps, small)
    rnd  = random.Random(f'{name} {seed}')
    def folder(what):
        made = Path(root)/f'{name}-{what}'
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return made
    whole = folder('whole')
    begin = time.monotonic()
    if wait(start(work, whole, *how)): raise RuntimeError(f'{name} fails without any kill')
    took = time.monotonic()-begin
    row  = dict(method=name, seconds=round(took, 2), kills=0, runs=0, same=0, different=0, left=0, what=set())
    while row['kills'] < kills:
        cut = folder('cut')
        row['kills'] += kill_until_done(work, cut, how, took, rnd)
        different = differences(content(whole), content(cut))
        left = files(cut) - files(whole)
        row['runs'] += 1
        row['different' if different else 'same'] += 1
        row['left'] += len(left)
        row['what'] |= {*different, *left}
        if not different: shutil.rmtree(cut)
    return row

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--method', default='all',
                   help="names of methods with commas between, 'evaluate', 'cache', 'sweep', or 'all'")
    p.add_argument('--kills', type=int, default=20, help='kills of each, in runs that are killed up to three times')
    p.add_argument('--steps', type=int, default=3, help='updates, and epochs of the teachers')
    p.add_argument('--seed', type=int, default=0, help='seed of the moments of the kills')
    p.add_argument('--small', action='store_true', help='use the smallest networks')
    p.add_argument('--out', help='folder that keeps the last runs that differed')
    a = p.parse_args(argv)
    names = ['cache', 'evaluate', *methods, 'sweep'] if a.method == 'all' else a.method.split(',')
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as own:
        root = Path(a.out or own)
        os.environ['VCD_KILLS_VIDEOS'] = str(root/'videos')
        own = dict(root=root/'videos', cache=root/'clips') | (dict(size=16) if a.small else {})
        train,test = datasets['shapes'](**few | own)
        print(f'{"method":24}{"seconds":>8}{"kills":>7}{"runs":>6}{"same":>6}{"different":>11}{"left":>6}', flush=True)
        for name in names:
            r = trial(name, train, test, root, a.kills, a.steps, a.seed, a.small)
            wrong += r['different'] + r['left']
            print(f'{name:24}{r["seconds"]:8}{r["kills"]:7}{r["runs"]:6}{r["same"]:6}{r["different"]:11}{r["left"]:6}'
                  f'  {", ".join(sorted(r["what"])[:4])}', flush=True)
    return int(wrong > 0)

if __name__ == '__main__': sys.exit(main())
