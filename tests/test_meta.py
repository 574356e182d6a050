"What a set says of itself, when another set is made from it, and when it comes from an older file"
import json

import pytest
import torch

from damaged_sets import read_pieces, write_pieces
from vcd.all import ClipSet, condense, evaluate, load
from vcd.clips import Pixels, SetError
from vcd.data.shapes import toy_clips
from vcd.meta import Clips, Making, Meta, Source, Training
from vcd.models.backbones import TinyNet
from vcd.training.recipe import Recipe

quick = Recipe(epochs=1, batch=6, nets=2)


@pytest.fixture(scope='module')
def train():
    clips = toy_clips()
    names = [f'{i}.mp4' for i in range(len(clips))]
    return clips.change(meta=Meta(Source('toy', split=1), Clips(name=names)))


@pytest.fixture(scope='module')
def latents(train):
    return condense(train, 'videocompressa', autoencoder='none', frames=2, steps=1, batch=8, scorer='latents',
                    device='cpu')


def test_a_set_made_from_latents_does_not_claim_their_autoencoder(train, latents):
    made = condense(latents, 'keyframe', vpc=1, frames=1, device='cpu')
    rows = [evaluate(o, train, TinyNet, quick, 1, device='cpu')[0] for o in (latents, made)]
    assert rows[0]['autoencoder'] == 'none' and rows[1]['autoencoder'] is None
    assert made.meta.making.method == 'keyframe' and not made.meta.making.curves


def test_a_set_made_from_latents_does_not_carry_their_scorer(latents):
    assert any(k.startswith('scorer.') for k in latents.store)
    made = condense(latents, 'random', vpc=1, device='cpu')
    assert not [k for k in made.store if '.' in k] and made.codec.name == 'latents'
    assert made.meta.source == latents.meta.source and len(made.meta.clips.name) == len(made) == 3


def test_lists_of_another_length_are_refused_at_once(train):
    with pytest.raises(SetError, match='6 entries for 2 clips'):
        train.take([0, 1]).change(meta=Meta(clips=Clips(name=list('abcdef'))))


@pytest.mark.parametrize('how', ['recode', 'to', 'take', 'pick', 'change'])
def test_no_set_shares_its_meta_with_another(train, how):
    twin = dict(recode=lambda: train.recode(torch.float16), to=lambda: train.to('cpu'), change=lambda: train.change(),
                take=lambda: train.take(range(len(train))), pick=lambda: train.pick([0, 1, 2, 3]))[how]()
    assert twin.meta == train.meta
    twin.meta.clips.name.append('more')
    twin.meta.making.details['more'] = 1
    assert twin.meta != train.meta and len(train.meta.clips.name) == len(train) and not train.meta.making.details


def test_seconds_of_a_cached_start_are_counted_once(train):
    small = condense(train, 'dm', vpc=1, steps=1, batch=4, net=TinyNet, device='cpu')
    making = small.meta.making
    assert making.seconds > 0 and making.init == 'real' and len(making.init_index) == 3
    assert len(making.curves['loss']) == 1 and making.steps == 1


def rewrite(path, change):
    "The file at `path` with its header changed by a function, without a checksum"
    head,tensors = read_pieces(path)
    text = change({k: v for k,v in head.items() if k != 'checksum'})
    write_pieces(path, None, tensors, fresh=False, text=text if isinstance(text, str) else json.dumps(text))


def test_older_files_are_read_and_newer_ones_refused(train, tmp_path):
    small = train.take([0, 12])
    path  = small.save(tmp_path/'small.safetensors')
    old   = dict(dataset='toy', split=1, method='herding', condense_s=3.5, index=[0, 12],
                 clips=dict(name=small.meta.clips.name), training=dict(temperature=2.))
    rewrite(path, lambda head: head | dict(format=1, meta=old))
    back = load(path)
    assert back.meta == Meta(Source('toy', 1), small.meta.clips, Making('herding', seconds=3.5, index=[0, 12]),
                             Training(temperature=2.))
    assert back.clips().equal(small.clips())
    rewrite(path, lambda head: head | dict(format=4))
    with pytest.raises(SetError, match='format 4 is newer than this vcd reads'): load(path)


@pytest.mark.parametrize('words,change', [
    ('has the parts', lambda meta: meta.pop('making')), ('has the parts', lambda meta: meta.update(more={})),
    ('may have', lambda meta: meta['source'].update(more=1)),
    ('of type', lambda meta: meta['source'].update(split=[1])),
    ('of type', lambda meta: meta['making'].update(vpc='1')),
    ('of type', lambda meta: meta['training'].update(relabel=1)),
    ('entries for 2 clips', lambda meta: meta['clips'].update(bytes=[1]))])
def test_a_header_that_lacks_or_mistypes_a_field_is_refused(words, change):
    meta = Meta(Source('toy'), Clips(name=['a', 'b'])).to_json()
    change(meta)
    with pytest.raises(SetError, match=words):
        store = Pixels().encode(torch.rand(2, 4, 3, 8, 8))
        ClipSet(store, [0, 1], ['a', 'b'], meta=Meta.from_json(meta))


def test_a_field_that_stands_twice_is_refused(train, tmp_path):
    path = train.take([0, 12]).save(tmp_path/'small.safetensors')
    def doubled(head):
        return json.dumps(head | dict(format=1, meta={})).replace('"meta": {}', '"meta": {"vpc": 1, "vpc": 2}')
    rewrite(path, doubled)
    with pytest.raises(SetError, match='stands twice'): load(path)
