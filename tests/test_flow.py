"From video files to a table, through every room, on a dataset small enough for a test"
import json

import pytest
import torch

from vcd.all import Recipe, condense, chance_row, datasets, evaluate, load, methods, read_rows, storage, table
from vcd.run import Run

few = dict(render=dict(per_class=4, test=2, classes=['move_left', 'ring', 'star'], size=64, frames=12),
           frames=4, size=48, sampling='uniform', workers=1)
quick = Recipe(epochs=1, batch=6, nets=2)


@pytest.fixture(scope='module')
def data(): return datasets['shapes'](**few)


def options(method):
    if method.startswith('videocompressa'): return dict(frames=2, steps=1, autoencoder='tiny')
    if method in ('dm', 'dc', 'dsa', 'dfs', 'dfs_adam'): return dict(steps=1, batch=4)
    if method in ('tsgf', 'bn', 'sre2l', 'sre2l_frames'): return dict(steps=1, teaching=dict(epochs=1, batch=6))
    if method == 'taught': return dict(autoencoder='tiny', teaching=dict(epochs=1, batch=6))
    if method == 'dm_latents': return dict(steps=1, batch=4, autoencoder='tiny')
    if method == 'dm_trained': return dict(steps=1, batch=4, trained=1, pool=1)
    if method == 'mtt': return dict(steps=1, inner=2, trained=0, pool=1)
    if method == 'dm+vdsd': return dict(steps=1, batch=4, static='frames', images=1)
    if method == 'mtt+vdsd': return options('mtt') | dict(images=1, static_how=dict(steps=1, batch=4))
    if method.startswith('david'):
        return dict(steps=1, batch=4, rounds=2, actions=(2, 4), teaching=dict(epochs=1, batch=6))
    return dict(forgetting=dict(epochs=2), grand=dict(epochs=1, runs=2), keyframe=dict(frames=2)).get(method, {})


@pytest.mark.parametrize('method', list(methods))
def test_every_method_from_files_to_rows(data, method, tmp_path):
    train,test = data
    small = condense(train, method, vpc=1, seed=1, device='cpu', **options(method))
    again = condense(train, method, vpc=1, seed=1, device='cpu', **options(method))
    back  = load(small.save(tmp_path/'small.safetensors'))
    assert back.clips().equal(small.clips()) and again.clips().equal(small.clips())
    kept = small.store['frames'] if method.startswith('david') else small   # david's clips are pieces of its videos
    assert len(kept) == (12 if method == 'full' else 3)
    rows = evaluate(back, test, 'ConvNet3D', quick, seeds=2, train=train, device='cpu')
    assert [r['seed'] for r in rows] == [0, 1]
    assert all(0 <= r['top1'] <= r['top5'] <= 1 and r['method'] == method for r in rows)
    assert rows[0]['bytes'] == (tmp_path/'small.safetensors').stat().st_size


def test_a_run_leaves_its_rows_and_a_table_is_made_of_them(data, tmp_path, monkeypatch):
    monkeypatch.setenv('VCD_HOME', str(tmp_path))
    train,test = data
    for method in ('random', 'full', 'chance'):
        run = Run('e98_flow', tmp_path/method, method=method, vpc=1)
        if method == 'chance': rows = [chance_row(test)]
        else: rows = evaluate(condense(train, method, device='cpu'), test, 'ConvNet3D', quick, 2, train, 'cpu')
        run.save(rows)
        assert json.loads((tmp_path/method/'config.json').read_text())['point'] == run.point
    t = table('e98_flow', columns=('net', 'vpc'))
    assert all(o in t.markdown for o in ('random', 'full', 'chance')) and len(read_rows('e98_flow')) == 5


def test_exported_clips_are_a_dataset_again(data, tmp_path):
    small = condense(data[0], 'random', vpc=2, device='cpu')
    folder = small.export(tmp_path/'videos')
    train,test = datasets['folder'](folder, frames=4, size=48, sampling='uniform', workers=1, share=.5)
    assert train.classes == small.classes and len(train)+len(test) == len(small)
    assert (train.clips().mean() - small.clips().mean()).abs() < .05


def test_storage_counts_the_same_set_in_all_its_forms(data):
    train,_ = data
    small = condense(train, 'random', vpc=1, device='cpu')
    costs = [storage(o, train) for o in (small, small.recode(torch.float16), small.recode(torch.float32))]
    assert len({o['values'] for o in costs}) == 1
    assert costs[0]['bytes'] < costs[1]['bytes'] < costs[2]['bytes']
