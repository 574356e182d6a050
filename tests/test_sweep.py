"Sweeps from end to end, on a notebook made for the test in a temporary checkout"
import json, os, signal, subprocess, sys, time
from pathlib import Path

import nbformat, pytest
from nbformat.v4 import new_code_cell, new_notebook

from vcd.dev.sweep import main, sweep
from vcd.run import read_rows

parameters = """
method:str = 'good'  # 'good', 'broken' unless a file named fixed exists, 'slow' when it runs for the first time
vpc:int    = 1       # Videos per class
out:str    = ''      # Run folder; empty keeps nothing
"""
body = """
import time
from pathlib import Path
from vcd.run import Run
run = Run('e99_toy', out=out, method=method, vpc=vpc)
if method == 'broken' and not Path('fixed').exists(): raise ValueError('no file named fixed')
if method == 'slow' and not (began := Path(out)/'began').exists():
    began.touch(); time.sleep(120)
df = run.save([dict(seed=0, top1=1/vpc)])
"""

def write(path, parameters, *sources):
    "Write a notebook: the cell of parameters, then the other cells"
    cells = [new_code_cell(o.strip()) for o in (parameters, *sources)]
    cells[0].metadata.tags = ['parameters']
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)

@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "A checkout with one experiment, and an installed kernel named python3 that cannot start"
    kernel = tmp_path/'jupyter'/'kernels'/'python3'/'kernel.json'
    kernel.parent.mkdir(parents=True)
    argv = ['/no/such/python', '{connection_file}']
    kernel.write_text(json.dumps(dict(argv=argv, display_name='broken', language='python')))
    root = tmp_path/'the {checkout}'   # str.format fails on such a path
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path/'jupyter'))
    monkeypatch.setenv('VCD_HOME', str(root))
    write(root/'nbs'/'exp'/'e99_toy.ipynb', parameters, body)
    return root

def names(folder): return {o.name for o in Path(folder).iterdir() if o.name[0] != '.'}

def wait_for_start(checkout, seconds=300):
    "Wait until the notebook of a slow run has written its file"
    end = time.monotonic() + seconds
    while not list(checkout.glob('outputs/runs/e99_toy/*/began')) and time.monotonic() < end: time.sleep(.05)

