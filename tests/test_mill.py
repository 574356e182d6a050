"Sweeps from end to end, on a made notebook in a house of its own"
import json, os, signal, subprocess, sys, time
from pathlib import Path

import nbformat, pytest
from nbformat.v4 import new_code_cell, new_notebook

from vcd.dev.sweep import main, sweep
from vcd.run import read_rows

parameters = """
method:str = 'good'  # 'good', 'broken' until a file named fixed is there, 'slow' until it has begun once
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

def write(path, *sources):
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = [['parameters']] + [[]]*len(sources)
    nbformat.write(new_notebook(cells=[new_code_cell(s.strip(), metadata=dict(tags=t)) for s,t in zip(sources, tags)]),
                   path)

@pytest.fixture
def house(tmp_path, monkeypatch):
    "A house with one experiment, and a kernel named python3 that cannot start"
    decoy = tmp_path/'jupyter'/'kernels'/'python3'/'kernel.json'
    decoy.parent.mkdir(parents=True)
    decoy.write_text(json.dumps(dict(argv=['/no/such/python', '{connection_file}'], display_name='decoy',
                                     language='python')))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path/'jupyter'))
    monkeypatch.setenv('VCD_HOME', str(tmp_path/'the {house}'))   # a path that str.format would choke on
    write(tmp_path/'the {house}'/'nbs'/'exp'/'e99_toy.ipynb', parameters, body)
    return tmp_path/'the {house}'

def names(folder): return {o.name for o in Path(folder).iterdir() if o.name[0] != '.'}

def test_failure_resume_and_csv(house):
    grid = dict(method=['good', 'broken'], vpc=[1, 2])
    only = lambda p: (p['method'], p['vpc']) != ('broken', 2)
    df = sweep('e99_toy', grid, only=only, workers=2)
    assert list(df.status) == ['done', 'done', 'failed']
    assert df.error[2].startswith('ValueError: no file named fixed (In [3]: if method')
    assert names(df.folder[0]) == {'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert names(df.folder[2]) == {'config.json', 'env.json', 'failed.ipynb'}
    config = json.loads((Path(df.folder[1])/'config.json').read_text())
    assert config['params'] == dict(method='good', vpc=2) and config['point'] == df.point[1]

    (house/'nbs'/'exp'/'fixed').touch()   # the notebook works in its own folder
    (Path(df.folder[0])/'row.json').unlink()
    again = sweep('e99_toy', grid, only=only)
    assert list(again.status) == ['skipped', 'skipped', 'done'] and list(again.point) == list(df.point)
    assert names(df.folder[2]) == {'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert set(read_rows('e99_toy').point) == set(df.point)

    (house/'outputs'/'rows'/'e99_toy.csv').unlink()
    assert list(sweep('e99_toy', grid, only=only, dry_run=True).status) == ['to do', 'skipped', 'skipped']

def test_forced_run_that_fails_is_tried_again(house):
    (house/'nbs'/'exp'/'fixed').touch()
    assert list(sweep('e99_toy', dict(method='broken')).status) == ['done']
    (house/'nbs'/'exp'/'fixed').unlink()
    assert list(sweep('e99_toy', dict(method='broken'), force=True).status) == ['failed']
    assert list(sweep('e99_toy', dict(method='broken'), dry_run=True).status) == ['to do']

def test_refused_before_any_run(house, capsys):
    assert main(['e99_toy', 'metod=good']) == 2
    assert "Did you mean 'method'? Known: method, vpc, out" in capsys.readouterr().err
    assert main(['e99_toy', 'vpc=1,two']) == 2 and 'parameter `vpc` is int' in capsys.readouterr().err
    assert main(['e98_toy']) == 2 and "Did you mean 'e99_toy'" in capsys.readouterr().err
    assert not (house/'outputs').exists()

def test_run_that_is_not_its_point(house):
    write(house/'nbs'/'exp'/'e99_toy.ipynb', parameters, body.replace(', vpc=vpc)', ')'))
    assert 'does not name the parameter vpc' in sweep('e99_toy', dict(vpc=3)).error[0]

def test_cell_that_takes_too_long(house):
    assert sweep('e99_toy', dict(method='slow'), timeout=6).error[0] == 'a cell took longer than 6 s'

def test_command(house):
    vcd_mill = [sys.executable, '-c', 'import sys; from vcd.dev.sweep import main; sys.exit(main())']
    go = lambda *a: subprocess.run([*vcd_mill, *a], capture_output=True, text=True, cwd=house.parent)
    done = go('e99_toy', 'method=good,broken')
    assert done.returncode == 1 and 'failed  method=broken: ValueError: no file named fixed' in done.stdout, done.stderr
    again = go('e99_toy', 'method=good')
    assert again.returncode == 0, again.stderr
    assert "vpc     int  1       Videos per class" in go('e99_toy', '--help').stdout

@pytest.mark.skipif(os.name == 'nt', reason='Ctrl-C of a child is another thing on Windows')
def test_ctrl_c_and_resume(house):
    call = "from vcd.dev.sweep import main; import sys; sys.exit(main(['e99_toy', 'method=slow', 'vpc=1,2']))"
    p = subprocess.Popen([sys.executable, '-c', call], stdout=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not list(house.glob('outputs/runs/e99_toy/*/began')) and time.monotonic() < end: time.sleep(.1)
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=30)[0]
    assert p.returncode == 130 and 'e99_toy: 1 stopped, 1 to do' in said and 'the same call again goes on' in said
    folder, = house.glob('outputs/runs/e99_toy/*')
    assert names(folder) == {'began', 'config.json', 'env.json'}
    assert list(sweep('e99_toy', dict(method='slow')).status) == ['done']   # goes on from what the folder holds

@pytest.mark.skipif(os.name == 'nt', reason='a process is killed by a signal')
def test_killed_between_the_rows_and_the_end(house):
    last = "if not (began := Path(out)/'began').exists():\n    began.touch(); time.sleep(120)"
    write(house/'nbs'/'exp'/'e99_toy.ipynb', parameters, body, last)
    call = "from vcd.dev.sweep import sweep; sweep('e99_toy', dict(vpc=2))"
    p = subprocess.Popen([sys.executable, '-c', call], start_new_session=True)
    end = time.monotonic() + 120
    while not list(house.glob('outputs/runs/e99_toy/*/began')) and time.monotonic() < end: time.sleep(.05)
    p.kill(); p.wait()
    folder, = house.glob('outputs/runs/e99_toy/*')
    assert {'row.json', 'running.ipynb'} < names(folder) and len(read_rows('e99_toy')) == 1
    assert list(sweep('e99_toy', dict(vpc=2), dry_run=True).status) == ['to do']
    assert list(sweep('e99_toy', dict(vpc=2)).status) == ['done'] and len(read_rows('e99_toy')) == 1
    assert names(folder) == {'began', 'config.json', 'env.json', 'row.json', 'run.ipynb'}
    assert list(sweep('e99_toy', dict(vpc=2)).status) == ['skipped']

def test_a_parameter_that_is_unset(house):
    write(house/'nbs'/'exp'/'e99_toy.ipynb', parameters.replace('vpc:int    = 1 ', 'vpc:int    = None '),
          body.replace('1/vpc', '1/(vpc or 4)'))
    df = sweep('e99_toy', dict(method='good', vpc=[None, 2]))
    assert list(df.status) == ['done', 'done'] and sorted(read_rows('e99_toy').top1) == [.25, .5]
    assert main(['e99_toy', '--dry-run', 'vpc=none,2', '--workers', '2', 'method=good']) == 0

def test_errors_of_the_command_are_one_line(house, capsys):
    for wrong in (['e99_toy', '--workers', 'many'], ['e99_toy', '--wrong'], ['e99_toy', 'vpc=1e999'], ['e98_toy']):
        assert main(wrong) == 2
        said = capsys.readouterr()
        assert said.err.startswith('vcd-mill: ') and said.err.count('\n') == 1 and not said.out
