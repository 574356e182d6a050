"Damaged files: each is reported with its reason, all good ones are read, and no process is left running"
import os, pickle, signal, subprocess, sys, time
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import psutil, pytest
from PIL import Image

from vcd.data.cache import cached_clips, file_facts
from vcd.data.container import VideoError
from vcd.data.datasets import datasets
from vcd.data.video import probe, read_clip, read_frames
from vcd.data.workers import read_clips

import damaged_videos

READER = '''
import os, time
from vcd.data.readers import read_av

def read(path, *how):
    name = os.path.basename(path)
    if 'hang' in name: time.sleep(600)
    if 'crash' in name: os._exit(66)
    if 'abort' in name: os.abort()
    if 'odd_error' in name: raise RuntimeError('something else')
    print('output of a reader is ignored')
    return read_av(path, *how)
'''

def encode(path, n=40, codec='libx264', audio=False, g=None, **options):
    frames = np.random.default_rng(0).integers(0, 256, (n, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    with av.open(str(path), 'w', options=options) as out:
        if audio:
            s = out.add_stream('aac', rate=16000)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format='fltp', layout='mono')
            sound.sample_rate = 16000
            out.mux(s.encode(sound))
        else:
            s = out.add_stream(codec, rate=25, options={'g': g} if g else {})
            s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
            for x in frames: out.mux(s.encode(av.VideoFrame.from_ndarray(x, 'rgb24')))
            if not n: out.start_encoding()
        out.mux(s.encode())
    return path.read_bytes()

def fmt(n, codec='libx264', **kw): return dict(n=n, codec=codec, **kw)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Good files, and copies damaged as by interrupted copying, downloading and renaming"
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
    "Name of a reader that hangs, crashes or fails, depending on the name of the file"
    root = tmp_path_factory.mktemp('reader')
    (root/'awkward_reader_of_test.py').write_text(READER)
    sys.path.insert(0, str(root))
    yield 'awkward_reader_of_test:read'
    sys.path.remove(str(root))

def workers(): return [p for p in psutil.Process().children() if 'vcd.data.workers' in ' '.join(p.cmdline())]

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
    ('no_moov.mp4', 'cut short|moov'), ('noise.mp4', 'does not decode|only|damaged'),
    ('picture.mp4', 'picture'), ('song.mp4', 'no video stream'), ('no_frames.mp4', 'no video stream|no frames|moov'),
    ('missing.mp4', 'no such file'), ('folder.mp4', 'folder')])
@pytest.mark.parametrize('reader', ['av', 'decord'])
def test_reason(folder, name, why, reader):
    if reader == 'decord': pytest.importorskip('decord'); why += '|decord does not'
    with pytest.raises(VideoError, match=why): read_clip(folder[0]/name, 8, 32, reader=reader)

def test_probe_refuses_damaged_files(folder):
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
    for i,x in read_clips(good[:3], 8, 32, workers=1, timeout=1., reader=awkward):
        assert isinstance(x, np.ndarray)
        time.sleep(1.2)

def test_abandoned_reading_leaves_no_worker(folder):
    reading = read_clips(folder[1], 8, 32, workers=2)
    next(reading)
    assert len(workers()) == 2
    reading.close()
    assert not workers()

def test_ctrl_c(folder, awkward):
    "A script without a main guard, interrupted while a worker hangs, ends at once together with its workers"
    root,good,_ = folder
    (root/'hang.mp4').write_bytes(good[0].read_bytes())
    code = (f"import sys; sys.path[:0] = {sys.path!r}\nfrom vcd.data.workers import read_clips\n"
            f"paths = [{str(good[0])!r}, {str(root/'hang.mp4')!r}]\n"
            f"clips = read_clips(paths, 8, 32, seed=None, workers=2, reader={awkward!r})\n"
            "for i,_ in clips: print('got', i, flush=True)")
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
    code = (f"import sys; sys.path[:0] = {sys.path!r}\nfrom vcd.data.workers import read_clips\n"
            f"paths = [{str(good[0])!r}, {str(root/'hang.mp4')!r}]\n"
            f"for _ in read_clips(paths, seed=None, reader={awkward!r}, workers=2): print('got', flush=True)")
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'got\n'
    children = psutil.Process(p.pid).children()
    p.kill()
    p.communicate()
    assert not psutil.wait_procs(children, timeout=5)[1]

