"The cache of decoded clips: interruptions, full disks, damaged files, several processes"
import errno, itertools, os, shutil, signal, subprocess, sys

import numpy as np
import pytest

from vcd.data import cache
from vcd.data.container import VideoError
from vcd.data.datasets import list_tree
from vcd.data.video import write_video

N,T,S = 12,4,16
reading = dict(frames=T, size=S, sampling='uniform', workers=1)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "Twelve clips, each of one shade"
    root = tmp_path_factory.mktemp('videos')
    for i in range(N): write_video(root/'abc'[i//4]/f'{i:02}.mp4', np.full((8, 3, 32, 32), 20*i+10, np.uint8))
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VCD_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('VCD_QUIET', '1')


def files_of(root): return cache.file_facts(root, [o for o,_ in list_tree(root)])

def build(root, **kw): return cache.cached_clips('t', root, files_of(root), **dict(reading, **kw))

def check(built):
    x,rows,bad,damaged = built
    assert rows == list(range(N)) and not bad and not damaged and x.shape == (N, T, 3, S, S)
    assert np.abs(x.float().mean((1, 2, 3, 4)).numpy() - (20*np.arange(N) + 10)).max() < 3

def reader(monkeypatch, before=lambda k: None):
    "Call `before` ahead of each clip that the reader yields; returns the list of requested paths"
    real,asked = cache.read_clips,[]
    def read(paths, **kw):
        asked.extend(paths)
        for k,o in enumerate(real(paths, **kw)):
            before(k)
            yield o
    monkeypatch.setattr(cache, 'read_clips', read)
    return asked


child = '''
import os, signal, sys, time
from vcd.data import cache
from vcd.data.datasets import list_tree
cache.ClipCache.every = 0
real = cache.read_clips
def read(paths, **kw):
    for k,o in enumerate(real(paths, **kw)):
        if k == {end}: os.kill(os.getpid(), signal.{how})
        print('clip', flush=True); time.sleep({pause})
        yield o
cache.read_clips = read
files = cache.file_facts({root!r}, [o for o,_ in list_tree({root!r})])
x,rows,bad,_ = cache.cached_clips('t', {root!r}, files, **{reading!r})
print('sum', int(x.sum()), flush=True)
'''

def start(root, end=-1, how='SIGKILL', pause=0.):
    "Another process that builds the same cache and sends itself the signal `how` at clip `end`"
    code = child.format(root=str(root), reading=reading, end=end, how=how, pause=pause)
    return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=dict(os.environ, VCD_QUIET='0'))


@pytest.mark.parametrize('how,code', [('SIGKILL', -signal.SIGKILL), ('SIGINT', -signal.SIGINT)])
def test_interrupted_build_is_continued(root, monkeypatch, how, code):
    p = start(root, 5, how); p.communicate()
    assert p.returncode == code
    asked = reader(monkeypatch)
    check(build(root))
    assert len(asked) == N-5


def test_ctrl_c_keeps_the_clips_that_are_read(root, monkeypatch):
    def interrupt(k):
        if k == 7: signal.raise_signal(signal.SIGINT)
    with monkeypatch.context() as m:
        reader(m, interrupt)
        with pytest.raises(KeyboardInterrupt): build(root)
    asked = reader(monkeypatch)
    check(build(root))
    assert len(asked) == N-7


def test_two_processes_at_once(root):
    both = [start(root, pause=.05) for _ in range(2)]
    out,err = zip(*(p.communicate(timeout=60) for p in both))
    assert [p.returncode for p in both] == [0, 0], err
    assert sum(o.count('clip') for o in out) == N, 'each clip was read once'
    assert sum('waiting for it' in e for e in err) <= 1 and len({o.split()[-1] for o in out}) == 1


def test_waiting_is_reported_and_a_killed_build_is_taken_over(root, monkeypatch, capfd):
    p = start(root, 5, pause=.3)
    for _ in range(2): assert p.stdout.readline() == 'clip\n'
    asked = reader(monkeypatch)
    monkeypatch.setenv('VCD_QUIET', '0')
    check(build(root))
    p.communicate()
    assert len(asked) == N-5 and 'another process is building it' in capfd.readouterr().err


def test_full_disk(root, monkeypatch, tmp_path):
    real,written = cache._write,[]
    def write(file, at, data):
        if len(written) == 4: raise OSError(errno.ENOSPC, 'No space left on device')
        written.append(at)
        real(file, at, data)
    with monkeypatch.context() as m:
        m.setattr(cache, '_write', write)
        m.setattr(cache.ClipCache, 'every', 0)
        with pytest.raises(OSError, match='the disk is full.*call again to go on'): build(root)
    assert not list(tmp_path.rglob('whole.json')), 'taken for complete'
    asked = reader(monkeypatch)
    check(build(root))
    assert len(asked) == N-4


def test_full_disk_found_only_by_fsync(root, monkeypatch):
    def fsync(fd): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(cache.os, 'fsync', fsync)
        with pytest.raises(OSError, match='the disk is full'): build(root)
    asked = reader(monkeypatch)
    check(build(root))
    assert len(asked) == N, 'bytes that never reached the disk count as written'


def test_short_writes_are_completed(tmp_path):
    class Slow:
        def __init__(self, f): self.f,self.seek = f,f.seek
        def write(self, data): return self.f.write(data[:7])
    with open(tmp_path/'a', 'wb', buffering=0) as f: cache._write(Slow(f), 3, np.arange(50, dtype=np.uint8))
    assert (tmp_path/'a').read_bytes() == bytes(3) + bytes(range(50))


def test_disk_too_small(root, monkeypatch, tmp_path):
    monkeypatch.setattr(cache.shutil, 'disk_usage', lambda p: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match='needs 36.9 kB, and 1 kB are free'): build(root)
    assert not list(tmp_path.rglob('*.u8'))


def test_bad_clips_are_tried_again_only_while_too_many(root, monkeypatch):
    real = cache.read_clips
    def read(paths, **kw):
        for k,x in real(paths, **kw):
            yield k, VideoError(paths[k], 'the decoder did not end') if paths[k].endswith(('03.mp4', '05.mp4')) else x
    with monkeypatch.context() as m:
        m.setattr(cache, 'read_clips', read)
        with pytest.raises(ValueError, match='2 of 12 clips cannot be read.*a/03.mp4: the decoder did not end'):
            build(root)
    with monkeypatch.context() as m:
        asked = reader(m)
        check(build(root))
        assert len(asked) == 2
    monkeypatch.setattr(cache, 'read_clips', read)
    x,rows,bad,_ = build(root, bad=.2, frames=T+1)
    assert rows == [0, 1, 2, 10, 4, 11, 6, 7, 8, 9] and sorted(bad) == [3, 5]
    assert np.abs(x.float().mean((1, 2, 3, 4)).numpy() - (20*np.array(rows) + 10)).max() < 3
    with pytest.raises(ValueError, match='2 of 12'): build(root, frames=T+1)


def test_cut_frames_are_noticed(root, monkeypatch, tmp_path):
    build(root)
    frames = next(tmp_path.rglob('frames.u8'))
    os.truncate(frames, 100)
    asked = reader(monkeypatch)
    check(build(root))
    assert len(asked) == N


def test_damaged_note_is_reported(root, tmp_path):
    build(root)
    next(tmp_path.rglob('whole.json')).write_text('{')
    with pytest.raises(ValueError, match='whole.json is not valid JSON.*delete it'): build(root)


def test_key(root, monkeypatch, tmp_path):
    build(root)
    shutil.copytree(root, tmp_path/'moved')   # keeps the times of the files, as mv and rsync -a do
    asked = reader(monkeypatch)
    check(build(tmp_path/'moved'))
    assert not asked, 'a moved dataset is read again'
    build(root, sampling='interval', seed=1)
    build(root, size=8)
    build(root, interval=2, seed=3)
    assert len(asked) == 2*N, 'seed and interval do not change uniform sampling'
    one = tmp_path/'moved/a/00.mp4'
    os.utime(one, ns=(0, one.stat().st_mtime_ns+1))
    build(tmp_path/'moved')
    assert len(asked) == 3*N, 'a changed file needs another cache'


def test_damage_is_remembered_when_a_build_is_interrupted(root, monkeypatch):
    "Damage found before the interruption is in the note of the complete cache"
    real = cache.read_clips
    def read(paths, marks, **kw):
        for k,x in real(paths, marks=marks, **kw):
            if paths[k].endswith('00.mp4'): marks[k] = 'a frame is damaged'
            yield k,x
            if k == 5 and stop: raise KeyboardInterrupt
    stop = True
    monkeypatch.setattr(cache, 'read_clips', read)
    with pytest.raises(KeyboardInterrupt): build(root, damaged='keep')
    stop = False
    x,rows,bad,damaged = build(root, damaged='keep')
    assert damaged == {0: 'a frame is damaged'} and rows == list(range(N)) and not bad


def test_key_depends_on_the_reader_and_on_the_shape_of_the_clips():
    how = dict(frames=4, size=8, sampling='uniform', interval=4, seed=0, reader='av', damaged='refuse', max_pixels=100)
    changes = {}, dict(reader='decord'), dict(damaged='keep'), dict(max_pixels=9)
    keys = [cache.reader_key(**(how | o)) for o in changes]
    assert keys[0]['reader'] == 'av' and all(a != b for a,b in itertools.combinations(keys, 2))


def test_folder_that_cannot_be_written(root, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('not a folder')
    monkeypatch.setenv('VCD_CACHE', str(tmp_path/'file'/'cache'))
    with pytest.raises(OSError, match='Point VCD_CACHE or cache= to a folder that can be'): build(root)
