"""Check small inputs from public reports: `python tests/reported_cases.py FOLDER`

FOLDER has one folder per input (`01_valid`, `03_streams`, …); each one that exists is checked and gets a line. Tests
make inputs of the same kinds themselves (`test_lists.py`, `test_damaged.py`); this command is for the original files.
"""
import argparse, sys, time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from vcd.data.archives import lists
from vcd.data.datasets import folder_lists
from vcd.data.video import probe, read_clip

cases = {}   # Name of a folder: the expected result, and a function that computes the result from the folder

def case(name, want):
    "Register a function as the check of the folder `name`"
    def register(f):
        cases[name] = want,f
        return f
    return register

def clips(folder):
    "Numbers of training and test clips in a folder of videos"
    train,test,*_ = folder_lists(folder)
    return len(train),len(test)

def listed(name, folder, official=None, **how):
    "Numbers of training, test and missing clips according to official lists"
    found = lists(name, folder, lists=official, **how)
    return len(found.train),len(found.test),len(found.missing)

def disc(path):
    "Largest difference between width and height of the bright disc over some frames, in pixels of 120"
    frames = read_clip(path, 8, 120, 'uniform').astype(int)
    bright = frames.max(1) - frames.min(1) > 60
    if not bright.any(): bright = frames.mean(1) > 128
    sides  = [(o.any(0).sum(), o.any(1).sum()) for o in bright]
    return max(abs(int(w)-int(h)) for w,h in sides)

for name in ('01_valid', '01_eval', '01_Train_Test'): case(name, (10, 4))(clips)
case('11_endings', 14)(lambda folder: sum(clips(folder)))
case('11_deeper', 20)(lambda folder: sum(clips(folder)))
for name in ('07_official', '07_folder_as_files', '07_files_as_folder'):
    case(name, (36, 14, 0))(lambda folder: listed('ucf101', folder/'UCF-101', folder.parent/'07_lists'))
case('10_bom_lists', (36, 14, 0))(
    lambda folder: listed('ucf101', folder.parent/'07_official/UCF-101', folder))
case('10_bom_kinetics', (2, 2, 0))(lambda folder: listed('kinetics400', folder))
case('09_bare_list', ['0', '1'])(lambda folder: lists('kinetics400', folder).classes)
case('22_flat_ucf', (18, 7, 0))(lambda folder: listed('ucf101', folder))
case('22_double_ending', (18, 7, 0))(lambda folder: listed('ucf101', folder))
case('21_sar', (128, 96, (3, 96, 96)))(
    lambda folder: (*(lambda o: (o.width, o.height))(probe(folder/'sar_2_1.mp4')),
                    read_clip(folder/'sar_2_1.mp4', 2, 96, 'uniform').shape[1:]))
case('14_midgop', 30)(lambda folder: probe(folder/'starts_in_the_middle.ts').frames)

@case('03_streams', True)
def same_stream(folder):
    "Whether the stream that is probed is the one that is read, and no frame is repeated"
    files = sorted(folder.iterdir())
    moves = [np.ptp(read_clip(o, 4, 32, 'uniform').astype(int), axis=0).max() > 0 for o in files]
    return all(moves) and all(probe(o).frames > 1 for o in files)

@case('04_mirror', 4)
def mirrored(folder):
    "Number of orientations that differ from the stored frame"
    read = {o.stem: read_clip(o, 1, None, 'uniform')[0] for o in folder.iterdir()}
    as_stored = read.pop('stored')
    return sum(o.shape != as_stored.shape or not np.array_equal(o, as_stored) for o in read.values())

@case('05_turned', True)
def round_disc(folder): return max(map(disc, folder.iterdir())) <= 4

@case('06_long', True)
def cost_of_length(folder):
    "Whether a video with ten times the frames takes less than four times as long"
    def seconds(o):
        start = time.perf_counter()
        read_clip(o, 8, 64, 'uniform')
        return time.perf_counter()-start
    short,long = (min(seconds(folder/f'small_{o}.mp4') for _ in range(3)) for o in ('short', 'long'))
    return long < 4*short

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder', type=Path)
    folder = p.parse_args(argv).folder
    found  = [o for o in cases if (folder/o).is_dir()]
    wrong  = 0
    if not found: p.error(f'{folder} has none of {", ".join(cases)}')
    for name in found:
        want,check = cases[name]
        try: got = check(folder/name)
        except Exception as e: got = f'{type(e).__name__}: {e}'
        if got == want: print(f'right  {name:20} {got}')
        else:
            wrong += 1
            print(f'WRONG  {name:20} {got}, should be {want}')
    print(f'{len(found)-wrong} of {len(found)} right')
    return int(wrong > 0)

if __name__ == '__main__': sys.exit(main())
