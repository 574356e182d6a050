"From video files to a table, through every room, on a dataset small enough for a test"
import json

import pytest
import torch

from tiny import few, options, quick
from vcd.all import condense, chance_row, datasets, evaluate, load, methods, read_rows, storage, table
from vcd.run import Run


@pytest.fixture(scope='module')
def data(): return datasets['shapes'](**few)


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
