"Exports across formats: bad inputs, interruptions, full disks, names that mean something to somebody, and a Hub"
import errno, json, os, signal, subprocess, sys, threading, time
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from datasets import Video, disable_progress_bars, load_dataset

import vcd.export.folder as folder
from hub_server import serve, sha
from vcd.all import ClipSet, condense, datasets, load
from vcd.clips import Pixels
from vcd.core import generator
from vcd.export.folder import class_folders, export_mark, exporters, files_below
from vcd.meta import Clips, Meta, SetError
from vcd.storage.codecs import KeyFrames, Partition

disable_progress_bars()

odd_names = ['a/b', 'a_b', 'x,y', '<script>alert(1)</script>', 'a|b', ': {yaml} # &x', '---', 'con', 'train',
             'crash test', 'dev_2', '__init__', '..', 'caf\udce9', 'new\nline', 'null', '2020-01-01', 'x'*300]


def make(classes=('sit', 'stand'), per_class=2, T=4, size=16, seed=0, meta=None):
    n = per_class*len(classes)
    x = torch.rand(n, T, 3, size, size, generator=generator(seed))
    return ClipSet(Pixels().encode(x), torch.arange(n) % len(classes), list(classes), meta=meta)


def read(path, tmp_path, **how):
    "The rows that `load_dataset` finds"
    found = load_dataset(str(path), cache_dir=str(tmp_path/'hf'), **how)
    assert list(found) == ['train'], f'splits {list(found)}'
    rows = found['train']
    return list(rows.cast_column('video', Video(decode=False)) if 'video' in rows.column_names else rows)


@pytest.mark.parametrize('to', list(exporters))
def test_every_format_takes_every_class_name(to, tmp_path):
    clips = make(odd_names, 1)
    path  = clips.export(tmp_path/'out', to=to)
    listed = json.loads((path/export_mark).read_text())['files']
    assert sorted([*listed, export_mark]) == files_below(path)


@pytest.mark.parametrize('to', ['folder', 'frames'])
def test_other_libraries_read_every_class_name_and_no_split(to, tmp_path):
    rows = read(make(odd_names, 1).export(tmp_path/'my test set'/'out', to=to), tmp_path)
    assert [o['label'] for o in rows] == [o.encode('utf-8', 'backslashreplace').decode() for o in odd_names]
    assert [o['class'] for o in rows] == list(range(len(odd_names)))


@pytest.mark.parametrize('to', ['folder', 'frames'])
def test_a_single_clip_is_found_too(to, tmp_path):
    rows = read(make(['only'], 1).export(tmp_path/'out', to=to), tmp_path)
    assert len(rows) == 1 and rows[0]['label'] == 'only'


def test_why_class_folders_are_not_named_like_splits(tmp_path):
    made = make(['sit', 'stand'], 1).export(tmp_path/'out')
    (made/'metadata.jsonl').unlink()
    (made/'stand').rename(made/'crash test')
    found = load_dataset(str(made), cache_dir=str(tmp_path/'hf'))
    assert list(found) == ['test'] and len(found['test']) == 1, 'the clips of the other class are lost'


def test_folders_by_the_names_of_the_builders(tmp_path):
    clips = make()
    for to,kind in dict(folder='videofolder', frames='imagefolder').items():
        made  = clips.export(tmp_path/to, to=to)
        found = load_dataset(kind, data_dir=str(made), cache_dir=str(tmp_path/'hf'), split='train')
        assert found['label'] == ['sit', 'stand', 'sit', 'stand']


