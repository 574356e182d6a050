"A small run of `damaged_sets.py`: a changed file is refused with one kind of error, or is a valid other set"
from damaged_sets import run

def test_changed_files_are_refused_or_read():
    counts  = run(80, seed=0)
    allowed = ('refused at load', 'same content', 'other content')
    # damage behind the first frame of a video stream is found when the clip is decoded
    wrong = {k: n for k,n in counts.items() if k[1] not in allowed and not k[1].startswith('SetError at')}
    assert not wrong, wrong
    silent = counts['old', 'other content']
    assert not silent, f'{silent} files with a wrong checksum were read as other clips'