def test_worker_that_cannot_start_is_an_error_not_a_loop(folder, monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    with pytest.raises(RuntimeError, match='did not start'): list(read_clips(folder[1], workers=1))

def test_error_names_the_reader_and_the_limit(folder, awkward):
    root,good,_ = folder
    path = root/'hang_long.mp4'
    path.write_bytes(good[0].read_bytes())
    [(_,e)] = read_clips([path], 8, 32, workers=1, timeout=.5, reader=awkward)
    assert f"reader '{awkward}' did not end within 0.5 s" in e.reason and 'raise timeout=' in e.remedy

def test_limits_reach_the_workers_and_a_longer_time_reads_again(tmp_path, awkward, monkeypatch):
    monkeypatch.setenv('VCD_CACHE', str(tmp_path/'cache'))
    for k,c in enumerate('ab'):
        for i in range(3):
            (tmp_path/'set'/c).mkdir(parents=True, exist_ok=True)
            encode(tmp_path/'set'/c/f'{i}.mp4', 10+k)
    module = tmp_path/'slow_reader_of_test.py'
    module.write_text("import time\nfrom vcd.data.readers import read_av\ndef read(path, *how):\n"
                      "    if path.endswith('b/0.mp4'): time.sleep(4)\n    return read_av(path, *how)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    how = dict(frames=4, size=16, workers=1, reader='slow_reader_of_test:read', bad=.5)
    def skipped(**kw):
        train,test = datasets['folder'](tmp_path/'set', **how, **kw)
        return train.meta.source.skipped | test.meta.source.skipped
    assert list(skipped(timeout=2.)) == ['b/0.mp4'] and not skipped(timeout=20)
    with pytest.raises(ValueError, match='48×64|64×48'): datasets['folder'](tmp_path/'set', **how, max_pixels=1000)

def test_frames_too_large_are_refused_before_they_are_decoded(tmp_path):
    "A small file of huge frames is refused in little memory, by the size in its header or in its stream"
    path = tmp_path/'huge.mp4'
    with av.open(str(path), 'w') as out:
        s = out.add_stream('mpeg4', rate=25)
        s.width,s.height,s.pix_fmt = 8000,8000,'yuv420p'
        frame = av.VideoFrame(8000, 8000, 'yuv420p')
        for p in frame.planes: p.update(bytes(p.buffer_size))
        out.mux(s.encode(frame))
        out.mux(s.encode())
    code = (f"import sys; sys.path[:0] = {sys.path!r}\nfrom vcd.data.video import VideoError, read_clip\n"
            f"try: read_clip({str(path)!r})\nexcept VideoError as e: print(e.reason)\n"
            "lines = open('/proc/self/status') if sys.platform == 'linux' else ['VmHWM: 0 kB']\n"
            "print([int(l.split()[1]) for l in lines if 'VmHWM' in l])")
    said,peak = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.splitlines()
    assert 'max_pixels=35000000' in said and int(peak.strip('[]')) < 250_000
    with pytest.raises(VideoError): probe(path)
    assert read_clip(path, 1, 16, max_pixels=None).shape == (1, 3, 16, 16)

def test_names_that_are_not_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv('VCD_CACHE', str(tmp_path/'cache'))
    for c in (b'caf\xe9', b'plain'):
        folder = os.path.join(os.fsencode(tmp_path), b'set', c)
        os.makedirs(folder)
        encode(tmp_path/'a.mp4', 10)
        for i in range(2):
            with open(os.path.join(folder, b'%d\xff.mp4' % i), 'wb') as f: f.write((tmp_path/'a.mp4').read_bytes())
    names = [os.fsdecode(os.path.join(os.fsencode(tmp_path), b'set', b'caf\xe9', b'%d\xff.mp4' % i)) for i in range(2)]
    assert all(x.shape == (4, 3, 16, 16) for _,x in read_clips(names, 4, 16, workers=1))
    files = file_facts(tmp_path/'set', [os.path.relpath(o, tmp_path/'set') for o in names])
    assert all(size > 0 for _,size,_ in files)
    for _ in range(2):   # built, then opened
        x,rows,bad,_ = cached_clips('names', tmp_path/'set', files, 4, 16, workers=1)
        assert rows == [0, 1] and not bad and x.shape == (2, 4, 3, 16, 16)

def test_colon_and_home_in_a_path(folder, tmp_path, monkeypatch):
    good = folder[1][0].read_bytes()
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path/'2024-05-01T12:30').mkdir()
    (tmp_path/'2024-05-01T12:30/clip.mp4').write_bytes(good)
    (tmp_path/'home.mp4').write_bytes(good)
    x = dict(read_clips(['2024-05-01T12:30/clip.mp4', '~/home.mp4'], 4, 16, seed=None, workers=1))
    assert (x[0] == x[1]).all() and probe('~/home.mp4').frames == 40

def test_cost_does_not_grow_with_the_film(tmp_path):
    "Reading eight frames of a video ten times as long decodes about as many frames"
    for n in (300, 3000):
        with av.open(str(tmp_path/f'{n}.mp4'), 'w') as out:
            s = out.add_stream('libx264', rate=25, options=dict(g='30', preset='ultrafast'))
            s.height,s.width,s.pix_fmt = 16,16,'yuv420p'
            for i in range(n):
                out.mux(s.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), i % 250, np.uint8), 'rgb24')))
            out.mux(s.encode())
    from vcd.data import readers
    decoded,real = [],readers.decode
    def count(*a, **kw):
        for f in real(*a, **kw):
            decoded.append(1)
            yield f
    with pytest.MonkeyPatch.context() as m:
        m.setattr(readers, 'decode', count)
        work = []
        for n in (300, 3000):
            decoded.clear()
            x = read_frames(tmp_path/f'{n}.mp4', range(n//16, n, n//8))
            work.append(len(decoded))
            assert np.abs(x.mean((1, 2, 3)) - np.arange(n//16, n, n//8) % 250).max() < 3
    assert max(work) <= 8*31

@pytest.mark.parametrize('aspect,shape', [(Fraction(2), (48, 128)), (Fraction(1, 2), (48, 32)),
                                          (Fraction(16, 15), (48, 68))])
def test_pixels_that_are_not_square(tmp_path, aspect, shape):
    with av.open(str(tmp_path/'a.mp4'), 'w') as out:
        s = out.add_stream('libx264', rate=25)
        s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
        s.codec_context.sample_aspect_ratio = aspect
        for _ in range(3): out.mux(s.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), 'rgb24')))
        out.mux(s.encode())
    info = probe(tmp_path/'a.mp4')
    assert (info.height, info.width) == read_frames(tmp_path/'a.mp4', [0]).shape[2:] == shape

def test_a_marked_frame_counts_as_damage(tmp_path):
    "A key frame of zeros: refused, or on request kept and reported; frames before it are unchanged"
    data = bytearray(encode(tmp_path/'a.mp4', 40, g='20'))
    with av.open(str(tmp_path/'a.mp4')) as c: p = [o for o in c.demux(video=0) if o.size][20]
    data[p.pos+p.size//3:p.pos+p.size] = bytes(p.size - p.size//3)
    (tmp_path/'b.mp4').write_bytes(data)
    with pytest.raises(VideoError, match="damaged='keep'"): read_frames(tmp_path/'b.mp4', [35])
    with pytest.warns(UserWarning, match='read though it is damaged'):
        read_frames(tmp_path/'b.mp4', [35], damaged='keep')
    assert (read_frames(tmp_path/'b.mp4', range(10)) == read_frames(tmp_path/'a.mp4', range(10))).all()
    marks = {}
    assert isinstance(dict(read_clips([tmp_path/'b.mp4'], 8, 16, 'uniform', workers=1))[0], VideoError)
    [(_,x)] = read_clips([tmp_path/'b.mp4'], 8, 16, 'uniform', workers=1, damaged='keep', marks=marks)
    assert x.shape == (8, 3, 16, 16) and list(marks) == [0]

def test_damaged_videos_are_measured():
    "A small run: undamaged files are never refused, nothing crashes or hangs, and little damage goes unnoticed"
    counts,refused = damaged_videos.measure(40, 1)
    total = Counter()
    for (_,what),n in counts.items(): total[what] += n
    assert not refused and sum(total.values()) == 40
    assert total['crashed'] == total['hung'] == 0 and total['silently other'] <= 4, total