def test_known_frames_of_every_codec(tmp_path):
    x    = torch.rand(2, 8, 3, 8, 8, generator=generator(0))
    keys = KeyFrames(8)
    sets = dict(key_frames=ClipSet(keys.encode(x, at=[[0, 7], [0, 3, 5, 7]]), torch.tensor([0, 1]), ['a', 'b'], keys),
                frame_numbers=ClipSet(Partition().encode(x, [4, 8]), torch.tensor([0, 0, 1]), ['a', 'b'], Partition()))
    rows = {k: read(o.export(tmp_path/k), tmp_path) for k,o in sets.items()}
    assert [o['key_frames'] for o in rows['key_frames']] == [[0, 7], [0, 3, 5, 7]]
    assert rows['frame_numbers'][1]['frame_numbers'] == [4, 4, 5, 5, 6, 6, 7, 7]
    assert [o['video_number'] for o in rows['frame_numbers']] == [0, 0, 1]


@pytest.mark.parametrize('to', list(exporters))
def test_nothing_is_written_for_bad_input(to, tmp_path):
    clips = make()
    for bad,error,words in ((clips.take(slice(0)), SetError, 'no clips'),
                            (clips.change(classes=['same', 'same']), SetError, 'same name'),
                            (clips.change(classes=['', 'b']), SetError, 'list of names')):
        with pytest.raises(error, match=words): bad.export(tmp_path/'out', to=to)
    with pytest.raises(TypeError, match=f"format '{to}' has no option 'colour'"):
        clips.export(tmp_path/'out', to=to, colour=1)
    with pytest.raises(KeyError, match="unknown export format 'zip'. .*Known: folder"):
        clips.export(tmp_path/'out', to='zip')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('to', ['folder', 'frames', 'webdataset', 'hub'])
