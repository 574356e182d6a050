"The checks of `vcd.dev` on this checkout, and that a built wheel and sdist hold every module"
import os, re, shutil, subprocess, sys, tarfile, zipfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from vcd.dev import checks, pages, rules
from vcd.run import home

def test_pages_import_only_earlier_pages(): pages.check_layers()

def test_contracts_of_import_linter(): checks.check_import_linter()

def test_ruff(): checks.check_ruff()

def test_vcd_is_what_the_notebooks_export(): checks.check_export()

def test_readme_is_made_from_the_index(): checks.check_readme()

def test_images_of_the_readme_exist():
    images = re.findall(r'!\[[^\]]*\]\(([^)]+)\)', (home()/'README.md').read_text(encoding='utf-8'))
    local  = [o for o in images if not o.startswith('http')]
    assert images and not [o for o in local if not (home()/o).is_file()]

def test_continuous_check_runs_what_the_readme_says(): checks.check_commands()

@pytest.mark.skipif(not shutil.which('git') or not (home()/'.git').exists(), reason='not a checkout of git')
def test_no_lock_file_is_tracked():
    tracked = subprocess.run(['git', 'ls-files'], cwd=home(), capture_output=True, text=True, check=True).stdout
    assert not [o for o in tracked.splitlines() if o.endswith('.lock')]
    ignored = ['git', 'check-ignore', '-q', 'outputs/rows/.e10_methods.csv.lock']
    assert subprocess.run(ignored, cwd=home()).returncode == 0, '.gitignore does not list the lock files of rows'

@pytest.mark.parametrize('rule', list(rules.rules))
def test_pages(rule): rules.check_pages(only=[rule])

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A wheel and an sdist, built in a copy of the checkout, and the names of the copy's modules"
    root = home()
    tmp  = tmp_path_factory.mktemp('build')
    copy = tmp/'copy'
    copy.mkdir()
    for name in 'settings.ini setup.py README.md LICENSE MANIFEST.in'.split(): shutil.copy(root/name, copy)
    for name in ('vcd', 'nbs', 'tests'):
        shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    command = [sys.executable, '-m', 'build', '--no-isolation', '--wheel', '--sdist', '--outdir', tmp/'dist']
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    wheel, = (tmp/'dist').glob('*.whl')
    sdist, = (tmp/'dist').glob('*.tar.gz')
    modules = {str(o.relative_to(copy)) for o in (copy/'vcd').rglob('*.py')}
    return wheel, sdist, modules

def test_wheel(built):
    wheel,_,modules = built
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        entry_points, = [o for o in names if o.endswith('entry_points.txt')]
        metadata,     = [o for o in names if o.endswith('METADATA')]
        commands = z.read(entry_points).decode()
        headers  = z.read(metadata).decode().split('\n\n')[0]
    assert wheel.name.startswith('video_condensation-') and modules <= set(names)
    for command in ('vcd = vcd.dev.cli:main', 'vcd-mill = vcd.dev.sweep:main', 'vcd-test = vcd.dev.checks:main'):
        assert f'\n{command}\n' in commands
    experiments = {f'vcd/exp/{o.name}' for o in (home()/'nbs'/'exp').glob('*.ipynb')}
    assert experiments and experiments <= set(names)
    assert 'Name: video-condensation' in headers and 'example.org' not in headers

def test_sdist(built):
    _,sdist,modules = built
    with tarfile.open(sdist) as t: names = {o.split('/', 1)[-1] for o in t.getnames()}
    others = {'settings.ini', 'README.md', 'LICENSE', 'nbs/00_core.ipynb', 'nbs/data/00_listing.ipynb',
              'nbs/exp/e00_tour.ipynb'}
    assert sdist.name.startswith('video_condensation-') and modules | others <= names

toy = """
seed:int = 0   # Seeds everything
out:str  = ''  # Run folder
""", """
from pathlib import Path
from vcd.run import Run
run = Run('e98_toy', out=out, seed=seed)
df = run.save([dict(seed=seed, where=str(Path.cwd()))])
"""

def test_experiments_of_the_wheel_run_outside_of_a_checkout(built, tmp_path):
    wheel,*_ = built
    with zipfile.ZipFile(wheel) as z: z.extractall(tmp_path/'installed')
    cells = [new_code_cell(o.strip()) for o in toy]
    cells[0].metadata.tags = ['parameters']
    nbformat.write(new_notebook(cells=cells), tmp_path/'installed'/'vcd'/'exp'/'e98_toy.ipynb')
    folder = tmp_path/'study'
    folder.mkdir()
    env = {k: v for k,v in os.environ.items() if k != 'VCD_HOME'} | dict(PYTHONPATH=str(tmp_path/'installed'))
    def run(*words):
        code = 'import sys; from vcd.dev.cli import main; sys.exit(main())'
        command = [sys.executable, '-c', code, 'sweep', *words]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert all(o in run('--help').stdout for o in ('e98_toy', 'e00_tour', 'e90_paper'))
    assert 'to do' in run('e00_tour', 'recipe=smoke,tour', '--dry-run').stdout and not any(folder.iterdir())
    done = run('e98_toy', 'seed=3')
    assert done.returncode == 0, done.stdout + done.stderr
    rows = (folder/'outputs'/'rows'/'e98_toy.csv').read_text()
    assert str(folder.resolve()) in rows, 'it runs in the working folder, where its outputs go'
