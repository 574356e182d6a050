"The command that checks inputs from public reports tells right results from wrong ones"
from reported_cases import main

def make(folder, train, held_out):
    "Empty files of two classes: so many in `train/` and in `valid/`"
    for part,n in (('train', train), ('valid', held_out)):
        for i in range(n):
            label = 'walk' if i % 2 else 'run'
            path  = folder/part/label/f'{i}.mp4'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

def test_right_and_wrong_results(tmp_path, capsys):
    make(tmp_path/'right/01_valid', 10, 4)
    make(tmp_path/'wrong/01_valid', 8, 4)
    assert main([str(tmp_path/'right')]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '1 of 1 right'
    assert main([str(tmp_path/'wrong')]) == 1
    assert 'WRONG  01_valid             (8, 4), should be (10, 4)' in capsys.readouterr().out
