"Files that no decoder likes, end to end: every one is named with its reason, every good one is read, and nothing is left behind"
import os, pickle, signal, subprocess, sys, time
from collections import Counter

import av
import numpy as np
import psutil, pytest
from PIL import Image

from vcd.video import VideoError, probe, read_clip
from vcd.workers import read_clips

READER = '''
import os, time
from vcd.video import read_av

def read(path, pick, fit):
    name = os.path.basename(path)
    if 'hang'  in name: time.sleep(600)
    if 'crash' in name: os._exit(66)
    if 'abort' in name: os.abort()
    if 'odd_error' in name: raise RuntimeError('something else')
    print('chatter on stdout does no harm')
    return read_av(path, pick, fit)
'''

def encode(path, n=40, codec='libx264', audio=False, **options):
    frames = np.random.default_rng(0).integers(0, 256, (n, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    with av.open(str(path), 'w', options=options) as out:
        s = out.add_stream('aac', rate=16000) if audio else out.add_stream(codec, rate=25)
        if audio:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format='fltp', layout='mono')
            sound.sample_rate = 16000
            out.mux(s.encode(sound))
        else:
            s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
            for x in frames: out.mux(s.encode(av.VideoFrame.from_ndarray(x, 'rgb24')))
            if not n: out.start_encoding()
        out.mux(s.encode())
    return path.read_bytes()

def fmt(n, codec='libx264', **kw): return dict(n=n, codec=codec, **kw)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Good files, and what copying, downloading and renaming make of them"
    root = tmp_path_factory.mktemp('videos')
    mp4,avi,mkv,web = (encode(root/f'good{i}.{e}', **k) for i,(e,k) in enumerate([
        ('mp4', fmt(40)), ('avi', fmt(40, 'mpeg4')), ('mkv', fmt(40)), ('mp4', fmt(40, movflags='faststart'))]))
    encode(root/'good_short.mp4', 3)
    noisy = bytearray(web)
    at = web.index(b'mdat') + 600
    for i in np.random.default_rng(0).integers(at, len(web), 200): noisy[i] ^= 255
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root/'p.png')
    bad = {'empty.mp4': b'', 'text.mp4': b'<html>404</html>\n', 'playlist.mp4': b'#EXTM3U\nhttp://example.org/a.ts\n',
           'half.mp4': mp4[:len(mp4)//2], 'half_web.mp4': web[:len(web)*2//3], 'half.avi': avi[:len(avi)*2//3],
           'half.mkv': mkv[:len(mkv)//2], 'last_byte.mp4': mp4[:-1], 'no_moov.mp4': mp4[:mp4.index(b'moov')-4],
           'header.mp4': mp4[:32], 'zeros.mp4': bytes(4000), 'noise.mp4': bytes(noisy),
           'random.avi': np.random.default_rng(0).bytes(4000), 'picture.mp4': (root/'p.png').read_bytes()}
    for name,data in bad.items(): (root/name).write_bytes(data)
    encode(root/'song.mp4', audio=True)
    encode(root/'no_frames.mp4', 0)
    (root/'good_renamed.avi').write_bytes(mp4)
    (root/'good_no_ending').write_bytes(avi)
    (root/'folder.mp4').mkdir()
    good = sorted(root.glob('good*'))
    return root,good,[root/n for n in [*bad, 'song.mp4', 'no_frames.mp4', 'folder.mp4', 'missing.mp4']]

@pytest.fixture(scope='module')
def awkward(tmp_path_factory):
    root = tmp_path_factory.mktemp('reader')
    (root/'awkward_reader_of_test.py').write_text(READER)
    sys.path.insert(0, str(root))
    yield 'awkward_reader_of_test:read'
    sys.path.remove(str(root))

def workers(): return [p for p in psutil.Process().children() if 'vcd.workers' in ' '.join(p.cmdline())]

def test_matrix(folder):
    _,good,bad = folder
    tally = Counter()
    got = dict(read_clips([*good, *bad], 8, 32, workers=2, tally=tally))
    assert sorted(got) == list(range(len(good)+len(bad)))
    for i,p in enumerate(good): assert isinstance(got[i], np.ndarray) and got[i].shape == (8, 3, 32, 32), got[i]
    for i,p in enumerate(bad, len(good)):
        e = got[i]
        assert isinstance(e, VideoError), f'{p.name} was read'
        assert e.path == str(p) and e.reason and str(e) == f'{p}: {e.reason}; {e.remedy}'
        assert str(pickle.loads(pickle.dumps(e))) == str(e)
    assert tally['unreadable'] == len(bad) and not workers()

@pytest.mark.parametrize('name,why', [('empty.mp4', 'empty'), ('text.mp4', 'text'), ('playlist.mp4', 'text'),
    ('half.mp4', 'cut short'), ('half_web.mp4', 'cut short'),
    ('half.avi', 'cut short'), ('half.mkv', 'cut short'), ('last_byte.mp4', 'cut short'),
    ('no_moov.mp4', 'cut short|moov'), ('noise.mp4', 'does not decode|only'),
    ('picture.mp4', 'picture'), ('song.mp4', 'no video stream'), ('no_frames.mp4', 'no video stream|no frames|moov'),
    ('missing.mp4', 'no such file'), ('folder.mp4', 'folder')])
@pytest.mark.parametrize('reader', ['auto', 'av', 'decord'])
def test_reason(folder, name, why, reader):
    if reader == 'decord': pytest.importorskip('decord'); why += '|decord does not'
    with pytest.raises(VideoError, match=why): read_clip(folder[0]/name, 8, 32, reader=reader)

def test_probe_names_bad_files_too(folder):
    for p in folder[2]:
        if p.name == 'noise.mp4': continue   # damaged in the middle: its list of frames is whole
        with pytest.raises(VideoError): probe(p)

def test_crash_and_hang(folder, awkward):
    root,good,_ = folder
    paths = []
    for k in ('a', 'crash1', 'hang1', 'b', 'crash2', 'c', 'odd_error', 'abort', 'hang2', 'd'):
        (root/f'{k}.mp4').write_bytes((root/'good0.mp4').read_bytes())
        paths.append(root/f'{k}.mp4')
    start = time.time()
    got = dict(read_clips(paths, 8, 32, workers=2, timeout=1., reader=awkward))
    assert time.time() - start < 15 and not workers()
    reasons = {p.stem: got[i].reason if isinstance(got[i], VideoError) else '' for i,p in enumerate(paths)}
    assert not any(reasons[k] for k in 'abcd')
    assert all('did not end within 1 s' in reasons[k] for k in ('hang1', 'hang2'))
    assert all('crashed' in reasons[k] for k in ('crash1', 'crash2', 'abort'))
    assert 'something else' in reasons['odd_error']

def test_slow_consumer_costs_no_file(folder, awkward):
    _,good,_ = folder
    for i,x in read_clips(good[:3], 8, 32, workers=1, timeout=.4, reader=awkward):
        assert isinstance(x, np.ndarray)
        time.sleep(.5)

def test_abandoned_reading_leaves_nobody(folder):
    reading = read_clips(folder[1], 8, 32, workers=2)
    next(reading)
    assert len(workers()) == 2
    reading.close()
    assert not workers()

def test_ctrl_c(folder, awkward):
    "A script with no main guard, interrupted while a worker hangs, ends at once and takes its workers along"
    root,good,_ = folder
    (root/'hang.mp4').write_bytes(good[0].read_bytes())
    code = (f"import sys; sys.path[:0] = {sys.path!r}\nfrom vcd.workers import read_clips\n"
            f"for i,x in read_clips([{str(good[0])!r}, {str(root/'hang.mp4')!r}], 8, 32, seed=None, workers=2, reader={awkward!r}): print('got', i, flush=True)")
    (root/'script.py').write_text(code)
    p = subprocess.Popen([sys.executable, str(root/'script.py')], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
    assert p.stdout.readline() == 'got 0\n'
    children = psutil.Process(p.pid).children()
    assert len(children) == 2
    p.send_signal(signal.SIGINT)
    _,said = p.communicate(timeout=5)
    assert 'KeyboardInterrupt' in said and p.returncode
    assert not psutil.wait_procs(children, timeout=3)[1]

def test_killed_program_leaves_no_worker(folder, awkward):
    root,good,_ = folder
    (root/'hang.mp4').write_bytes(good[0].read_bytes())
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom vcd.workers import read_clips\nfor _ in read_clips([{str(good[0])!r}, {str(root/'hang.mp4')!r}], seed=None, reader={awkward!r}, workers=2): print('got', flush=True)"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'got\n'
    children = psutil.Process(p.pid).children()
    p.kill(); p.communicate()
    assert not psutil.wait_procs(children, timeout=5)[1]

def test_worker_that_cannot_start_is_an_error_not_a_loop(folder, monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    with pytest.raises(RuntimeError, match='did not start'): list(read_clips(folder[1], workers=1))

@pytest.mark.parametrize('deed,why', [('os._exit(3)', 'crashed'), ('time.sleep(600)', 'did not end'),
                                      ('1/0', 'does not open')])
def test_pyav_reads_what_decord_dies_of(folder, tmp_path, monkeypatch, deed, why):
    "A decord that crashes, hangs or fails costs no file, and it is said"
    (tmp_path/'decord.py').write_text(f'import os, time\nclass logging: QUIET,set_level = 0,print\ndef VideoReader(*a, **kw): {deed}\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    path,tally = folder[0]/'good0.mp4',Counter()
    with pytest.warns(UserWarning, match='decord failed on 1 files'):
        [(i,x)] = read_clips([path], 8, 32, seed=None, workers=1, timeout=1., tally=tally)
    assert (x == read_clip(path, 8, 32, reader='av')).all()
    [who] = tally
    assert who.startswith('av: ') and why in who
