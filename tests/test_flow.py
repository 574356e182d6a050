"From video files to a table, through every room, on a dataset small enough for a test"
import json

import pytest
import torch

from tiny import few, quick
from vcd.all import condense, chance_row, datasets, evaluate, methods, read_rows, storage, table
from vcd.dev.method_check import check_method
from vcd.methods.registry import families
from vcd.run import Run


@pytest.fixture(scope='module')
def data(): return datasets['shapes'](**few)


@pytest.mark.parametrize('method', list(methods))
def test_every_method_from_files_to_rows(data, method):
    train,test = data
    small,_ = check_method(method, train, test)
    cut     = small.codec.name == 'partition'   # its clips are pieces of its videos
    videos  = len(small.store['frames']) if cut else len(small)
    whole   = methods.about(method).role == 'ceiling'
    assert videos == (len(train) if whole else len(train.classes))


def test_every_method_says_what_tables_and_figures_need():
    for method in methods:
        info = methods.about(method)
        assert info.family in families and info.family != 'other', method
        assert info.label != method and ',' not in info.label, method
    assert len({methods.about(o).label for o in methods}) == len(methods)


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
    assert all(o in t.markdown for o in ('Random', 'Full data', 'Chance')) and len(read_rows('e98_flow')) == 5


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