def test_failure_resume_and_csv(checkout):
    grid = dict(method=['good', 'broken'], vpc=[1, 2])
    def only(p): return (p['method'], p['vpc']) != ('broken', 2)
    df = sweep('e99_toy', grid, only=only, workers=2)
    assert list(df.status) == ['done', 'done', 'failed']
    assert df.error[2].startswith('ValueError: no file named fixed (In [3]: if method')
    assert names(df.folder[0]) == {'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert names(df.folder[2]) == {'config.json', 'env.json', 'failed.ipynb'}
    config = json.loads((Path(df.folder[1])/'config.json').read_text())
    assert config['params'] == dict(method='good', vpc=2) and config['point'] == df.point[1]

    (checkout/'nbs'/'exp'/'fixed').touch()   # the notebook runs in its own folder
    (Path(df.folder[0])/'row.json').unlink()
    again = sweep('e99_toy', grid, only=only)
    assert list(again.status) == ['skipped', 'skipped', 'done'] and list(again.point) == list(df.point)
    assert names(df.folder[2]) == {'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert set(read_rows('e99_toy').point) == set(df.point)

    (checkout/'outputs'/'rows'/'e99_toy.csv').unlink()
    assert list(sweep('e99_toy', grid, only=only, dry_run=True).status) == ['to do', 'skipped', 'skipped']

def test_forced_run_that_fails_is_run_again(checkout):
    (checkout/'nbs'/'exp'/'fixed').touch()
    assert list(sweep('e99_toy', dict(method='broken')).status) == ['done']
    (checkout/'nbs'/'exp'/'fixed').unlink()
    assert list(sweep('e99_toy', dict(method='broken'), force=True).status) == ['failed']
    assert list(sweep('e99_toy', dict(method='broken'), dry_run=True).status) == ['to do']

def test_wrong_calls_are_refused_before_any_run(checkout, capsys):
    assert main(['e99_toy', 'metod=good']) == 2
    assert "Did you mean 'method'? Known: method, vpc, out" in capsys.readouterr().err
    assert main(['e99_toy', 'vpc=1,two']) == 2 and 'parameter `vpc` is int' in capsys.readouterr().err
    assert main(['e98_toy']) == 2 and "Did you mean 'e99_toy'" in capsys.readouterr().err
    assert not (checkout/'outputs').exists()

def test_run_that_is_not_its_point(checkout):
    write(checkout/'nbs'/'exp'/'e99_toy.ipynb', parameters, body.replace(', vpc=vpc)', ')'))
    assert 'does not name the parameter vpc' in sweep('e99_toy', dict(vpc=3)).error[0]

def test_cell_over_the_time_limit(checkout):
    assert sweep('e99_toy', dict(method='slow'), timeout=6).error[0] == 'a cell took longer than 6 s'

def test_command(checkout):
    code = 'import sys; from vcd.dev.sweep import main; sys.exit(main())'
    def run(*arguments):
        return subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True,
                              cwd=checkout.parent)
    done = run('e99_toy', 'method=good,broken')
    assert done.returncode == 1 and 'failed  method=broken: ValueError: no file named fixed' in done.stdout, done.stderr
    again = run('e99_toy', 'method=good')
    assert again.returncode == 0, again.stderr
    assert "vpc     int  1       Videos per class" in run('e99_toy', '--help').stdout

@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGINT for a child process')
def test_ctrl_c_and_resume(checkout):
    code = "from vcd.dev.sweep import main; import sys; sys.exit(main(['e99_toy', 'method=slow', 'vpc=1,2']))"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_start(checkout)
    p.send_signal(signal.SIGINT)
    output,_ = p.communicate(timeout=60)
    assert p.returncode == 130 and 'e99_toy: 1 stopped, 1 to do' in output
    assert 'the same call again runs the points that are left' in output
    folder, = checkout.glob('outputs/runs/e99_toy/*')
    assert names(folder) == {'began', 'config.json', 'env.json'}
    assert list(sweep('e99_toy', dict(method='slow')).status) == ['done']   # resumes from the files of the folder

@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGKILL')
def test_killed_between_the_rows_and_the_end(checkout):
    last = "if not (began := Path(out)/'began').exists():\n    began.touch(); time.sleep(120)"
    write(checkout/'nbs'/'exp'/'e99_toy.ipynb', parameters, body, last)
    code = "from vcd.dev.sweep import sweep; sweep('e99_toy', dict(vpc=2))"
    p = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
    wait_for_start(checkout)
    p.kill()
    p.wait()
    folder, = checkout.glob('outputs/runs/e99_toy/*')
    assert {'row.json', 'running.ipynb'} < names(folder) and len(read_rows('e99_toy')) == 1
    assert list(sweep('e99_toy', dict(vpc=2), dry_run=True).status) == ['to do']
    assert list(sweep('e99_toy', dict(vpc=2)).status) == ['done'] and len(read_rows('e99_toy')) == 1
    assert names(folder) == {'began', 'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert list(sweep('e99_toy', dict(vpc=2)).status) == ['skipped']

def test_parameter_that_is_none(checkout):
    unset = parameters.replace('vpc:int    = 1 ', 'vpc:int    = None ')
    write(checkout/'nbs'/'exp'/'e99_toy.ipynb', unset, body.replace('1/vpc', '1/(vpc or 4)'))
    df = sweep('e99_toy', dict(method='good', vpc=[None, 2]))
    assert list(df.status) == ['done', 'done'] and sorted(read_rows('e99_toy').top1) == [.25, .5]
    assert main(['e99_toy', '--dry-run', 'vpc=none,2', '--workers', '2', 'method=good']) == 0

@pytest.mark.parametrize('arguments', [['e99_toy', '--workers', 'many'], ['e99_toy', '--wrong'],
                                       ['e99_toy', 'vpc=1e999'], ['e98_toy']])
def test_errors_of_the_command_are_one_line(checkout, capsys, arguments):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith('vcd sweep: ') and printed.err.count('\n') == 1 and not printed.out
