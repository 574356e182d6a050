"The command `vcd`: every command on tiny videos, bad input, exit codes, Ctrl-C, and what is left on the disk"
import errno, json, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import vcd.clips
from vcd.all import condense, hyperparameters, load, methods
from vcd.data.shapes import toy_clips
from vcd.data.video import write_video
from vcd.dev.cli import cli
from vcd.clips import exporters
from vcd.run import cache_dir

names    = 'condense evaluate info show export dedup datasets download sweep test cache'.split()
reading  = '--frames', '4', '--size', '32', '--workers', '1'
training = '--net', 'MLP', '--recipe', 'smoke', '--seeds', '1', '--workers', '1'
command  = 'import sys; from vcd.dev.cli import main; sys.exit(main())'   # what the console script does


def run(*words, input=None):
    "Exit code, stdout and stderr of a call of `vcd`"
    done = CliRunner().invoke(cli, [str(o) for o in words], input=input)
    return done.exit_code, done.stdout, done.stderr


def shell(*words, **kw):
    "The same in a process of its own"
    return subprocess.run([sys.executable, '-c', command, *map(str, words)], capture_output=True, text=True, **kw)


def refused(code, *words):
    "The one line on stderr of a call that ends with this code"
    got,out,said = run(*words)
    assert got == code and not out and said.count('\n') == 1, (got, out, said)
    assert said.startswith(f'vcd {words[0]}: ') and 'Traceback' not in said and said[:-1].isprintable()
    return said


def film(path, seed, frames=8, size=40):
    "A small video of moving waves, another for every seed"
    rng = np.random.default_rng(seed)
    rows,cols = np.mgrid[:size, :size]
    waves = [np.sin(rows*a + cols*b + t*c) for a,b,c in rng.uniform(-.5, .5, (3, 3)) for t in range(frames)]
    write_video(path, np.uint8(127 + 100*np.reshape(waves, (3, frames, size, size)).transpose(1, 0, 2, 3)))


def tree(root, classes=('run', 'walk'), n=5):
    for k,c in enumerate(classes):
        for i in range(n): film(root/c/f'{i}.mp4', 100*k+i)
    return root


@pytest.fixture(scope='module')
def videos(tmp_path_factory): return tree(tmp_path_factory.mktemp('videos')/'my videos')


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp('sets')/'toy.safetensors'
    return condense(toy_clips(), 'keyframe', vpc=2, frames=2).save(path)


def test_condense_then_evaluate_finds_the_clips_that_were_held_out(videos, tmp_path):
    out = tmp_path/'deeper'/'small.safetensors'
    code,printed,_ = run('condense', videos, out, *reading, '--method', 'h264', '--bytes', '8 kB', '--json')
    made = json.loads(printed)
    assert code == 0 and made['bytes'] == out.stat().st_size <= 8000 and len(made['held_out']) == 2
    assert {'values_ratio', 'float32_mb', 'source_ratio', 'shared_bytes', 'seconds'} <= made.keys()
    assert not load(out).meta.clips.name, 'names would take room; the digest stands for them'
    code,printed,said = run('evaluate', out, videos, *training, '--json')
    rows = json.loads(printed)
    assert code == 0 and 'note' not in said and rows['clips'] == 2 and 'held-out part' in rows['test']
    assert rows['chance'] == .5 and rows['rows'][0]['bytes'] == made['bytes'] and 'train_loss' in rows


def test_without_a_method_the_set_is_planned(videos, tmp_path):
    how = '--bytes', '20000', '--method.store', 'h264'
    code,printed,said = run('condense', videos, tmp_path/'a', *reading, *how, '--json')
    assert code == 0, said
    assert json.loads(printed)['method'] == 'budget' and (tmp_path/'a').stat().st_size <= 20000


def test_the_split_is_found_again_whatever_made_it(videos, tmp_path):
    how  = '--group', r'^\d', '--share', '.4', '--split', '2', '--method', 'random', '--vpc', '1'
    code,printed,_ = run('condense', videos, tmp_path/'a', *reading, *how, '--json')
    held = json.loads(printed)['held_out']
    rows = json.loads(run('evaluate', tmp_path/'a', videos, *training, '--json')[1])
    assert code == 0 and len(held) == rows['clips'] == 4 and 'held-out part' in rows['test']
    code,_,said = run('evaluate', tmp_path/'a', tree(tmp_path/'others', n=4), *training)
    assert code == 0 and 'is not the folder that the set was made from' in said


