"The rules of the house, and that what is built holds the whole house"
import re, shutil, subprocess, sys, tarfile, zipfile

import pytest

from vcd.dev import checks
from vcd.run import home

def test_imports_only_go_down(): checks.check_layers(), checks.check_import_linter()

def test_vcd_is_what_the_notebooks_export(): checks.check_export()

def test_readme_is_the_index(): checks.check_readme()

def test_readme_shows_pictures_that_exist():
    shown = re.findall(r'!\[[^\]]*\]\(([^)]+)\)', (home()/'README.md').read_text(encoding='utf-8'))
    assert shown and not [o for o in shown if not o.startswith('http') and not (home()/o).is_file()]

def test_continuous_check_does_what_the_readme_says(): checks.check_commands()

@pytest.mark.skipif(not shutil.which('git') or not (home()/'.git').exists(), reason='not a checkout')
def test_no_lock_file_is_tracked():
    tracked = subprocess.run(['git', 'ls-files'], cwd=home(), capture_output=True, text=True, check=True).stdout
    assert not [o for o in tracked.splitlines() if o.endswith('.lock')]
    where = ['git', 'check-ignore', '-q', 'outputs/rows/.e10_methods.csv.lock']
    assert subprocess.run(where, cwd=home()).returncode == 0, '.gitignore lets the locks of rows through'

@pytest.mark.parametrize('rule', list(checks.rules))
def test_pages(rule): checks.check_pages(only=[rule])

def test_wheel_and_sdist_hold_every_module(tmp_path):
    root,copy = home(),tmp_path/'copy'
    copy.mkdir()
    for name in 'settings.ini setup.py README.md LICENSE MANIFEST.in'.split(): shutil.copy(root/name, copy)
    for name in ('vcd', 'nbs', 'tests'):
        shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('__pycache__', '.*'))
    done = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--wheel', '--sdist',
                           '--outdir', tmp_path/'dist'],
                          cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    wheel, = (tmp_path/'dist').glob('*.whl')
    sdist, = (tmp_path/'dist').glob('*.tar.gz')
    modules = {str(o.relative_to(root)) for o in (root/'vcd').rglob('*.py')}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())
    inside = {o.split('/', 1)[-1] for o in tarfile.open(sdist).getnames()}
    assert modules | {'settings.ini', 'README.md', 'LICENSE', 'nbs/00_core.ipynb', 'nbs/data/00_listing.ipynb'} <= inside
    entry_points = next(o for o in zipfile.ZipFile(wheel).namelist() if o.endswith('entry_points.txt'))
    assert b'vcd-mill = vcd.dev.sweep:main' in zipfile.ZipFile(wheel).read(entry_points)
