"""How damaged videos are read: `python tests/damaged_videos.py --n 733 --seed 0` prints counts for each damage"""
import argparse, sys, tempfile
from collections import Counter
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from vcd.data.container import VideoError
from vcd.data.workers import read_clips, too_slow

kinds = dict(   # Name: codec, container, options of the encoder
    h264_mp4  = ('libx264', 'mp4', dict(bf='3', g='24')),
    h264_mkv  = ('libx264', 'mkv', dict(bf='2', g='24')),
    h264_ts   = ('libx264', 'ts', dict(g='24')),
    hevc_mp4  = ('libx265', 'mp4', {'x265-params': 'log-level=0'}),
    mpeg4_avi = ('mpeg4', 'avi', {}),
    mpeg4_mp4 = ('mpeg4', 'mp4', dict(bf='2')),
    vp9_webm  = ('libvpx-vp9', 'webm', {'cpu-used': '8'}),
    mjpeg_avi = ('mjpeg', 'avi', {}))
damages = 'cut', 'zeros', 'flips', 'removed', 'swapped'
answers = 'read right', 'named', 'marked damaged', 'silently other', 'crashed', 'hung'
reading = dict(frames=8, size=64, sampling='uniform', seed=None)


def film(n=60, height=96, width=128):
    "A texture that drifts and brightens, so that each frame differs from the others"
    rng  = np.random.default_rng(0)
    tile = rng.integers(0, 200, (height//8, width//8, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(tile, (t, 2*t), (0, 1)) + t//2 for t in range(n)]).astype(np.uint8)

def encode(path, codec, options, frames):
    "Write `frames` to `path`; returns the bytes of the file"
    with av.open(str(path), 'w') as out:
        s = out.add_stream(codec, rate=25, options=options)
        s.height,s.width = frames.shape[1:3]
        s.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        for x in frames: out.mux(s.encode(av.VideoFrame.from_ndarray(x, 'rgb24')))
        out.mux(s.encode())
    return Path(path).read_bytes()

def damage(data, how, rng):
    "A damaged copy of `data`"
    b = bytearray(data)
    n = len(data)
    size = int(rng.integers(20, n//10))
    at,to = (int(o) for o in rng.integers(0, n-2*size, 2))
    if how == 'cut':     return bytes(b[:int(rng.integers(n//10, n))])
    if how == 'zeros':   b[at:at+size] = bytes(size)
    if how == 'removed': del b[at:at+size]
    if how == 'swapped': b[at:at+size],b[to:to+size] = b[to:to+size],b[at:at+size]
    if how == 'flips':
        for i in rng.integers(0, n, int(rng.integers(1, 200))): b[i] ^= int(rng.integers(1, 256))
    return bytes(b)

def outcome(x, mark, good):
    "The outcome of reading a damaged file: one of `answers`"
    if isinstance(x, VideoError):
        if too_slow in x.reason: return 'hung'
        return 'crashed' if 'crashed' in x.reason else 'named'
    if mark: return 'marked damaged'
    return 'read right' if np.array_equal(x, good) else 'silently other'

def measure(
    n=733,       # Number of damaged files
    seed=0,      # Seed of the choice of files and of damage
    workers=2,   # Processes that read
    timeout=10,  # Seconds that reading one file may take
    reader='av', # Name of a reader
    report=None, # Function called with file, kind, damage and outcome of each file
):
    "Counts of (damage, outcome), and undamaged files that were refused"
    counts = Counter()
    frames = film()
    with tempfile.TemporaryDirectory() as folder:
        folder  = Path(folder)
        sources = [folder/f'{k}.{ending}' for k,(_,ending,_) in kinds.items()]
        whole   = [encode(p, codec, options, frames) for p,(codec,_,options) in zip(sources, kinds.values())]
        good    = dict(read_clips(sources, **reading, workers=workers, reader=reader))
        refused = [str(o) for o in good.values() if isinstance(o, VideoError)]
        paths,made = [],[]
        for i in range(n):
            rng = np.random.default_rng([seed, i])
            k,how = int(rng.integers(len(sources))),damages[i % len(damages)]
            paths.append(folder/f'{i:05}{sources[k].suffix}')
            paths[-1].write_bytes(damage(whole[k], how, rng))
            made.append((k, how))
        marks = {}
        for i,x in read_clips(paths, **reading, workers=workers, timeout=timeout, reader=reader, damaged='keep',
                              marks=marks):
            k,how = made[i]
            what  = outcome(x, marks.get(i), good[k])
            counts[how, what] += 1
            if report: report(paths[i], sources[k].stem, how, what)
    return counts,refused

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--n', type=int, default=733, help='number of damaged files')
    p.add_argument('--seed', type=int, default=0, help='seed of the choice of files and of damage')
    p.add_argument('--workers', type=int, default=2, help='processes that read')
    p.add_argument('--reader', default='av', help='name of a reader')
    a = p.parse_args()
    counts,refused = measure(a.n, a.seed, a.workers, reader=a.reader)
    if refused: print('refused without being damaged:', *refused, sep='\n')
    print(f'{"":10}', *(f'{o:>15}' for o in answers))
    for how in damages: print(f'{how:10}', *(f'{counts[how, o]:15}' for o in answers))
    print(f'{"all":10}', *(f'{sum(counts[h, o] for h in damages):15}' for o in answers))

if __name__ == '__main__': main()