def test_a_set_of_all_clips_has_none_to_test_on(videos, tmp_path):
    assert run('condense', videos, tmp_path/'a', *reading, '--method', 'random', '--all')[0] == 0
    assert 'nothing is left to test on' in refused(2, 'evaluate', tmp_path/'a', videos, '--all', *training)
    code,printed,_ = run('evaluate', tmp_path/'a', tree(tmp_path/'others', n=1), '--all', *training, '--json')
    assert code == 0 and json.loads(printed)['clips'] == 2


@pytest.mark.parametrize('size, code', [('0.5', 2), ('-3', 2), ('two', 2), ('', 2), ('2iB', 2), ('100', 1)])
def test_sizes_that_hold_nothing(videos, tmp_path, size, code):
    refused(code, 'condense', videos, tmp_path/'a', *reading, '--method', 'h264', '--bytes', size)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('size', ['2 mb', '2MiB', '.5 MB', '300000'])
def test_sizes_as_people_write_them(videos, tmp_path, size):
    how = '--method', 'h264', '--vpc', '1', '--bytes', size
    assert run('condense', videos, tmp_path/'a', *reading, *how)[0] == 0


def test_wrong_calls_are_refused_before_a_video_is_read(videos, small, tmp_path, monkeypatch):
    monkeypatch.setattr('vcd.dev.cli_sets.read_source', lambda *_, **__: pytest.fail('videos were read'))
    call = 'condense', videos, tmp_path/'a'
    for words in ([], ['--method', 'dm', '--bytes', '2MB'], ['--method', 'dmm'], ['--method', 'dm', '--stesp', '3'],
                  ['--method', 'dm', '--steps', 'many'], ['--method', 'dm', '--preset', 'nowhere'],
                  ['--method', 'dm', '--vpc', '0'], ['--method', 'dm', '--device', 'tpu9'], ['--method'],
                  ['--method', 'dm', '--dataset', 'ucf102'], ['--bytes', '2MB', '--all', '--dataset', 'shapes'],
                  ['--method', 'dm', 'third'], ['--bytes', '2MB', '--classes', ',']): refused(2, *call, *words)
    assert "Did you mean 'steps'" in refused(2, *call, '--method', 'dm', '--stesp', '3')
    for words in ([], [tmp_path/'a'], [tmp_path/'nowhere', tmp_path/'a'], [small, tmp_path/'a']):
        refused(2, 'condense', *words, '--bytes', '2MB')
    assert not [*tmp_path.iterdir()]


def test_folders_that_are_no_dataset(tmp_path):
    how = '--method', 'random', *reading
    (tmp_path/'empty').mkdir()
    (tmp_path/'flat').mkdir()
    film(tmp_path/'flat'/'0.mp4', 0)
    tree(tmp_path/'lone', n=1)
    (tree(tmp_path/'cut', n=2)/'run'/'0.mp4').write_bytes(b'not a video')
    for name in ('empty', 'flat', 'lone', 'cut'): refused(1, 'condense', tmp_path/name, tmp_path/'a', *how)
    assert run('condense', tree(tmp_path/'one class', ['run'], 2), tmp_path/'a', *how)[0] == 0
    assert sorted(o.name for o in tmp_path.iterdir()) == ['a', 'cut', 'empty', 'flat', 'lone', 'one class']


def test_outputs(videos, small, tmp_path):
    kept,full = tmp_path/'kept.png',tmp_path/'full'
    kept.write_text('dear')
    full.mkdir()
    (full/'dear').touch()
    for words in (('condense', videos, kept, '--bytes', '9kB'), ('show', small, kept), ('dedup', small, kept),
                  ('export', small, full), ('export', small, full, '--force'), ('export', small, kept, '--force'),
                  ('condense', videos, full, '--bytes', '9kB', '--force'),
                  ('condense', videos, kept/'a', '--bytes', '9kB')): refused(2, *words)
    assert kept.read_text() == 'dear' and (full/'dear').exists()
    assert run('show', small, kept, '--force')[0] == 0 and run('dedup', small, tmp_path/'new'/'a')[0] == 0


