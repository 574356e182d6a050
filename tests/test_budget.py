"Bad and odd input for the planner of byte budgets: it refuses with a remedy, or does what was asked"
import re

import pytest
import torch

from vcd.clips import ClipSet, load
from vcd.core import generator
from vcd.methods.condense import condense
from vcd.storage.codecs import file_bytes

how = dict(device='cpu', store='h264')

def tinted(n=16, classes=2, frames=4, size=16):
    "Noise, of which every class has a colour of its own"
    y = torch.arange(n) % classes
    x = torch.rand(n, frames, 3, size, size, generator=generator(0, 'tinted'))*.4
    x = x + .6*torch.rand(classes, 1, 3, 1, 1, generator=generator(1, 'tint'))[y]
    return ClipSet(dict(frames=x.mul(255).round().byte()), y, [f'c{i}' for i in range(classes)])

@pytest.mark.parametrize('size,words', ((-1, 'not a size'), (0, 'is 0 bytes'), ('0.5', 'is 0.5 bytes'),
                                        ('two MB', 'not a size'), (True, 'not a size'), (1.5, 'is 1.5 bytes')))
def test_sizes_that_are_none(size, words):
    with pytest.raises(ValueError, match=words): condense(tinted(), bytes=size, **how)

@pytest.mark.parametrize('size', (1, 200, 900))
def test_budgets_too_small_name_one_that_is_enough(size):
    with pytest.raises(ValueError, match=f'^{size} bytes hold no set .* the least that does .* clips as h264') as e:
        condense(tinted(), bytes=size, **how)
    least = int(re.search(r'is (\d+) bytes', str(e.value))[1])
    small = condense(tinted(), bytes=least, **how)
    assert file_bytes(small) <= least and small.hard.unique().numel() == 2

def test_more_than_everything_keeps_all_as_it_is():
    train = tinted()
    small = condense(train, bytes='1 GB', **how)
    assert small.clips().equal(train.clips()) and small.labels.equal(train.labels)
    assert re.search(r'all 16 clips as they are, in [\d.]+ kB', small.meta.making.details['why'])

@pytest.mark.parametrize('size', (3000, 5000, 12_000))
def test_file_is_within_its_budget(size, tmp_path):
    small = condense(tinted(), bytes=size, **how)
    path  = small.save(tmp_path/'small.safetensors')
    assert path.stat().st_size == file_bytes(small) <= size
    assert load(path).clips().equal(small.clips()) and load(path).meta == small.meta

def test_one_class():
    small = condense(tinted(classes=1), bytes=4000, **how)
    assert file_bytes(small) <= 4000 and len(small) > 1

def test_one_clip_a_class():
    small = condense(tinted(n=3, classes=3), bytes=4000, **how)
    assert len(small) == 3 and file_bytes(small) <= 4000

def test_soft_labels_of_the_data_are_kept():
    train = tinted()
    soft  = torch.full((16, 2), .25)
    soft[torch.arange(16), train.labels] = .75
    small = condense(train.change(labels=soft), bytes=5000, **how)
    assert small.soft and {*small.labels.flatten().tolist()} == {.25, .75} and file_bytes(small) <= 5000

def test_clips_per_class_may_be_given():
    small = condense(tinted(), vpc=3, bytes=5000, **how)
    assert small.hard.bincount().tolist() == [3, 3] and small.meta.making.vpc == 3 and file_bytes(small) <= 5000
    with pytest.raises(ValueError, match='use vpc=8 or less'): condense(tinted(), vpc=9, bytes=5000, **how)

def test_methods_without_a_byte_budget_say_which_have_one():
    with pytest.raises(TypeError, match="'random' has no byte budget.*h264.*budget"):
        condense(tinted(), 'random', vpc=1, bytes='2MB')
    with pytest.raises(ValueError, match='neither method nor bytes'): condense(tinted(), vpc=1)

def test_same_seed_same_file(tmp_path):
    first,again,other = (condense(tinted(), vpc=2, bytes=2600, seed=s, **how).store['bits'] for s in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)

def test_soft_labels_take_two_bytes_a_number():
    hard,soft = (condense(tinted(), vpc=4, bytes=6000, labels=o, **how) for o in ('hard', 'soft'))
    assert soft.soft and soft.hard.equal(hard.hard) and file_bytes(soft) <= 6000
    assert soft.labels.half().float().equal(soft.labels)