def test_values_that_are_not_finite(to, tmp_path):
    x = torch.rand(3, 2, 3, 8, 8)
    x[1, 0, 0, 0, 0] = float('nan')
    clips = ClipSet(Pixels().encode(x, torch.float32), [0, 1, 0], ['a', 'b'])
    with pytest.raises(SetError, match='not finite'): clips.export(tmp_path/'out', to=to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('to', ['folder', 'frames', 'webdataset', 'hub'])
def test_a_damaged_clip_is_named(to, tmp_path):
    smooth = torch.linspace(0, 1, 32).expand(4, 8, 3, 32, 32)*torch.linspace(.2, 1, 8).view(1, 8, 1, 1, 1)
    train  = ClipSet(Pixels().encode(smooth), torch.tensor([0, 0, 1, 1]), ['a', 'b'],
                     meta=Meta(clips=Clips(name=[f'{i}.mp4' for i in range(4)], bytes=[10**6]*4)))
    small  = condense(train, 'h264', bytes=40_000, device='cpu')
    bits   = small.store['bits'].clone()
    sizes  = small.store['sizes'].tolist()
    last   = sum(sizes)-sizes[-1]
    bits[last+sizes[-1]//2:] = 0
    with pytest.raises(SetError, match=r"clip \d .*(cannot be decoded|is damaged|frames)"):
        small.change(store=dict(small.store, bits=bits)).export(tmp_path/'out', to=to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('to', list(exporters))
def test_existing_output(to, tmp_path):
    first = make(seed=1).export(tmp_path/'out', to=to)
    kept  = {o: (first/o).read_bytes() for o in files_below(first)}
    with pytest.raises(FileExistsError, match='force=True replaces it'): make(seed=2).export(first, to=to)
    assert {o: (first/o).read_bytes() for o in files_below(first)} == kept
    make(['other'], seed=2).export(first, force=True)
    assert 'other/00000.mp4' in files_below(first) and [o.name for o in tmp_path.iterdir()] == ['out']
    other = tmp_path/'mine'
    other.mkdir()
    (other/'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='not an earlier export'): make().export(other, to=to, force=True)
    (other/export_mark).write_text('{"files": "all"}')
    with pytest.raises(FileExistsError, match='not an earlier export'): make().export(other, to=to, force=True)
    assert (other/'notes.txt').read_text() == 'mine'


def test_a_link_to_an_export_is_replaced_and_its_target_stays(tmp_path):
    target = make().export(tmp_path/'target')
    (tmp_path/'link').symlink_to(target)
    before = files_below(target)
    make(['other']).export(tmp_path/'link', force=True)
    assert files_below(target) == before and 'other/00000.mp4' in files_below(tmp_path/'link')


@pytest.mark.parametrize('to', ['folder', 'frames', 'webdataset', 'hub'])
@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()])
def test_full_disks_and_interruptions_leave_what_was_there(to, error, tmp_path, monkeypatch):
    before = make(seed=1).export(tmp_path/'out')
    kept   = {o: (before/o).read_bytes() for o in files_below(before)}
    writes = dict(folder=(folder, 'encode'), frames=(folder.Image.Image, 'save'),
                  webdataset=(sys.modules['vcd.export.webdataset'], 'mp4_bytes'), hub=(Path, 'write_text'))
    done   = []
    module,name = writes[to]
    real   = getattr(module, name)
    def write(*a, **k):
        done.append(1)
        if len(done) > (0 if to == 'hub' else 2): raise error
        return real(*a, **k)
    with monkeypatch.context() as m:
        m.setattr(module, name, write)
        with pytest.raises(type(error), match='the disk is full' if isinstance(error, OSError) else None):
            make(seed=2).export(before, to=to, force=True)
    assert {o: (before/o).read_bytes() for o in files_below(before)} == kept
    assert [o.name for o in tmp_path.iterdir()] == ['out']


def test_an_export_that_is_moved_away_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    before = make(seed=1).export(tmp_path/'out')
    kept   = files_below(before)
    real   = os.replace
    def replace(a, b):
        if Path(b) == before and 'replaced-' not in str(a): raise OSError(errno.EIO, 'input/output error')
        real(a, b)
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', replace)
        with pytest.raises(OSError, match='Input/output error'): make(['other']).export(before, force=True)
    assert files_below(before) == kept and [o.name for o in tmp_path.iterdir()] == ['out']


def test_ctrl_c_ends_an_export_soon_and_leaves_nothing(tmp_path):
    code = f'''
import torch, vcd.export.folder
from vcd.clips import ClipSet, Pixels
x = torch.randint(256, (200, 16, 3, 112, 112), dtype=torch.uint8)
print('start', flush=True)
ClipSet(dict(frames=x), torch.zeros(200), ['a']).export({str(tmp_path/"out")!r})
print('whole', flush=True)
'''
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'start\n'
    deadline = time.monotonic()+60
    while not list(tmp_path.rglob('*.mp4')) and time.monotonic() < deadline: time.sleep(.01)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=120)
    assert 'KeyboardInterrupt' in err and 'whole' not in out
    assert not list(tmp_path.iterdir())


def test_two_exports_to_one_place_at_once(tmp_path):
    errors = []
    def work(seed):
        try: make(seed=seed).export(tmp_path/'out')
        except OSError as e: errors.append(e)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert len(errors) <= 1 and [o.name for o in tmp_path.iterdir()] == ['out']
    assert len(list((tmp_path/'out').rglob('*.mp4'))) == 4


def test_our_own_reader_takes_folders_for_classes(tmp_path):
    names = ['train', 'testing', 'val 1', 'crash test', 'video_test']
    made  = make(names, 2, size=32).export(tmp_path/'out')
    train,test = datasets['folder'](made, frames=4, size=32, sampling='uniform', share=.5, workers=1)
    assert sorted(train.classes) == sorted(class_folders(names)) and len(train) == len(test) == 5


# ---- the Hub ----

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A Hub on this machine, with `huggingface_hub` pointed at it; returns its datasets"
    server,address = serve()
    download,api = huggingface_hub.hf_hub_download,huggingface_hub.HfApi
    here = dict(endpoint=address, token='right', cache_dir=str(tmp_path/'cache'))
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', partial(download, **here))
    monkeypatch.setattr(huggingface_hub, 'HfApi', lambda token=None: api(address, token or 'right'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    yield server.RequestHandlerClass.repos
    server.shutdown()
    server.server_close()


def test_publish_and_load(hub, tmp_path):
    first,second = make(seed=1),make(['other', 'names'], seed=2)
    assert first.push_to_hub('user/set', license='mit').endswith('/datasets/user/set')
    assert hub['user/set']['private']
    assert sorted(hub['user/set']['commits'][0]) == ['README.md', 'preview.png', 'set.safetensors']
    assert load('hf://user/set').clips().equal(first.clips())
    second.push_to_hub('user/set')
    assert load('hf://user/set').classes == ['other', 'names']
    commit = sha(hub['user/set']['commits'][0])
    assert load(f'hf://user/set@{commit}').classes == first.classes
    assert load(f'hf://datasets/user/set@{commit}/set.safetensors').classes == first.classes


def test_what_is_public_is_said_to_be(hub):
    make().push_to_hub('user/open', private=False)
    assert not hub['user/open']['private'] and len(hub['user/open']['commits']) == 1
    with pytest.raises(ValueError, match='user/open is public, and nothing was uploaded'):
        make().push_to_hub('user/open')
    assert len(hub['user/open']['commits']) == 1


def test_errors_of_publishing(hub):
    with pytest.raises(PermissionError, match='user/set: the Hub refuses access .*hf auth login'):
        make().push_to_hub('user/set', token='wrong')
    with pytest.raises(TypeError, match="no option 'licence'. Did you mean 'license'"):
        make().push_to_hub('user/set', licence='mit')
    with pytest.raises(SetError, match='no clips'): make().take(slice(0)).push_to_hub('user/set')
    for bad in ('set', 'a/b/c', 'user/se t', 'user/-x', '../x', '', 3):
        with pytest.raises(ValueError, match='is no name for a dataset of the Hub'): make().push_to_hub(bad)
    assert not hub


def test_errors_of_loading(hub):
    hub['user/text']  = dict(private=False, commits=[{'data.csv': b'1', 'notes.md': b'x'}])
    hub['user/other'] = dict(private=False, commits=[{'small.safetensors': b'x'*100}])
    hub['user/gated'] = dict(private=False, gated=True, commits=[{}])
    hub['user/busy']  = dict(private=False, broken=True, commits=[{}])
    for address,error,words in (
            ('hf://user/gone', FileNotFoundError, 'user/gone: no such dataset on the Hub, or it is private'),
            ('hf://user/gated', PermissionError, 'user/gated: its owner grants access on request'),
            ('hf://user/busy', ConnectionError, 'user/busy: the Hub answers with an error .Removed on request'),
            ('hf://user/text@v9', FileNotFoundError, "user/text has no branch, tag or commit 'v9'"),
            ('hf://user/text', FileNotFoundError, 'no file set.safetensors; it holds no set, but data.csv, notes.md'),
            ('hf://user/other', FileNotFoundError, "write 'hf://user/other/small.safetensors' for the set"),
            ('hf://user/other/small.safetensors', SetError, 'small.safetensors cannot be used')):
        with pytest.raises(error, match=words): load(address)


def test_a_hub_that_is_away(hub, tmp_path, monkeypatch):
    make().push_to_hub('user/set')
    assert len(load('hf://user/set')) == 4
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert len(load('hf://user/set')) == 4, 'what was loaded before is in the cache'
    with pytest.raises(ConnectionError, match='user/new: the Hub cannot be reached'): load('hf://user/new')
    with pytest.raises(ConnectionError, match='user/set: the Hub cannot be reached'): make().push_to_hub('user/set')


@pytest.mark.parametrize('missing', ['huggingface_hub'])
def test_a_package_that_is_missing_is_named_with_its_extra(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    for work in (lambda: load('hf://user/set'), lambda: make().push_to_hub('user/set')):
        with pytest.raises(ImportError, match=r"pip install 'video-condensation\[export\]'"): work()
