"Renamed methods and added parameters: after the migration of its rows, a sweep skips every finished point"

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from vcd.dev.row_migration import migrate_rows
from vcd.dev.sweep import parameters, plan, resolve
from vcd.methods.presets import comparison_points
from vcd.methods.registry import methods
from vcd.run import home, outputs, point_id, read_rows, save_rows

before = """
method:str   = 'random'  # A method
vpc:int      = 1         # Videos per class
options:dict = {}        # Hyperparameters
seeds:int    = 2         # Condensed sets
device:str   = 'auto'    # Device to run on
out:str      = ''        # Run folder; empty keeps nothing
"""
added = """
judges:int = 1   # Networks trained on each set
preset:str = ''  # Settings of the method
"""

def write_page(folder, source):
    "An experiment page with nothing but parameters"
    path = folder/'nbs'/'exp'/'e10_methods.ipynb'
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source.strip(), metadata=dict(tags=['parameters']))]), path)

def points_of(names):
    "Finished points under the given names of methods, the settings of one written as options"
    movies,soft = names
    settings = dict(epochs=18, batch=16, schedule='cosine', precision='bfloat16')
    return [dict(method='random', vpc=1), dict(method='random', vpc=5),
            dict(method=movies, vpc=0, options=dict(bytes=90000)),
            dict(method=movies, vpc=0, options=dict(bytes=12345)),
            dict(method=soft, vpc=0, options=dict(bytes=300000, teaching=settings))]

def test_a_sweep_skips_every_finished_point_after_the_migration(tmp_path, monkeypatch):
    monkeypatch.setenv('VCD_HOME', str(tmp_path))
    write_page(tmp_path, before)
    for given in points_of(('movies', 'movies_taught')):
        params = resolve(parameters('e10_methods'), given)
        stored = params | dict(experiment='e10_methods', device='a processor', options=str(params['options']),
                               vpc=params['vpc'] or 9, point=point_id('e10_methods', **params))   # 9 fit into the bytes
        rows   = [stored | dict(seed=seed, top1=.1 + .1*seed) for seed in range(2)]
        save_rows(rows, outputs('rows', 'e10_methods.csv'))
    old = read_rows('e10_methods')

    write_page(tmp_path, before.replace('out:str', added.strip() + '\nout:str'))
    today = points_of(('h264', 'h264_soft_labels'))
    today[2] = dict(method='h264', vpc=0, preset='90kB')
    today[4] = dict(method='h264_soft_labels', vpc=0, preset='300kB')
    assert {o.status for o in plan('e10_methods', today)} == {'to do'}

    counts = migrate_rows().set_index('experiment').loc['e10_methods']
    assert counts.changed == 5 and counts.unknown == 0
    assert [o.status for o in plan('e10_methods', today)] == ['skipped']*5
    new = read_rows('e10_methods')
    assert new.top1.tolist() == old.top1.tolist() and new.seed.tolist() == old.seed.tolist()
    assert set(new.method) == {'random', 'h264', 'h264_soft_labels'} and set(new.preset) == {'', '90kB', '300kB'}

    written = outputs('rows', 'e10_methods.csv').read_bytes()
    assert migrate_rows().changed.sum() == 0 and outputs('rows', 'e10_methods.csv').read_bytes() == written

def test_committed_rows_have_todays_names():
    for path in sorted(outputs('rows').glob('*.csv')):
        rows = read_rows(path)
        for column in ('method', 'variant'):
            if column in rows: assert not set(rows[column].dropna()) & set(methods.renamed), (path.name, column)

def test_every_committed_point_of_the_comparison_is_listed():
    "So that one command, which runs what is listed, makes the whole table again and skips what is there"
    params = parameters(home()/'nbs'/'exp'/'e10_methods.ipynb')
    listed = {point_id('e10_methods', **resolve(params, o)) for o in comparison_points()}
    rows   = read_rows('e10_methods')
    assert set(rows.point) <= listed
    without = rows[rows.preset.fillna('').eq('') & rows.options.ne('{}')]
    assert not len(without), 'these rows name neither a preset nor the defaults'