def test_a_full_disk_leaves_nothing_and_keeps_the_old(videos, small, tmp_path, monkeypatch):
    def full(tensors, path, **_):
        Path(path).write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')
    (tmp_path/'old').write_text('dear')
    monkeypatch.setattr(vcd.clips, 'save_file', full)
    calls = ('condense', videos, tmp_path/'old', *reading, '--method', 'random'), ('dedup', small, tmp_path/'old')
    for call in calls:
        assert 'the disk is full' in refused(1, *call, '--force')
    assert [o.name for o in tmp_path.iterdir()] == ['old'] and (tmp_path/'old').read_text() == 'dear'


def test_class_names_that_mean_something_to_somebody(tmp_path):
    odd  = ['a,b', '<script>', 'red \x1b[31m', "it's $x$", 'caf\udce9']
    root = tree(tmp_path/'odd', odd, 3)
    code,out,said = run('condense', root, tmp_path/'a', *reading, '--method', 'random')
    assert code == 0 and sorted(load(tmp_path/'a').classes) == sorted(odd), said
    calls = [('info', tmp_path/'a'), ('show', tmp_path/'a', tmp_path/'a.png'), ('dedup', root, '--workers', '1'),
             ('evaluate', tmp_path/'a', root, *training), ('export', tmp_path/'a', tmp_path/'videos')]
    for call in calls:
        code,out,said = run(*call)
        assert code == 0 and '\x1b' not in out+said, said
    assert json.loads(run('info', tmp_path/'a', '--json')[1])['classes']['<script>'] == 1
    assert run('condense', root, tmp_path/'b', *reading, '--method', 'random', '--classes', '"a,b",<script>')[0] == 0
    assert load(tmp_path/'b').classes == ['a,b', '<script>']
    slash = toy_clips().change(classes=['a/b', '../up', 'x'])
    slash.save(tmp_path/'slash.safetensors')
    assert run('export', tmp_path/'slash.safetensors', tmp_path/'slash')[0] == 0 and not (tmp_path/'up').exists()


@pytest.mark.parametrize('call', ['info', 'show', 'export', 'dedup', 'evaluate'])
def test_files_of_strangers(call, small, tmp_path):
    data = small.read_bytes()
    rest = dict(show=[tmp_path/'a.png'], export=[tmp_path/'a'], evaluate=[tmp_path]).get(call, [])
    for i,bad in enumerate((b'', b'\x00'*64, data[:-40], data[:len(data)//2], data.replace(b'classes', b'klasses'),
                            data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])):
        path = tmp_path/f'{i}.safetensors'
        path.write_bytes(bad)
        assert str(path) in refused(1, call, path, *rest)
    assert len([*tmp_path.iterdir()]) == 6


def test_results_are_one_document_and_everything_else_goes_to_stderr(videos, small, tmp_path, monkeypatch):
    monkeypatch.delenv('VCD_QUIET')
    monkeypatch.setenv('VCD_CACHE', str(tmp_path/'cache'))
    calls = [('condense', videos, tmp_path/'a', *reading, '--method', 'random'), ('info', small), ('datasets',),
             ('evaluate', tmp_path/'a', videos, *training), ('show', small, tmp_path/'a.gif'), ('cache',),
             ('export', small, tmp_path/'out'), ('dedup', videos, '--workers', '1')]
    for words in calls:
        code,out,said = run(*words, '--json')
        assert code == 0 and json.loads(out) is not None, said
        if words[0] in ('condense', 'evaluate', 'export'): assert said, 'progress'
    assert not run('export', small, tmp_path/'out', '--force', '--quiet')[2]


def test_help_of_every_command():
    code,out,_ = run()
    assert code == 0 and all(f'\n  {o} ' in out for o in names)
    for name in names:
        code,out,_ = run(name, '--help')
        assert code == 0 and ('Examples:' in out or name in ('sweep', 'test')), name
    for method in methods:
        code,out,_ = run('condense', '--method', method, '--help')
        assert code == 0 and ('Hyperparameters of' in out) == bool(hyperparameters(method)), method
    assert 'Did you mean' in run('condens')[2] and run('--version')[1].startswith('vcd ')


def test_show_and_export(small, tmp_path):
    for name in ('a.png', 'a.gif', 'a.mp4'): assert run('show', small, tmp_path/name, '--per-class', '2')[0] == 0
    refused(2, 'show', small, tmp_path/'a.webp')
    refused(2, 'show', small, tmp_path/'b.png', '--classes', 'rise')
    for to in exporters: assert run('export', small, tmp_path/to, '--to', to)[0] == 0, to
    assert "Did you mean 'shard'" in refused(2, 'export', small, tmp_path/'new', '--to', 'webdataset', '--shrad', '3')
    assert "Did you mean 'frames'" in refused(2, 'export', small, tmp_path/'new', '--to', 'farmes')
    refused(1, 'export', small, tmp_path/'new', '--fps', '0')
    assert not (tmp_path/'new').exists() and not (tmp_path/'b.png').exists()


