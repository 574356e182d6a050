"Folders and list files in many forms: every clip is found, and every file that is left out is counted and reported"
import json, os, time, warnings

import av
import numpy as np
import pytest

from vcd.data.archives import lists
from vcd.data.datasets import datasets, folder_lists, list_tree
from vcd.data.listing import scan, video_endings
from vcd.data.video import probe, write_video

small = dict(frames=2, size=32, workers=1)

def touch(root, *names):
    for o in names:
        (root/o).parent.mkdir(parents=True, exist_ok=True)
        (root/o).touch()
    return root

def clips(root, *names):
    "Tiny videos, all different"
    for i,o in enumerate(names): write_video(root/o, np.full((4, 3, 32, 32), 10+8*i, np.uint8))
    return root

def split(root, train, test, n=5, held=2):
    return touch(root, *(f'{train}/{c}/{i}.mp4' for c in ('run', 'walk') for i in range(n)),
                 *(f'{test}/{c}/v{i}.mp4' for c in ('run', 'walk') for i in range(held)))

def count(root, **kw): return [len(o) for o in folder_lists(root, **kw)[:2]]

@pytest.mark.parametrize('test', ['test', 'TEST', 'testing', 'val', 'Valid', 'validation', 'eval', 'Evaluation', 'dev',
                                  'holdout', 'hold-out', 'held_out', 'test_set', 'val_256', 'videos_val'])
@pytest.mark.parametrize('train', ['train', 'Train', 'TRAINING', 'train_256', 'videos_train', 'trainset'])
def test_split_folders(tmp_path, train, test):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        train,test,classes,note = folder_lists(split(tmp_path, train, test))
    assert (len(train), len(test), classes, note) == (10, 4, ['run', 'walk'], '')

def test_test_is_preferred_to_val_and_the_other_is_reported(tmp_path):
    split(split(tmp_path, 'train', 'Val'), 'train', 'Test', held=1)
    with pytest.warns(UserWarning, match=r'Not used: Val/ \(4 files\)'): train,test,_,note = folder_lists(tmp_path)
    assert (len(train), len(test)) == (10, 2) and 'Val/ (4 files)' in note

def test_only_train(tmp_path):
    touch(tmp_path, *(f'train/{c}/{i}.mp4' for c in ('run', 'walk') for i in range(5)), 'extra/run/9.mp4')
    with pytest.warns(UserWarning, match=r'Not used: extra/ \(1 file\)'): train,test,_,note = folder_lists(tmp_path)
    assert (len(train), len(test)) == (8, 2) and '20% of each class are held out' in note

def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, *(f'{c}/{i}.mp4' for c in ('train', 'car', 'test') for i in range(5)))
    assert folder_lists(tmp_path)[2] == ['car', 'test', 'train']

def test_unlabelled_test_clips_are_no_test_set(tmp_path):
    touch(split(tmp_path, 'train', 'val'), 'test/1.mp4', 'test/2.mp4')
    with pytest.warns(UserWarning, match=r'test/ \(2 files\)'): assert count(tmp_path) == [10, 4]

@pytest.mark.parametrize('classes', [('run',), np.array(['run']), ['RUN'], 'run'])
def test_classes_of_any_kind(tmp_path, classes):
    assert folder_lists(split(tmp_path, 'train', 'test'), classes=classes)[2] == ['run']
    assert count(tmp_path, classes=classes) == [5, 2]

def test_odd_class_names(tmp_path):
    names = ['a,b', "it's", 'a b', '<b>', '$x$', 'a|b', '\u00e9t\u00e9', '-1', '%d', '{x}', 'a;b']
    touch(tmp_path, *(f'{c}/{i}.mp4' for c in names for i in range(5)))
    assert folder_lists(tmp_path)[2] == sorted(names)
    assert folder_lists(tmp_path, classes=names[::-1])[2] == names[::-1]