def test_datasets_that_cannot_be_fetched():
    assert 'unknown archive' in refused(2, 'download', 'shapes')
    refused(1, 'download', 'ssv2')
    listed = {o['name']: o for o in json.loads(run('datasets', '--json')[1])}
    assert listed['shapes']['classes'] == 14 and 'download' in listed['hmdb51']['get']


def test_cache(tmp_path, monkeypatch):
    from filelock import FileLock
    monkeypatch.setenv('VCD_CACHE', str(tmp_path))
    for name in ('clips/a', 'clips/b', 'data/ucf101', 'data/shapes-1'):
        (tmp_path/name).mkdir(parents=True)
        (tmp_path/name/'file').write_bytes(bytes(1000))
    old = time.time() - 10*86400
    os.utime(tmp_path/'clips/a/file', (old, old))
    entries = json.loads(run('cache', '--older-than', '1w', '--json')[1])['entries']
    assert [o['name'] for o in entries] == ['a'] and 9.9 < entries[0]['age']/86400 < 10.1
    assert run('cache', 'clean', input='')[0] == 1 and len(json.loads(run('cache', '--json')[1])['entries']) == 4
    with FileLock(tmp_path/'clips/b.lock'):
        code,out,_ = run('cache', 'clean', '--yes')
        assert code == 0 and '2 entries deleted' in out and '1 are in use: b' in out
    assert sorted(o.name for o in tmp_path.glob('*/*') if o.is_dir()) == ['b', 'ucf101']
    for words in (['clean', '--kind', 'films'], ['clean', '--older-than', '3'], ['wash'], ['clean', 'list']):
        refused(2, 'cache', *words)


def test_exit_codes_of_a_process(small, tmp_path):
    assert shell('--version').returncode == 0
    done = shell('info', tmp_path/'nowhere')
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    (tmp_path/'bad').write_bytes(b'bad')
    done = shell('info', tmp_path/'bad', '--debug')
    assert done.returncode == 1 and 'Traceback' in done.stderr and 'SetError' in done.stderr
    ascii_only = dict(os.environ, PYTHONIOENCODING='ascii')
    assert shell('info', small, env=ascii_only).returncode == 0, 'a terminal without ×'


def test_help_is_quick(tmp_path):
    code = command.replace('sys.exit(main())', "code = main(); assert 'torch' not in sys.modules; sys.exit(code)")
    def cpu_seconds(*words, **kw):
        before = os.times()
        subprocess.run([sys.executable, '-c', code, *words], check=True, capture_output=True, **kw)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system
    for words in (['--help'], ['condense', '--help'], ['--version']): assert cpu_seconds(*words) < 1, words
    env = dict(os.environ, _VCD_COMPLETE='bash_complete', COMP_WORDS='vcd export --to w', COMP_CWORD='3')
    assert shell(env=env).stdout == 'plain,webdataset\n'   # the first call writes the names into the cache
    assert cpu_seconds(env=env) < 1
    assert (cache_dir()/'names.json').exists()


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGINT for a child process')
def test_ctrl_c(videos, tmp_path):
    kept  = tmp_path/'kept'
    words = ['condense', videos, tmp_path/'a', *reading, '--method', 'dm', '--net', 'MLP', '--steps', '1000000',
             '--batch', '2', '--checkpoint', kept]
    env = {k: v for k,v in os.environ.items() if k != 'VCD_QUIET'}
    p = subprocess.Popen([sys.executable, '-c', command, *map(str, words)], stdout=subprocess.PIPE, text=True, env=env,
                         stderr=subprocess.PIPE, start_new_session=True)
    seen = ''
    while 'loss=' not in seen and p.poll() is None: seen += p.stderr.read(1)
    p.send_signal(signal.SIGINT)
    out,said = p.communicate(timeout=60)
    assert p.returncode == 130 and not out and 'Traceback' not in said and said.rstrip().endswith('vcd: stopped'), said
    assert [o.name for o in tmp_path.iterdir()] == ['kept'], 'the checkpoint, to go on from'