def encode(path, format=None):
    codecs = 'libx264', 'mpeg4', 'mpeg2video', 'mjpeg', 'libvpx', 'gif', 'rawvideo', 'rv10', 'hevc'
    formats = dict(gif='rgb8', mjpeg='yuvj420p')
    for codec in codecs:
        try:
            with av.open(str(path), 'w', format=format) as out:
                s = out.add_stream(codec, rate=25)
                s.width,s.height,s.pix_fmt = 64,48,formats.get(codec, 'yuv420p')
                for i in range(4):
                    frame = np.full((48, 64, 3), 40*i, np.uint8)
                    out.mux(s.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
                out.mux(s.encode())
            return probe(path).frames
        except (av.FFmpegError, ValueError): pass
    return encode(path, 'mpegts') if format is None else 0

@pytest.mark.parametrize('ending', sorted(video_endings))
def test_probe_reads_what_counts_as_a_video(tmp_path, ending):
    "In its own container if FFmpeg writes it, else in another: a reader does not look at the ending"
    assert encode(tmp_path/f'a{ending}') == 4 and scan(tmp_path).videos == [f'a{ending}']
    os.rename(tmp_path/f'a{ending}', tmp_path/f'b{ending.upper()}')
    assert scan(tmp_path).videos == [f'b{ending.upper()}'] and probe(tmp_path/f'b{ending.upper()}').frames == 4

def test_endings_that_are_not_known(tmp_path):
    touch(tmp_path, *(f'run/{i}.mp4' for i in range(5)), 'run/a.braw', 'run/b.braw', 'run/c', 'run/.x.mp4', 'run/n.txt',
          'run/Thumbs.db', 'run/cover.JPG', '__MACOSX/run/._0.mp4')
    with pytest.warns(UserWarning, match=r'video: 3 files \(no ending: 1, .braw: 2\)'): note = folder_lists(tmp_path)[3]
    assert '.braw: 2' in note and 'txt' not in note and 'jpg' not in note.lower()

def test_nothing_is_dropped_without_being_counted(tmp_path):
    touch(split(tmp_path, 'train', 'test'), 'train/1.mp4', 'top.mp4', 'test/run/deep/er/x.mp4', 'other/a/b/c.mp4')
    with pytest.warns(UserWarning, match='In no class folder, so not used: 2 files') as seen:
        train,test,*_ = folder_lists(tmp_path)
    assert len(train) == 10 and len(test) == 5 and 'other/ (1 file)' in str(seen[0].message)

def test_one_folder_around_all(tmp_path):
    assert count(split(tmp_path, 'set/v1/Train', 'set/v1/Val')) == [10, 4]

def test_links_in_a_circle(tmp_path):
    touch(tmp_path, *(f'{c}/{i}.mp4' for c in ('run', 'walk') for i in range(5)))
    (tmp_path/'run/up').symlink_to(tmp_path, target_is_directory=True)
    (tmp_path/'walk/to').symlink_to(tmp_path/'run', target_is_directory=True)
    assert len([o for o in list_tree(tmp_path) if o[1] == 'run']) == 5

# --- names and paths

@pytest.fixture
def odd_name(tmp_path):
    name = os.fsdecode(b'caf\xe9')
    try: (tmp_path/name).mkdir()
    except OSError: pytest.skip('this file system takes UTF-8 names only')
    return name

def test_names_that_are_not_utf8(tmp_path, odd_name):
    root = tmp_path/odd_name
    touch(root, *(f'{odd_name}/{odd_name}{i}.mp4' for i in range(5)))
    touch(root, *(f'b/{i}.mp4' for i in range(5)), f'b/x{odd_name}')
    with pytest.warns(UserWarning, match='no ending: 1'): train,test,classes,note = folder_lists(root)
    assert (len(train), len(test)) == (8, 2) and odd_name in classes and note.encode()
    (root/f'b/x{odd_name}').unlink()
    assert folder_lists(root, classes=[odd_name])[2] == [odd_name]
    for wrong in (dict(classes=['x']), dict(root=root/'gone')):
        with pytest.raises(Exception) as e: folder_lists(**{'root': root, **wrong})
        assert str(e.value).encode()

@pytest.mark.filterwarnings('ignore:decord failed')
def test_names_that_are_not_utf8_are_read(tmp_path, odd_name):
    clips(tmp_path, *(f'x/{i}.mp4' for i in range(5)))
    (tmp_path/odd_name).rmdir()
    (tmp_path/'x').rename(tmp_path/f'b{odd_name}')
    for o in sorted((tmp_path/f'b{odd_name}').iterdir()): o.rename(o.with_name(f'{odd_name}{o.name}'))
    train,test = datasets['folder'](tmp_path, **small)
    assert (len(train), len(test)) == (4, 1) and train.classes == [f'b{odd_name}']

def test_lists_with_names_that_are_not_utf8(tmp_path, odd_name):
    root = touch(tmp_path, f'run/{odd_name}.avi', 'run/b.avi')
    for k,o in (('train', odd_name), ('val', 'b')):
        lines = f'run/{o}.avi 1\nrun/{odd_name}{o}.avi 1\n'
        (tmp_path/f'hmdb51_{k}_split_1_videos.txt').write_bytes(os.fsencode(lines))
    l = lists('hmdb51', root)
    assert l.train == [(f'run/{odd_name}.avi', 0)] and l.test == [('run/b.avi', 0)]
    assert len(l.missing) == 2 and repr(l).encode()

def test_home_and_colons(tmp_path, monkeypatch):
    for name in ('mine', '2024-05-01T12:30'): split(tmp_path/name, 'train', 'test')
    for name in ('HOME', 'USERPROFILE'): monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert count('~/mine') == count('2024-05-01T12:30') == [10, 4]
    assert datasets['folder'].find('~/mine') == tmp_path/'mine'
    assert not (tmp_path/'~').exists()

# --- published lists

def kinetics(root, train, val, *files):
    head = 'label,youtube_id,time_start,time_end,split\n'
    (root/'annotations').mkdir(parents=True)
    for k,rows in (('train', train), ('val', val)):
        (root/f'annotations/{k}.csv').write_text(head + ''.join(f'{r},{k}\n' for r in rows))
    return lists('kinetics400', touch(root, *files))

FIRST,SECOND = 'abc_000010_000020', 'abc_000050_000060'

@pytest.mark.parametrize('file', [f'train/{FIRST}.mp4', f'{FIRST}.mp4', f'val/{FIRST}.mp4', f'train/yoga/{FIRST}.mp4'])
def test_another_part_of_the_video_is_no_replacement(tmp_path, file):
    l = kinetics(tmp_path, ['yoga,abc,10,20', 'run,q,0,10'], ['yoga,abc,50,60', 'run,r,0,10'], file,
                 'train/q.mp4', 'val/r.mp4')
    assert l.missing == [SECOND] and (file, 1) in l.train and file not in dict(l.test)
    assert (len(l.train), len(l.test)) == (2, 1) and l.unused == {'without a file': [SECOND]}

@pytest.mark.parametrize('files,train,test', [
    (['abc.mp4'], 0, 0),                                 # either may be meant
    (['train/abc.mp4'], 1, 0), (['val/abc.mp4'], 0, 1),  # the folder says which
    (['train/abc.mp4', 'val/abc.mp4'], 1, 1),
    ([f'{FIRST}.mp4', 'abc.mp4'], 1, 0),
    ([f'val/{FIRST}.mp4', f'train/{SECOND}.mp4'], 1, 1)])  # named in full: the folder does not matter
def test_a_file_without_seconds(tmp_path, files, train, test):
    l = kinetics(tmp_path, ['yoga,abc,10,20', 'run,q,0,10'], ['yoga,abc,50,60', 'run,r,0,10'], *files,
                 'train/q_000000_000010.mp4', 'val/r_000000_000010.mp4')
    assert (len(l.train), len(l.test)) == (1+train, 1+test) and not l.both
    assert len(l.missing) == 2 - train - test

def test_case_of_youtube_names_counts(tmp_path):
    l = kinetics(tmp_path, ['run,q,0,10'], ['yoga,Abc,50,60', 'run,r,0,10'], SECOND + '.mp4', 'q.mp4', 'r.mp4')
    assert l.missing == ['Abc_000050_000060'] and (len(l.train), len(l.test)) == (1, 1)

def test_a_clip_in_both_lists_is_reported(tmp_path):
    l = kinetics(tmp_path, ['yoga,abc,10,20'], ['yoga,abc,10,20'], f'{FIRST}.mp4')
    assert l.both == [f'{FIRST}.mp4'] and f'In both lists, train and test: 1 file, {FIRST}.mp4' in l.note and l.loss

@pytest.mark.parametrize('mark', ',;\t|')
@pytest.mark.parametrize('code', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_tables(tmp_path, mark, code, end):
    heads = ['Label', 'YouTube ID', 'start', 'end']
    for k,name in (('train', 'abc'), ('val', 'def')):
        rows = [heads, ['yoga', name, '10', '20'], ['"walk the dog"', name, '50.0', '60.0']]
        (tmp_path/f'{k}.csv').write_bytes(end.join(map(mark.join, rows)).encode(code))
    l = lists('kinetics400', touch(tmp_path, f'{FIRST}.mp4', f'{SECOND}.mp4', 'def_000010_000020.mp4'))
    assert l.classes == ['walk the dog', 'yoga'] and l.missing == ['def_000050_000060']
    assert l.train == [(f'{FIRST}.mp4', 1), (f'{SECOND}.mp4', 0)] and l.test == [('def_000010_000020.mp4', 1)]

@pytest.mark.parametrize('heads,lost', [('label,ident,time_start,time_end', 'youtube_id'), ('kind,youtube_id', 'label'),
                                        ('label,youtube_id,time_start,t', 'time_end'), ('yoga,abc,10,20', 'label')])
def test_a_column_that_is_not_there(tmp_path, heads, lost):
    for k in ('train', 'val'): (tmp_path/f'{k}.csv').write_text(f'{heads}\nyoga,abc,10,20\n')
    with pytest.raises(ValueError, match=rf"train.csv has no column '{lost}'; it has {heads.replace(',', ', ')}"):
        lists('kinetics400', touch(tmp_path, 'abc.mp4'))

def test_rows_that_lack_something_are_counted(tmp_path):
    head = 'label,youtube_id,time_start,time_end\n'
    (tmp_path/'train.csv').write_text(head + 'yoga,abc,10,20\nyoga,abc\n,abc,1,2\nyoga,x,a,b\n')
    (tmp_path/'val.csv').write_text(head + 'yoga,abc,50,60\n')
    l = lists('kinetics400', touch(tmp_path, f'{FIRST}.mp4', f'{SECOND}.mp4'))
    assert l.unused == {'not understood': ['train.csv line 3', 'train.csv line 4', 'train.csv line 5']}
    assert '3 entries not understood: train.csv line 3' in l.note

@pytest.mark.parametrize('line', ['{}.avi 1', '{}.avi;1', '{}.avi\t1', '{}.avi, 1', '"{}.avi" 1', '{}.mp4.avi 1',
                                  '{} 1'])
def test_lines(tmp_path, line):
    names = [f'Handstand Pushups/v a;-), {k}' for k in 'xy']
    for k,o in zip(('train', 'val'), names):
        (tmp_path/f'hmdb51_{k}_split_1_videos.txt').write_text('\ufeff' + line.format(o), encoding='utf-8')
    l = lists('hmdb51', touch(tmp_path, *(f'Handstand Pushups/v a;-), {k}.avi' for k in 'xy')))
    assert l.missing == [] and (len(l.train), len(l.test)) == (1, 1) and l.classes == ['Handstand Pushups']

def test_vdsd_never_trains_on_a_test_clip(tmp_path):
    for k,o in (('train', 'run/a.avi'), ('val', 'run/b.avi')):
        (tmp_path/f'hmdb51_{k}_split_1_videos.txt').write_text(o)
    l = lists('hmdb51', touch(tmp_path, 'Run/A.mp4', 'Run/B.mp4', 'more/Run/B.avi', 'Run/c.avi'), 'vdsd')
    assert l.train == [('Run/A.mp4', 0), ('Run/c.avi', 0)] and l.test == [('Run/B.mp4', 0)] and not l.both

def test_ssv2_annotations_with_a_mark_and_gaps(tmp_path):
    train = [dict(id='1', template='Moving [something]'), dict(id='2'), dict(id='3', template='Eating')]
    files = dict(labels={'Moving something': '0'}, train=train,
                 validation=[dict(id='4', template='moving [something]')])
    for name,o in files.items():
        (tmp_path/f'{name}.json').write_text('\ufeff' + json.dumps(o), encoding='utf-8')
    l = lists('ssv2', touch(tmp_path, *(f'v/{i}.webm' for i in range(1, 6))))
    assert l.train == [('v/1.webm', 0)] and l.test == [('v/4.webm', 0)]
    assert l.unused == {'not understood': ['2'], 'of an unknown class': ['3 (Eating)']}
    assert 'Without a usable entry in this split: 3 files' in l.note

def test_the_loss_is_a_warning_of_the_dataset(tmp_path):
    clips(tmp_path, *(f'Punch/v_Punch_g{g:02}_c01.mp4' for g in (1, 8, 9)))
    (tmp_path/'trainlist01.txt').write_text(''.join(f'Punch/v_Punch_g{g:02}_c01.avi 71\n' for g in (8, 9, 10)))
    (tmp_path/'testlist01.txt').write_text('Punch/v_Punch_g01_c01.avi\n')
    with pytest.warns(UserWarning, match='1 entry without a file: Punch/v_Punch_g10_c01'):
        train,test = datasets['ucf101'](tmp_path, classes=('punch',), **small)
    assert (len(train), len(test), train.classes) == (2, 1, ['Punch']) and 'v_Punch_g10_c01' in train.meta.source.note

def test_many_files_are_listed_in_seconds(tmp_path):
    names = [f'c{c}/v{c}_{i}.avi' for c in range(50) for i in range(400)]
    touch(tmp_path, *names)
    for k,part in (('train', names[::2]), ('val', names[1::2])):
        (tmp_path/f'hmdb51_{k}_split_1_videos.txt').write_text('\n'.join(f'{o.upper()[:-4]}.AVI 1' for o in part))
    start = time.perf_counter()
    l = lists('hmdb51', tmp_path)
    assert (len(l.train), len(l.test)) == (10_000, 10_000) and time.perf_counter() - start < 10
